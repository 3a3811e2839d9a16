"""Attacks on sections of exact tensors: one a rule of docs/format.md, with the text it must cause."""

# ruff: noqa: E501  one line a rule

import struct
import zlib
from collections.abc import Callable

from forge import one, put_together, short, take_apart

from netweight.entropy.small import varint

Attack = tuple[str, Callable[[], bytes], str]


def exact(dtype: str, rest: bytes, *chunks: bytes, shape: tuple[int, ...] = (4,)) -> Callable[[], bytes]:
    return lambda: one("exact", dtype, shape, rest, chunks)


def words(flags: int, rest: bytes = b"", filters: tuple[int, ...] = (0,)) -> bytes:
    return b"\2" + short(*filters) + varint(flags) + rest


def palette(*steps: int) -> bytes:
    """A palette by its steps of one byte each."""
    return varint(len(steps) - 1) + b"".join(bytes([1, step]) for step in steps)


def floats(
    *, specials: int = 0, words: bytes = b"", slots: tuple[int, int, int, int] = (180, 4, 0, 0), base: int = 0,
    levels: int = 0, deviations: bytes = b"", zeros: bytes = b"\1\0", tails: bytes = b"", fields: bytes = b"\0\1" + b"\1" * 3,
) -> bytes:  # fmt: skip
    """A head of floats for one F32 array: every word has symbol 1, a coarse slot, and its rest as it is."""
    head = b"\3" + varint(specials) + words + b"".join(map(varint, slots))
    return head + short(base) + short(levels) + deviations + zeros + tails + fields


def mixed() -> bytes:
    """Two dtypes in one section."""
    header, parts = take_apart(one("exact", "U8", (4,), b"\0", [b"1234"]))
    header |= {
        "names": ["w", "v"], "types": ["U8", "I8"], "dtype": [0, 1], "shape": [[2], [2]], "knob": [0, 0],
        "params": [[], []], "members": [[0, 2]],
    }  # fmt: skip
    return put_together(header, parts)


CONSTANT, PACKED, CODED, CLASSED = range(4)
ALL = bytes([PACKED])  # a field of any width, as it is
FOUR = struct.pack("<4I", 1, 2, 3, 4)
ATTACKS: list[Attack] = [
    ("no way", exact("U8", b"", b"1234"), r"1 bytes are wanted at 0 of 0"),
    ("an unknown way", exact("U8", b"\4", b"1234"), r"way 4 of storing U8"),
    ("integers as floats", exact("I32", floats(), b""), r"way 3 of storing I32"),
    ("bytes behind the head", exact("U8", b"\0\0", b"1234"), r"1 bytes follow the head of an exact section"),
    ("two dtypes", mixed, r"tensors of 2 dtypes in one section of exact"),
    ("a tensor beyond its chunks", exact("I64", b"\0", b"", shape=(1 << 39,)), r"1 chunks cannot hold 549755813888 elements"),
    ("constant beyond its chunks", exact("I64", words(0, b"\0\0" * 8), b"", shape=(1 << 30,)), r"1 chunks cannot hold"),
    ("too few bytes", exact("U8", b"\0", b"123"), r"4 bytes are wanted at 0 of 3"),
    ("too many bytes", exact("U8", b"\0", b"12345"), r"1 bytes follow a chunk's last word"),
    ("another checksum", exact("U8", b"\0", b"1234"), r"The checksum of a chunk of 'w' is [0-9a-f]{8}, 00000000 is expected"),
    ("no truth value", exact("BOOL", b"\0", b"\0\1\2\0"), r"a truth value above 1"),
    ("zlib bomb", exact("U8", b"\1", zlib.compress(bytes(50 << 20), 9)), r"a zlib stream that does not give 4 bytes"),
    ("too short a zlib stream", exact("U8", b"\1", zlib.compress(b"123")), r"a zlib stream that does not give 4 bytes"),
    ("a cut zlib stream", exact("U8", b"\1", zlib.compress(b"1234")[:-1]), r"a zlib stream that does not give 4 bytes"),
    ("two zlib streams", exact("U8", b"\1", zlib.compress(b"1234") * 2), r"a zlib stream that does not give 4 bytes"),
    ("no zlib stream", exact("U8", b"\1", b"hello"), r"zlib says"),
    ("an unknown filter", exact("U8", words(0, ALL, (3,)), b"1234"), r"a filter of 3 or 3"),
    ("a negative filter", exact("U8", words(0, ALL, (-1,)), b"1234"), r"a filter of -1 or -1"),
    ("unknown flags", exact("U8", words(2, ALL), b"1234"), r"flags 2 of a section of words"),
    ("differences of no palette", exact("U8", words(4, ALL), b"1234"), r"flags 4 of a section of words"),
    ("a huge palette", exact("U16", words(1, varint(256)), b""), r"257 distinct words"),
    ("a palette that stays", exact("U16", words(1, palette(1, 0) + ALL), b"\0" * 4), r"a list of distinct words that does not rise"),
    ("a palette too wide", exact("U8", words(1, palette(255, 1) + ALL), b"\0" * 4), r"a list of distinct words that does not rise"),
    ("a long integer", exact("U16", words(1, varint(0) + b"\3\1\1\1" + ALL), b""), r"an integer of 3 bytes among words of 16"),
    ("an index beyond the palette", exact("U16", words(1, palette(5, 1) + ALL), b"\0\1\2\0"), r"index 2 into 2 distinct words"),
    ("differences beyond the palette", exact("U16", words(3, palette(5, 1) + ALL), b"\0\1\1\0"), r"index 2 into 2 distinct words"),
    ("a long first word", exact("U16", words(0, ALL * 2, (2,)), b"\3" + bytes(11)), r"an integer of 3 bytes among words of 16"),
    ("an unknown kind", exact("U8", words(0, b"\x08"), b"1234"), r"a plane of kind 8"),
    ("a fine constant", exact("U8", words(0, b"\4\0"), b""), r"a plane of kind 4"),
    ("a fine packed plane", exact("U8", words(0, b"\5"), b"1234"), r"a plane of kind 5"),
    ("values that fall", exact("U8", words(0, bytes([CODED, 2, 9, 3, 1, 1])), b""), r"a table of the values \[9\] \.\. \[3\]"),
    ("values that stay", exact("U8", words(0, bytes([CODED, 2, 9, 9, 1, 1])), b""), r"a table of the values \[9\] \.\. \[9\]"),
    ("no values", exact("U8", words(0, bytes([CODED, 0, 9, 3])), b""), r"a table of the values \[\] \.\. \[\]"),
    ("a level above the top", exact("U8", words(0, bytes([CODED, 1, 9, 50])), b""), r"a frequency level of 50"),
    ("a fine level above the top", exact("U8", words(0, bytes([CODED | 4, 1, 9, 98])), b""), r"a frequency level of 98"),
    ("levels that end early", exact("U8", words(0, bytes([CODED, 9, 9])), b""), r"9 bytes are wanted"),
    ("a plane that ends early", exact("U8", words(0, bytes([CODED, 2, 1, 2, 9, 9])), b"123"), r"ends before its last symbol"),
    ("another end state", exact("U8", words(0, bytes([CODED, 1, 1, 9])), bytes(4)), r"ends before|end in the coder's start state"),
    ("a packed plane that ends early", exact("U8", words(0, ALL), b"123"), r"4 bytes are wanted at 0 of 3"),
    ("eight special words", exact("F32", floats(specials=8, words=bytes(32)), bytes(16)), r"8 special words"),
    ("a million special words", exact("F32", floats(specials=1 << 20), bytes(16)), r"1048576 special words"),
    ("65 slots", exact("F32", floats(slots=(0, 65, 0, 0)), bytes(16)), r"65 exponents from 0 on"),
    ("a slot beyond the exponents", exact("F32", floats(slots=(320, 1, 0, 0)), bytes(16)), r"1 exponents from 320 on"),
    ("a slot far beyond", exact("F32", floats(slots=(1 << 60, 1, 0, 0)), bytes(16)), r"1 exponents from 1152921504606846976 on"),
    ("257 symbols", exact("F32", floats(slots=(0, 0, 32, 0)), bytes(16)), r"257 symbols"),
    ("levels of a fourth kind", exact("F32", floats(levels=4), bytes(16)), r"levels of an unknown kind"),
    ("levels of a negative kind", exact("F32", floats(levels=-1), bytes(16)), r"levels of an unknown kind"),
    ("no trailing zeros", exact("F32", floats(zeros=b"\0"), bytes(16)), r"trailing zeros \[\] of 20 bits"),
    ("five trailing zeros", exact("F32", floats(zeros=b"\5\0\1\2\3\4"), bytes(16)), r"trailing zeros \[0, 1, 2, 3, 4\]"),
    ("trailing zeros that fall", exact("F32", floats(zeros=b"\2\3\1"), bytes(16)), r"trailing zeros \[3, 1\] of 20 bits"),
    ("trailing zeros above all", exact("F32", floats(zeros=b"\1\x15"), bytes(16)), r"trailing zeros \[21\] of 20 bits"),
    ("an unknown tail", exact("F32", floats(zeros=b"\2\0\1", tails=short(2)), bytes(16)), r"tail 2 or 2 of 2"),
    ("a symbol beyond all", exact("F32", floats(fields=b"\0\7" + b"\1" * 3), bytes(16)), r"symbol 7 of 5"),
    ("a constant too wide", exact("F32", floats(fields=b"\0\1\1\1\0\x20"), bytes(16)), r"a constant of 32 in 5 bits"),
    ("a table too wide", exact("F32", floats(fields=bytes([0, 1, 1, 1, CODED, 1, 32, 9])), bytes(16)), r"\[32\] in 5 bits"),
]  # fmt: skip


def valid() -> bytes:
    """Four floats whose exponents are one coarse slot and whose rest is packed."""
    return one("exact", "F32", (4,), floats(), [bytes(2) + bytes(4) + bytes(4) + bytes(3)])
