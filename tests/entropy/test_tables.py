"""Frequency tables: what is written is what is read, and it costs little."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight.entropy.small import Reader
from netweight.entropy.tables import CENTRE, HIGHEST, Shape, describe, ranges, read
from netweight.errors import FormatError

pytestmark = pytest.mark.core


def counts_of(seed: int, tables: int, kind: str) -> np.ndarray:
    """Counts of symbols: tails, combs, single values, empty tables."""
    random = np.random.default_rng(seed)
    out = np.zeros((tables, 256), np.int64)
    v = np.arange(256) - CENTRE
    for row in out:
        total, spread = int(10 ** random.uniform(0, 6)), 10 ** random.uniform(-1, 2)
        if random.random() < 0.2:
            continue
        if kind == "tails":
            p = np.exp(-np.abs(v - random.integers(-4, 5)) / spread)
            row += random.multinomial(total, p / p.sum())
        elif kind == "comb":
            row[CENTRE + random.integers(-127, 127, 12)] += random.integers(1, total + 1, 12)
        else:
            row[random.integers(0, 256)] += total
    return out


SOURCES = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from(["tails", "comb", "single"]))


@given(SOURCES, st.booleans())
@settings(max_examples=80)
def test_what_is_written_is_read(source, fine):
    counts = counts_of(*source)
    symmetric = np.random.default_rng(source[0]).random(len(counts)) < 0.5
    kept, escapes = ranges(counts, symmetric)
    shape = Shape(symmetric, fine, escapes)
    data, written = describe(counts, shape, kept)
    reader = Reader(data + b"more")
    tables = read(reader, shape)
    assert reader.at == len(data)
    assert np.array_equal(tables.freq, written.freq)
    for row, freq, same, (low, high) in zip(counts, tables.freq.astype(int), symmetric, kept, strict=True):
        if not row.any():
            assert not freq.any()
            continue
        assert freq.sum() == 4096
        assert -HIGHEST - 1 <= low <= high <= HIGHEST
        assert (freq[CENTRE + low : CENTRE + high + 1] >= 1).all(), "a kept value can be coded"
        outside = row[: CENTRE + low].sum() + row[CENTRE + high + 1 :].sum()
        assert not outside or (escapes and freq[0] >= 1 and freq[255] >= 1), "what is not kept can be escaped"
        if same:
            inner = freq[2:255]  # -126 .. 126
            unlike = np.count_nonzero(inner != inner[::-1])
            # Too much is at most one for each frequency of 1, and is taken in halves of the largest, which only falls:
            # so many symbols pay, each unlike its mirror image, and the last for what is left.
            payers = 1 + np.count_nonzero(freq == 1) // (int(freq.max()) // 2)
            assert unlike <= 2 * payers, "but for the few symbols that the rounding to 4096 goes to"


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0, 16.0])
@pytest.mark.parametrize("total", [3_000, 100_000, 3_000_000])
@pytest.mark.parametrize("fine", [False, True])
def test_a_table_and_what_it_codes_are_near_the_entropy(spread, total, fine):
    """0.4 % above the entropy of the counts, 80 bytes, and 3 bits a parameter; the table itself included."""
    v = np.arange(-126, 127)
    p = np.exp(-np.abs(v) / spread)
    counts = np.zeros((1, 256), np.int64)
    counts[0, CENTRE - 126 : CENTRE + 127] = np.random.default_rng(0).multinomial(total, p / p.sum())
    n = counts[counts > 0]
    entropy_bits = float(np.sum(n * np.log2(total / n)))
    kept, escapes = ranges(counts, np.array([True]))
    data, tables = describe(counts, Shape(np.array([True]), fine, escapes), kept)
    low, high = kept[0]
    inside = counts[0, CENTRE + low : CENTRE + high + 1]
    freq = tables.freq[0, CENTRE + low : CENTRE + high + 1].astype(float)
    bits = float(np.sum(inside * (12 - np.log2(freq)))) + 28 * (total - int(inside.sum())) + 8 * len(data)
    assert entropy_bits <= bits <= 1.004 * entropy_bits + 8 * 80 + 3 * (high + 1)


@given(st.binary(max_size=120), st.integers(1, 8), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_any_bytes_are_tables_or_are_refused(data, count, fine, escapes):
    symmetric = np.arange(count) % 2 == 0
    try:
        tables = read(Reader(data), Shape(symmetric, fine, escapes))
    except FormatError:
        return
    sums = tables.freq.astype(int).sum(axis=1)
    assert ((sums == 4096) | (sums == 0)).all()
