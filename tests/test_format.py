"""docs/format.md against the code: every constant, every piece of its Python, its example byte by byte."""

import re
import struct
from pathlib import Path
from types import SimpleNamespace

import decode as reference
import headers
import numpy as np
import pytest

from netweight import __version__, dtypes, kernels
from netweight.archive import Archive, header, opened
from netweight.codecs.registry import EXACT, EXACT_VERSION, codecs
from netweight.dtypes import bits_per_element, is_float
from netweight.entropy import planes_levels, planes_slots, planes_words, stream
from netweight.entropy.layout import THRESHOLDS, Layout
from netweight.entropy.normalise import normalise
from netweight.entropy.planes import RUN
from netweight.entropy.planes_levels import FORMATS
from netweight.entropy.small import Reader, decode_small, encode_small, signed, varint
from netweight.entropy.stream import plan_chunks
from netweight.entropy.tables import EIGHTHS
from netweight.entropy.trellis import TAPS
from netweight.errors import FormatError
from netweight.kernels import LANES, Model, Segment, Tables

pytestmark = pytest.mark.core

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


def chapter(title: str) -> str:
    """Text under a heading, up to the next one of its rank or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    level = len(found[1])
    return re.split(rf"^#{{2,{level}}} ", found[2], flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the table under a heading, without its two first lines."""
    lines = [line for line in chapter(title).splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def doc() -> SimpleNamespace:
    """The functions that the document writes out."""
    names: dict[str, object] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(code, "format.md", "exec"), names)
    return SimpleNamespace(**names)


# ---- constants


def test_magic_and_version():
    magic = next(cells[2] for cells in rows("2. The fixed part") if cells[0] == "0")
    assert bytes.fromhex(re.search(r"`([0-9A-F ]+)", magic)[1]) == header.MAGIC
    assert TEXT.startswith("# The file format `.nwt`\n\nFormat version 1.")
    assert header.MAJOR == 1


def test_fixed_part():
    offsets = [cells[0] for cells in rows("2. The fixed part")]
    assert offsets == ["0", "8", "10", "12", "16", "20", "20 + n"]
    assert header.FIXED_BYTES == 20


def test_dtypes():
    cells = [cell for row in rows("1. Conventions") for cell in row]
    found = dict(zip(cells[0::2], cells[1::2], strict=True))
    del found[""]
    assert {code: int(bits) for code, bits in found.items()} == {
        code: bits_per_element(code) for code in dtypes.ALIGNMENT_ORDER
    }


def test_limits():
    modules = (header, opened, dtypes, stream, planes_levels, planes_slots, planes_words)
    limits = {cells[0]: int(cells[1]) for cells in rows("9. Limits")}
    for name, value in limits.items():
        assert [getattr(module, name) for module in modules if hasattr(module, name)] == [value], name
    in_code = {name for module in (header, opened) for name in vars(module) if name.startswith("LARGEST_")}
    assert in_code <= set(limits)


def test_eighths():
    line = re.search(r"EIGHTHS = ([0-9 ]+)", chapter("5.1 Frequencies"))[1]
    assert [int(x) for x in line.split()] == EIGHTHS.tolist()
    assert [round(2 ** (j / 8 + 10)) for j in range(8)] == EIGHTHS.tolist()


def test_thresholds():
    numbers = re.search(r"THRESHOLDS\n((?:[ 0-9]+\n)+)", chapter("6.5 Neighbours"))[1]
    assert np.array(numbers.split(), int).reshape(-1, 4).tolist() == THRESHOLDS.tolist()


def test_taps():
    assert {int(v): (int(a), int(b)) for v, a, b in rows("6.6 Trellis")} == TAPS


def test_formats_of_floats():
    found = {code: tuple(map(int, numbers)) for code, *numbers in rows("8.3 Floats")}
    assert found == {code: (f.bits, f.exponent, f.mantissa) for code, f in FORMATS.items()}
    assert {code for code, f in FORMATS.items() if f.words == 2} == {"C64"}


def test_codecs():
    found = {cells[0]: cells[1:] for cells in rows("7. Codecs")}
    assert found.pop(EXACT)[:2] == [str(EXACT_VERSION), opened.PLANES]
    floats = {code for code in dtypes.ALIGNMENT_ORDER if is_float(code)}
    assert set(found) == set(codecs())
    for name, (version, streams, reals, params, taken) in found.items():
        codec = codecs()[name]
        assert int(version) == codec.version
        assert expanded(streams) == list(codec.streams)
        assert re.findall(r"(\w+), 1 number", reals) == list(codec.reals)
        assert re.findall(r"\w+", params) == list(codec.params)
        assert set(re.findall(r"\w+", taken)) == floats


def expanded(streams: str) -> list[str]:
    """Names of streams: a list, or "first .. last" of numbers that fall."""
    first, *rest = streams.split()
    return [str(j) for j in range(int(first), int(rest[1]) - 1, -1)] if rest[:1] == [".."] else [first, *rest]


def test_codecs_that_refine():
    named = re.search(r"((?:`\w+`(?: and )?)+) refines", chapter("7. Codecs"))
    assert set(re.findall(r"`(\w+)`", named[1])) == {name for name, codec in codecs().items() if codec.progressive}


def test_header_keys(tmp_path):
    """The document has all keys of a full header, and calls those required without which a file is refused."""
    described = {cells[0]: cells[1] for cells in rows("3. The header")}
    full, _ = headers.base()
    made_right = {"prelude", "bytes", "crc"}
    assert set(full) | made_right == set(described)
    path = tmp_path / "file.nwt"
    for key in set(described) - made_right:
        without = dict.fromkeys({"ties", "order", "layout"} if key in ("ties", "order") else {key})
        path.write_bytes(headers.changed(**without)())
        if described[key] == "required":
            with pytest.raises(FormatError, match=f"KeyError \"'{key}'\""):
                Archive.open(path)
        else:
            with Archive.open(path) as archive:
                archive.check()


def test_unknown_keys_and_unused_flags_are_ignored(tmp_path):
    path = tmp_path / "file.nwt"
    expected = {"a": [[0, 1], [2, 3]], "b": [4, 5, 6, 7], "c": [4, 5, 6, 7]}
    for data in (headers.changed(later={"x": [1]})(), headers.fixed(10, b"\xff")()):
        path.write_bytes(data)
        with Archive.open(path) as archive:
            assert {name: archive[name].tolist() for name in archive} == expected
        assert {name: array.tolist() for name, array in reference.decode(path).items()} == expected


# ---- what the document writes out in Python


def test_normalise(doc):
    random = np.random.default_rng(0)
    for _ in range(200):
        weights = np.zeros(256, np.int64)
        used = random.integers(1, 257)
        weights[random.permutation(256)[:used]] = 2 ** random.integers(0, 24, used)
        assert doc.normalise(weights.tolist()) == normalise(weights[None])[0].tolist()


@pytest.mark.parametrize("lanes", [1, 4, 32])
def test_coder(doc, lanes):
    random = np.random.default_rng(lanes)
    freq = normalise(random.integers(0, 50, (3, 256)) ** 2)
    lengths = [70, 1, 64]
    index = random.integers(0, 3, sum(lengths)).astype(np.uint16)
    symbols = np.array([random.choice(256, p=freq[t] / 4096) for t in index], np.uint8)
    plain = [f.tolist() for f in freq]
    data = doc.rans_encode(symbols.tolist(), lanes, lengths, lambda i, _: plain[index[i]])
    assert data == kernels.encode(symbols, index, lengths, lanes, Tables(freq))
    assert doc.rans_decode(data + b"more", lanes, lengths, lambda i, _: plain[index[i]]) == (
        symbols.tolist(),
        len(data),
    )
    model = Model(1, 1, 0, 0, np.zeros((3, 4), np.int32))
    starts = np.cumsum([0, *lengths])
    pieces = [Segment(n, classes=index[at : at + n].astype(np.uint8)) for at, n in zip(starts, lengths, strict=False)]
    fine, used = kernels.decode(data + b"more", lanes, Tables(freq), model, pieces)
    assert ((fine + 128).tolist(), used) == (symbols.tolist(), len(data))


def test_coder_refuses_a_damaged_state(doc):
    data = doc.rans_encode([1, 2, 3], 1, [3], lambda *_: [1024] * 4 + [0] * 252)
    assert doc.rans_decode(data, 1, [3], lambda *_: [1024] * 4 + [0] * 252) == ([1, 2, 3], len(data))
    broken = bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(AssertionError):
        doc.rans_decode(broken, 1, [3], lambda *_: [1024] * 4 + [0] * 252)


def test_chunks(doc):
    random = np.random.default_rng(0)
    for _ in range(50):
        sizes = (2.0 ** random.uniform(0, 21, 8)).astype(int) * random.integers(0, 2, 8)
        runs = random.integers(17, 21, 8).tolist()
        capacity = int(random.integers(17, 21))
        found = plan_chunks(sizes.tolist(), capacity, runs)
        assert doc.chunks(sizes.tolist(), runs, capacity) == [
            [(p.tensor, p.start, p.size) for p in pieces] for pieces in found
        ]
    assert "run and capacity are 17" in " ".join(chapter("4.1 Which chunk holds what").split())
    assert RUN == 17


# ---- sentences that are easy to get wrong


def test_variable_length_integers():
    assert varint(300) == bytes([0xAC, 0x02])
    for v in (0, 1, -1, 2, -2, 63, -64, 64, 10**9, -(10**9)):
        assert signed(v) == varint(2 * v if v >= 0 else -1 - 2 * v)
        assert Reader(signed(v)).signed() == v


def test_short_stream():
    assert encode_small(np.array([5, 5, 5])) == bytes([133, 133])
    assert encode_small(np.array([], np.int64)) == b""
    data = encode_small(np.array([-1, 0, 0, 0]))
    assert data[:3] == bytes([127, 128, 11 | 13 << 4])  # a quarter is 2^10, three quarters are rounded to 2^12
    assert decode_small(Reader(data), 4).tolist() == [-1, 0, 0, 0]
    for count, lanes in ((2047, 1), (2048, 4), (32767, 4), (32768, 32)):
        values = np.zeros(count, np.int64)
        values[:2] = 1
        assert struct.unpack_from(f"<{lanes}I", encode_small(values), 3)[0] >= 65536
        assert decode_small(Reader(encode_small(values)), count).tolist() == values.tolist()


def test_scan():
    cases = {
        (): (1, 1, 1, "as stored"),
        (9,): (1, 9, 1, "as stored"),
        (0, 5, 3, 3): (1, 0, 1, "as stored"),
        (6, 7): (6, 7, 1, "as stored"),
        (4, 5, 8, 9): (4 * 5 * 8, 9, 1, "as stored"),
        (40, 50, 1, 1): (40, 50, 1, "as stored"),
        (5, 6, 3, 3): (5, 54, 1, "as stored"),
        (4, 32, 3, 3): (4, 32, 9, "row, position, column"),
        (64, 1, 3, 3): (64, 1, 9, "position, row, column"),
        (2, 16, 8, 8): (2, 16, 64, "position, row, column"),
    }
    orders = {"oik": "as stored", "oki": "row, position, column", "koi": "position, row, column"}
    for shape, expected in cases.items():
        layout = Layout.of(shape)
        assert (layout.rows, layout.columns, layout.positions, orders[layout.order]) == expected
    tensor = np.arange(2 * 32 * 6).reshape(2, 32, 2, 3)
    assert Layout.of(tensor.shape).scan(tensor).tolist() == tensor.reshape(2, 32, 6).transpose(0, 2, 1).ravel().tolist()
    lanes = re.search(r"in scan order, (\d+) lanes", chapter("6. Sections of weights"))[1]
    assert int(lanes) == LANES


def test_package_version_in_the_table():
    newest = rows("11. Compatibility")[-1]
    assert newest[0] == str(header.MAJOR)
    assert [int(x) for x in newest[1].split(".")] <= [int(x) for x in __version__.split(".")]
