"""Attacks on sections of weights: one a rule of docs/format.md, with the text it must cause."""

import zlib
from collections.abc import Callable

import numpy as np
from forge import STATES, Part, head, one, put_together, scale, seal, short, take_apart, to_text

from netweight import kernels
from netweight.entropy.decode import decode_head
from netweight.entropy.layout import Layout
from netweight.entropy.small import signed, varint

Attack = tuple[str, Callable[[], bytes], str]
SHAPE = (64,)
ZEROS = zlib.crc32(bytes(8), zlib.crc32(STATES))  # the checksum of a chunk of STATES


def uniform(rest: bytes, chunks: tuple[bytes, ...] = (STATES,), shape: tuple[int, ...] = SHAPE) -> Callable[[], bytes]:
    return lambda: one("uniform", "F32", shape, rest, chunks)


def valid() -> bytes:
    """64 zeros; all of its symbols are sure."""
    return with_sums(one("uniform", "F32", SHAPE, scale(1.0) + head(), [STATES]), ZEROS)


def with_sums(data: bytes, crc: int) -> bytes:
    """Another checksum for the chunks."""
    header, parts = take_apart(data)
    return put_together(header, [Part(part.rest, tuple((c, crc) for c, _ in part.chunks)) for part in parts])


def tables(heads: tuple[int, ...], residuals: tuple[int, ...], count: int | None = None) -> bytes:
    return varint(len(heads) if count is None else count) + short(*heads) + short(*residuals)


def prelude(content: bytes, body: bytes = b"") -> Callable[[], bytes]:
    """A file whose prelude is given, chunk table and all."""

    def make() -> bytes:
        header, _ = take_apart(valid())
        header |= {"prelude": [len(content)], "bytes": [len(content) + len(body)], "crc": [zlib.crc32(content)]}
        return seal(to_text(header)) + content + body

    return make


def relative(*params: int) -> Callable[[], bytes]:
    return lambda: with_sums(one("relative", "F32", SHAPE, head(), [STATES], params=params), ZEROS)


def escaped(value: int) -> Callable[[], bytes]:
    """A chunk whose first symbol is the escape of even integers, then the integer."""

    def make() -> bytes:
        described = head(flags=4, tables=tables(ZERO, ZERO))
        symbols = np.full(64, 128, np.uint8)
        symbols[0] = 0
        known = decode_head(described, [Layout.of(SHAPE)]).tables
        body = kernels.encode(symbols, np.full(64, 8, np.uint16), [64], 32, known)
        return one("uniform", "F32", SHAPE, scale(1.0) + described, [body + signed(value)])

    return make


ZERO = (0,) * 32  # heads, or residuals, of 32 tables
GOOD = scale(1.0)
ATTACKS: list[Attack] = [
    ("an integer without end", prelude(b"\xff" * 20), r"an integer at \d+ is longer than 9 bytes"),
    ("an empty prelude", prelude(b""), r"1 bytes are wanted at 0 of 0"),
    ("too many chunks", prelude(varint(1 << 40)), r"1099511627776 chunks in a prelude of 6 bytes"),
    (
        "chunks beyond the section",
        prelude(varint(1) + varint(1 << 50) + bytes(4) + GOOD + head()),
        r"its chunks end at byte",
    ),
    ("chunks short of the section", prelude(varint(0) + GOOD + head(), b"x"), r"its chunks end at byte \d+ of"),
    ("no chunks", uniform(GOOD + head(), ()), r"0 chunks cannot hold 64 elements"),
    ("two chunks", uniform(GOOD + head(), (STATES, STATES)), r"2 chunks where its tensors need 1"),
    (
        "a tensor beyond its chunks",
        uniform(GOOD + head(), shape=(1 << 41,)),
        r"1 chunks cannot hold 2199023255552 elements",
    ),
    (
        "levels beyond the chunks",
        uniform(GOOD + head(has=1) + short(0, 0), shape=(1 << 40, 2)),
        r"1 chunks cannot hold",
    ),
    (
        "integers by a codec of floats",
        lambda: one("uniform", "I32", SHAPE, GOOD + head(), [STATES]),
        r"holds a tensor of I32",
    ),
    ("a scale that is no number", uniform(scale(float("nan")) + head()), r"a real number 'scale' is not finite"),
    ("an infinite scale", uniform(scale(float("inf")) + head()), r"a real number 'scale' is not finite"),
    ("no scale", uniform(scale() + head()), r"no factor for 'w'"),
    ("two scales", uniform(scale(1.0, 2.0) + head()), r"no factor for 'w'"),
    ("a million scales", uniform(varint(1 << 20) + head()), r"1048576 real numbers 'scale'"),
    ("a cut scale", uniform(varint(1000) + bytes(8)), r"4000 bytes are wanted"),
    (
        "parameters too many",
        lambda: one("uniform", "F32", SHAPE, GOOD + head(), [STATES], params=[1]),
        r"1 parameters for",
    ),
    ("parameters too few", relative(4), r"1 parameters for the codec 'relative', which has 2"),
    ("no mantissa", relative(0, 0), r"0 bits of mantissa"),
    ("a negative mantissa", relative(-5, 0), r"-5 bits of mantissa"),
    ("a long mantissa", relative(1 << 40, 0), r"1099511627776 bits of mantissa"),
    ("a trellis of 4 states", uniform(GOOD + head(trellis=2)), r"trellis 2"),
    ("a trellis of 512 states", uniform(GOOD + head(trellis=9)), r"trellis 9"),
    ("a small capacity", uniform(GOOD + head(capacity=16)), r"capacity 16"),
    ("a large capacity", uniform(GOOD + head(capacity=21)), r"capacity 21"),
    ("an unknown flag", uniform(GOOD + head(flags=8)), r"flags 8"),
    ("a base of 128", uniform(GOOD + head(base=128)), r"a level or a shift out of range"),
    ("a base of -128", uniform(GOOD + head(base=-128)), r"a level or a shift out of range"),
    ("a shift of 23", uniform(GOOD + head(has=23 << 2)), r"a level or a shift out of range"),
    (
        "a run of 21",
        uniform(GOOD + head(run=varint(21)), (STATES, STATES), (1 << 18,)),
        r"runs of 21 \.\. 21",
    ),
    ("levels that are missing", uniform(GOOD + head(has=1, tables=b"")), r"2 bytes are wanted"),
    ("levels of no range", uniform(GOOD + head(has=2, levels=bytes([9, 3]))), r"a range of -119 \.\. -125"),
    ("levels without frequencies", uniform(GOOD + head(has=2, levels=bytes([128, 129, 0]))), r"without frequencies"),
    ("a nibble of 14", uniform(GOOD + head(has=2, levels=bytes([128, 129, 0xE1]))), r"without frequencies"),
    (
        "levels that end early",
        uniform(GOOD + head(has=2, levels=bytes([128, 129, 0x11]), tables=b"")),
        r"ends before its last",
    ),
    ("heads too few", uniform(GOOD + head(tables=tables(ZERO[1:], ZERO))), r"31 table ranges for 32 tables"),
    ("heads too many", uniform(GOOD + head(tables=tables((*ZERO, 0), ZERO))), r"33 table ranges are too many"),
    (
        "a million heads",
        uniform(GOOD + head(tables=tables(ZERO, ZERO, 1 << 20))),
        r"1048576 table ranges for 32 tables",
    ),
    (
        "a table of less than nothing",
        uniform(GOOD + head(tables=tables((-2, *ZERO[1:]), ZERO))),
        r"a table of the values 2 \.\. -2",
    ),
    (
        "a table that holds an escape",
        uniform(GOOD + head(tables=tables((127, *ZERO[1:]), ZERO))),
        r"a table of the values",
    ),
    (
        "a level below 0",
        uniform(GOOD + head(tables=tables(ZERO, (-100, *ZERO[1:])))),
        r"a frequency level outside 0 \.\. 48",
    ),
    (
        "a level above the top",
        uniform(GOOD + head(tables=tables(ZERO, (9, *ZERO[1:])))),
        r"a frequency level outside 0 \.\. 48",
    ),
    ("bytes behind the tables", uniform(GOOD + head() + b"\0"), r"1 bytes follow the tables"),
    ("a chunk without states", uniform(GOOD + head(), (STATES[:-1],)), r"ends before its last symbol"),
    ("an empty chunk", uniform(GOOD + head(), (b"",)), r"ends before its last symbol"),
    ("another end state", uniform(GOOD + head(), (b"\1" + STATES[1:],)), r"does not end in the coder's start state"),
    ("bytes behind a chunk", uniform(GOOD + head(), (STATES + b"\0",)), r"1 bytes follow a chunk's last value"),
    (
        "another checksum",
        uniform(GOOD + head()),
        r"The checksum of a chunk of 'w' is [0-9a-f]{8}, 00000000 is expected",
    ),
    ("low bits that are missing", uniform(GOOD + head(has=4 << 2)), r"32 bytes are wanted"),
    ("an odd value for an even escape", escaped(301), r"the escaped value 301 does not fit its place"),
    ("a huge escaped value", escaped(1 << 23), r"the escaped value 8388608 does not fit its place"),
]
