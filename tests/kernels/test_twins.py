"""The C library and the NumPy path give the same integers, and either reads what the other wrote."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import kernels, kernels_decode, kernels_numpy
from netweight.entropy.normalise import normalise
from netweight.entropy.small import Reader, decode_small, encode_small
from netweight.entropy.tables import Shape, _build
from netweight.errors import FormatError
from netweight.kernels import Model, Segment, Tables, Target

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(kernels.backend() != "c", reason="the C library is not in use: nothing to compare with"),
]

LENGTHS = st.lists(st.sampled_from([0, 1, 3, 31, 32, 33, 64, 100, 257, 640]), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**32 - 1)
PI = np.float32(np.pi)
PLAIN = st.fixed_dictionaries({"lanes": st.sampled_from([1, 4, 32]), "bits": st.just(0)})
TRELLIS = st.fixed_dictionaries({"lanes": st.just(32), "bits": st.integers(3, 8)})
KINDS = st.tuples(
    st.one_of(PLAIN, TRELLIS),
    st.fixed_dictionaries(
        {
            "plane": st.sampled_from([0, 32, 33, 50, 64, 200]),
            "classes": st.sampled_from([1, 2, 7]),
            "spread": st.sampled_from([0.2, 3.0, 60.0]),
        }
    ),
).map(lambda pair: pair[0] | pair[1])


def same(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> None:
    for left, right in zip(a, b, strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@settings(deadline=None, max_examples=150)
@given(seed=SEEDS, lengths=LENGTHS, kind=KINDS)
def test_coder(make: Any, seed: int, lengths: list[int], kind: dict[str, Any]) -> None:
    chunk = make(seed, lengths, **kind)
    for k, segment in zip(chunk.k, chunk.segments, strict=True):
        contexts = kernels_numpy.contexts(k, chunk.model, segment)
        same(kernels.contexts(k, chunk.model, segment), contexts)
        fine = contexts[2]
        same(kernels.predict(fine, chunk.model, segment), kernels_numpy.predict(fine, chunk.model, segment))
    count = len(chunk.tables.freq)
    np.testing.assert_array_equal(
        kernels.histogram(chunk.symbol, chunk.index, count), kernels_numpy.histogram(chunk.symbol, chunk.index, count)
    )
    data = chunk.encoded()
    assert kernels.encode(chunk.symbol, chunk.index, lengths, chunk.lanes, chunk.tables) == data
    for used, fine in (chunk.decoded(data), chunk.decoded_by_c(data)):
        assert used == len(data)
        np.testing.assert_array_equal(fine, chunk.fine)


def weights(seed: int, n: int, scale: float, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights in steps, tables, rates [3, 2, 256]; `ties` makes weights halves and rates few, so that costs meet."""
    random = np.random.default_rng(seed)
    u = random.normal(scale=scale, size=n)
    rate = random.integers(0, random.choice([1, 3000, 30000]), (3, 2, 256))
    if ties:
        u, rate = np.rint(2 * u) / 2, random.choice([0, 256, 1024, 4096], rate.shape)
    u[random.random(n) < 0.05] = -0.0
    return u.astype(np.float32), random.integers(0, 3, n).astype(np.uint16), rate.astype(np.int32)


SCALES = st.sampled_from([0.3, 2.0, 20.0, 100.0, 3000.0])


@settings(deadline=None, max_examples=100)
@given(seed=SEEDS, n=st.integers(0, 300), scale=SCALES, ties=st.booleans())
def test_rounding(seed: int, n: int, scale: float, ties: bool) -> None:
    u, index, rate = weights(seed, n, scale, ties)
    rate = np.ascontiguousarray(rate[:, 0])
    same((kernels.round_rd(u, index, rate),), (kernels_numpy.round_rd(u, index, rate),))


@settings(deadline=None, max_examples=150)
@given(seed=SEEDS, n=st.integers(0, 400), bits=st.integers(3, 8), scale=SCALES, ties=st.booleans())
def test_trellis(taps: Any, seed: int, n: int, bits: int, scale: float, ties: bool) -> None:
    u, index, rate = weights(seed, n, scale, ties)
    ours = kernels_numpy.trellis(u, index, rate, bits, *taps(bits))
    same((kernels.trellis(u, index, rate, bits, *taps(bits)),), (ours,))


@pytest.mark.parametrize("largest", range(228, 284, 4))
def test_trellis_where_escapes_begin(taps: Any, largest: int) -> None:
    """Both paths take short cuts below some magnitude: weights up to just below and just above it."""
    random = np.random.default_rng(largest)
    u = random.uniform(largest - 6, largest, 320) * random.choice([-1, 1], 320)
    index, rate = random.integers(0, 2, 320).astype(np.uint16), random.integers(0, 9000, (2, 2, 256)).astype(np.int32)
    ours = kernels_numpy.trellis(u.astype(np.float32), index, rate, 3, *taps(3))
    same((kernels.trellis(u.astype(np.float32), index, rate, 3, *taps(3)),), (ours,))


def test_long_trellis(taps: Any) -> None:
    """More steps than one block of candidates, with a tail."""
    random = np.random.default_rng(7)
    u = random.laplace(scale=4, size=(1 << 15) + 17).astype(np.float32)
    u[40_000 % u.size] = 5000
    index = random.integers(0, 4, u.size).astype(np.uint16)
    rate = random.integers(0, 3000, (4, 2, 256)).astype(np.int32)
    ours = kernels_numpy.trellis(u, index, rate, 5, *taps(5))
    same((kernels.trellis(u, index, rate, 5, *taps(5)),), (ours,))


@settings(deadline=None, max_examples=100)
@given(
    seed=SEEDS,
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    start=st.integers(0, 5000),
    size=st.integers(0, 3000),
    top=st.integers(0, 255),
)
def test_classes(seed: int, rows: int, columns: int, start: int, size: int, top: int) -> None:
    random = np.random.default_rng(seed)
    row, column = (random.integers(-300, 300, n).astype(np.int16) for n in (rows, columns))
    ours = kernels_numpy.classes(row, column, start, size, top)
    same((kernels.classes(row, column, start, size, top),), (ours,))


def test_extreme_classes() -> None:
    row, column = np.array([-16383, 16383, 0], np.int16), np.array([-16383, 16383, 1], np.int16)
    ours = kernels_numpy.classes(row, column, 1, 30, 9)
    same((kernels.classes(row, column, 1, 30, 9),), (ours,))
    assert ours[:4].tolist() == [0, 0, 0, 9]


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, factor=st.floats(2.0**-100, 2.0**100, width=32))
def test_scale(seed: int, factor: float) -> None:
    fine = np.random.default_rng(seed).integers(-32768, 32768, 100).astype(np.int16)
    expected = fine.astype(np.float32) * np.float32(factor)
    found = np.empty(100, np.float32)
    kernels.scale(fine, np.float32(factor), found)
    same((found,), (expected,))


@settings(deadline=None, max_examples=120)
@given(seed=SEEDS, lengths=LENGTHS, kind=KINDS, to_target=st.lists(st.booleans(), min_size=4, max_size=4))
def test_runs(make: Any, seed: int, lengths: list[int], kind: dict[str, Any], to_target: list[bool]) -> None:
    """Sums, escapes and scaled values of each segment, against plain Python."""
    chunk = make(seed, lengths, **kind)
    data = chunk.encoded()
    factor = np.float32(0.3)
    targets = [
        Target(np.full(n, np.nan, np.float32), factor) if t else None for n, t in zip(lengths, to_target, strict=False)
    ]
    runs, used = kernels.decode_runs(data, chunk.lanes, chunk.tables, chunk.model, chunk.segments, targets)
    assert used == len(data)
    at = 0
    for run, k, target in zip(runs, chunk.k, targets, strict=True):
        r = chunk.fine[at : at + k.size]
        at += k.size
        places = [i for i, v in enumerate(k.tolist()) if not -128 < v < 127]
        assert run.places.tolist() == places
        assert run.held.tolist() == r[places].tolist()
        assert run.sums == (sum(r.tolist()) % 2**32, sum(i * v for i, v in enumerate(r.tolist(), 1)) % 2**32)
        if run.fine is not None:
            np.testing.assert_array_equal(run.fine, r)
        assert run.fine is not None or target is not None
        if target is not None:
            np.testing.assert_array_equal(target.out, r.astype(np.float32) * factor)


def test_more_escapes_than_there_is_room_for(make: Any) -> None:
    chunk = make(1, [40_000], spread=600.0)
    (run,), _ = kernels.decode_runs(
        chunk.encoded(), 32, chunk.tables, chunk.model, chunk.segments, [Target(np.empty(40_000, np.float32), PI)]
    )
    assert run.places.size > kernels_decode.ESCAPES
    assert run.places.tolist() == np.flatnonzero((chunk.k[0] < -127) | (chunk.k[0] > 126)).tolist()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, sizes=st.lists(st.integers(0, 9), max_size=12), spread=st.integers(0, 4))
def test_lines(seed: int, sizes: list[int], spread: int) -> None:
    random = np.random.default_rng(seed)
    residual = random.integers(-spread, spread + 1, sum(sizes)).astype(np.int32)
    ours = kernels_numpy.lines(np.array(sizes, np.int32), residual, 40, 48)
    theirs = kernels.lines(np.array(sizes, np.int32), residual, 40, 48)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        same((theirs,), (ours,))


def test_lines_by_hand() -> None:
    found = kernels.lines(np.array([3, 0, 2], np.int32), np.array([1, -2, 0, 5, 0], np.int32), 40, 48)
    assert found is not None
    assert found.tolist() == [41, 39, 37, 46, 46]
    assert kernels.lines(np.array([1], np.int32), np.array([9], np.int32), 40, 48) is None


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, used=st.integers(1, 256))
def test_entries(seed: int, used: int) -> None:
    random = np.random.default_rng(seed)
    freq = np.zeros((3, 256), np.uint16)
    symbols = random.choice(256, used, replace=False)
    freq[1, symbols] = 1 + np.bincount(random.integers(0, used, 4096 - used), minlength=used)
    freq[2, 7] = 4096
    tables = Tables(freq)
    same((tables.entries,), (kernels_numpy.entries(freq),))
    entry = tables.entries[1].astype(np.int64)
    assert np.array_equal(np.bincount(entry >> 24 ^ 128, minlength=256), freq[1])
    assert not tables.entries[0].any()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, lanes=st.integers(1, 32), bits=st.integers(3, 8), size=st.integers(0, 400))
def test_any_lanes_decode_alike(taps: Any, make: Any, seed: int, lanes: int, bits: int, size: int) -> None:
    """Bytes that mean nothing, lane counts that no encoder writes: still the same symbols."""
    random = np.random.default_rng(seed)
    fitting = make(seed, [600], bits=bits, classes=3)
    tap0, tap1 = taps(bits)
    model = Model(2, 1, tap0, tap1, fitting.model.thresholds)
    segments = [Segment(n, classes=random.integers(0, 3, n).astype(np.uint8)) for n in (0, 90, 37)]
    data = bytearray(random.bytes(4 * lanes + size))
    other = type(fitting)(model, segments, lanes, [], *([np.zeros(0)] * 3), fitting.tables)
    assert other.decoded(bytes(data))[0] == other.decoded_by_c(bytes(data))[0]


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, count=st.sampled_from([1, 2, 100, 2047, 2048, 5000, 40_000]), spread=st.sampled_from([0, 1, 9, 300]))
def test_short_streams(seed: int, count: int, spread: int) -> None:
    """Side information by the C library and by NumPy: the same integers, or the same error."""
    random = np.random.default_rng(seed)
    values = np.clip(np.rint(random.normal(scale=spread, size=count)), -128, 127).astype(np.int64)
    data = encode_small(values)
    changed = bytearray(data)
    changed[random.integers(len(data))] ^= 1 << int(random.integers(8))
    for stream in (data, bytes(changed), data[:-1], bytes(random.integers(0, 256, 60, np.uint8))):
        found = []
        for library in (kernels.LIBRARY, None):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kernels, "LIBRARY", library)
                patch.setattr(kernels_decode, "LIBRARY", library)
                reader = Reader(stream)
                try:
                    found.append((decode_small(reader, count).tolist(), reader.at))
                except FormatError as error:
                    found.append((error.fact, 0))
        assert found[0] == found[1]
    assert decode_small(Reader(data), count).tolist() == values.tolist()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, width=st.integers(1, 256), largest=st.sampled_from([2, 1000, 2**40]))
def test_normalise(seed: int, width: int, largest: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(0, largest, (5, width)) * (random.random((5, width)) < random.random())
    weights[:, random.integers(width)] += random.integers(0, 2, 5) * largest
    ours = normalise(weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "LIBRARY", None)
        same((ours,), (normalise(weights),))


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, fine=st.booleans(), escapes=st.booleans())
def test_tables_from_levels(seed: int, fine: bool, escapes: bool) -> None:
    random = np.random.default_rng(seed)
    symmetric, shape = random.random(7) < 0.5, None
    kept: list[tuple[int, int]] = []
    for same_sides in symmetric:
        high = int(random.integers(0, 127))
        low = -high if same_sides else int(random.integers(-127, high + 1))
        kept.append((1, 0) if random.random() < 0.2 else (low, high))
    shape = Shape(symmetric, fine, escapes)
    sizes = [high + 1 - (0 if s else low) if low <= high else 0 for (low, high), s in zip(kept, symmetric, strict=True)]
    levels = random.integers(0, shape.top + 1, sum(sizes)).astype(np.int32)
    ours = _build(shape, kept, levels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "LIBRARY", None)
        same((ours.freq,), (_build(shape, kept, levels).freq,))
    with pytest.raises(ValueError, match="do not fit"):
        kernels.frequencies(np.array(kept, np.int32), symmetric, np.zeros(sum(sizes) + 1, np.int32), escapes)
