"""What the coder promises on whichever path is in use."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import kernels
from netweight.errors import FormatError
from netweight.kernels import Model, Segment, Tables

pytestmark = pytest.mark.core


def recoded(chunk: Any) -> Any:
    data = kernels.encode(chunk.symbol, chunk.index, chunk.lengths, chunk.lanes, chunk.tables)
    return data, *kernels.decode(data, chunk.lanes, chunk.tables, chunk.model, chunk.segments)


@pytest.mark.parametrize("plane", [0, 37, 1024])
@pytest.mark.parametrize("bits", [0, 3, 8])
def test_there_and_back(make: Any, bits: int, plane: int) -> None:
    chunk = make(5, [5000, 33, 4096], bits=bits, plane=plane, classes=4)
    data, fine, used = recoded(chunk)
    assert used == len(data)
    np.testing.assert_array_equal(fine, chunk.fine)


@pytest.mark.parametrize("lanes", [1, 4, 32])
def test_integers_come_back_where_nothing_is_an_escape(make: Any, lanes: int) -> None:
    chunk = make(6, [2000, 7], lanes=lanes)
    data, fine, used = recoded(chunk)
    k = np.concatenate(chunk.k)
    plain = (k >= -127) & (k <= 126)
    assert used == len(data)
    assert 0 < plain.sum() < k.size
    np.testing.assert_array_equal(fine[plain], k[plain])
    np.testing.assert_array_equal(fine[~plain], np.where(k[~plain] & 1, 127, -128))


@pytest.mark.parametrize("lanes", [4, 32])
def test_every_integer_survives_every_flip(lanes: int) -> None:
    """Each integer behind a negative, a zero and a positive neighbour: -127 has no counterpart to flip to."""
    left = np.tile(np.array([-3, 0, 3], np.int16), 256)
    k = np.repeat(np.arange(-128, 128), 3).astype(np.int16)
    model = Model(1, 5, 0, 0, np.array([[1, 2, 3, 6]], np.int32))
    segment = Segment(2 * k.size, 0, k.size, 2, 2)
    symbol, index, _ = kernels.contexts(np.concatenate([left, k]), model, segment)
    tables = Tables(np.full((5, 256), 16, np.uint16))
    data = kernels.encode(symbol, index, [segment.size], lanes, tables)
    fine, _ = kernels.decode(data, lanes, tables, model, [segment])
    np.testing.assert_array_equal(fine[: k.size], left)
    np.testing.assert_array_equal(fine[k.size :], k)


def test_prediction_is_left_plus_up_less_corner() -> None:
    """One symbol of each position of a 3 by 2 kernel, by hand."""
    plane, width = 32, 3
    k = np.repeat(np.array([5, -2, 0, 1, -4, 3], np.int16), plane)
    model = Model(1, 5, 0, 0, np.array([[1, 4, 8, 10]], np.int32))
    index, flip = kernels.predict(k, model, Segment(k.size, 0, plane, width, 6))
    # left: 2 x 5; 2 x -2; -, then up: 2 x 5; both: 2 x 1 + 2 x -2 - 5; 2 x -4 + 2 x 0 + 2
    g = np.array([0, 10, -4, 10, -7, -6])
    level = (np.abs(g)[:, None] >= np.array([1, 4, 8, 10])).sum(axis=1)
    np.testing.assert_array_equal(index, np.repeat(level, plane))
    np.testing.assert_array_equal(flip, np.repeat(g < 0, plane))


def test_neighbours_stay_within_the_segment_and_the_block_of_positions() -> None:
    """The first plane of each block of positions has no neighbours; nor has what starts in the middle of a scan."""
    plane = 40
    k = np.full(plane * 4, 7, np.int16)
    model = Model(1, 5, 0, 0, np.array([[1, 99, 99, 99]], np.int32))
    index, _ = kernels.predict(k, model, Segment(k.size, 0, plane, 2, 2))
    np.testing.assert_array_equal(index.reshape(4, plane)[:, 0], [0, 1, 0, 1])
    index, _ = kernels.predict(k, model, Segment(k.size, plane, plane, 2, 2))
    np.testing.assert_array_equal(index.reshape(4, plane)[:, 0], [0, 0, 1, 0])


def test_codebook_follows_the_trellis(taps: Any) -> None:
    """Fine indices against the recursion, one lane at a time."""
    random = np.random.default_rng(3)
    k = random.integers(-9, 10, 32 * 20 + 5).astype(np.int16)
    for bits in range(3, 9):
        tap0, tap1 = taps(bits)
        model = Model(2, 1, tap0, tap1, np.zeros((1, 4), np.int32))
        _, index, fine = kernels.contexts(k, model, Segment(k.size))
        for lane in range(32):
            state = 0
            for i in range(lane, k.size, 32):
                book, value = state & 1, int(k[i])
                assert index[i] == book
                assert fine[i] == 2 * value - book * int(np.sign(value))
                state = (state >> 1) ^ (tap0 * book) ^ (tap1 * (value & 1))
                assert state < 1 << bits


def test_a_certain_symbol_costs_nothing() -> None:
    freq = np.zeros((1, 256), np.uint16)
    freq[0, 128] = 4096
    symbol, index = np.full(1000, 128, np.uint8), np.zeros(1000, np.uint16)
    data = kernels.encode(symbol, index, [1000], 32, Tables(freq))
    assert len(data) == 4 * 32
    fine, used = kernels.decode(data, 32, Tables(freq), Model(1, 1, 0, 0, np.zeros((1, 4), np.int32)), [Segment(1000)])
    assert used == 128
    assert not fine.any()


def test_size_is_that_of_the_frequencies() -> None:
    """Within 16 bits a lane of sum -log2(frequency / 4096)."""
    random = np.random.default_rng(0)
    symbol = np.clip(np.rint(random.laplace(scale=4, size=40_000)) + 128, 0, 255).astype(np.uint8)
    count = np.bincount(symbol, minlength=256)
    freq = np.where(count > 0, np.maximum(count * 3800 // symbol.size, 1), 0)
    freq[128] += 4096 - freq.sum()
    data = kernels.encode(symbol, np.zeros(symbol.size, np.uint16), [symbol.size], 32, Tables(freq[None]))
    ideal_bits = -np.log2(freq[symbol] / 4096).sum()
    assert 0 <= 8 * len(data) - ideal_bits - 32 * 16 < 32 * 16 + 0.0005 * ideal_bits


def test_nothing_is_only_lane_states() -> None:
    freq = np.full((1, 256), 16, np.uint16)
    nothing = np.zeros(0, np.uint8), np.zeros(0, np.uint16)
    model = Model(1, 1, 0, 0, np.zeros((1, 4), np.int32))
    for lengths in ([], [0], [0, 0]):
        data = kernels.encode(*nothing, lengths, 4, Tables(freq))
        assert data == (1 << 16).to_bytes(4, "little") * 4
        fine, used = kernels.decode(data, 4, Tables(freq), model, [Segment(0) for _ in lengths])
        assert (fine.size, used) == (0, 16)


def test_what_follows_a_chunk_is_left_alone(make: Any) -> None:
    chunk = make(8, [700], bits=4)
    data, fine, used = recoded(chunk)
    longer = memoryview(b"\xff" + data + b"\xaa" * 37)[1:]  # and nothing needs to be aligned
    more, same_used = kernels.decode(longer, 32, chunk.tables, chunk.model, chunk.segments)
    assert same_used == used == len(data)
    np.testing.assert_array_equal(more, fine)


def test_a_symbol_without_frequency_is_refused() -> None:
    freq = np.zeros((1, 256), np.uint16)
    freq[0, 128] = 4096
    with pytest.raises(ValueError, match="no frequency"):
        kernels.encode(np.array([5], np.uint8), np.zeros(1, np.uint16), [1], 4, Tables(freq))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_histogram_counts(seed: int) -> None:
    random = np.random.default_rng(seed)
    symbol, index = random.integers(0, 256, 500).astype(np.uint8), random.integers(0, 3, 500).astype(np.uint16)
    counts = kernels.histogram(symbol, index, 4)
    assert counts.dtype == np.int64
    assert counts.shape == (4, 256)
    for table in range(4):
        np.testing.assert_array_equal(counts[table], np.bincount(symbol[index == table], minlength=256))


@pytest.mark.parametrize(("drop", "fact"), [(1, "ends before"), (2, "ends before"), (0, "start state")])
def test_damage_is_told(make: Any, drop: int, fact: str) -> None:
    chunk = make(9, [3000])
    data, _, _ = recoded(chunk)
    damaged = bytes([data[0] ^ 1]) + data[1:] if not drop else data[:-drop]
    with pytest.raises(FormatError, match=fact) as caught:
        kernels.decode(damaged, 32, chunk.tables, chunk.model, chunk.segments)
    assert f"{len(damaged)} bytes for 3000 symbols" in str(caught.value)
