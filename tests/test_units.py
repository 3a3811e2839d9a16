"""Sizes in and out."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netweight.errors import UsageError
from netweight.units import format_bits, format_bytes, format_count, format_seconds, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4MB", 4_000_000),
        ("400 kB", 400_000),
        ("4000000", 4_000_000),
        (" 1.5 GB ", 1_500_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("1ki", 1024),
        ("12 B", 12),
        ("7", 7),
        (".5k", 500),
        ("0.1 MB", 100_000),  # exact: binary floats would give 100000.00000000001
        ("1_000_000", 1_000_000),
        ("2t", 2_000_000_000_000),
        ("1.9999 kB", 1999),  # down, so that a target is never exceeded
        (12, 12),
        (np.int64(12), 12),
    ],
)
def test_sizes_are_read(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "MB",
            "-3MB",
            "0",
            "0.2",
            "4 Mbit",
            "4 MBB",
            "1e6",
            "4,5 MB",
            "4..5 MB",
            "i",
            "3 iB",
            "NaN",
            "inf",
            "٣ MB",
        ),
        *("9223372036854775808", "1" * 5000, 0, -1, 2**63, 1.5, None, [1], True and b"4MB"),
    ],
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError):
        parse_size(text)


def test_the_message_shows_what_was_given_and_what_would_do():
    with pytest.raises(UsageError) as caught:
        parse_size("4 Mbit")
    assert str(caught.value) == (
        '\'4 Mbit\' is not a size.\nWrite a number and a unit, such as "4MB", "400 kB" or "1.5 GiB".'
    )


@given(st.integers(1, 2**62))
def test_a_written_size_reads_back_within_its_three_digits(size_bytes):
    assert abs(parse_size(format_bytes(size_bytes)) - size_bytes) <= 0.005 * size_bytes


@given(st.integers(0, 10**17))
def test_three_digits_and_a_number_below_a_thousand(size_bytes):
    match = re.fullmatch(r"(\d+(?:\.\d+)?) (B|[kMGTP]B)", format_bytes(size_bytes))
    assert match
    assert float(match[1]) < 1000
    assert match[2] == "B" or len(match[1].replace(".", "")) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_bytes(0), "0 B"),
        (format_bytes(999), "999 B"),
        (format_bytes(1000), "1.00 kB"),
        (format_bytes(999_499), "999 kB"),
        (format_bytes(999_500), "1.00 MB"),
        (format_bytes(9_995_000), "10.0 MB"),
        (format_bytes(-4_000_000), "-4.00 MB"),
        (format_count(22_713_216), "22.7 M"),
        (format_count(999), "999"),
        (format_bits(3.298), "3.30 bits/weight"),
        (format_seconds(0.0004), "0.4 ms"),
        (format_seconds(9.994), "9.99 s"),
        (format_seconds(9.996), "10.0 s"),
        (format_seconds(59.96), "1 min 00 s"),
        (format_seconds(3725), "62 min 05 s"),
    ],
)
def test_rounding_at_the_edges(text, expected):
    assert text == expected
