"""Section 8 of docs/format.md: sections of exact tensors."""

import math
import zlib

import numpy as np
from coder import EIGHTHS, need, normalise, read_short, read_symbols
from weights import layout_of

STORAGE = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
    "U64": "<u8", "F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "F8_E4M3": "u1",
    "F8_E5M2": "u1", "F8_E8M0": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1", "F4": "u1", "F6_E2M3": "u1",
    "F6_E3M2": "u1",
}  # fmt: skip
BITS_BELOW_A_BYTE = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
FORMATS = {  # bits, exponent, mantissa, words of an element
    "F64": (64, 11, 52, 1), "F32": (32, 8, 23, 1), "C64": (32, 8, 23, 2), "F16": (16, 5, 10, 1), "BF16": (16, 8, 7, 1),
    "F8_E4M3": (8, 4, 3, 1), "F8_E4M3FNUZ": (8, 4, 3, 1), "F8_E5M2": (8, 5, 2, 1), "F8_E5M2FNUZ": (8, 5, 2, 1),
}  # fmt: skip
RAW, ZLIB, WORDS, FLOATS = range(4)


def read_field(reader, width, classes):
    """(kind, bits, value or frequencies) of a plane of integers."""
    code = reader.byte()
    kind, octave = code & 3, 8 if code & 4 else 4
    need(code < 8 and (code < 4 or kind > 1), "a field is of an unknown kind")
    if kind < 2:
        value = reader.byte() if kind == 0 else 0
        need(value >> width == 0, "a constant is out of range")
        return kind, width, value
    classes, occurs = classes if kind == 3 else 1, np.ones(1, bool)
    if classes > 1:
        packed = np.frombuffer(reader.take((classes + 7) // 8), np.uint8)
        occurs = np.unpackbits(packed, count=classes, bitorder="little") > 0
    tables, listed = int(occurs.sum()), reader.byte()
    if listed:
        values = np.frombuffer(reader.take(listed), np.uint8).astype(np.int64)
        levels = np.frombuffer(reader.take(tables * listed), np.uint8).astype(np.int64).reshape(tables, listed)
    else:
        values = np.arange(reader.byte(), reader.byte() + 1)
        levels = read_short(reader, tables * values.size).reshape(tables, values.size)
        levels = levels.cumsum(axis=1).cumsum(axis=0) & 255
    need(values.size and (np.diff(values) > 0).all() and values[-1] >> width == 0, "a table's values do not rise")
    need(levels.max(initial=0) <= 1 + 12 * octave, "a frequency level is out of range")
    eighths = np.maximum(levels - 1, 0) * (8 // octave)
    weights = np.zeros((classes, 256), np.int64)
    weights[np.ix_(occurs, values)] = np.where(levels > 0, EIGHTHS[eighths % 8] << eighths // 8, 0)
    return kind, width, normalise(weights)


def field_values(field, reader, count, classes):
    """The integers of a plane."""
    kind, width, content = field
    if kind == 0 or count == 0:
        return np.full(count, content if kind == 0 else 0)
    if kind == 1:
        return unpack(reader, count, width)
    return read_symbols(reader, content, classes if kind == 3 and len(content) > 1 else np.zeros(count, np.int64))


def unpack(reader, count, width):
    """Bytes, or the lowest 4 bits of all values, then the next 2, then the last."""
    out, at = np.zeros(count, np.int64), 0
    for size in (8, 4, 2, 1):
        if width & size:
            packed = np.frombuffer(reader.take((count * size + 7) // 8), np.uint8)
            bits = np.unpackbits(packed, count=count * size, bitorder="little").reshape(count, size)
            out += (bits @ (1 << np.arange(size))) << at
            at += size
    return out


def read_exact_head(reader, dtype, shapes):
    """What stands between the chunk table and the first chunk."""
    bits = FORMATS[dtype][0] if dtype in FORMATS else 8 * np.dtype(STORAGE[dtype]).itemsize
    each = 2 if dtype == "C64" else 1
    sizes = [math.prod(shape) * BITS_BELOW_A_BYTE.get(dtype, 8) // 8 for shape in shapes]
    way = reader.byte()
    need(way in (RAW, ZLIB, WORDS) or (way == FLOATS and dtype in FORMATS), "an unknown way of storing a dtype")
    head = {"way": way, "dtype": dtype, "bits": bits, "each": each, "type": f"<u{bits // 8}"}
    head |= {"sizes": sizes, "capacity": 17, "runs": [17] * len(sizes)}
    if way == WORDS:
        read_words_head(head, reader, len(shapes))
    if way == FLOATS:
        read_floats_head(head, reader, shapes)
    return head


def exact_chunk(head, pieces, reader):
    """Words of each piece, and what the checksum covers besides the bytes."""
    pieces = [(tensor, start * head["each"], size * head["each"]) for tensor, start, size in pieces]
    total = sum(size for _, _, size in pieces)
    if head["way"] == WORDS:
        words = words_chunk(head, pieces, total, reader)
    elif head["way"] == FLOATS:
        words = floats_chunk(head, pieces, total, reader)
    else:
        data = reader.take(len(reader.data)) if head["way"] == ZLIB else reader.take(total * head["bits"] // 8)
        if head["way"] == ZLIB:
            engine = zlib.decompressobj()
            data = engine.decompress(data, total * head["bits"] // 8 + 1)
            need(engine.eof and not engine.unused_data, "a chunk is not one zlib stream")
        need(len(data) == total * head["bits"] // 8, "a chunk has a wrong size")
        words = np.frombuffer(data, head["type"])
    need(head["dtype"] != "BOOL" or words.max(initial=0) <= 1, "a truth value is above 1")
    words = words.astype(head["type"])
    return np.split(words, np.cumsum([size for _, _, size in pieces])[:-1]), words.tobytes()


def read_integer(reader, bits):
    """Length in bytes, then the bytes, least significant first."""
    size = reader.byte()
    need(size <= bits // 8, "an integer is too long")
    return int.from_bytes(reader.take(size), "little")


def read_words_head(head, reader, arrays):
    """Filters, palette, fields."""
    head["filters"] = read_short(reader, arrays).tolist()
    need(all(0 <= how <= 2 for how in head["filters"]), "an unknown filter")
    flags = reader.varint()
    need(flags in (0, 1, 3), "unknown flags of words")
    head["palette"], head["differences"] = None, flags == 3
    if flags:
        steps = [read_integer(reader, head["bits"]) for _ in range(reader.varint() + 1)]
        need(len(steps) <= 256 and all(steps[1:]) and sum(steps) >> head["bits"] == 0, "the palette does not rise")
        head["palette"] = np.array([sum(steps[: j + 1]) for j in range(len(steps))], np.uint64)
    planes = 1 if flags else head["bits"] // 8
    head["fields"] = [read_field(reader, 8, 16 if j else 1) for j in range(planes)]


def words_chunk(head, pieces, total, reader):
    """Words by palette or byte planes, then the filters undone."""
    bases = [read_integer(reader, head["bits"]) if head["filters"][tensor] == 2 else 0 for tensor, _, _ in pieces]
    x, plane = np.zeros(total, np.uint64), None
    for field in head["fields"]:
        plane = field_values(field, reader, total, None if plane is None else np.minimum(plane, 15))
        x = x << 8 | plane.astype(np.uint64)
    if head["palette"] is not None:
        index = np.cumsum(x) % 256 if head["differences"] else x
        need(index.max(initial=0) < len(head["palette"]), "an index is outside the palette")
        x = head["palette"][index.astype(np.int64)]
    at = 0
    for (tensor, _, size), base in zip(pieces, bases, strict=True):
        part = x[at : at + size]
        if head["filters"][tensor]:
            part[:] = part >> 1 ^ -(part & 1)
        if head["filters"][tensor] == 2:
            part[:] = np.cumsum(part) + np.uint64((base >> 1 ^ -(base & 1)) & (1 << 64) - 1)
        at += size
    return x & np.uint64((1 << head["bits"]) - 1)


def read_floats_head(head, reader, shapes):
    """Special words, slots, levels, trailing zeros, fields."""
    bits, exponent, mantissa, _ = FORMATS[head["dtype"]]
    prefix = min(3, mantissa)
    head["specials"] = [int.from_bytes(reader.take(bits // 8), "little") for _ in range(reader.varint())]
    head["slots"] = first, below, fine, above = [reader.varint() for _ in range(4)]
    slots = below + fine + above
    need(slots <= 64 and first + slots <= (1 << exponent) + 64, "an exponent is out of range")
    need(len(head["specials"]) < 8, "there are too many special words")
    need(1 + len(head["specials"]) + below + (fine << prefix) + above <= 256, "there are too many symbols")
    places = [(o, i, k * head["each"]) for o, i, k, _, _ in map(layout_of, shapes)]
    if sum(o + i for o, i, _ in places if o > 1) > 1 << 22:
        places = [(1, o * i * k, 1) for o, i, k in places]
    bases, flags = read_short(reader, len(shapes)) + 128, read_short(reader, len(shapes)).tolist()
    need(all(0 <= flag <= 3 * (o > 1) for flag, (o, _, _) in zip(flags, places, strict=True)), "unknown levels")
    sizes = [n for flag, (o, i, _) in zip(flags, places, strict=True) for n in ((flag & 1) * o, (flag >> 1) * i)]
    levels = np.split(read_short(reader, sum(sizes)), np.cumsum(sizes))
    zeros = list(reader.take(reader.byte()))
    need(1 <= len(zeros) <= 4 and zeros == sorted(set(zeros)) and zeros[-1] <= mantissa - prefix, "trailing zeros")
    rows = [o for o, _, _ in places]
    tails = np.split(read_short(reader, sum(rows) if len(zeros) > 1 else 0), np.cumsum(rows)[:-1])
    need(all(0 <= t < len(zeros) for tail in tails for t in tail), "a tail is out of range")
    none = np.zeros(1, np.int64)
    head["places"] = [
        (o, i, k, bases[j], levels[2 * j] if flags[j] & 1 else none, levels[2 * j + 1] if flags[j] & 2 else none,
         tails[j] if len(zeros) > 1 else none)
        for j, (o, i, k) in enumerate(places)
    ]  # fmt: skip
    head["zeros"], head["symbols"] = zeros, read_field(reader, 8, 5)
    widths = [mantissa - prefix + 1 - zero for zero in zeros]
    head["rest"] = [[read_field(reader, min(8, n - at), slots + 1) for at in range(0, n, 8)] for n in widths]


def floats_chunk(head, pieces, total, reader):
    """Words by symbol, prefix, escape and rest."""
    bits, exponent, mantissa, _ = FORMATS[head["dtype"]]
    prefix, low = min(3, mantissa), mantissa - min(3, mantissa)
    classes, tails = np.zeros(total, np.int64), np.zeros(total, np.int64)
    at = 0
    for tensor, start, size in pieces:
        _, columns, positions, base, row, column, tail = head["places"][tensor]
        i = start + np.arange(size)
        o = i // (columns * positions)
        level = base + row[o % len(row)] + column[i // positions % columns % len(column)]
        classes[at : at + size], tails[at : at + size] = np.clip(level, 0, 255), tail[o % len(tail)]
        at += size
    # what each symbol stands for: slot + 1 (0: none), exponent and prefix, whether the prefix follows
    first, below, fine, above = head["slots"]
    kinds = [
        (slot, [None] if not below <= slot < below + fine else range(1 << prefix))
        for slot in range(below + fine + above)
    ]
    meaning = [(0, 0, False)] * (1 + len(head["specials"]))
    meaning += [(slot + 1, (first + slot << prefix) + (m or 0), m is None) for slot, ms in kinds for m in ms]
    slot_of, key_of, coarse = (np.array(column) for column in zip(*meaning, strict=True))
    symbol = field_values(head["symbols"], reader, total, np.where(classes == 0, 4, classes & 3))
    need(symbol.max(initial=0) < len(meaning), "a symbol is out of range")
    index = key_of[symbol] - (64 - (classes >> 2) << prefix)
    where = np.flatnonzero(coarse[symbol])
    index[where] += unpack(reader, where.size, prefix)
    where = np.flatnonzero(symbol == 0)
    index[where] = np.frombuffer(reader.take(2 * where.size), "<u2")
    words = (index & (1 << exponent + prefix) - 1).astype(np.uint64) << low
    special = (symbol > 0) & (symbol <= len(head["specials"]))
    for tail, (zeros, fields) in enumerate(zip(head["zeros"], head["rest"], strict=True)):
        where = np.flatnonzero((tails == tail) & ~special)
        rest = np.zeros(where.size, np.uint64)
        for j, field in enumerate(fields):
            rest |= field_values(field, reader, where.size, slot_of[symbol[where]]).astype(np.uint64) << 8 * j
        rest <<= zeros
        words[where] |= rest & (1 << low) - 1 | rest >> low << bits - 1
    for j, word in enumerate(head["specials"]):
        words[symbol == 1 + j] = word
    return words
