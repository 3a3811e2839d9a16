"""Every path of the C library gives the same: scalar, AVX2, AVX-512; chunks alone, in twos, all of a tensor at once."""

import os
import zlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import kernels, kernels_decode
from netweight.clibrary import call
from netweight.entropy.small import Reader, decode_small, encode_small, lanes_of
from netweight.errors import FormatError
from netweight.kernels import Grid, Job, Segment, Target

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(kernels.backend() != "c", reason="the C library is not in use: there is one path only"),
]

FACTOR = np.float32(0.3)
SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.lists(st.sampled_from([0, 1, 31, 32, 100, 640, 4095, 4096, 4128, 9000]), min_size=1, max_size=5)
KINDS = st.fixed_dictionaries(
    {
        "bits": st.sampled_from([0, 0, 3, 8]),
        "plane": st.sampled_from([0, 0, 0, 64]),
        "classes": st.sampled_from([1, 2, 7]),
        "spread": st.sampled_from([0.2, 3.0, 60.0]),
    }
)


def apart(chunk: Any) -> list[bytes]:
    """Each segment as a chunk of its own, with the tables of all."""
    ends = np.cumsum([0, *chunk.lengths]).tolist()
    return [
        kernels.encode(chunk.symbol[a:b], chunk.index[a:b], [b - a], chunk.lanes, chunk.tables)
        for a, b in pairwise(ends)
    ]


def decoded(chunk: Any, data: list[bytes], scaled: bool) -> list[Any]:
    """What the chunks of `apart` decode to by the path in force, as plain Python, or which error there is."""
    targets = [Target(np.full(n, np.nan, np.float32), FACTOR) if scaled else None for n in chunk.lengths]
    jobs = [Job(d, [s], [t]) for d, s, t in zip(data, chunk.segments, targets, strict=True)]
    try:
        found = kernels.decode_chunks(jobs, chunk.lanes, chunk.tables, chunk.model)
    except FormatError as error:
        return [error.fact]
    out: list[Any] = []
    for item, target in zip(found, targets, strict=True):
        (run,) = item.runs
        values = run.fine if target is None else target.out
        assert values is not None
        out.append((run.size, run.sums, run.places.tolist(), run.held.tolist(), item.used, values.tolist()))
        if item.checksum is not None:
            sums = b"".join(x.to_bytes(4, "little") for x in run.sums)
            assert item.checksum == zlib.crc32(sums, zlib.crc32(data[len(out) - 1]))
    return out


@settings(deadline=None, max_examples=120)
@given(
    seed=SEEDS, lengths=LENGTHS, kind=KINDS, scaled=st.booleans(), damage=st.none() | st.floats(0, 1, exclude_max=True)
)
def test_paths(
    make: Any, seed: int, lengths: list[int], kind: dict[str, Any], scaled: bool, damage: float | None
) -> None:
    chunk = make(seed, lengths, **kind)
    data = apart(chunk)
    if damage is not None:
        spoiled = bytearray(data[seed % len(data)])
        spoiled[int(damage * len(spoiled))] ^= 1 << seed % 8
        data[seed % len(data)] = bytes(spoiled)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for widest in (0, 1, 2):
            patch.setattr(kernels_decode, "WIDEST", widest)
            found.append(decoded(chunk, data, scaled))
    assert found[0] == found[1] == found[2]
    if damage is None:
        wanted = np.concatenate([np.zeros(0), *(item[-1] for item in found[0])])
        expected = chunk.fine.astype(np.float32) * FACTOR if scaled else chunk.fine
        assert np.array_equal(wanted, expected)


def tensor(make: Any, seed: int, pieces: int, bits: int, spread: float) -> tuple[Any, np.ndarray, bytes, np.ndarray]:
    """Chunks of one tensor with row and column levels: what they hold, where they lie, all of them, escaped values."""
    random = np.random.default_rng(seed)
    size, rows, columns = int(random.integers(1, 9000)), 50, int(random.integers(1, 300))
    grid = Grid(
        random.integers(0, 4, rows).astype(np.int16), random.integers(-1, 3, columns).astype(np.int16), columns, 0, 4
    )
    chunk = make(seed, [size] * pieces, bits=bits, spread=spread, classes=5)
    segments = [Segment(size, size * j, classes=grid_classes(grid, size * j, size), top=4) for j in range(pieces)]
    parts = [kernels.contexts(k, chunk.model, s) for k, s in zip(chunk.k, segments, strict=True)]
    symbol, index, fine = (np.concatenate([p[j] for p in parts]) for j in range(3))
    counts = kernels.histogram(symbol, index, len(chunk.tables.freq))
    chunk = replace(chunk, segments=segments, symbol=symbol, index=index, fine=fine, tables=fitted(counts))
    return chunk, np.array([size], np.int64), grid, random


def grid_classes(grid: Grid, start: int, size: int) -> np.ndarray:
    i = np.arange(start, start + size)
    return np.clip(grid.row[i // grid.columns % grid.row.size] + grid.column[i % grid.columns], 0, grid.top).astype(
        np.uint8
    )


def fitted(counts: np.ndarray) -> kernels.Tables:
    freq = np.zeros(counts.shape, np.uint16)
    for row, count in zip(freq, counts, strict=True):
        if count.any():
            row[:] = np.where(count > 0, np.maximum(count * 3800 // count.sum(), 1), 0)
            row[count.argmax()] += 4096 - int(row.sum())
    return kernels.Tables(freq)


def signed(value: int) -> bytes:
    v = 2 * value if value >= 0 else -1 - 2 * value
    out = bytearray()
    while v > 127:
        out.append(v & 127 | 128)
        v >>= 7
    return bytes([*out, v])


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, pieces=st.integers(1, 5), bits=st.sampled_from([0, 4]), spread=st.sampled_from([0.5, 8.0]))
def test_pieces(make: Any, seed: int, pieces: int, bits: int, spread: float) -> None:
    """All chunks of a tensor in one call, with what is escaped; a damaged one is never taken for a whole one."""
    chunk, (size,), grid, random = tensor(make, seed, pieces, bits, spread)
    expected, data, where = chunk.fine.astype(np.float64), b"", []
    for j, coded in enumerate(apart(chunk)):
        symbol = chunk.symbol[size * j : size * (j + 1)]
        tail = b""
        for i in np.flatnonzero((symbol == 0) | (symbol == 255)).tolist():
            value = 2 * int(random.integers(-(1 << 21), (1 << 21) - 1)) + int(symbol[i] == 255)
            codebook = int(chunk.index[size * j + i]) & 1 if bits else 0
            expected[size * j + i] = 2 * value - codebook * np.sign(value) if bits else value
            tail += signed(value)
        where.append((len(data), len(coded + tail), size * j, size))
        data += coded + tail
    like, lie = Segment(0, grid=grid), np.array([(at, n, 1) for at, n, _, _ in where], np.int64)
    places = np.array([(0, first, n) for _, _, first, n in where], np.int64)
    many = max(np.isin(chunk.symbol[size * j : size * (j + 1)], (0, 255)).sum() for j in range(pieces)) > 256
    around = bool(random.integers(2))
    room = np.zeros(size * pieces + 40, np.float32)
    first = int(random.integers(0, 20))  # lines of the cache begin anywhere
    out = room[first : first + size * pieces]
    arguments = (places, [like], chunk.tables, chunk.model, [Target(out, FACTOR, around)], True)
    for widest in (0, 1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels_decode, "WIDEST", widest)
            room[:] = np.nan
            checksums = kernels.decode_tensors(memoryview(data), lie, *arguments)
        if many:
            assert checksums is None
            continue
        assert checksums is not None
        assert np.array_equal(out, expected.astype(np.float32) * FACTOR)
        assert np.isnan(room[:first]).all()
        assert np.isnan(room[first + out.size :]).all()
    if many:
        return
    for change in random.integers(0, len(data), 5).tolist():
        spoiled = bytearray(data)
        spoiled[change] ^= 1 << int(random.integers(8))
        found = kernels.decode_tensors(memoryview(spoiled), lie, *arguments)
        assert found is None or not np.array_equal(found, checksums)
    short = lie.copy()
    short[-1, 1] -= 1
    assert kernels.decode_tensors(memoryview(data), short, *arguments) is None
    with pytest.raises(ValueError, match="reach beyond"):
        kernels.decode_tensors(memoryview(data[:-1]), lie, *arguments)
    beyond = places + np.array([0, 1, 0])
    with pytest.raises(ValueError, match="reach beyond"):
        kernels.decode_tensors(memoryview(data), lie, beyond, *arguments[1:])


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, kind=KINDS, sizes=LENGTHS, together=st.integers(1, 3))
def test_tensors(make: Any, seed: int, kind: dict[str, Any], sizes: list[int], together: int) -> None:
    """Chunks of several tensors each: the same as one by one."""
    chunk = make(seed, sizes, **kind | {"plane": 0, "spread": 3.0, "classes": 1})
    groups = [range(at, min(at + together, len(sizes))) for at in range(0, len(sizes), together)]
    ends = np.cumsum([0, *sizes]).tolist()
    data, where = b"", []
    for group in groups:
        part = slice(ends[group.start], ends[group.stop])
        coded = kernels.encode(chunk.symbol[part], chunk.index[part], [sizes[j] for j in group], 32, chunk.tables)
        where.append((len(data), len(coded), len(group)))
        data += coded
    outs = [np.full(size, np.nan, np.float32) for size in sizes]
    grid = Grid(np.zeros(1, np.int16), np.zeros(1, np.int16), 1, 0, 0)
    pieces = np.array([(j, 0, size) for j, size in enumerate(sizes)], np.int64)
    likes, targets = [Segment(0, grid=grid)] * len(sizes), [Target(out, FACTOR, seed % 2 == 0) for out in outs]
    arguments = (pieces, likes, chunk.tables, chunk.model, targets, False)
    found = kernels.decode_tensors(memoryview(data), np.array(where, np.int64), *arguments)
    escaped = [np.isin(chunk.symbol[ends[g.start] : ends[g.stop]], (0, 255)).sum() for g in groups]
    if max(escaped) > 256:
        assert found is None
        return
    assert np.array_equal(np.concatenate(outs), chunk.fine.astype(np.float32) * FACTOR)


@pytest.mark.parametrize("size", [*range(150), 255, 256, 271, 320, 1000, 2047, 2048, 4096, 100_001])
def test_crc32(size: int) -> None:
    data = np.frombuffer(os.urandom(size + 3), np.uint8)
    for before in (0, 0xDEADBEEF):
        for first, way in ((0, 0), (1, 1), (3, 2)):  # by tables, by 16 bytes, by 64: as far as this machine can
            part = data[first : first + size]
            assert call("nw_crc32", part, size, before, way) == zlib.crc32(part.tobytes(), before)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=5000), first=st.integers(0, 70), before=st.integers(0, 2**32 - 1))
def test_crc32_anywhere(data: bytes, first: int, before: int) -> None:
    part = np.frombuffer(data, np.uint8)[first:]
    for way in (0, 1, 2):
        assert call("nw_crc32", part, part.size, before, way) == zlib.crc32(part.tobytes(), before)


@settings(deadline=None, max_examples=150)
@given(
    seed=SEEDS, count=st.sampled_from([1, 5, 700, 2047, 2048, 5000, 33_000]), spread=st.sampled_from([0.3, 2.0, 30.0]),
    flip=st.none() | st.floats(0, 1, exclude_max=True), cut=st.integers(0, 3),
)  # fmt: skip
def test_short_streams(seed: int, count: int, spread: float, flip: float | None, cut: int) -> None:
    """Whole or damaged: what the C library makes of them is what NumPy makes of them, or nothing."""
    values = np.random.default_rng(seed).laplace(0, spread, count).round().clip(-128, 127).astype(np.int64)
    data = bytearray(encode_small(values))
    if flip is not None:
        data[int(flip * len(data))] ^= 1 << seed % 8
    data = data[: len(data) - cut]
    found = kernels.short_stream(memoryview(data), count, lanes_of(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("netweight.kernels.LIBRARY", None)
        patch.setattr("netweight.kernels_decode.LIBRARY", None)
        reader = Reader(bytes(data))
        try:
            expected = decode_small(reader, count)
        except FormatError:
            assert found is None
            return
    assert found is not None
    assert np.array_equal(found[0], expected)
    assert found[1] == reader.at
    if flip is None and not cut:
        assert np.array_equal(expected, values)


@settings(deadline=None, max_examples=80)
@given(seed=SEEDS, dealt=st.sampled_from([0, 1, 32]), lanes=st.sampled_from([1, 4, 32]))
def test_classes_made_on_the_way(make: Any, seed: int, dealt: int, lanes: int) -> None:
    """Levels by row and column give what the class of each symbol gives, and what NumPy makes of them."""
    random = np.random.default_rng(seed)
    rows, columns, positions = 32 * int(random.integers(1, 5)), int(random.integers(1, 200)), int(random.integers(1, 4))
    row = random.integers(-3, 6, rows).astype(np.int16)
    column = random.integers(-3, 6, columns * (positions if dealt else 1)).astype(np.int16)
    grid = Grid(row, column, columns, dealt, 6)
    start = int(random.integers(0, rows * columns * positions))
    size = int(random.integers(0, rows * columns * positions - start + 1))
    chunk = make(seed, [size], classes=7, lanes=lanes)
    segment = Segment(size, start, grid=grid)
    with_classes = kernels_decode._spread(segment)
    assert with_classes.classes is not None
    symbol, index, fine = kernels.contexts(chunk.k[0], chunk.model, with_classes)
    tables = fitted(kernels.histogram(symbol, index, 7))
    data = kernels.encode(symbol, index, [size], lanes, tables)
    for s in (segment, with_classes):
        assert np.array_equal(kernels.decode(data, lanes, tables, chunk.model, [s])[0], fine)


def test_grids_that_cannot_be() -> None:
    level, none = np.zeros(4, np.int16), np.zeros(0, np.int16)
    bad = [
        (Grid(none, level, 4, 0, 3), 0),
        (Grid(level, none, 1, 0, 3), 0),
        (Grid(level, level, 3, 0, 3), 0),
        (Grid(level, level, 4, 1, 3), 10),
        (Grid(level, level, 4, 0, 3), -1),
    ]
    for grid, start in bad:
        with pytest.raises(ValueError, match="levels for symbols"):
            kernels_decode.c_segments([Segment(8, start, grid=grid)], np.zeros(8, np.int16))
