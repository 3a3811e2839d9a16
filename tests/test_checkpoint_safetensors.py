"""Safetensors files against the official library, in both directions, sound and damaged."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from netweight.checkpoint import TensorInfo, open_checkpoint, write_safetensors
from netweight.checkpoint.header import MAX_HEADER_BYTES, parse_header
from netweight.dtypes import ALIGNMENT_ORDER, nbytes, storage_dtype
from netweight.errors import FormatError, OutputError, UsageError

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def file_of(header: object, data: bytes = b"", padding: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * padding
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="U8", shape=(), begin=0, end=1) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@st.composite
def contents(draw) -> list[tuple[TensorInfo, bytes]]:
    """Tensors of every dtype, their bytes at random: NaN, infinities and BOOLs that are neither 0 nor 1 included."""
    tensors = []
    for name in draw(st.lists(NAMES, unique=True, max_size=6)):
        code, shape = draw(st.sampled_from(list(ALIGNMENT_ORDER))), draw(SHAPES)
        if code.startswith(("F4", "F6")):
            shape = (*shape, 8)
        size = nbytes(code, shape)
        tensors.append((TensorInfo(name, code, shape), draw(st.binary(min_size=size, max_size=size))))
    return tensors


def entries(tensors):
    return [
        (info, lambda info=info, raw=raw: np.frombuffer(raw, storage_dtype(info.dtype)).reshape(info.storage_shape))
        for info, raw in tensors
    ]


def official(raw: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in safetensors.deserialize(raw)
    }


def ours(path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with open_checkpoint(path) as checkpoint:
        return {
            name: (info.dtype, info.shape, checkpoint.read(name).tobytes()) for name, info in checkpoint.infos.items()
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("safetensors")


@settings(deadline=None)
@given(tensors=contents(), metadata=st.dictionaries(NAMES, NAMES, max_size=3))
def test_what_we_write_both_libraries_read(folder, tensors, metadata):
    path = folder / "written.safetensors"
    write_safetensors(path, entries(tensors), metadata, force=True)
    expected = {info.name: (info.dtype, info.shape, raw) for info, raw in tensors}
    assert ours(path) == expected
    assert official(path.read_bytes()) == expected
    assert open_checkpoint(path).metadata == metadata


@settings(deadline=None)
@given(tensors=contents(), metadata=st.dictionaries(NAMES, NAMES, max_size=1))
def test_the_bytes_are_those_of_the_official_library(folder, tensors, metadata):
    torch = pytest.importorskip("torch")
    from safetensors.torch import _TYPES, save

    known = [(info, raw) for info, raw in tensors if info.dtype in _TYPES and nbytes(info.dtype, info.shape)]
    theirs = {
        info.name: torch.frombuffer(bytearray(raw), dtype=_TYPES[info.dtype]).reshape(info.shape) for info, raw in known
    }
    known.sort(key=lambda tensor: (-ALIGNMENT_ORDER[tensor[0].dtype], tensor[0].name.encode()))
    path = folder / "same.safetensors"
    write_safetensors(path, entries(known), metadata, force=True)
    assert path.read_bytes() == save(theirs, metadata or None)


def test_a_file_copied_tensor_by_tensor_is_the_same_file(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "fp8": torch.randn(7).to(torch.float8_e4m3fn),
        "flag": torch.tensor([True, False, True]),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.tensor([float("nan"), float("-inf"), 1.0]).half(),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        write_safetensors(
            tmp_path / "b.safetensors",
            [(info, lambda name=name: checkpoint.read(name)) for name, info in checkpoint.infos.items()],
            checkpoint.metadata,
        )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_given_order_stays_unless_it_would_misalign(tmp_path):
    flags, weight = TensorInfo("flags", "BOOL", (3,)), TensorInfo("weight", "F32", (2,))
    more = TensorInfo("more", "F32", (1,))
    arrays = {info: np.ones(info.shape, storage_dtype(info.dtype)) for info in (flags, weight, more)}
    for order, written in (
        ([weight, more, flags], ["weight", "more", "flags"]),
        ([flags, weight, more], ["more", "weight", "flags"]),
    ):
        write_safetensors(
            tmp_path / "x.safetensors", [(info, lambda info=info: arrays[info]) for info in order], force=True
        )
        assert list(open_checkpoint(tmp_path / "x.safetensors").infos) == written


def test_one_tensor_at_a_time_is_asked_for(tmp_path):
    size = 50_000
    log = []

    def reader(number):
        def read():
            log.append(number)
            return np.full(size, number, np.float32)

        return read

    infos = [TensorInfo(f"t{number}", "F32", (size,)) for number in range(5)]
    write_safetensors(tmp_path / "x.safetensors", [(info, reader(number)) for number, info in enumerate(infos)])
    assert log == [0, 1, 2, 3, 4]
    assert [open_checkpoint(tmp_path / "x.safetensors").read(f"t{number}")[-1] for number in range(5)] == log


def test_a_writer_that_is_lied_to_leaves_nothing(tmp_path):
    info = TensorInfo("w", "F32", (2, 3))
    for wrong in (np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float64), np.zeros(6, np.float32)):
        with pytest.raises(ValueError, match=r"tensor 'w' of dtype F32 should be float32 of shape \(2, 3\)"):
            write_safetensors(tmp_path / "x.safetensors", [(info, lambda wrong=wrong: wrong)])
    with pytest.raises(ValueError, match="twice"):
        write_safetensors(tmp_path / "x.safetensors", [(info, lambda: np.zeros((2, 3), np.float32))] * 2)
    with pytest.raises(ZeroDivisionError):
        write_safetensors(tmp_path / "x.safetensors", [(info, lambda: 1 // 0)])
    assert list(tmp_path.iterdir()) == []


def test_a_header_beyond_the_limit_is_not_written(tmp_path):
    with pytest.raises(OutputError, match="100,000,000"):
        write_safetensors(tmp_path / "x.safetensors", [], {"long": "x" * MAX_HEADER_BYTES})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_needs_force(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", [])
    with pytest.raises(UsageError, match="exists already"):
        write_safetensors(tmp_path / "x.safetensors", [])


def test_tensors_are_views_of_the_map(tmp_path):
    safetensors.numpy.save_file({"w": np.arange(6.0)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    tensor = checkpoint.read("w")
    assert not tensor.flags.owndata
    assert not tensor.flags.writeable
    assert np.shares_memory(tensor, checkpoint.read("w"))
    checkpoint.close()
    np.testing.assert_array_equal(tensor, np.arange(6.0))
    with pytest.raises(UsageError, match=r"x\.safetensors is closed"):
        checkpoint.read("w")


def test_a_file_that_misaligns_its_tensors_is_read_aligned(tmp_path):
    header = {"a": entry("U8", (3,), 0, 3), "b": entry("F64", (2,), 3, 19)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_of(header, b"abc" + np.array([1.5, np.inf]).tobytes(), padding=1))
    tensor = open_checkpoint(path).read("b")
    assert tensor.flags.aligned
    assert not tensor.flags.writeable
    np.testing.assert_array_equal(tensor, [1.5, np.inf])


def test_order_is_that_of_the_data_not_of_the_header(tmp_path):
    header = {"b": entry(begin=1, end=2), "none": entry(shape=(0,), begin=1, end=1), "a": entry(begin=0, end=1)}
    (tmp_path / "x.safetensors").write_bytes(file_of(header, b"\x05\x06"))
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.names == ("a", "none", "b")
    assert (checkpoint.read("a"), checkpoint.read("b"), checkpoint.read("none").size) == (5, 6, 0)


def test_equal_bytes_are_no_ties(tmp_path):
    safetensors.numpy.save_file({"a": np.ones(4), "b": np.ones(4)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.ties == {}
    assert list(checkpoint.infos) == ["a", "b"]


BROKEN = {
    "nothing": (b"", "x.safetensors has 0 bytes, too few for a safetensors file."),
    "seven bytes": (b"\0" * 7, "x.safetensors has 7 bytes, too few for a safetensors file."),
    "header past the end": (
        (9).to_bytes(8, "little") + b"{}",
        "x.safetensors has 10 bytes; its header alone should have 9.",
    ),
    "header too long": (
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}",
        "x.safetensors announces a header of 100,000,001 bytes; safetensors allows 100,000,000.",
    ),
    "no header": (file_of(b""), "Character 0 of the header of x.safetensors is no JSON: Expecting value."),
    "no object": (file_of([]), "The header of x.safetensors is no JSON object."),
    "no text": (file_of(b'{"\xff":1}'), "Byte 2 of the header of x.safetensors is no UTF-8."),
    "text after": (file_of(b"{} {}"), "Character 3 of the header of x.safetensors is no JSON: Extra data."),
    "NaN": (file_of(b'{"a":NaN}'), "NaN is no JSON, but stands in the header of x.safetensors."),
    "depth": (file_of(b"[" * 100_000), "The JSON of the header of x.safetensors is nested too deeply."),
    "digits": (file_of(b'{"a":' + b"9" * 5000 + b"}"), "A number in the header of x.safetensors is too large."),
    "surrogate": (
        file_of(b'{"\\ud800":1}'),
        "A lone surrogate stands in the header of x.safetensors, which is no text.",
    ),
    "name twice": (
        file_of(b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}", b"\0"),
        "The key 'a' occurs twice in the header of x.safetensors.",
    ),
    "metadata": (
        file_of({"__metadata__": {"a": 1}}),
        "The __metadata__ of x.safetensors does not map strings to strings.",
    ),
    "no entry": (file_of({"a": 3}), "Tensor 'a' of x.safetensors lacks dtype, shape or two data_offsets."),
    "no shape": (
        file_of({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"\0"),
        "Tensor 'a' of x.safetensors lacks dtype, shape or two data_offsets.",
    ),
    "three offsets": (
        file_of({"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1, 2]}}, b"\0"),
        "Tensor 'a' of x.safetensors lacks dtype, shape or two data_offsets.",
    ),
    "offset no integer": (
        file_of({"a": entry(end=1.0)}, b"\0"),
        "Tensor 'a' of x.safetensors has the data_offsets [0, 1.0].",
    ),
    "offsets backwards": (
        file_of({"a": entry(begin=1, end=0)}, b"\0"),
        "Tensor 'a' of x.safetensors has the data_offsets [1, 0].",
    ),
    "bool for a number": (
        file_of({"a": entry(shape=[True])}, b"\0"),
        "Tensor 'a' of x.safetensors has the shape [True].",
    ),
    "negative axis": (file_of({"a": entry(shape=[-1])}, b"\0"), "Tensor 'a' of x.safetensors has the shape [-1]."),
    "axis without end": (
        file_of({"a": entry(shape=[0, 2**62], end=0)}),
        "Tensor 'a' of x.safetensors has the shape [0, 4611686018427387904].",
    ),
    "axes of a thousand digits": (
        file_of({"a": entry(shape=[10**1000] * 16)}, b"\0"),
        f"Tensor 'a' of x.safetensors has the shape [1{'0' * 54}...].",
    ),
    "size": (
        file_of({"a": entry("F32", [2, 3], 0, 20)}, bytes(20)),
        "Tensor 'a' of x.safetensors, F32 of shape [2, 3], needs 24 bytes and is given 20.",
    ),
    "far too large": (
        file_of({"a": entry("U8", [2**32, 2**16], 0, 0)}),
        "Tensor 'a' of x.safetensors, U8 of shape [4294967296, 65536], needs 281,474,976,710,656 bytes and is given 0.",
    ),
    "far beyond 64 bits": (
        file_of({"a": entry("U8", [2**62] * 4, 0, 1)}, b"\0"),
        f"Tensor 'a' of x.safetensors, U8 of shape {str([2**62] * 3)[:56]}...], needs {2**248:,} bytes and is given 1.",
    ),
    "half a byte": (
        file_of({"a": entry("F4", [3], 0, 1)}, bytes(1)),
        "Tensor 'a' of x.safetensors, F4 of shape [3], needs 1.5 bytes and is given 1.",
    ),
    "overlap": (
        file_of({"a": entry(shape=[4], end=4), "b": entry(shape=[4], begin=2, end=6)}, bytes(6)),
        "Tensor 'b' of x.safetensors begins at byte 2 of the data and overlaps what is before it.",
    ),
    "the same bytes twice": (
        file_of({"a": entry(), "b": entry()}, bytes(1)),
        "Tensor 'b' of x.safetensors begins at byte 0 of the data and overlaps what is before it.",
    ),
    "hole": (
        file_of({"a": entry(), "b": entry(begin=5, end=6)}, bytes(6)),
        "Tensor 'b' of x.safetensors begins at byte 5 of the data and leaves a hole of 4 bytes before it.",
    ),
    "file too short": (
        file_of({"a": entry(shape=[4], end=4)}, bytes(3)),
        "x.safetensors has 3 bytes of data; its header announces 4.",
    ),
    "file too long": (file_of({"a": entry()}, bytes(2)), "x.safetensors has 2 bytes of data; its header announces 1."),
    "a long name": (
        file_of({"x" * 1000: entry("F32")}, bytes(1)),
        f"Tensor '{'x' * 55}...' of x.safetensors, F32 of shape [], needs 4 bytes and is given 1.",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_every_rule_has_its_message(tmp_path, case):
    raw, fact = BROKEN[case]
    (tmp_path / "x.safetensors").write_bytes(raw)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path / "x.safetensors")
    assert str(caught.value) == f"{fact}\nThe file is damaged: download it, or write it, again."
    if case not in {"axis without end", "name twice"}:  # the official reader allows the first, and takes the last name
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(raw)


def test_what_is_new_is_not_called_damaged(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(file_of({"a": entry("F3")}, bytes(1)))
    with pytest.raises(FormatError, match=r"unknown dtype 'F3'\.\nKnown are BOOL, .*newer netweight"):
        open_checkpoint(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(file_of({"a": entry(shape=[1] * 17)}, bytes(1)))
    with pytest.raises(FormatError, match=r"has 17 axes; at most 16 are supported"):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git LFS"),
        (b"\x89NWT\r\n\x1a\n" + bytes(30), "netweight restore"),
        (b"GGUF" + bytes(30), "GGUF"),
        (b"PK\x03\x04" + bytes(30), "torch.save"),
    ],
)
def test_files_of_other_kinds_are_recognised(tmp_path, first, words):
    (tmp_path / "x.safetensors").write_bytes(first)
    with pytest.raises(FormatError, match=words):
        open_checkpoint(tmp_path / "x.safetensors")


def test_a_long_announced_header_costs_nothing(tmp_path):
    """The length is held against the file before anything of that length is made."""
    import tracemalloc

    (tmp_path / "x.safetensors").write_bytes((MAX_HEADER_BYTES).to_bytes(8, "little") + b"{" * 1000)
    tracemalloc.start()
    with pytest.raises(FormatError, match="1,008 bytes"):
        open_checkpoint(tmp_path / "x.safetensors")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


SOUND = safetensors.numpy.save(
    {"w": np.ones((2, 3), np.float32), "b": np.arange(5, dtype=np.int8), "é\n": np.zeros((0, 3)), "s": np.array(3.0)},
    {"format": "pt"},
)
HEADER_END = 8 + int.from_bytes(SOUND[:8], "little")
JUNK = st.sampled_from(
    [0, 1, -1, 24, 2**63, 10**30, 1.5, True, None, "", "F32", [], [6], [2, 3], [0, 24], [[]], {}, {"a": "b"}, "\ud800"]
)


@st.composite
def damaged_files(draw) -> bytes:
    """A sound file with bytes changed, cut or put in, the length of the header set right or not."""
    raw = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, HEADER_END))
        cut = draw(st.integers(0, 3))
        raw[at : at + cut] = draw(
            st.binary(max_size=3) | st.text('0123456789[]{}",: a-.eE\\u', max_size=3).map(str.encode)
        )
    if draw(st.booleans()):
        raw[:8] = (len(raw) - 8 - (len(SOUND) - HEADER_END)).to_bytes(8, "little", signed=True)
    return bytes(raw[: draw(st.integers(0, len(raw)))]) if draw(st.integers(0, 9)) == 0 else bytes(raw)


@st.composite
def misleading_files(draw) -> bytes:
    """A sound file with a value of its header exchanged."""
    header = json.loads(SOUND[8:HEADER_END])
    name = draw(st.sampled_from(list(header)))
    field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "other", None]))
    if field is None or name == "__metadata__":
        header[draw(st.sampled_from([name, "new"]))] = draw(JUNK)
    elif field in {"shape", "data_offsets"} and header[name][field] and draw(st.booleans()):
        header[name][field][draw(st.integers(0, len(header[name][field]) - 1))] = draw(JUNK)
    else:
        header[name][field] = draw(JUNK)
    return file_of(header, SOUND[HEADER_END:], draw(st.sampled_from([0, 3])))


@settings(max_examples=400, deadline=None)
@given(raw=damaged_files() | misleading_files())
@example(SOUND)
def test_damage_is_a_format_error_and_never_less_strict_than_the_official_reader(folder, raw):
    path = folder / "damaged.safetensors"
    path.write_bytes(raw)
    try:
        read, message = ours(path), ""
    except FormatError as error:
        read, message = None, str(error)
    if read is not None:
        assert read == official(raw)
    else:
        assert raw != SOUND
        assert len(message.splitlines()) == 2
        assert len(message) < 600


def test_every_truncation_is_a_format_error(folder):
    path = folder / "cut.safetensors"
    for length in range(len(SOUND)):
        path.write_bytes(SOUND[:length])
        with pytest.raises(FormatError):
            open_checkpoint(path)


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 100))
def test_the_header_parser_raises_nothing_else(text, data_bytes):
    try:
        header = parse_header(text, data_bytes, "x")
    except FormatError:
        return
    assert sum(info.nbytes for info in header.infos.values()) == data_bytes
