"""How large floats are by row and column, and how many low bits of a row are zero: what selects their tables.

A class c is a scale in quarters of an octave: 4 times the octaves by which exponents are shifted, plus which of four
tables codes what is left. So rows of every scale share four tables, which costs 0.004 bit a weight against a table for
every class. Class 0 is for rows of zeros. Mean magnitudes beat root mean squares by 0.001 bit and mean logarithms by
0.003 bit on a sentence encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.layout import Layout
from netweight.kernels import Bytes, Float32, Int16

QUARTERS = 4
MARGIN = 64  # octaves a class may shift exponents by
TOP_CLASS = 255
TOP_BASE = 128  # class of the largest array of a section
QUIET = -128  # deviation of a row of zeros: class 0 whatever its column
REACH = 120  # furthest deviation of a row that is not zero
LARGEST_LEVELS = 1 << 22  # a section with more rows and columns is taken as one row for each array
BLOCK = 1 << 18
MOST_TAILS = 4

Float64 = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Format:
    """A binary float: sign, exponent, mantissa from the top.

    Attributes:
        bits: w.
        exponent: E, bits of the exponent.
        mantissa: M, bits of the mantissa.
        words: words an element has; 2 for complex numbers.
    """

    bits: int
    exponent: int
    mantissa: int
    words: int = 1

    @property
    def prefix(self) -> int:
        """k: top bits of the mantissa that are coded with the exponent."""
        return min(3, self.mantissa)

    @property
    def low(self) -> int:
        """Bits of the mantissa that are not."""
        return self.mantissa - self.prefix

    @property
    def keys(self) -> int:
        """Keys (relative exponent and prefix) there can be."""
        return ((1 << self.exponent) + MARGIN) << self.prefix

    def rest_widths(self, zeros: int) -> list[int]:
        """Bits of each plane of the rest, the least significant first."""
        bits = self.low + 1 - zeros
        return [min(8, bits - at) for at in range(0, bits, 8)]


FORMATS = {
    "F64": Format(64, 11, 52),
    "F32": Format(32, 8, 23),
    "C64": Format(32, 8, 23, 2),
    "F16": Format(16, 5, 10),
    "BF16": Format(16, 8, 7),
    "F8_E4M3": Format(8, 4, 3),
    "F8_E4M3FNUZ": Format(8, 4, 3),
    "F8_E5M2": Format(8, 5, 2),
    "F8_E5M2FNUZ": Format(8, 5, 2),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Rows, columns and levels of one array.

    Attributes:
        rows: O.
        columns: I, times the words of an element.
        positions: words that follow each other in one column.
        base: class of the array.
        row: int16 [O] deviations, or None.
        column: int16 [I] deviations, or None.
    """

    rows: int
    columns: int
    positions: int = 1
    base: int = TOP_BASE
    row: Int16 | None = None
    column: Int16 | None = None

    @classmethod
    def of(cls, shape: tuple[int, ...], words: int) -> "Place":
        """Rows and columns as the other codecs see them."""
        layout = Layout.of(shape)
        return cls(layout.rows, layout.columns, layout.positions * words)

    @property
    def size(self) -> int:
        """Words."""
        return self.rows * self.columns * self.positions

    def classes(self, start: int, size: int) -> Bytes:
        """Class of words start .. start + size: clamp(base + row + column, 0, 255)."""
        row = np.zeros(self.rows, np.int16) if self.row is None else self.row
        if self.column is None:
            return spread(row + np.int16(self.base), self.size // max(self.rows, 1), start, size)
        column = np.repeat(self.column, self.positions)
        return kernels.classes(row + np.int16(self.base), column, start, size, TOP_CLASS)


def places_of(shapes: Sequence[tuple[int, ...]], words: int) -> list[Place]:
    """Places of a section's arrays; too many rows and columns are not looked at, which bounds a reader's memory."""
    places = [Place.of(shape, words) for shape in shapes]
    if sum(p.rows + p.columns for p in places if p.rows > 1) > LARGEST_LEVELS:
        return [Place(1, p.size) for p in places]
    return places


def spread(row: Int16, width: int, start: int, size: int) -> Bytes:
    """Value of the row of each word start .. start + size, clamped to 0 .. 255."""
    first, last = start // width, -(-(start + size) // width)
    values = np.repeat(row[first:last].clip(0, TOP_CLASS).astype(np.uint8), width)
    return values[start - first * width :][:size]


# ---- levels


def amplitudes(form: Format, reference: int) -> Float32:
    """Magnitude by exponent and mantissa prefix, relative to 2^reference; 0 for zeros, infinities and NaN."""
    k = form.prefix
    exponent = np.arange(1 << form.exponent)
    scale = np.ldexp(1.0, np.clip(exponent - reference, -60, 30))
    scale[0] = 0.0
    if form.exponent >= 5:
        scale[-1] = 0.0
    mantissa = 1 + (np.arange(1 << k) + 0.5) / (1 << k)
    return np.outer(scale, mantissa).ravel().astype(np.float32)


def fit_levels(index: NDArray[np.uint16], place: Place, form: Format) -> tuple[float, Place]:
    """Fit levels to an array.

    Args:
        index: uint16 [n], exponent and mantissa prefix of each word.
        place: rows and columns of the array.
        form: of the floats.

    Returns:
        Log2 of the array's scale, and the place with its deviations but without base.
    """
    sample = index[:: max(1, index.size // 4096)] >> form.prefix
    sample = sample[sample > 0]
    if not sample.size:
        return -np.inf, place
    reference = int(np.partition(sample, sample.size // 2)[sample.size // 2])
    row, column = _means(index, place, amplitudes(form, reference), place.rows > 1)
    alive = row > 0
    if not alive.any():
        return -np.inf, place
    whole = float(np.log2(row[alive].mean()))
    logs = np.log2(row, out=np.full(row.size, -np.inf), where=alive)
    centre = float(logs[alive].mean())
    rows = columns = None
    if place.rows > 1:
        rows = _levels(logs, alive, centre, whole, place.size // place.rows)
        if place.columns > 1 and column is not None:
            seen = column > 0
            logs = np.log2(column, out=np.full(column.size, -np.inf), where=seen)
            columns = _levels(logs, seen, 0.0, 0.0, place.size // place.columns) if seen.any() else None
    if columns is not None:
        top = columns.max()
        columns = np.maximum(columns - top, QUIET).astype(np.int16)
        centre += float(top) / QUARTERS
        whole += float(top) / QUARTERS
    scale = reference + (centre if rows is not None else whole)
    return scale, Place(place.rows, place.columns, place.positions, TOP_BASE, rows, columns)


def _means(index: NDArray[np.uint16], place: Place, amplitude: Float32, both: bool) -> tuple[Float64, Float64 | None]:
    """Mean magnitude of what is not zero in each row, and in each column after the rows are scaled to one."""
    cube = index.reshape(place.rows, place.columns, place.positions)
    row = np.zeros(place.rows)
    total, seen = np.zeros((2, place.columns))
    height = max(1, BLOCK // max(1, place.columns * place.positions))
    for at in range(0, place.rows, height):
        a = amplitude.take(cube[at : at + height])
        count = np.count_nonzero(a, axis=(1, 2))
        mean = a.sum(axis=(1, 2), dtype=np.float64) / np.maximum(count, 1)
        row[at : at + height] = mean
        if both:
            a *= np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0).astype(np.float32)[:, None, None]
            total += a.sum(axis=0).sum(axis=1, dtype=np.float64)
            seen += np.count_nonzero(a, axis=0).sum(axis=1)
    return row, total / np.maximum(seen, 1) if both else None


def _levels(logs: Float64, alive: NDArray[np.bool_], centre: float, whole: float, samples: int) -> Int16 | None:
    """Round log scales to levels; None where one scale for all costs less.

    Args:
        logs: log2 scale of each row.
        alive: rows that have one.
        centre: of the levels.
        whole: log2 scale of everything together.
        samples: words of each row.
    """
    step = 1 if samples >= 100 else 2 if samples >= 25 else 4
    level = np.full(logs.size, QUIET, np.int64)
    level[alive] = (np.rint(QUARTERS * (logs[alive] - centre) / step) * step).clip(-REACH, REACH)
    coded = centre + level[alive] / QUARTERS
    # Code length of m Laplacian values of scale 2^x coded with scale 2^y, less that with x:
    # m (y - x + (2^(x - y) - 1) / ln 2).
    excess = samples * float(np.sum(coded - logs[alive] + (2.0 ** (logs[alive] - coded) - 1) / np.log(2)))
    plain = samples * float(np.sum(whole - logs[alive] + (2.0 ** (logs[alive] - whole) - 1) / np.log(2)))
    plain += samples * float(logs.size - alive.sum())
    _, counts = np.unique(level, return_counts=True)
    cost = float(np.sum(counts * np.log2(level.size / counts))) + 8 * counts.size + 0.72 * level.size
    return level.astype(np.int16) if counts.size > 1 and plain - excess > cost else None


# ---- tails


def trailing_zeros(words: NDArray[np.unsignedinteger], place: Place, limit: int) -> Ints:
    """Low bits, up to `limit`, that are zero in all words of a row: int64 [O]."""
    seen = np.bitwise_or.reduce(words.reshape(place.rows, -1), axis=1).astype(np.uint64)
    seen |= np.uint64(1 << limit)
    lowest = seen & (~seen + np.uint64(1))
    return np.asarray(np.frexp(lowest.astype(np.float64))[1] - 1, np.int64)


def choose_tails(zeros: Ints, sizes: Ints) -> tuple[int, ...]:
    """Which numbers of trailing zeros are told apart: rising, at most four, each one worth its cost.

    Args:
        zeros: int64, of each row.
        sizes: int64, words of each row.
    """
    chosen = [int(zeros[sizes > 0].min())] if (sizes > 0).any() else [0]
    values = np.unique(zeros[sizes > 0])
    while len(chosen) < MOST_TAILS:
        now = np.array(chosen)[np.searchsorted(chosen, zeros, side="right") - 1]
        gains = [float((sizes * np.clip(v - now, 0, None))[zeros >= v].sum()) for v in values.tolist()]
        best = int(np.argmax(gains))
        if gains[best] < 160 + 0.5 * zeros.size:
            break
        chosen = sorted([*chosen, int(values[best])])
    return tuple(chosen)


def tail_of(zeros: Ints, chosen: Sequence[int]) -> Ints:
    """Index of the largest chosen number of zeros that each row has."""
    return np.searchsorted(np.array(chosen), zeros, side="right") - 1
