"""Attacks on the fixed part and the header: one a rule of docs/format.md, with the text it must cause."""

# ruff: noqa: E501  one line a rule

import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from forge import Header, Part, put_together, seal, take_apart, to_text

from netweight.archive.header import MAGIC

Attack = tuple[str, Callable[[], bytes], str]


def base() -> tuple[Header, list[Part]]:
    """Two tensors, stored raw in one section; every key of a header."""
    raw = bytes(range(8))
    header: Header = {
        "by": "forge", "names": ["a", "b"], "types": ["U8"], "dtype": [0, 0], "shape": [[2, 2], [4]], "knob": [0, 0],
        "params": [[], []], "codecs": [["exact", 1, "planes"]], "codec": [0], "members": [[0, 2]], "ties": {"c": 1},
        "order": ["a", "c", "b"], "metadata": {"format": "pt"}, "layout": [["model.safetensors", "", 3, {}]],
        "source": {"sha256": "", "bytes": 8}, "plan": {"slope": 1.0}, "refine": 0,
    }  # fmt: skip
    return header, [Part(b"\0", ((raw, zlib.crc32(raw, zlib.crc32(raw))),))]


def valid() -> bytes:
    """The file that the attacks begin with."""
    return put_together(*base())


def changed(**keys: Any) -> Callable[[], bytes]:
    """The file with other values for some keys; a key that is None is left out."""

    def make() -> bytes:
        header, parts = base()
        return put_together({k: v for k, v in (header | keys).items() if v is not None}, parts)

    return make


def raw_keys(**keys: Any) -> Callable[[], bytes]:
    """Like `changed`, for the keys that `put_together` would make right."""

    def make() -> bytes:
        data = valid()
        size = struct.unpack_from("<I", data, 12)[0]
        return seal(to_text(take_apart(data)[0] | keys)) + data[20 + size :]

    return make


def sealed(text: bytes) -> Callable[[], bytes]:
    return lambda: seal(text)


def replaced(old: bytes, new: bytes) -> Callable[[], bytes]:
    """The file with another text in its header."""

    def make() -> bytes:
        data = valid()
        size = struct.unpack_from("<I", data, 12)[0]
        text = zlib.decompress(data[20 : 20 + size])
        assert old in text
        return seal(text.replace(old, new)) + data[20 + size :]

    return make


def fixed(at: int, content: bytes) -> Callable[[], bytes]:
    """The file with other bytes in its fixed part, its checksum made right."""

    def make() -> bytes:
        data = bytearray(valid())
        size = struct.unpack_from("<I", data, 12)[0]
        data[at : at + len(content)] = content
        data[16:20] = struct.pack("<I", zlib.crc32(data[20 : 20 + size], zlib.crc32(data[:16])))
        return bytes(data)

    return make


def trailing() -> bytes:
    """Something behind the end of the header's zlib stream, inside the header."""
    packed = zlib.compress(to_text(base()[0])) + b"more"
    start = MAGIC + struct.pack("<HHI", 1, 0, len(packed))
    return start + struct.pack("<I", zlib.crc32(packed, zlib.crc32(start))) + packed


def cut_stream() -> bytes:
    packed = zlib.compress(to_text(base()[0]))[:-5]
    start = MAGIC + struct.pack("<HHI", 1, 0, len(packed))
    return start + struct.pack("<I", zlib.crc32(packed, zlib.crc32(start))) + packed


def flood() -> bytes:
    """Runs that name all of a thousand tensors again and again."""
    names = [f"{Random(j).random()}" for j in range(1000)]
    header = base()[0] | {
        "names": names, "dtype": [0] * 1000, "shape": [[0]] * 1000, "knob": [0] * 1000, "params": [[]] * 1000,
        "members": [[0, 1000] * 20000], "ties": {}, "order": names, "layout": [],
    }  # fmt: skip
    return put_together(header, [Part(b"\0", ())])


def streams() -> bytes:
    """Twenty streams a tensor, each of all tensors."""
    header, (part,) = base()
    header |= {"codecs": [["mine", 1, f"s{j}"] for j in range(40)], "codec": list(range(40)), "members": [[0, 2]] * 40}
    return put_together(header, [part] * 40)


def section_twice(members: list[list[int]], stream: str = "planes") -> Callable[[], bytes]:
    def make() -> bytes:
        header, (part,) = base()
        kinds = [["exact", 1, "planes"], ["exact", 1, stream]]
        return put_together(header | {"codecs": kinds, "codec": [0, 1], "members": members}, [part, part])

    return make


def cut_short() -> bytes:
    """Two sections, the second of which is called a refinement and not there."""
    header, (part,) = base()
    kinds = {"codec": [0, 0], "members": [[0, 1], [1, 1]], "refine": 1, "shape": [[8], [8]]}
    return put_together(header | kinds, [part, part])[:-3]


BOMB = 60 << 20
ATTACKS: list[Attack] = [
    ("another magic", fixed(0, b"\x88"), r"is no \.nwt file: it begins with 88 4e"),
    ("text mode", fixed(4, b"\n\x1a\n"), r"is no \.nwt file"),
    ("newer version", fixed(8, b"\2\0"), r"has format version 2, this netweight reads up to 1"),
    ("version 0", fixed(8, b"\0\0"), r"has format version 0\."),
    ("reserved flag", fixed(11, b"\1"), r"sets the reserved flags 0x01\."),
    ("all reserved flags", fixed(11, b"\xff"), r"sets the reserved flags 0xff\."),
    ("huge header", fixed(12, struct.pack("<I", (16 << 20) + 1)), r"announces a header of 16777217 bytes, the limit is"),
    ("header beyond the file", fixed(12, struct.pack("<I", 1 << 20)), r"its header alone needs 1048596"),
    ("wrong checksum", lambda: valid()[:16] + b"\0\0\0\0" + valid()[20:], r"The header's checksum is wrong"),
    ("zlib bomb", sealed(b" " * BOMB), r"it does not expand to one text of at most"),
    ("zlib bomb with a header", sealed(b" " * BOMB + b"{}"), r"it does not expand to one text of at most"),
    ("bytes behind the stream", trailing, r"it does not expand to one text"),
    ("a stream that is cut", cut_stream, r"it does not expand to one text"),
    ("deep lists", sealed(b"[" * 200_000), r"RecursionError"),
    ("deep objects", sealed(b'{"a":' * 100_000), r"RecursionError"),
    ("deep metadata", replaced(b'{"format":"pt"}', b"[" * 100_000), r"RecursionError"),
    ("long integer", replaced(b'"slope":1.0', b'"slope":' + b"1" * 5000), r"ValueError"),
    ("no JSON", sealed(b"hello"), r"JSONDecodeError"),
    ("no UTF-8", sealed(b'{"by":"\xff"}'), r"UnicodeDecodeError"),
    ("no object", sealed(b"[1,2]"), r"TypeError"),
    ("NaN", replaced(b"1.0", b"NaN"), r"NaN is no number of JSON"),
    ("Infinity", replaced(b"1.0", b"-Infinity"), r"-Infinity is no number of JSON"),
    ("a key twice", replaced(b'"by":', b'"by":"x","by":'), r"an object has a key twice"),
    ("a metadata key twice", replaced(b'"format":', b'"format":"x","format":'), r"an object has a key twice"),
    ("no writer", changed(by=3), r"its writer has no name"),
    ("names are no list", changed(names="ab"), r"the names are no list"),
    ("a name is no text", changed(names=["a", 1]), r"the names are no list"),
    ("too many names", changed(names=[""] * ((1 << 20) + 1)), r"it does not expand|the names are no list of at most 1048576"),
    ("a name twice", changed(names=["a", "a"], order=None, ties=None, layout=None), r"2 names for 2 tensors and 0 ties"),
    ("a tie is a tensor", changed(ties={"a": 1}, order=["a", "a", "b"]), r"3 names for 2 tensors and 1 ties"),
    ("a tie to nothing", changed(ties={"c": 2}), r"a tie to a tensor that is not there"),
    ("a tie to a negative tensor", changed(ties={"c": -1}), r"a tie to a tensor that is not there"),
    ("a tie to a text", changed(ties={"c": "b"}), r"a tie to a tensor that is not there"),
    ("a name is missing in the order", changed(order=["a", "b"]), r"2 names for 2 tensors and 1 ties"),
    ("an order that is a text", changed(order="acb"), r"the names in order are no list"),
    ("unknown dtype", changed(types=["U9"]), r"The dtype 'U9' is unknown"),
    ("a dtype out of range", changed(dtype=[0, 1]), r"a list of integers of 0 \.\. 0"),
    ("a negative dtype", changed(dtype=[0, -1]), r"a list of integers"),
    ("a true dtype", changed(dtype=[0, False]), r"a list of integers"),
    ("a fraction", changed(dtype=[0, 0.0]), r"a list of integers"),
    ("too few shapes", changed(shape=[[4]]), r"ValueError"),
    ("a negative axis", changed(shape=[[2, 2], [-4]]), r"a list of integers"),
    ("a huge axis", changed(shape=[[2, 2], [1 << 44]]), r"the tensor 'b' of U8 \[17592186044416\]"),
    ("a huge product", changed(shape=[[2, 2], [1 << 20] * 16]), r"the tensor 'b' of U8"),
    ("a huge nothing", changed(shape=[[2, 2], [0, 1 << 40, 1 << 40]]), r"the tensor 'b' of U8 \[0, "),
    ("rank 17", changed(shape=[[2, 2], [1] * 17]), r"the tensor 'b' of U8"),
    ("half a byte", changed(types=["F4"], shape=[[3], [8]]), r"has 12 bits, not whole bytes"),
    ("too few knobs", changed(knob=[0]), r"1 knobs and 2 parameters for 2 tensors"),
    ("too many parameters", changed(params=[[], [], []]), r"2 knobs and 3 parameters for 2 tensors"),
    ("parameters are texts", changed(params=["a", "b"]), r"a list of integers"),
    ("metadata of numbers", changed(metadata={"a": 1}), r"metadata are not all text"),
    ("metadata are a list", changed(metadata=[]), r"metadata are not all text"),
    *[
        (f"the file {name!r}", changed(layout=[[name, "", 3, {}]]), r"would lie outside its folder")
        for name in ("", "..", "../a", "a/../../b", "/etc/passwd", "\\a", "C:\\a", "c:a", "a//b", "a/./b", "a\0b", "..\\a")
    ],
    ("a file twice", changed(layout=[["a", "", 1, {}], ["a", "", 2, {}]]), r"2 files of the source hold 3 of 3 tensors"),
    ("a file of too many", changed(layout=[["a", "", 4, {}]]), r"1 files of the source hold 4 of 3 tensors"),
    ("a file of less than none", changed(layout=[["a", "", 4, {}], ["b", "", -1, {}]]), r"a list of integers"),
    ("a file is a list", changed(layout=[[["a"], "", 3, {}]]), r"the file and prefix of a group"),
    ("a file without metadata", changed(layout=[["a", "", 3]]), r"ValueError"),
    ("a kind that is not there", changed(codec=[1]), r"IndexError"),
    ("a kind without stream", changed(codecs=[["exact", 1]]), r"ValueError"),
    ("a codec is a number", changed(codecs=[[1, 1, "planes"]]), r"the codec and stream are no list"),
    ("a version is a text", changed(codecs=[["exact", "1", "planes"]]), r"a list of integers"),
    ("unknown codec", changed(codecs=[["none", 1, "k"]]), r"needs the codec 'none' version 1, here is none of that name"),
    ("newer exact", changed(codecs=[["exact", 2, "planes"]]), r"needs the codec 'exact' version 2, here is 1"),
    ("newer trellis", changed(codecs=[["trellis", 2, "k"]]), r"needs the codec 'trellis' version 2, here is version 1"),
    ("more sections to refine than there are", changed(refine=2), r"a list of integers of 0 \.\. 1"),
    ("sections to refine are a list", changed(refine=[1]), r"a list of integers of 0 \.\. 1"),
    ("an early end of what does not refine", cut_short, r"ends early, and its codec 'exact' does not refine"),
    ("an early end within the first network", lambda: cut_short()[:-13], r"its header and sections need"),
    ("unknown stream", changed(codecs=[["exact", 1, "k"]]), r"'a' has the streams \['k'\], its codec needs \['planes'\]"),
    ("two streams of one", section_twice([[0, 2], [0, 2]], "more"), r"has the streams \['planes', 'more'\]"),
    ("a tensor in two sections", section_twice([[0, 2], [1, 1]]), r"tensor 1 is coded twice"),
    ("a tensor in no section", changed(members=[[0, 1]]), r"1 tensors are in no section"),
    ("a section without tensors", section_twice([[0, 2], []], "more"), r"a section's list of tensors has 0 numbers"),
    ("members end in a gap", changed(members=[[0, 2, 1]]), r"a section's list of tensors has 3 numbers"),
    ("members beyond", changed(members=[[0, 3]]), r"a section has the tensors 0 \.\. 2 of 2"),
    ("an empty run", changed(members=[[0, 0]]), r"a section has the tensors 0 \.\. -1 of 2"),
    ("members that stay", changed(members=[[0, 1, 0, 2]]), r"a section has the tensors 0 \.\. 1 of 2"),
    ("members that fall", changed(members=[[1, 1, -1, 1]]), r"a list of integers"),
    ("members again and again", flood, r"a section has the tensors"),
    ("streams again and again", streams, r"its 2 tensors have more than 16 streams each"),
    ("a negative size", raw_keys(bytes=[-1]), r"a list of integers"),
    ("a huge size", raw_keys(bytes=[1 << 60]), r"a list of integers"),
    ("a section beyond the file", raw_keys(bytes=[1000]), r"its header and sections need"),
    ("a section too short", raw_keys(bytes=[10]), r"its header and sections need"),
    ("a prelude beyond its section", raw_keys(prelude=[1000]), r"a section of \d+ bytes begins with 1000"),
    ("a prelude cut off", raw_keys(prelude=[3]), r"The checksum of section 0 is wrong"),
    ("another checksum", raw_keys(crc=[0]), r"The checksum of section 0 is wrong"),
    ("bytes behind the last section", lambda: valid() + b"\0", r"The file has \d+ bytes, its header and sections need"),
    *[
        (f"no {key}", changed(**{key: None}), rf"KeyError \"'{key}'\"")
        for key in ("by", "names", "types", "dtype", "shape", "knob", "codecs", "codec", "members")
    ],
    *[
        (f"{key} is a number", changed(**{key: 1}), r"The header is damaged")
        for key in ("names", "types", "dtype", "shape", "knob", "params", "codecs", "codec", "members", "ties", "order",
                    "metadata", "layout", "source", "plan")
    ],
]  # fmt: skip
