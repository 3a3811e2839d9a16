"""What each tensor of a section costs: its integers by the section's own tables, and its share of the section's bytes.

Tensors that share a section share its chunks and tables, so bytes alone do not tell them apart. What does is the ideal
length of each one's integers, -log2 of the probability that the section's tables give them: the coder writes them in
that many bits, to a fraction of a per cent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.archive.opened import Opened
from netweight.entropy.decode import Fine, Head
from netweight.entropy.layout import segment
from netweight.entropy.small import encode_small
from netweight.entropy.stream import Piece
from netweight.entropy.tables import CENTRE, ESCAPES

Bits = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """What the members of a section cost, in bits; `ideal` and `entropy` are 0 where it holds no integers.

    Attributes:
        share: of all bits of the section, which is their sum. A chunk is shared out over its tensors in proportion to
            what their integers cost by the tables, or, in a section of `exact`, to their stored bytes; levels by how
            many rows and columns have one; tables and the rest of the prelude in proportion to all that.
        ideal: sum of -log2 of the probability of each integer in the section's tables, low bits included.
        entropy: share of the same with the frequencies that occur in the section, as if such tables were free.
    """

    share: Bits
    ideal: Bits
    entropy: Bits


def costs(opened: Opened) -> Costs:
    """Decode every chunk of a section and count.

    Raises:
        FormatError: it is damaged.
    """
    zeros = np.zeros(len(opened.members))
    if opened.head is None:
        by_chunk = [[float(p.size) for p in pieces] for pieces in opened.plan]
        return Costs(_share(opened, by_chunk), zeros, zeros)
    price = -np.log2(np.maximum(_probabilities(opened.head.tables.freq), 2.0**-12))
    whole = np.zeros(price.shape, np.int64)
    ideal, by_chunk = zeros.copy(), []
    for chunk, pieces in enumerate(opened.plan):
        found = []
        for piece, fine in zip(pieces, opened.decode(chunk), strict=True):
            assert isinstance(fine, Fine)
            counts = _histogram(opened.head, piece, fine.coded, len(price))
            found.append(float(np.sum(counts * price)) + opened.head.shifts[piece.tensor] * piece.size)
            ideal[piece.tensor] += found[-1]
            whole += counts
        by_chunk.append(found)
    totals = whole.sum(axis=1, keepdims=True)
    least = float(np.sum(whole * np.log2(np.maximum(totals, 1) / np.maximum(whole, 1))))
    low = np.array([float(s * info.size) for s, info in zip(opened.head.shifts, opened.members, strict=True)])
    coded = ideal - low
    ratio = least / coded.sum() if coded.sum() > 0 else 0.0
    return Costs(_share(opened, by_chunk), ideal, coded * ratio + low)


def _share(opened: Opened, by_chunk: list[list[float]]) -> Bits:
    """Bits of a section by member, from what the pieces of each chunk cost."""
    out = _levels_bits(opened)
    for chunk, pieces, cost in zip(opened.chunks, opened.plan, by_chunk, strict=True):
        total = sum(cost)
        for piece, part in zip(pieces, cost, strict=True):
            out[piece.tensor] += 8 * chunk.size * (part / total if total else 1 / len(pieces))
    total = out.sum()
    return np.asarray(8 * opened.nbytes * (out / total if total else np.full(out.size, 1 / max(1, out.size))))


def _levels_bits(opened: Opened) -> Bits:
    """Bits of the levels in a section's head, by member."""
    if opened.head is None:
        return np.zeros(len(opened.members))
    given = [levels.given() for levels in opened.head.levels]
    counts = np.array([float(sum(x.size for x in pair)) for pair in given])
    every = [x.astype(np.int64) for pair in given for x in pair]
    nbytes = len(encode_small(np.concatenate(every))) if every else 0
    return np.asarray(counts * (8 * nbytes / max(1.0, float(counts.sum()))))


def _histogram(head: Head, piece: Piece, coded: NDArray[np.int16], tables: int) -> Counts:
    """How often each table codes each symbol in a piece."""
    place = segment(head.layouts[piece.tensor], head.levels[piece.tensor], piece.start, piece.size)
    k = np.sign(coded) * (np.abs(coded) + 1 >> 1) if head.bits else coded
    symbol, index, _ = kernels.contexts(k.astype(np.int16), head.model, place)
    return kernels.histogram(symbol, index, tables)


def _probabilities(frequencies: NDArray[np.integer]) -> Bits:
    """Of each symbol in each table; one that a table lacks is coded as the escape of its parity, 0 or 255."""
    p = frequencies.astype(np.float64) / 4096
    even, odd = ESCAPES
    is_odd = (np.arange(256) - CENTRE) % 2 == 1
    return np.where(p > 0, p, np.where(is_odd, p[:, odd : odd + 1], p[:, even : even + 1]))
