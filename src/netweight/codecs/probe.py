"""Predict the rate and the loss of a grid quantiser at many steps from a sample of a tensor's rows."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.base import Point, index_of, step_of
from netweight.codecs.lattice import Grid, code_bits, quantise
from netweight.codecs.scales import Scales, scales
from netweight.entropy.layout import UNIT_CLASS, Layout
from netweight.entropy.stream import IntStream, model_of
from netweight.entropy.tables import CENTRE
from netweight.importance.stat import Stat, largest_of
from netweight.kernels import LANES, Float32, Int16, Int32
from netweight.kernels_lattice import fit

SAMPLE = 1 << 15
SPREAD = 256  # rows, if there are as many
POOLED = 1 << 17  # tensors of at most so many weights share a chunk with others
ALIVE = 0.02  # share of weights that are not zero from which on a curve is smooth
TABLE_NUMBER_BITS = 2.2
CODED = 1.002  # what the coder makes of an entropy: tables in eighths of an octave, frequencies of 12 bits
CHUNK_BITS = 8 * 110.0  # lane states, checksum and length
ENTRY_BITS = 8 * 14.0  # a tensor's share of the header: name, shape, scale
LARGEST = 15000.0  # magnitude in fine steps: below it all indices fit 16 bits


def probe(
    codec: str, w: Float32, stat: Stat, grid: Grid, classes: Sequence[int], whole: Scales | None = None
) -> list[Point]:
    """Quantise a sample at steps that put the tensor's scale into these classes.

    Args:
        codec: id, for the points.
        w: the tensor in its shape.
        stat: importance.
        grid: the quantiser.
        classes: 8 is a scale of one fine step, four classes an octave.
        whole: the tensor's scales, if they are known.
    """
    layout = Layout.of(w.shape)
    whole = scales(w, layout) if whole is None else whole
    if whole.log2 < -900:
        return [Point(ENTRY_BITS, 0.0, codec, 0)]
    x, part, of_part = sampled(w, layout, whole)
    largest = largest_of(w)
    grown = layout.size / x.size
    # A step of four times the largest weight leaves nothing: where every curve begins. From some step on the search
    # leaves nothing all at once, so nothing is interpolated around there.
    nothing = index_of(4 * largest)
    points = [Point(overhead_bits(layout, Scales(0.0, None, None), 0, 0.0), stat.loss(w, w), codec, nothing)]
    model = model_of(grid.bits, part.plane > 0)
    for c in classes:
        q = index_of(2.0 ** (whole.log2 - (c - UNIT_CLASS) / 4))
        step = step_of(q)
        if largest / step > LARGEST:
            continue
        found = quantise(x, part, of_part.levels(step), step, grid, 17)
        entropy, numbers = code_bits(found.counts, model)
        payload_bits = CODED * entropy * grown
        bits = payload_bits + overhead_bits(layout, whole, numbers, payload_bits)
        alive = x.size - int(found.counts[:, CENTRE].sum()) > ALIVE * x.size
        points.append(Point(bits, loss_of(x, found.fine, stat) * grown, codec, q, smooth=alive))
    return points


def loss_of(x: Float32, r: Int16 | Int32, stat: Stat) -> float:
    """Loss of x at the multiple of r that fits it best."""
    alpha, square = fit(x, r)
    return 0.5 * stat.weight * square if stat.is_flat else stat.loss(x, x - r * alpha)


def overhead_bits(layout: Layout, whole: Scales, numbers: int, payload_bits: float) -> float:
    """What a tensor pays besides its symbols: levels, tables, chunks, header.

    A pooled tensor shares its tables, but then they fit it less well: it pays about as much either way.
    """
    bits = ENTRY_BITS
    for level in (whole.row, whole.column):
        if level is not None:
            _, counts = np.unique(level, return_counts=True)
            bits += float(np.sum(counts * np.log2(level.size / counts))) + 4 * counts.size
    share = min(1.0, layout.size / POOLED)
    chunks = max(share, payload_bits / 8 / 75e3 if layout.size > POOLED else 0.0)
    return bits + numbers * TABLE_NUMBER_BITS + CHUNK_BITS * chunks


def sampled(w: Float32, layout: Layout, whole: Scales) -> tuple[Float32, Layout, Scales]:
    """Rows and columns spread over the tensor, about 32,768 weights, in scan order, with their layout and scales."""
    columns, rows = layout.columns, layout.rows
    if layout.size > SAMPLE:
        columns = min(columns, max(LANES, SAMPLE // min(rows, SPREAD) // layout.positions))
        least = 1 if layout.order == "oik" else -(-LANES // columns)
        rows = min(rows, max(least, SAMPLE // (columns * layout.positions)))
    down, across = _spread(whole.row, layout.rows, rows), _spread(whole.column, layout.columns, columns)
    part = Layout(rows, columns, layout.positions, layout.width, layout.order)
    cube = w.reshape(layout.rows, layout.columns, layout.positions)
    return part.scan(np.ascontiguousarray(cube[np.ix_(down, across)])), part, whole.part(down, across)


def _spread(levels: Int16 | None, there: int, wanted: int) -> NDArray[np.intp]:
    """Places spread evenly over all, and over small and large ones where levels tell them apart."""
    at = np.linspace(0, there - 1, wanted).astype(np.intp)
    return at if levels is None else np.sort(np.argsort(levels, kind="stable")[at])


def stream_of(k: Int16 | Int32, layout: Layout, whole: Scales, step: float, run: int, shift: int = 0) -> IntStream:
    """Integers with the levels of a tensor: class units of this step, less the low bits; none where all are zero."""
    if not k.any():
        whole = Scales(whole.log2, None, None)
    return IntStream(k, layout, whole.levels(step * 2.0**shift), shift, run)
