"""Frequency tables of a section: fitted to counts, and written in a few bits a symbol.

A table is described by the logarithm of its frequencies, in eighths or quarters of an octave, predicted along the
symbol axis by a straight line (a geometric tail costs nothing). Quarters cost 0.0018 bit a weight against the exact
frequencies, eighths 0.0005, and save 0.9 bit a parameter: long sections take eighths, short ones quarters. A
symmetric table describes one side only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.normalise import normalise
from netweight.entropy.small import Reader, damaged, decode_small, encode_small, varint
from netweight.kernels import Tables

CENTRE = 128
HIGHEST = 126  # -127 .. 126 are values, the symbols of -128 and 127 are escapes
ESCAPES = (0, 255)
TOP_OCTAVES = 12  # 4096 = 2^12
ESCAPE_BITS = 28  # what an escaped symbol costs: 12 bits in the table and two or three bytes
# round(2^(j/8 + 10)): the weights of one octave
EIGHTHS = np.array([1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878], np.int64)

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a section says about its tables before the first of them.

    Attributes:
        symmetric: bool [T], tables with f(v) = f(-v).
        fine: levels in eighths of an octave, else in quarters.
        escapes: each table holds both escape symbols with frequency 1.
    """

    symmetric: NDArray[np.bool_]
    fine: bool
    escapes: bool

    @property
    def octave(self) -> int:
        """Levels in an octave."""
        return 8 if self.fine else 4

    @property
    def start(self) -> int:
        """Level that predicts the first of all: a frequency of a quarter."""
        return (TOP_OCTAVES - 2) * self.octave

    @property
    def top(self) -> int:
        """Highest level: a frequency of 4096."""
        return TOP_OCTAVES * self.octave


def ranges(counts: NDArray[np.int64], symmetric: NDArray[np.bool_]) -> tuple[list[Range], bool]:
    """Kept values low .. high of each table, (1, 0) where it is empty, and whether anything falls outside.

    A value at the end is kept while its parameter (about 3 bits) and its frequency of at least 1/4096 cost less than
    its escapes.
    """
    out: list[Range] = []
    escapes = False
    for row, same in zip(counts, symmetric, strict=True):
        total = int(row.sum())
        if not total:
            out.append((1, 0))
            continue
        up, down = row[CENTRE:].copy(), row[CENTRE::-1].copy()
        if same:
            up[1:128] += row[CENTRE - 1 : 0 : -1]
            up[127] += row[0]
            high = _end(up, total, 2)
            low = -high
        else:
            high, low = _end(up, total, 1), -_end(down[:128], total, 1)
        out.append((low, high))
        kept = int(row[CENTRE + low : CENTRE + high + 1].sum())
        escapes |= kept < total
    return out, escapes


def _end(side: NDArray[np.int64], total: int, both: int) -> int:
    """Last kept value of one side, 0 .. 126: where escapes beyond it and parameters up to it cost least."""
    beyond = side.sum() - np.cumsum(side)
    cost = beyond * ESCAPE_BITS + np.arange(side.size) * (3 + both * 1.44 * total / 4096)
    return min(int(cost.argmin()), HIGHEST)


def describe(counts: NDArray[np.int64], shape: Shape, kept: list[Range]) -> tuple[bytes, Tables]:
    """Fit tables to counts and write them.

    Args:
        counts: int64 [T, 256] of symbols.
        shape: which tables are symmetric, and how fine the levels are.
        kept: range of each table, by `ranges`.

    Returns:
        The bytes that `read` reads, and the tables that it will give.
    """
    heads: list[int] = []
    residuals: list[int] = []
    lines: list[list[int]] = []
    first = shape.start
    for row, same, (low, high) in zip(counts, shape.symmetric.tolist(), kept, strict=True):
        line: list[int] = []
        if high < low:
            heads.append(-1)
        else:
            heads += [high] if same else [high, -1 - low]
            line, new = _fit(_side(row, low, high) if same else row[CENTRE + low : CENTRE + high + 1], shape, first)
            residuals += new
            first = line[0]
        lines.append(line)
    data = varint(len(heads)) + encode_small(np.array(heads, np.int64)) + encode_small(np.array(residuals, np.int64))
    return data, _build(shape, kept, np.array([level for line in lines for level in line], np.int32))


def read(reader: Reader, shape: Shape) -> Tables:
    """Read what `describe` wrote.

    Raises:
        FormatError: the description contradicts itself.
    """
    symmetric = shape.symmetric.tolist()
    kept = _read_ranges(reader, symmetric)
    sizes = [high + 1 if same else high - low + 1 for (low, high), same in zip(kept, symmetric, strict=True)]
    sizes = [max(size, 0) if high >= low else 0 for size, (low, high) in zip(sizes, kept, strict=True)]
    residuals = decode_small(reader, sum(sizes))
    levels = kernels.lines(np.array(sizes, np.int32), residuals.astype(np.int32), shape.start, shape.top)
    if levels is None:
        raise damaged(f"a frequency level outside 0 .. {shape.top}")
    return _build(shape, kept, levels)


def _read_ranges(reader: Reader, symmetric: list[bool]) -> list[Range]:
    # How many heads there are follows from the heads: an empty table has one, a symmetric one too, any other two.
    count = reader.varint()
    if not len(symmetric) <= count <= 2 * len(symmetric):
        raise damaged(f"{count} table ranges for {len(symmetric)} tables")
    heads = iter(decode_small(reader, count).tolist())
    kept: list[Range] = []
    for same in symmetric:
        high = next(heads, -2)
        if high == -1:
            kept.append((1, 0))
            continue
        low = -high if same else -1 - next(heads, 200)
        if not 1 - CENTRE <= low <= high <= HIGHEST:  # -128 and 127 are escapes
            raise damaged(f"a table of the values {low} .. {high}")
        kept.append((low, high))
    if next(heads, None) is not None:
        raise damaged(f"{count} table ranges are too many for {len(symmetric)} tables")
    return kept


def _side(row: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """Counts of v and -v together, for v = 0 .. high.

    0 counts twice: its one symbol has twice the frequency of the description.
    """
    return row[CENTRE : CENTRE + high + 1] + row[CENTRE + low : CENTRE + 1][::-1]


def _predict(line: list[int], first: int, top: int) -> int:
    if not line:
        return first
    guess = line[-1] if len(line) == 1 else 2 * line[-1] - line[-2]
    return min(max(guess, 0), top)


def _fit(values: NDArray[np.int64], shape: Shape, first: int) -> tuple[list[int], list[int]]:
    """Levels and their residuals: greedily the cheapest, counting the code length of the data and of the parameter.

    With n of N symbols at level c (in octaves): N 2^c / 4096 log2(e) - n c bits, least at 2^c = 4096 n / N.
    """
    total = max(int(values.sum()), 1)
    scale, top = shape.octave, shape.top
    ideal = np.clip(np.rint(scale * np.log2(np.maximum(values, 0.3) * 4096 / total)), 0, top).astype(int).tolist()
    line: list[int] = []
    residuals: list[int] = []
    for n, best in zip(values.tolist(), ideal, strict=True):
        guess = _predict(line, first, top)
        cheapest = np.inf
        chosen = best
        for c in {guess, *range(max(best - 3, 0), min(best + 3, top) + 1)}:
            cost = total * 2.0 ** (c / scale) / 2839.1 - n * c / scale + 1.5 * np.log2(1.0 + 2 * abs(c - guess))
            if cost < cheapest or (cost == cheapest and c < chosen):
                cheapest, chosen = cost, c
        line.append(chosen)
        residuals.append(chosen - guess)
    return line, residuals


def _build(shape: Shape, kept: list[Range], levels: NDArray[np.int32]) -> Tables:
    """Tables from their ranges and the levels of all of them, one after the other."""
    levels = levels * (1 if shape.fine else 2)
    freq = kernels.frequencies(np.array(kept, np.int32).reshape(-1, 2), shape.symmetric, levels, shape.escapes)
    if freq is not None:
        return Tables(freq)
    weights = np.zeros((len(kept), 256), np.int64)
    values = EIGHTHS[levels % 8] << (levels // 8)
    at = 0
    for row, same, (low, high) in zip(weights, shape.symmetric.tolist(), kept, strict=True):
        size = high + 1 - (0 if same else low) if low <= high else 0
        mine = values[at : at + size]
        at += size
        row[CENTRE + high + 1 - size : CENTRE + high + 1] = mine
        if same and size:
            row[CENTRE - high : CENTRE + 1] = mine[::-1]
        if shape.escapes and size:
            row[list(ESCAPES)] = 1
    return Tables(normalise(weights))
