"""Pruned tensors: positions and signs as one stream of 0, 1, -1, the sizes of what is kept as another.

    w'_i = k_i (low + step m_i),   m_i >= 0 the level of |w_i|, for the share of weights with the largest I_i w_i^2

Magnitudes beyond a threshold fall off nearly exponentially, for which cells of equal width are the best entropy-coded
quantiser (Sullivan 1996); `low` and `step` are refitted, so golden rule 1 of Gao et al. 2019 holds, with I. Rule 2 is
the choice of what is kept. Other quantisers lose less at the same size: this one is for masks that were chosen by a
rule, and for networks that were trained sparse.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.codecs.base import Codec, Parts, Point
from netweight.codecs.intervals import Weights
from netweight.codecs.lattice import code_bits, pieces
from netweight.codecs.probe import overhead_bits, sampled, stream_of
from netweight.codecs.pruned import Pruned, Ranks, costs_of, zigzag
from netweight.codecs.scales import Scales, scales
from netweight.codecs.words import weights_of
from netweight.entropy.layout import UNIT_CLASS, Layout, Levels
from netweight.entropy.stream import LONGEST_RUN, IntStream, model_of, table_count
from netweight.entropy.tables import CENTRE
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.kernels import Float32

WHOLE = 10**9  # a knob is WHOLE x fineness + kept share in so many parts
FINEST = 12  # half bits that a kept magnitude takes; 0 for one magnitude for all
DENSITIES = (0.003, 0.006, 0.012, 0.025, 0.05, 0.08, 0.12, 0.18, 0.27, 0.4, 0.6)
FINENESSES = (0, 4, 7)
SECOND_BITS = 8 * 30.0  # of a second stream and number: head, chunk and real
TABLE_NUMBER_BITS, LEVELS_BITS = 2.2, 8 * 8.0
EMPTY = -127  # row level of rows without values: class 0


def knob_of(density: float, fineness: int = 6) -> int:
    """Knob that keeps a share of the weights, at so many half bits a magnitude.

    >>> knob_of(0.1, 6)
    6100000000
    """
    return WHOLE * fineness + min(max(round(density * WHOLE), 1), WHOLE - 1)


def places(layout: Layout, count: int) -> NDArray[np.intp]:
    """Scan positions of the magnitudes of what is kept, in order: those of the first rows, as few as hold them.

    All other rows are known to be empty and cost nothing.
    """
    rows = _rows_for(layout, count)
    at = np.arange(layout.size)
    row = at // layout.columns // (layout.positions if layout.order == "oki" else 1) % layout.rows
    return np.flatnonzero(row < rows)[:count]


def _rows_for(layout: Layout, count: int) -> int:
    each = layout.columns * layout.positions
    return -(-count // each) if each else 0


def values_stream(layout: Layout, level: NDArray[np.intp], run: int) -> IntStream:
    """The second stream: levels at `places`, zeros elsewhere, in a class of their own."""
    v = np.zeros(layout.size, np.int32)
    v[places(layout, level.size)] = zigzag(level)
    energy = float(np.sum(np.square(zigzag(level), dtype=np.float64))) / max(1, level.size)
    spread = max(0.25, math.sqrt(energy))
    base = UNIT_CLASS + round(4 * math.log2(spread))
    rows = _rows_for(layout, level.size)
    if rows == layout.rows or layout.rows == 1:
        return IntStream(v, layout, Levels(base), 0, run)
    row = np.where(np.arange(layout.rows) < rows, 0, EMPTY).astype(np.int16)
    return IntStream(v, layout, Levels(base, row), 0, run)


class Sparse(Codec):
    """A share of a tensor's weights, the others zero."""

    id: ClassVar[str] = "sparse"
    version: ClassVar[int] = 1
    reals: ClassVar[tuple[str, ...]] = ("low", "step")
    streams: ClassVar[tuple[str, ...]] = ("k", "v")
    structured: ClassVar[bool] = True
    default: ClassVar[bool] = False

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict shares from 0.3 % to 60 % with one magnitude, and with two and three and a half bits for each.

        None where relative errors count: nothing is small there.
        """
        if stat.relative or not w.size:
            return []
        layout = Layout.of(w.shape)
        whole = scales(w, layout)
        weights = weights_of(w, stat)
        x, part, of_part = sampled(w, layout, whole)
        extra = [None if v is None else sampled(v, layout, whole)[0] for v in (weights.importance, weights.quartic)]
        sample, grown = Weights(x, *extra), layout.size / part.size
        alive = int(np.count_nonzero(w))
        part_cost, ranks = costs_of(sample), Ranks.of(costs_of(weights))
        points = []
        for density in DENSITIES:
            count = max(1, round(density * layout.size))
            there = count if grown == 1 else ranks.count_in(part_cost, count)
            if not there or (density * layout.size < 1 and density != DENSITIES[-1]):
                continue
            for fineness in FINENESSES:
                found = Pruned.of(sample, part_cost, there, fineness)
                if not found.level.size:
                    continue
                bits, numbers = _positions_bits(found, x, part, of_part)
                bits = bits * grown + TABLE_NUMBER_BITS * numbers
                bits += _values_bits(found.level, layout, min(count, alive)) + SECOND_BITS
                bits += overhead_bits(layout, whole, 0, bits)
                loss = 0.5 * stat.weight * (ranks.pruned(count) + found.loss * grown)
                points.append(Point(bits, loss, self.id, knob_of(density, fineness)))
        return points

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Keep the share of the weights that matter most, of equal ones the first, and quantise their magnitudes.

        Raises:
            UsageError: the knob is no share with a fineness.
        """
        fineness, share = divmod(knob, WHOLE)
        if not (0 <= fineness <= FINEST and share > 0):
            raise UsageError(
                f"The codec sparse has no knob {knob}.", f"Take {WHOLE} x half bits, 0 .. {FINEST}, + kept share."
            )
        layout = Layout.of(w.shape)
        known = weights_of(w, stat)
        found = Pruned.of(known, costs_of(known), max(1, round(share / WHOLE * w.size)), fineness)
        whole = scales(w, layout)
        k = layout.scan(found.signs(known.w))
        stream = stream_of(k, layout, whole, _step(found), LONGEST_RUN)
        order = layout.scan(np.cumsum(found.kept) - 1)[k != 0]
        reals = {"low": np.array([found.low]), "step": np.array([found.step])}
        values = values_stream(layout, found.level[order], LONGEST_RUN)
        return Parts({"k": stream, "v": values}, reals)

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Put the magnitudes where the signs are: float32(m) step + low, rounded twice, times the sign."""
        layout = Layout.of(shape)
        k = fine["k"]
        alive = np.flatnonzero(k)
        v = fine["v"][places(layout, alive.size)].astype(np.int64)
        level = np.where(v > 0, 2 * v - 1, -2 * v).astype(np.float32)
        size = level * parts.reals["step"][0]
        size += parts.reals["low"][0]
        flat = np.zeros(layout.size, np.float32)
        flat[alive] = np.where(k[alive] < 0, -size, size)
        return layout.unscan(flat, shape)


def _step(found: Pruned) -> float:
    """What a class is relative to: the threshold of what is kept, nearly."""
    low = float(found.low)
    return low if low > 0 else 1.0


def _positions_bits(found: Pruned, x: Float32, part: Layout, of_part: Scales) -> tuple[float, int]:
    """Bits of where the weights of a sample are, and of their signs, and how many numbers the tables have."""
    model = model_of(0, part.plane > 0)
    table = np.zeros((table_count(model), 256), np.int64)
    k = found.signs(x)
    for where, piece in pieces(part, of_part.levels(_step(found)), LONGEST_RUN):
        symbol, index, _ = kernels.contexts(k[where], model, piece)
        table += kernels.histogram(symbol, index, table_count(model))
    return code_bits(table, model)


def _values_bits(level: NDArray[np.intp], layout: Layout, count: int) -> float:
    """Bits of magnitudes and of which rows hold them.

    Args:
        level: of a sample of them.
        layout: of the tensor.
        count: how many there are.
    """
    rows, each = _rows_for(layout, count), layout.columns * layout.positions
    partly = layout.rows > 1 and rows < layout.rows
    away = np.minimum(np.abs(zigzag(level)), CENTRE - 1)
    mass = np.bincount(away, minlength=CENTRE) * (count / level.size)
    escapes = float(mass[-1])
    mass[0] += (rows * each if partly else layout.size) - count
    bits = float(np.sum(mass * np.log2(mass.sum() / np.maximum(mass, 1e-9)))) + float(mass[1:].sum())
    bits += TABLE_NUMBER_BITS * np.count_nonzero(mass) + 2 * 8 * escapes
    return bits + (layout.rows * _entropy(rows / layout.rows) + LEVELS_BITS if partly else 0.0)


def _entropy(p: float) -> float:
    """H(p) of 0 < p < 1."""
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)
