"""Side information: variable-length integers and short streams, against plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight.entropy.normalise import TOTAL, normalise
from netweight.entropy.small import Reader, decode_small, encode_small, signed, varint
from netweight.errors import FormatError

pytestmark = pytest.mark.core


@given(st.lists(st.tuples(st.booleans(), st.integers(-(1 << 55), (1 << 55) - 1)), max_size=20))
def test_integers_of_any_length_come_back(values):
    data = b"".join(signed(v) if both else varint(abs(v)) for both, v in values)
    reader = Reader(data)
    assert [reader.signed() if both else reader.varint() for both, _ in values] == [
        v if both else abs(v) for both, v in values
    ]
    assert reader.at == len(data)


@given(st.integers(0, (1 << 56) - 1))
def test_an_integer_takes_seven_bits_a_byte(value):
    assert len(varint(value)) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 12])
def test_an_integer_without_an_end_is_refused(data):
    with pytest.raises(FormatError):
        Reader(data).varint()


@given(
    st.integers(-128, 127), st.integers(0, 255), st.integers(0, 5000), st.integers(0, 2**32 - 1), st.floats(0.05, 50)
)
@settings(max_examples=60)
def test_short_streams_come_back_whatever_follows_them(low, span, count, seed, spread):
    random = np.random.default_rng(seed)
    high = min(127, low + span)
    values = np.clip(np.rint(random.laplace((low + high) / 2, spread, count)), low, high).astype(np.int64)
    data = encode_small(values)
    reader = Reader(data + b"\xa5\x5a" * 3)
    assert np.array_equal(decode_small(reader, count), values)
    assert reader.at == len(data)


@pytest.mark.parametrize("spread", [0.4, 2.0, 15.0])
@pytest.mark.parametrize("count", [200, 3000, 40_000])
def test_a_short_stream_is_near_its_entropy(count, spread):
    """Within 2 % for frequencies in octaves, a nibble for each value of the range, 4 bytes a lane, and the range."""
    values = np.rint(np.random.default_rng(0).laplace(0, spread, count)).clip(-128, 127).astype(np.int64)
    _, counts = np.unique(values, return_counts=True)
    entropy_bits = float(np.sum(counts * np.log2(count / counts)))
    lanes = 1 if count < 2048 else 4 if count < 32768 else 32
    span = int(values.max() - values.min()) + 1
    assert 8 * len(encode_small(values)) <= 1.02 * entropy_bits + 8 * (4 * lanes + 2 + span / 2 + 4)


@pytest.mark.parametrize("outside", [-129, 128])
def test_values_out_of_range_are_refused(outside):
    with pytest.raises(ValueError, match="outside -128"):
        encode_small(np.array([0, outside]))


@given(st.binary(max_size=60), st.integers(1, 300))
def test_any_bytes_decode_or_are_refused(data, count):
    try:
        values = decode_small(Reader(data), count)
    except FormatError:
        return
    assert values.shape == (count,)
    assert values.min() >= -128
    assert values.max() <= 127


# ---- normalise


def normalised(row: list[int]) -> list[int]:
    """The rule of `normalise`, in whole numbers of Python."""
    total = sum(row)
    if not total:
        return [0] * len(row)
    freq = [max(1, TOTAL * w // total) if w else 0 for w in row]
    if sum(freq) <= TOTAL:
        freq[freq.index(max(freq))] += TOTAL - sum(freq)
    while sum(freq) > TOTAL:
        at = freq.index(max(freq))
        freq[at] -= min(freq[at] // 2, sum(freq) - TOTAL)
    return freq


ROWS = st.lists(
    st.one_of(st.just(0), st.integers(1, 9), st.integers(1, 1 << 20), st.integers(1, 1 << 40)),
    min_size=256, max_size=256,
)  # fmt: skip


@given(st.lists(ROWS, min_size=1, max_size=3))
@settings(max_examples=60)
def test_normalise_is_the_rule_in_whole_numbers(rows):
    freq = normalise(np.array(rows, np.int64)).astype(int)
    assert freq.tolist() == [normalised(row) for row in rows]
    for row, f in zip(rows, freq, strict=True):
        assert f.sum() == (TOTAL if any(row) else 0)
        assert ((f > 0) == (np.array(row) > 0)).all()


def test_few_large_weights_can_pay_for_many_tiny_ones():
    row = [1 << 40] * 40 + [1] * 216
    freq = normalise(np.array([row], np.int64))[0].astype(int)
    assert freq.sum() == TOTAL
    assert freq[40:].tolist() == [1] * 216
    assert freq[:40].min() >= TOTAL // 40 // 2


def test_a_table_of_one_symbol_has_all_the_frequency():
    assert normalise(np.eye(256, dtype=np.int64)[[7]])[0, 7] == TOTAL


def test_frequencies_keep_their_ratios():
    freq = normalise(np.array([[1 << (40 - j) for j in range(8)]]))[0].astype(int)
    assert freq.sum() == TOTAL
    assert np.allclose(freq[:-1] / freq[1:], 2, rtol=0.02)
