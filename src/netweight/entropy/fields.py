"""Fields: unsigned integers of at most eight bits, each plane stored the way that measured shortest.

A plane is constant, packed as it is, or coded by static rANS with one frequency table or with one a class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.field_tables import describe, least_bits, read
from netweight.entropy.small import Reader, damaged, lanes_of
from netweight.kernels import Bytes, Model, Segment, Tables
from netweight.kernels_counts import entropy

CONSTANT, PACKED, CODED, CLASSED = range(4)
FINE = 4  # flag beside the kind: levels in eighths of an octave
FINE_FROM = 1 << 20  # symbols from which on eighths pay for their bits

_PLAIN = Model(1, 1, 0, 0, np.zeros((256, 4), np.int32))
Counts = NDArray[np.int64]


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
        fine = total >= FINE_FROM
        if (kind == CLASSED and len(counts) == 1) or entropy(each) + least_bits(each, fine) >= best[2]:
            continue
        description, tables = describe(each, fine)
        bits = 8.0 * len(description) + _table_bits(each, tables) + 8
        if bits < best[2]:
            head = bytes([kind | FINE * fine]) + description
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
    return Field(width, kind, 0, read(reader, 1 if kind == CODED else classes, width, fine))


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


def _table_bits(counts: Counts, tables: Tables) -> float:
    return float(np.sum(counts * (12 - np.log2(np.maximum(tables.freq, 1)))))
