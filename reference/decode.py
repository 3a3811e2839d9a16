"""A second decoder of `.nwt` files, in the order of docs/format.md: plain lines, standard library and NumPy.

    python reference/decode.py IN.nwt OUT.npz

It shares no code with the package. Where the two differ, one of them is wrong; docs/format.md says which. Sections 2,
3, 4 and 7 of the document are here, 5 in coder.py, 6 in weights.py, 8 in exact.py.
"""

import json
import math
import struct
import sys
import zlib

import numpy as np
from coder import Reader, need
from exact import BITS_BELOW_A_BYTE, STORAGE, exact_chunk, read_exact_head
from weights import layout_down, layout_of, read_weights_head, undeal, weights_chunk

LADDER = [str(j) for j in range(16)]
FEEDBACK = {"feedback": "k", "feedback-scalar": "k"}

# ---- 2. The fixed part and 3. the header


def read_header(data):
    """The header as a dictionary, and where the sections that are there begin, and the last one ends."""
    need(len(data) >= 20 and data[:8] == b"\x89NWT\r\n\x1a\n", "this is no .nwt file")
    major, flags, size, crc = struct.unpack_from("<HHII", data, 8)
    need(major == 1, f"format version {major} is not 1")
    need(flags < 256, "a reserved flag is set")
    need(size <= 16 << 20 and 20 + size <= len(data), "the header does not fit")
    need(zlib.crc32(data[20 : 20 + size], zlib.crc32(data[:16])) == crc, "the header's checksum is wrong")
    engine = zlib.decompressobj()
    text = engine.decompress(data[20 : 20 + size], (64 << 20) + 1)
    need(len(text) <= 64 << 20 and engine.eof and not engine.unused_data, "the header is not one zlib stream")
    header = json.loads(text.decode("utf-8", "surrogatepass"))
    ends = (20 + size + np.cumsum([0, *header["bytes"]])).tolist()
    here, refine = sum(end <= len(data) for end in ends) - 1, header.get("refine", 0)
    kinds = [header["codecs"][kind][0] for kind in header["codec"]]
    early = 0 < refine <= here and len(data) < ends[-1] and set(kinds[refine:]) <= {"surp"}
    need(len(data) == ends[-1] or early, "the sections do not fill the file")
    return header, ends[: here + 1]


def members_of(runs):
    """First tensor, length of its run, gap to the next run, its length, ..."""
    out, at = [], 0
    for gap, length in zip(runs[0::2], runs[1::2], strict=True):
        at = out[-1] + gap if out else gap
        out += range(at, at + length)
    return out


# ---- 4. Sections


def plan_chunks(sizes, runs, capacity):
    """For each chunk its pieces (tensor, start, size)."""
    chunks, room = [], 0
    for tensor, (size, run) in enumerate(zip(sizes, runs, strict=True)):
        if size > 1 << run:
            chunks += [[(tensor, at, min(1 << run, size - at))] for at in range(0, size, 1 << run)]
            room = 0
        elif size:
            if size > room:
                chunks.append([])
                room = 1 << capacity
            chunks[-1].append((tensor, 0, size))
            room -= size
    return chunks


def decode_section(data, prelude, crc, codec, stream, tensors):
    """Arrays of a section's tensors (dtype, shape, parameters).

    They are storage if the codec is exact, what to add to a tensor's integers if it is surp, integers and their real
    numbers if it is sparse, else float32.
    """
    need(zlib.crc32(data[:prelude]) == crc, "a prelude's checksum is wrong")
    reader, at, table = Reader(data[:prelude]), prelude, []
    for _ in range(reader.varint()):
        size, expected = reader.varint(), struct.unpack("<I", reader.take(4))[0]
        table.append((data[at : at + size], expected))
        at += size
    need(at == len(data), "the chunks do not fill their section")
    need(sum(math.prod(shape) for _, shape, _ in tensors) <= len(table) << 20, "the chunks cannot hold the tensors")
    if codec == "exact":
        head = read_exact_head(reader, tensors[0][0], [shape for _, shape, _ in tensors])
    else:
        arrays = {"relative": 0, "surp": 0, "sparse": 2 * (stream == "k")}.get(codec, 1)
        reals = [[read_reals(reader) for _ in range(arrays)] for _ in tensors]
        scan = layout_down if codec in FEEDBACK else layout_of
        head = read_weights_head(reader, [scan(shape) for _, shape, _ in tensors])
    need(reader.at == prelude, "something follows a section's head")
    plan = plan_chunks(head["sizes"], head["runs"], head["capacity"])
    need(len(plan) == len(table), "the number of chunks is wrong")
    found = [[np.zeros(0, head["type"])] for _ in tensors]
    for pieces, (chunk, expected) in zip(plan, table, strict=True):
        reader = Reader(chunk)
        arrays, checked = (exact_chunk if codec == "exact" else weights_chunk)(head, pieces, reader)
        need(reader.at == len(chunk), "something follows a chunk's last value")
        need(zlib.crc32(checked, zlib.crc32(chunk)) == expected, "a chunk's checksum is wrong")
        for (tensor, _, _), array in zip(pieces, arrays, strict=True):
            found[tensor].append(array)
    whole = [np.concatenate(arrays) for arrays in found]
    if codec == "exact":
        return [array.view(STORAGE[dtype]) for array, (dtype, _, _) in zip(whole, tensors, strict=True)]
    if codec == "surp":
        need(head["bits"] == 0, "a ladder has a trellis")
        return [
            on_the_ladder(r.astype(np.int64), int(stream), params)
            for r, (_, _, params) in zip(whole, tensors, strict=True)
        ]
    if codec == "sparse":
        return list(zip(whole, reals, strict=True))
    if codec in FEEDBACK:
        return [
            by_steps(r, real[0], layout, levels[3:], shape)
            for r, real, layout, levels, (_, shape, _) in zip(
                whole, reals, head["layouts"], head["places"], tensors, strict=True
            )
        ]
    return [
        reconstruct(codec, r, real[0] if real else None, params, layout, shape)
        for r, real, layout, (_, shape, params) in zip(whole, reals, head["layouts"], tensors, strict=True)
    ]


# ---- 7. Codecs


def read_reals(reader):
    """The one real array of a tensor: a scale, or codewords."""
    count = reader.varint()
    need(count <= 65536, "there are too many real numbers")
    reals = np.frombuffer(reader.take(4 * count), "<f4")
    need(np.isfinite(reals).all(), "a real number is not finite")
    return reals


def on_the_ladder(r, j, params):
    """What rung j adds."""
    step, rise, offset = params
    need(-61440 <= step <= 51200 and 1 <= rise <= 2 and 0 <= offset <= 8, "a ladder is out of range")
    m = (45 if j * rise % 2 else 32) << j * rise // 2
    return r * m + np.sign(r) * (offset * m // 16)


def pruned_weights(k, numbers, v, shape):
    """float32 values from where they are and how large."""
    (low,), (step,) = numbers
    layout = layout_of(shape)
    rows, columns, positions, _, order = layout
    alive, at = np.flatnonzero(k), np.arange(k.size)
    row = at // max(columns, 1) // (positions if order == "oki" else 1) % max(rows, 1)
    held = v[row < -(-alive.size // max(1, columns * positions))][: alive.size].astype(np.int64)
    size = np.where(held > 0, 2 * held - 1, -2 * held).astype(np.float32) * step
    flat = np.zeros(k.size, np.float32)
    flat[alive] = np.sign(k[alive]).astype(np.float32) * (size + low)
    return unscanned(flat, layout, shape)


def by_steps(r, scale, layout, finer, shape):
    """float32 values from fine indices, each row and column with its own step."""
    rows, columns, positions, _, _ = layout
    o, c, position = undeal(rows, columns, np.arange(r.size))
    e = -(finer[0][o % len(finer[0])] + finer[1][(position * columns + c) % len(finer[1])])
    need(scale.size == 1, "a scale is not one number")
    quarters = np.array([1024, 1218, 1448, 1722], np.float32) / np.float32(1024)
    step = np.ldexp((scale[0] * quarters)[e % 4], e // 4)
    need(np.isfinite(step).all(), "a step is not finite")
    out = np.zeros((rows, columns, positions), np.float32)
    out[o, c, position] = r.astype(np.float32) * step
    return out.reshape(shape)


def reconstruct(codec, r, reals, params, layout, shape):
    """float32 values from integers in scan order."""
    if codec == "relative":
        mantissa, centre = params
        need(1 <= mantissa <= 22, "a mantissa is out of range")
        flat = ((r.astype(np.int64) + centre << 23 - mantissa) & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    elif codec == "codebook":
        index = r.astype(np.int64) + params[0]
        need(index.size == 0 or 0 <= index.min() <= index.max() < reals.size, "an integer has no codeword")
        flat = reals[index]
    elif codec == "surp":
        step, _, _ = params
        total = ((r + 2**31) % 2**32 - 2**31).astype(np.float32)  # modulo 2^32 as int32
        flat = total * np.float32(math.ldexp(512 + step % 512, step // 512 - 14))
    else:
        need(reals.size == 1, "a scale is not one number")
        with np.errstate(over="ignore"):  # infinity beyond the range
            flat = r.astype(np.float32) * reals[0]
    return unscanned(flat, layout, shape)


def unscanned(flat, layout, shape):
    """From scan order to the shape."""
    rows, columns, positions, _, order = layout
    if order == "oki":
        flat = flat.reshape(rows, positions, columns).transpose(0, 2, 1)
    if order == "koi":
        flat = flat.reshape(positions, rows, columns).transpose(1, 2, 0)
    return flat.reshape(shape)


def rounded(values, dtype):
    """Storage of float32 values, rounded once to nearest even."""
    if dtype != "BF16":
        return values.astype(STORAGE[dtype])
    bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32).astype(np.uint64).reshape(values.shape)
    return np.where(np.isnan(values), bits >> 16 | 64, bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16)


# ---- The whole file


def decode(path):
    """Dictionary of name to storage array (BF16 as uint16, types below 16 bits without a NumPy dtype as uint8)."""
    with open(path, "rb") as file:
        data = file.read()
    header, starts = read_header(data)
    names, params = header["names"], header.get("params", [[]] * len(header["names"]))
    dtypes = [header["types"][t] for t in header["dtype"]]
    found, climbed, pruned = {}, {}, {}
    columns = (header[key] for key in ("codec", "members", "prelude", "bytes", "crc"))
    for number, (kind, runs, prelude, size, crc) in enumerate(zip(*columns, strict=True)):
        codec, version, stream = header["codecs"][kind]
        known = {"trellis": "k", "uniform": "k", "relative": "k", "codebook": "k", "exact": "planes"} | FEEDBACK
        right = known.get(codec) == stream or stream in {"surp": LADDER, "sparse": ["k", "v"]}.get(codec, [])
        need(version == 1 and right, f"this decoder knows no {codec} {version} {stream}")
        members = members_of(runs)
        tensors = [(dtypes[m], tuple(header["shape"][m]), params[m]) for m in members]
        if number + 1 >= len(starts):  # the file ends early
            climbed |= {m: climbed.get(m, np.zeros(math.prod(header["shape"][m]), np.int64)) for m in members}
            continue
        section = data[starts[number] : starts[number] + size]
        arrays = decode_section(section, prelude, crc, codec, stream, tensors)
        for m, array in zip(members, arrays, strict=True):
            if codec == "surp":
                climbed[m] = climbed.get(m, 0) + array
                continue
            if codec == "sparse":
                pruned.setdefault(m, []).append(array)
                continue
            shape = -1 if dtypes[m] in BITS_BELOW_A_BYTE else header["shape"][m]
            found[names[m]] = (array if codec == "exact" else rounded(array, dtypes[m])).reshape(shape)
    for m, total in climbed.items():
        shape = tuple(header["shape"][m])
        array = reconstruct("surp", total, None, params[m], layout_of(shape), shape)
        found[names[m]] = rounded(array, dtypes[m])
    for m, ((k, numbers), (v, _)) in pruned.items():
        found[names[m]] = rounded(pruned_weights(k, numbers, v, tuple(header["shape"][m])), dtypes[m])
    ties = header.get("ties", {})
    return {name: found[names[ties[name]] if name in ties else name] for name in header.get("order", names)}


if __name__ == "__main__":
    np.savez(sys.argv[2], **decode(sys.argv[1]))
