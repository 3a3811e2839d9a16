"""Section 6 of docs/format.md: sections of weights."""

import math
import struct

import numpy as np
from coder import EIGHTHS, Coder, need, normalise, read_short

# fmt: off
THRESHOLDS = np.array([
    (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 2), (1, 1, 1, 2), (1, 1, 2, 2), (1, 1, 2, 3), (1, 1, 2, 4), (1, 1, 3, 4),
    (1, 2, 3, 5), (1, 2, 4, 6), (1, 2, 4, 7), (1, 3, 5, 8), (1, 3, 6, 10), (1, 4, 7, 12), (1, 4, 8, 14), (2, 5, 10, 17),
    (2, 6, 12, 20), (2, 7, 14, 24), (3, 8, 17, 28), (3, 10, 20, 34), (4, 12, 24, 40), (5, 14, 29, 48), (6, 17, 34, 57),
    (7, 20, 40, 67), (8, 24, 48, 80), (10, 29, 57, 95), (11, 34, 68, 113), (13, 40, 81, 135), (16, 48, 96, 160),
    (19, 57, 114, 190), (23, 68, 136, 226), (27, 81, 161, 269),
])
# fmt: on
TAPS = {3: (5, 2), 4: (9, 2), 5: (18, 4), 6: (33, 10), 7: (78, 43), 8: (166, 121)}


def layout_of(shape):
    """Rows, columns, kernel positions, kernel width, order of the scan."""
    size, kernel = math.prod(shape), math.prod(shape[2:])
    if len(shape) < 2 or size == 0:
        return 1, size, 1, 1, "oik"
    if len(shape) == 2 or kernel > 64:
        return size // shape[-1], shape[-1], 1, 1, "oik"
    if kernel == 1 or shape[0] * shape[1] < 32:
        return shape[0], shape[1] * kernel, 1, 1, "oik"
    return shape[0], shape[1], kernel, shape[-1], "oki" if shape[1] >= 32 else "koi"


def layout_down(shape):
    """The same for feedback (7.6): down the columns, position by position."""
    size, kernel = math.prod(shape), math.prod(shape[2:])
    if len(shape) < 2 or size == 0:
        return 1, size, 1, 1, "kio"
    if 1 < kernel <= 64 and shape[0] * shape[1] >= 32:
        return shape[0], shape[1], kernel, shape[-1], "kio"
    return shape[0], size // shape[0], 1, 1, "kio"


def undeal(rows, columns, at):
    """Row, column and position of symbols of the scan kio: each lane has its own run of a position's columns."""
    lanes = 32 if rows * columns % 32 == 0 else 1
    position, t = np.divmod(at, rows * columns)
    q = t % lanes * (rows * columns // lanes) + t // lanes
    return q % rows, q // rows, position


def read_weights_head(reader, layouts):
    """What stands between the real numbers and the first chunk."""
    bits, capacity, flags = reader.varint(), reader.varint(), reader.varint()
    need((bits == 0 or bits in TAPS) and 17 <= capacity <= 20 and flags < 8, "a weights head is out of range")
    sizes = [rows * columns * positions for rows, columns, positions, _, _ in layouts]
    bases, runs = [], []
    for size, (*_, order) in zip(sizes, layouts, strict=True):
        bases.append((reader.signed(), reader.varint(), reader.varint() if order == "kio" else 0))
        runs.append(reader.varint() if size > 1 << 17 else 17)
    need(all(17 <= run <= 20 for run in runs), "a run is out of range")
    need(all(abs(base) <= 127 and has >> 2 <= 22 and finer <= 3 for base, has, finer in bases), "a level is wrong")
    lengths = []
    for (_, has, finer), (rows, columns, positions, _, order) in zip(bases, layouts, strict=True):
        places = columns * (positions if order == "kio" else 1)
        lengths += [(has & 1) * rows, (has >> 1 & 1) * places, (finer & 1) * rows, (finer >> 1) * places]
    levels = np.split(read_short(reader, sum(lengths)), np.cumsum(lengths))
    levels = [level if level.size else np.zeros(1, int) for level in levels]
    places = [(base, *levels[4 * j : 4 * j + 4]) for j, (base, _, _) in enumerate(bases)]
    tables = 32 * (5 if flags & 1 else 1) * (2 if bits else 1)
    return {
        "bits": bits, "neighbours": flags & 1, "escapes": flags & 4, "layouts": layouts, "places": places,
        "shifts": [has >> 2 for _, has, _ in bases], "freq": read_tables(reader, tables, bits > 0, flags),
        "sizes": sizes, "capacity": capacity, "runs": runs, "type": np.int32,
    }  # fmt: skip


def read_tables(reader, count, trellis, flags):
    """Frequencies, [tables, 256], described by levels along a line."""
    octave = 8 if flags & 2 else 4
    heads = read_short(reader, reader.varint()).tolist()
    kept = []
    for t in range(count):
        symmetric = t // (2 if trellis else 1) % (5 if flags & 1 else 1) == 0
        need(heads, "a table has no range")
        high = heads.pop(0)
        if high == -1:
            kept.append((1, 0, symmetric))
            continue
        need(symmetric or heads, "a table has no range")
        low = -high if symmetric else -1 - heads.pop(0)
        need(-127 <= low <= high <= 126, "a table's range is out of range")
        kept.append((low, high, symmetric))
    need(not heads, "there are too many ranges")
    residuals = iter(
        read_short(reader, sum(h + 1 if same else h - low + 1 for low, h, same in kept if low <= h)).tolist()
    )
    weights, first = np.zeros((count, 256), np.int64), 10 * octave
    for row, (low, high, symmetric) in zip(weights, kept, strict=True):
        line = []
        for _ in range(0 if symmetric else low, high + 1 if low <= high else -999):
            guess = first if not line else line[0] if len(line) == 1 else 2 * line[-1] - line[-2]
            line.append(min(max(guess, 0), 12 * octave) + next(residuals))
            need(0 <= line[-1] <= 12 * octave, "a frequency level is out of range")
        if line:
            first = line[0]
            level = np.array(line) * (8 // octave)
            values = EIGHTHS[level % 8] << level // 8
            row[128 + high - len(line) + 1 : 129 + high] = values
            if symmetric:
                row[128 - high : 129] = values[::-1]
            if flags & 4:
                row[[0, 255]] = 1
    return normalise(weights)


def predict(r, j, start, layout):
    """2 left + 2 up - corner of symbols j of a piece, from those decoded before."""
    rows, columns, positions, width, order = layout
    plane = columns if order == "oki" else rows * columns
    y, x = np.divmod((start + j) // plane % positions, width)

    def back(distance, there):
        return np.where(there & (j >= distance), r[np.maximum(j - distance, 0)], 0)

    return 2 * back(plane, x > 0) + 2 * back(plane * width, y > 0) - back(plane * (width + 1), (x > 0) & (y > 0))


def weights_piece(coder, head, tensor, start, size):
    """What the tables give for one piece."""
    layout, (base, row, column, row_step, column_step) = head["layouts"][tensor], head["places"][tensor]
    rows, columns, positions, _, order = layout
    i = start + np.arange(size)
    if order == "kio":
        o, c, position = undeal(rows, columns, i)
        c += position * columns
    else:
        o, c = i // columns // (positions if order == "oki" else 1) % rows, i % columns
    level = (
        row[o % len(row)] + column[c % len(column)] + row_step[o % len(row_step)] + column_step[c % len(column_step)]
    )
    classes = np.clip(base + level, 0, 31)
    per_class = 5 if head["neighbours"] else 1
    books = 2 if head["bits"] else 1
    tap0, tap1 = TAPS.get(head["bits"], (0, 0))
    r, state, g, level = np.zeros(size, np.int64), np.zeros(32, np.int64), np.zeros(1, np.int64), 0
    for at in range(0, size, 32):
        j = np.arange(at, min(at + 32, size))
        c, s = classes[j], state[: j.size]
        if head["neighbours"] and order != "oik" and positions > 1:
            g = predict(r, j, start, layout)
            level = (abs(g)[:, None] >= THRESHOLDS[c]).sum(axis=1)
        book = s & 1 if books == 2 else 0
        v = coder.step((c * per_class + level) * books + book) - 128
        v = np.where((g < 0) & (v > -127) & (v < 127), -v, v)
        r[j] = 2 * v - book * np.sign(v) if books == 2 else v
        s[:] = s >> 1 ^ book * tap0 ^ (v & 1) * tap1
    return r


def weights_chunk(head, pieces, reader):
    """Integers of each piece, and what the checksum covers besides the bytes."""
    coder = Coder(reader, 32, head["freq"])
    arrays = [weights_piece(coder, head, *piece) for piece in pieces]
    coder.close()
    r = np.concatenate(arrays)
    sums = int(r.sum()), int((r * np.arange(1, r.size + 1)).sum())
    checked = struct.pack("<II", sums[0] & 0xFFFFFFFF, sums[1] & 0xFFFFFFFF)
    for r in arrays if head["escapes"] else ():
        low, high = (-255, 253) if head["bits"] else (-128, 127)
        for place in np.flatnonzero((r <= low) | (r >= high)):
            value, book = reader.signed(), r[place] & 1 if head["bits"] else 0
            need(abs(value) <= 1 << 22 and value & 1 == (r[place] > 0), "an escaped value does not fit its place")
            r[place] = 2 * value - book * np.sign(value) if head["bits"] else value
    for r, (tensor, _, size) in zip(arrays, pieces, strict=True):
        if shift := head["shifts"][tensor]:
            packed = np.frombuffer(reader.take((size * shift + 7) // 8), np.uint8)
            low = np.unpackbits(packed, count=size * shift, bitorder="little").reshape(-1, shift)
            r[:] = (r << shift) + low @ (1 << np.arange(shift))
    return [r.astype(np.int32) for r in arrays], checked
