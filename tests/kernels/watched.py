"""Drives a sanitised build of the C library; run by test_damage.py in a process of its own."""

import ctypes
import importlib.util
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from netweight import clibrary, kernels, kernels_decode, kernels_lattice, kernels_numpy
from netweight.entropy import trellis
from netweight.entropy.layout import Layout, Levels
from netweight.entropy.stream import model_of, table_count
from netweight.errors import FormatError

sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))
import forge
import victims

spec = importlib.util.spec_from_file_location("chunks", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
chunks = importlib.util.module_from_spec(spec)
sys.modules["chunks"] = chunks
spec.loader.exec_module(chunks)

library = ctypes.CDLL(sys.argv[1])
clibrary.LIBRARY = kernels.LIBRARY = kernels_decode.LIBRARY = kernels_lattice.LIBRARY = library  # type: ignore[attr-defined]

KINDS: list[dict[str, Any]] = [
    {"lanes": 1},
    {"lanes": 4, "classes": 3},
    {"lanes": 32, "classes": 3},
    {"lanes": 32, "classes": 5, "bits": 5},
    {"lanes": 32, "bits": 3, "plane": 40, "classes": 2},
    {"lanes": 32, "plane": 64, "spread": 60.0},
]

random = np.random.default_rng(0)
decodes = 0


def alike(chunk: Any, data: bytes) -> None:
    global decodes
    decodes += 1
    code = chunk.decoded(data)[0]
    for kernels_decode.WIDEST in (0, 1, 2):
        assert chunk.decoded_by_c(data)[0] == code


for kind in KINDS:
    chunk = chunks.chunk(1, [700, 0, 41, 64], **kind)
    for k, segment in zip(chunk.k, chunk.segments, strict=True):
        by_c, by_numpy = kernels.contexts(k, chunk.model, segment), kernels_numpy.contexts(k, chunk.model, segment)
        assert [x.tolist() for x in by_c] == [y.tolist() for y in by_numpy]
        kernels.predict(k, chunk.model, segment)
    kernels.histogram(chunk.symbol, chunk.index, len(chunk.tables.freq))
    data = kernels.encode(chunk.symbol, chunk.index, chunk.lengths, chunk.lanes, chunk.tables)
    assert data == chunk.encoded()
    assert np.array_equal(chunk.decoded_by_c(data)[1], chunk.fine)
    targets = [kernels.Target(np.empty(n, np.float32), np.float32(2)) for n in chunk.lengths]
    kernels.decode_runs(data, chunk.lanes, chunk.tables, chunk.model, chunk.segments, targets)
    assert np.array_equal(np.concatenate([t.out for t in targets]), 2.0 * chunk.fine)
    for size in {*range(0, len(data), 7), *range(len(data) - 80, len(data))}:
        alike(chunk, data[:size])
    for _ in range(40):
        changed = bytearray(data)
        changed[random.integers(len(data))] ^= 1 << int(random.integers(8))
        alike(chunk, bytes(changed))
        alike(chunk, random.bytes(int(random.integers(0, 1500))))
    for byte in (0, 255):
        alike(chunk, bytes([byte]) * len(data))

# Chunks of a tensor at once: bytes copied to memory of exactly their size, so that no read beyond goes unnoticed.
grid = kernels.Grid(np.arange(40, dtype=np.int16) % 3, np.arange(50, dtype=np.int16) % 2, 50, 0, 2)
chunk = chunks.chunk(3, [1000, 1000], classes=3)
segments = [kernels.Segment(1000, at, grid=grid) for at in (0, 1000)]
spread = [kernels_decode._spread(s) for s in segments]
parts = [
    kernels.contexts(np.clip(k, -9, 9).astype(np.int16), chunk.model, s) for k, s in zip(chunk.k, spread, strict=True)
]
counts = kernels.histogram(*(np.concatenate([p[j] for p in parts]) for j in range(2)), 3)
tables = chunks.fitted(counts)
coded = [kernels.encode(symbol, index, [1000], 32, tables) for symbol, index, _ in parts]
whole = b"".join(coded)
out = np.empty(2000, np.float32)
for kernels_decode.WIDEST in (0, 1, 2):
    for cut in (0, 1, 2, 30, 63, 64, 65, 200, len(coded[1])):
        where = np.array([(0, len(coded[0]), 1), (len(coded[0]), len(coded[1]) - cut, 1)], np.int64)
        pieces = np.array([(0, 0, 1000), (0, 1000, 1000)], np.int64)
        for flip in (None, *random.integers(0, len(whole) - cut, 20).tolist()):
            data = bytearray(whole[: len(whole) - cut])
            if flip is not None:
                data[flip] ^= 1 << int(random.integers(8))
            like, target = kernels.Segment(0, grid=grid), kernels.Target(out, np.float32(2), decodes % 2 == 0)
            found = kernels.decode_tensors(memoryview(data), where, pieces, [like], tables, chunk.model, [target], True)
            decodes += 1
            if cut == 0 and flip is None and found is not None:
                assert np.array_equal(out, 2.0 * np.concatenate([p[2] for p in parts]))
            assert cut == 0 or found is None
        jobs = [kernels.Job(data[a : a + n], [s], [None]) for (a, n, _), s in zip(where, segments, strict=True)]
        try:
            kernels.decode_chunks(jobs, 32, tables, chunk.model)
        except FormatError:
            decodes += 1
kernels_decode.WIDEST = 2

# Passes of the quantisers, over memory of exactly their size.
for shape, bits in (((700,), 8), ((40, 50), 0), ((6, 32, 3, 3), 5), ((41, 2, 2, 3), 3)):
    layout = Layout.of(shape)
    model = model_of(bits, layout.plane > 0)
    like = kernels.Segment(0, 0, layout.plane, layout.width, layout.positions, grid=Levels(9).grid(layout))
    x = random.laplace(scale=4, size=layout.size).astype(np.float32)
    rate = random.integers(0, 3000, (table_count(model), 256)).astype(np.int32)
    runs = [(at, min(333, x.size - at)) for at in range(0, x.size, 333)]
    chosen = []
    for kernels_decode.WIDEST in (0, 1, 2):
        k, fine = np.zeros(x.size, np.int16), np.zeros(x.size, np.int16)
        counts = kernels_lattice.choose(x, np.float32(1), runs, like, model, rate, bits, k, fine)
        chosen.append((counts.tolist(), k.tolist(), fine.tolist()))
    assert chosen[0] == chosen[1] == chosen[2]

# Whole sections, first as they are, then damaged where no checksum tells.
TAPS = np.array([trellis.TAPS.get(bits, (0, 0)) for bits in range(9)], np.int64)
header, sections = forge.take_apart(victims.plain())
first = 0
for section in sections:
    members, first_of = sum(header["members"][sections.index(section)][1::2]), first
    first += members
    shapes = [Layout.of(tuple(shape)) for shape in header["shape"][first_of:first]]
    outs = [np.empty(x.size, np.float32) for x in shapes]
    for turn in range(400):
        prelude, body = bytearray(section.prelude()), bytearray(b"".join(chunk for chunk, _ in section.chunks))
        spoiled = (prelude, body)[turn % 3 == 2]
        if turn % 4:
            spoiled[int(random.integers(len(spoiled)))] ^= 1 << int(random.integers(8))
        del spoiled[len(spoiled) - (turn % 4 == 3) * int(random.integers(len(spoiled))) :]
        data, kernels_decode.WIDEST = np.frombuffer(bytes(prelude + body), np.uint8).copy(), turn % 3
        crc, rows = zlib.crc32(prelude), [(x.rows, x.columns) for x in shapes]
        done = kernels.decode_section(memoryview(data), len(prelude), crc, rows, outs, TAPS, turn % 2 == 0)
        assert done or turn % 4
        decodes += 1
kernels_decode.WIDEST = 2
for n in range(400):
    data = random.integers(0, 256, n).astype(np.uint8)
    for widest in (0, 1, 2):
        assert clibrary.call("nw_crc32", data, n, 7, widest) == zlib.crc32(data.tobytes(), 7)
    kernels.short_stream(memoryview(data), n + 1, (1, 4, 32)[n % 3])

for n in (0, 1, 31, 32, 33, 320, 1000):
    for scale in (0.5, 5.0, 300.0, 20_000.0):
        u = np.clip(random.normal(scale=scale, size=n), -32_000, 32_000).astype(np.float32)
        index = random.integers(0, 2, n).astype(np.uint16)
        rate = random.integers(0, 5000, (2, 2, 256)).astype(np.int32)
        if scale < 100:  # ties
            u, rate = (np.rint(2 * u) / 2).astype(np.float32), rate // 2048 * 256
        plain = np.ascontiguousarray(rate[:, 0])
        assert np.array_equal(kernels.round_rd(u, index, plain), kernels_numpy.round_rd(u, index, plain))
        for bits in (3, 8):
            taps = chunks.taps_of(bits)
            ours, theirs = (f(u, index, rate, bits, *taps) for f in (kernels.trellis, kernels_numpy.trellis))
            assert np.array_equal(ours, theirs)
    row, column = np.arange(5, dtype=np.int16), np.arange(7, dtype=np.int16)
    assert np.array_equal(kernels.classes(row, column, n, n, 6), kernels_numpy.classes(row, column, n, n, 6))
    kernels.scale(np.arange(n, dtype=np.int16), np.float32(0.5), np.empty(n, np.float32))
    kernels.lines(np.array([n], np.int32), np.zeros(n, np.int32), 5, 9)

print(f"checked {decodes} chunks")
