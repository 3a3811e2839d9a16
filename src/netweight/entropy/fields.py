"""Fields: unsigned integers of at most eight bits, each plane stored the way that measured shortest.

A plane is constant, packed as it is, or coded by static rANS with one frequency table or with one a class. A table is
described by the logarithm of its frequencies, in quarters or eighths of an octave, predicted by the symbol below or by
the table before; unlike the tables of weights these use all 256 symbols, have no escapes and may have holes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.normalise import TOTAL, normalise
from netweight.entropy.small import Reader, damaged, decode_small, encode_small, lanes_of
from netweight.entropy.tables import EIGHTHS, TOP_OCTAVES
from netweight.kernels import Bytes, Model, Segment, Tables

CONSTANT, PACKED, CODED, CLASSED = range(4)
FINE = 4  # flag beside the kind: levels in eighths of an octave
FINE_FROM = 1 << 20  # symbols from which on eighths pay for their bits
MOST_LISTED = 32  # values that a table may list one by one
LEAST_RUN = 9  # values from which on a run may be shorter
SPREAD = 3  # levels tried around the ideal one

_PLAIN = Model(1, 1, 0, 0, np.zeros((256, 4), np.int32))
# Bits of a level that is so far from its prediction.
_PRICES = 2.0 * np.log2(1 + 2 * np.arange(4 * (2 + TOP_OCTAVES * 8)))
_RESIDUAL_BITS: list[float] = _PRICES.tolist()

Counts = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Field:
    """How a plane is stored.

    Attributes:
        width: bits of a value, 1 .. 8.
        kind: CONSTANT, PACKED, CODED or CLASSED.
        value: of a constant plane.
        tables: one, or one a class.
    """

    width: int
    kind: int
    value: int = 0
    tables: Tables | None = None


def fit_field(counts: Counts, width: int) -> tuple[bytes, Field, float]:
    """Choose the shortest way to store a plane.

    Args:
        counts: int64 [T, 256], how often each value occurs in each class.
        width: bits of a value.

    Returns:
        The description that `read_field` reads, the field, and the bits of both description and plane.
    """
    whole = counts.sum(axis=0, keepdims=True)
    total = int(whole.sum())
    used = np.flatnonzero(whole[0])
    if used.size <= 1:
        value = int(used[0]) if used.size else 0
        return bytes([CONSTANT, value]), Field(width, CONSTANT, value), 16.0
    best = bytes([PACKED]), Field(width, PACKED), 8.0 + width * total
    for kind, each in ((CODED, whole), (CLASSED, counts)):
        # A table that could not win even if its parameters cost two bits each is not fitted.
        if (kind == CLASSED and len(counts) == 1) or ideal_bits(each) + 2 * np.count_nonzero(each) >= best[2]:
            continue
        description, tables = _describe(each, total >= FINE_FROM)
        bits = 8.0 * len(description) + _table_bits(each, tables) + 8
        if bits < best[2]:
            head = bytes([kind | FINE * (total >= FINE_FROM)]) + description
            best = head, Field(width, kind, 0, tables), bits
    return best


def read_field(reader: Reader, width: int, classes: int) -> Field:
    """Read what `fit_field` wrote.

    Raises:
        FormatError: the description contradicts itself.
    """
    code = reader.take(1)[0]
    kind, fine = code & 3, bool(code & FINE)
    if code > 7 or (fine and kind < CODED):
        raise damaged(f"a plane of kind {code}")
    if kind == CONSTANT:
        value = reader.take(1)[0]
        if value >> width:
            raise damaged(f"a constant of {value} in {width} bits")
        return Field(width, CONSTANT, value)
    if kind == PACKED:
        return Field(width, PACKED)
    return Field(width, kind, 0, _read(reader, 1 if kind == CODED else classes, width, fine))


def encode_field(field: Field, values: Bytes, classes: Bytes | None = None) -> bytes:
    """Store a plane's values, uint8 [n]; classes, uint8 [n], where the field looks at them."""
    if field.kind == CONSTANT or not values.size:
        return b""
    if field.tables is None:
        return pack(values, field.width)
    if field.kind == CLASSED and classes is not None:
        index = classes.astype(np.uint16)
    else:
        index = np.zeros(values.size, np.uint16)
    return kernels.encode(values, index, [values.size], lanes_of(values.size), field.tables)


def decode_field(field: Field, reader: Reader, count: int, classes: Bytes | None = None) -> Bytes:
    """Read `count` values of a plane.

    Raises:
        FormatError: the data end early or contradict the coder.
    """
    if field.kind == CONSTANT or not count:
        return np.full(count, field.value, np.uint8)
    if field.tables is None:
        return unpack(reader, count, field.width)
    lanes = lanes_of(count)
    data = reader.data[reader.at : reader.at + 4 * lanes + 2 * count]
    segment = Segment(count, classes=classes if field.kind == CLASSED else None)
    values, used = kernels.decode(data, lanes, field.tables, _PLAIN, [segment])
    reader.at += used
    return values.astype(np.uint8) ^ np.uint8(128)


def pack(values: Bytes, width: int) -> bytes:
    """Pack values of `width` bits: whole bytes, else their lowest 4, then 2, then 1 bits in planes of their own."""
    if width == 8:
        return values.tobytes()
    out = b""
    for size in (4, 2, 1):
        if width & size:
            part = values & np.uint8((1 << size) - 1)
            values = values >> np.uint8(size)
            if size == 1:
                out += np.packbits(part, bitorder="little").tobytes()
                continue
            each = 8 // size
            part = np.append(part, np.zeros(-part.size % each, np.uint8))
            packed = part[0::each].copy()
            for j in range(1, each):
                packed |= part[j::each] << np.uint8(j * size)
            out += packed.tobytes()
    return out


def unpack(reader: Reader, count: int, width: int) -> Bytes:
    """Undo `pack`.

    Raises:
        FormatError: the data end early.
    """
    if width == 8:
        return np.frombuffer(reader.take(count), np.uint8)
    out = np.zeros(count, np.uint8)
    at = 0
    for size in (4, 2, 1):
        if width & size:
            each = 8 // size
            packed = np.frombuffer(reader.take(-(-count // each)), np.uint8)
            if size == 1:
                part = np.unpackbits(packed, count=count, bitorder="little")
            else:
                part = np.empty((packed.size, each), np.uint8)
                for j in range(each):
                    part[:, j] = packed >> np.uint8(j * size)
                part = part.reshape(-1)[:count] & np.uint8((1 << size) - 1)
            out |= part << np.uint8(at)
            at += size
    return out


def ideal_bits(counts: Counts) -> float:
    """Empirical entropy of each class' values, summed: what no table can beat."""
    n = counts.sum(axis=1, keepdims=True)
    logs = np.log2(np.maximum(n, 1)) - np.log2(np.maximum(counts, 1))
    return float(np.sum(counts * logs))


def _table_bits(counts: Counts, tables: Tables) -> float:
    return float(np.sum(counts * (12 - np.log2(np.maximum(tables.freq, 1)))))


# ---- tables


def _describe(counts: Counts, fine: bool) -> tuple[bytes, Tables]:
    """Which classes occur; then the values and levels one by one, or the lowest and highest value and all between."""
    occurs = counts.sum(axis=1) > 0
    used = np.flatnonzero(counts.sum(axis=0))
    octave = 8 if fine else 4
    head = np.packbits(occurs, bitorder="little").tobytes() if len(counts) > 1 else b""
    found = []
    if used.size <= MOST_LISTED:
        levels = _fit(counts[occurs][:, used], octave)
        data = bytes([used.size, *used.tolist()]) + levels.astype(np.uint8).tobytes()
        found.append((head + data, used, levels))
    if used.size >= LEAST_RUN:
        between = np.arange(used[0], used[-1] + 1)
        levels = _fit(counts[occurs][:, between], octave)
        data = bytes([0, int(used[0]), int(used[-1])]) + encode_small(_wrapped(levels - _predictions(levels)))
        found.append((head + data, between, levels))
    data, values, levels = min(found, key=lambda f: len(f[0]))
    return data, _build(levels, occurs, values, fine)


def _read(reader: Reader, classes: int, width: int, fine: bool) -> Tables:
    occurs = np.ones(1, np.bool_)
    if classes > 1:
        packed = np.frombuffer(reader.take((classes + 7) // 8), np.uint8)
        occurs = np.unpackbits(packed, count=classes, bitorder="little").astype(np.bool_)
    tables = int(occurs.sum())
    listed = reader.take(1)[0]
    if listed:
        values = np.frombuffer(reader.take(listed), np.uint8).astype(np.int64)
        levels = np.frombuffer(reader.take(tables * listed), np.uint8).astype(np.int64).reshape(tables, listed)
    else:
        low, high = reader.take(2)
        values = np.arange(low, high + 1)
        levels = decode_small(reader, tables * values.size).reshape(tables, values.size)
        levels = levels.cumsum(axis=1).cumsum(axis=0) & 255
    if not values.size or (np.diff(values) <= 0).any() or values[-1] >> width:
        raise damaged(f"a table of the values {values.tolist()[:1]} .. {values.tolist()[-1:]} in {width} bits")
    if levels.size and (levels.min() < 0 or levels.max() > 1 + TOP_OCTAVES * (8 if fine else 4)):
        raise damaged(f"a frequency level of {levels.min()} or {levels.max()}")
    return _build(levels, occurs, values, fine)


def _wrapped(residuals: Counts) -> Counts:
    """Residuals modulo 256, as -128 .. 127."""
    return (residuals.ravel() + 128 & 255) - 128


def _predictions(levels: Counts) -> Counts:
    """A level is predicted by the value below, plus how much the table before rises there."""
    before = np.zeros_like(levels)
    before[1:] = levels[:-1]
    before[:, 1:] += levels[:, :-1]
    before[1:, 1:] -= levels[:-1, :-1]
    return before


def _fit(counts: Counts, octave: int) -> Counts:
    """Level of each value: 0 for a hole, else 1 + log2 of the frequency in octaves' parts.

    With n of N symbols at frequency 2^c / 4096: N 2^c / 4096 log2(e) - n c bits, and some 1.5 log2(1 + 2 |residual|)
    for the level.
    """
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ideal = (
        np.rint(octave * np.log2(np.maximum(counts, 0.5) * TOTAL / total))
        .clip(0, TOP_OCTAVES * octave)
        .astype(np.int64)
    )
    tried = (ideal[..., None] + np.arange(-SPREAD, SPREAD + 1)).clip(0, TOP_OCTAVES * octave)
    c = tried / octave
    cost = total[..., None] * 2.0**c / 2839.1 - counts[..., None] * c
    tried += 1
    holes = counts == 0
    tried[holes, 0] = 0
    cost[holes, 0] = 0.0
    levels = np.zeros(counts.shape, np.int64)
    rise = [0] * counts.shape[1]
    for t in range(len(counts)):
        levels[t] = _fit_one(tried[t].tolist(), cost[t].tolist(), rise)
        rise = np.diff(levels[t], prepend=0).tolist()
    return levels


def _fit_one(tried: list[list[int]], cost: list[list[float]], rise: list[int]) -> list[int]:
    level = 0
    out = []
    for candidates, bits, step in zip(tried, cost, rise, strict=True):
        guess = level + step
        _, level = min((b + _RESIDUAL_BITS[abs(c - guess)], c) for c, b in zip(candidates, bits, strict=True))
        out.append(level)
    return out


def _build(levels: Counts, occurs: NDArray[np.bool_], values: Counts, fine: bool) -> Tables:
    weights = np.zeros((occurs.size, 256), np.int64)
    eighths = np.maximum(levels - 1, 0) * (1 if fine else 2)
    weights[np.ix_(occurs, values)] = np.where(levels > 0, EIGHTHS[eighths % 8] << (eighths // 8), 0)
    return Tables(normalise(weights))
