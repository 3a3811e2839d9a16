"""The example of docs/format.md: a valid file, and what the package writes."""

import re
import struct
import zlib
from pathlib import Path

import decode as reference
import numpy as np
import pytest

from netweight.archive import Archive, Header
from netweight.archive.encoding import encode_job
from netweight.archive.grouping import Job
from netweight.checkpoint import open_checkpoint

pytestmark = pytest.mark.core

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "format.md"
EXAMPLE = re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[12]


def test_chapter():
    assert EXAMPLE.startswith("12. Example\n")


def example() -> bytes:
    """The file of the example, made again."""
    source = open_checkpoint({"w": np.array([7, 8, 9], np.uint8)})
    blocks = encode_job(source, {}, Job("exact", "U8", ("w",), (0,)))
    made = Archive.build(Header("by hand", tuple(source.infos.values()), source.names, {}, (0,), (), ()), blocks)
    return b"".join([made._prefix, *(part for section in made._sections for part in section)])


def shown() -> bytes:
    """The bytes of the document's dump."""
    line = re.compile(r"^ {4}([0-9a-f]{2}) {2}([0-9a-f ]+?)(?: {2}.*)?$", re.MULTILINE)
    out = b""
    for offset, content in line.findall(EXAMPLE):
        assert int(offset, 16) == len(out)
        out += bytes.fromhex(content)
    return out


def test_example_is_a_valid_file(tmp_path):
    path = tmp_path / "example.nwt"
    path.write_bytes(shown())
    with Archive.open(path) as archive:
        archive.check()
        assert {name: archive[name].tolist() for name in archive} == {"w": [7, 8, 9]}
    assert {name: array.tolist() for name, array in reference.decode(path).items()} == {"w": [7, 8, 9]}


def test_example_is_what_the_package_writes():
    """Up to zlib, which may pack the same text into other bytes."""
    a, b = shown(), example()
    n, m = (struct.unpack_from("<I", data, 12)[0] for data in (a, b))
    assert (a[:12], a[20 + n :]) == (b[:12], b[20 + m :])
    text = zlib.decompress(a[20 : 20 + n])
    assert text == zlib.decompress(b[20 : 20 + m])
    printed = re.search(r"^    (\{.*?\}\})$", EXAMPLE, re.MULTILINE | re.DOTALL)
    assert printed is not None
    assert printed[1].replace("\n    ", "").encode() == text


def test_smallest_file(tmp_path):
    path = tmp_path / "nothing.nwt"
    Archive.build(Header("", (), (), {}, (), (), ()), []).save(path)
    with Archive.open(path) as archive:
        archive.check()
        assert len(archive) == 0
    assert reference.decode(path) == {}
