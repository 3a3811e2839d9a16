"""Damage and malice: whatever is done to a file, the answer is a FormatError, soon, and without much memory."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

import decode as reference
import forge
import headers
import numpy as np
import planes
import pytest
import sections
from forge import Part
from hypothesis import given, settings
from hypothesis import strategies as st
from victims import check, encoded, healed, larger, plain, small, tiny

from netweight import kernels
from netweight.archive import Archive
from netweight.codecs.base import index_of
from netweight.errors import FormatError, UsageError

pytestmark = pytest.mark.core

ATTACKS = [
    pytest.param(make, text, id=f"{module.__name__}: {name}")
    for module in (headers, sections, planes)
    for name, make, text in module.ATTACKS
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damage") / "file.nwt"


@pytest.mark.parametrize(
    "make", [tiny, small, larger, plain, headers.valid, sections.valid], ids=lambda make: make.__name__
)
def test_undamaged(make, place):
    check(place, make())


def test_attacks_on_planes_begin_with_a_valid_file(place):
    check(place, healed(place, planes.valid()))


# ---- every truncation, every bit


@pytest.mark.parametrize("make", [tiny, small])
def test_every_truncation(make, place):
    data = make()
    for size in range(len(data)):
        with pytest.raises(FormatError):
            check(place, data[:size])


def test_appended_bytes(place):
    data = tiny()
    for more in (b"\0", b"\n", data, bytes(4096)):
        with pytest.raises(FormatError, match="its header and sections need"):
            check(place, data + more)


def survivors(path: Path, data: bytes, bits: Iterable[int]) -> list[int]:
    """Bits whose flip nobody notices."""
    found = []
    for bit in bits:
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            check(path, bytes(broken))
        except FormatError:
            continue
        found.append(bit)
    return found


def test_every_bit(place):
    data = tiny()
    assert len(data) < 1500
    assert survivors(place, data, range(8 * len(data))) == []


@pytest.mark.slow
def test_every_bit_of_a_file_with_everything(place):
    data = small()
    assert survivors(place, data, range(8 * len(data))) == []


@pytest.mark.slow
def test_bits_of_a_larger_file(place):
    data = larger()
    assert survivors(place, data, Random(0).sample(range(8 * len(data)), 2000)) == []


def test_checksums_cover_what_bytes_decode_to(place):
    """Chunks without a byte: what they hold stands in the head, and a head that says another thing is found out."""
    seven, eight = (forge.one("exact", "U8", (4,), planes.words(0, bytes([0, value])), [b""]) for value in (7, 8))
    right = healed(place, seven)
    check(place, right)
    _, (part,) = forge.take_apart(right)
    header, (other,) = forge.take_apart(eight)
    with pytest.raises(FormatError, match="The checksum of a chunk"):
        check(place, forge.put_together(header, [forge.Part(other.rest, part.chunks)]))


@pytest.mark.parametrize("make", [small, larger, plain])
def test_a_wrong_checksum_of_any_chunk(make, place):
    header, parts = forge.take_apart(make())
    for number, part in enumerate(parts):
        for chunk, (data, crc) in enumerate(part.chunks):
            chunks = (*part.chunks[:chunk], (data, crc ^ 1), *part.chunks[chunk + 1 :])
            with pytest.raises(FormatError, match="The checksum of a chunk"):
                check(
                    place,
                    forge.put_together(header, [*parts[:number], forge.Part(part.rest, chunks), *parts[number + 1 :]]),
                )


@pytest.mark.skipif(kernels.backend() != "c", reason="the C library is not in use: there is one way only")
def test_every_byte_of_a_head(place):
    """Changed, left out or put in, with a right checksum of the prelude: together and one by one it means the same."""
    header, parts = forge.take_apart(plain())
    valid = 0
    for number, part in enumerate(parts):
        rest = part.rest
        ends = [
            rest[:at] + bytes(changed) + rest[at + 1 :] for at in range(len(rest)) for changed in _changes(rest[at])
        ]
        for broken in (*ends, rest + b"\0"):
            others = [*parts[:number], forge.Part(broken, part.chunks), *parts[number + 1 :]]
            with contextlib.suppress(FormatError), np.errstate(over="ignore"):
                check(place, forge.put_together(header, others))
                valid += 1
    assert valid > 10  # other factors


def _changes(byte: int) -> list[list[int]]:
    return [[byte ^ 1], [byte ^ 16], [byte ^ 64], [byte ^ 128], [127], [255], [], [byte, 0]]


# ---- plans that ask for what cannot be


@pytest.mark.parametrize("codec", ["trellis", "uniform", "relative"])
@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((0, 3), np.float32), "which is empty"),
        (np.float32([1, np.nan]), "which holds NaN or infinity"),
        (np.float32([np.inf, -np.inf]), "which holds NaN or infinity"),
        (np.float64([1e300, 1]), "which holds NaN or infinity"),
        (np.arange(3), "cannot take 'w', which is of dtype I64"),
    ],
    ids=["empty", "NaN", "infinity", "too large", "integers"],
)
def test_lossy_codecs_refuse(codec, array, text):
    with pytest.raises(UsageError, match=text):
        encoded({"w": (array, codec, 1)})


@pytest.mark.parametrize(
    ("codec", "knob", "array", "text"),
    [
        (
            "relative",
            8,
            np.float32([0.5, -0.25]),
            "'w': The codec relative takes zeros beside positive numbers only, not -0.25.",
        ),
        ("relative", 23, np.float32([0.5, 0.25]), "'w': The codec relative cannot keep 23 bits of mantissa."),
        ("uniform", -40_000, np.float32([0.5, 0.25]), "'w': The uniform step of knob -40000 is too fine"),
    ],
)
def test_a_knob_that_does_not_fit_is_refused_by_the_name_of_the_tensor(codec, knob, array, text):
    with pytest.raises(UsageError, match=re.escape(text)) as caught:
        encoded({"w": (array, codec, knob)})
    assert caught.value.remedy.startswith("Take a")


@pytest.mark.parametrize("codec", ["trellis", "uniform"])
@pytest.mark.parametrize("heavy", [False, True])
def test_what_is_beyond_float32_is_infinity(codec, heavy, place):
    """A factor that is too large by damage decodes as IEEE 754 has it, by all readers alike."""
    random = np.random.default_rng(5)
    weights = random.standard_t(1.5, 400) if heavy else random.standard_normal(400)  # with escapes or without
    header, (part,) = forge.take_apart(encoded({"w": (weights.astype(np.float32), codec, index_of(0.5))}))
    assert part.rest[:1] == b"\x01"
    huge = Part(forge.scale(3e38) + part.rest[5:], part.chunks)
    place.write_bytes(forge.put_together(header, [huge]))
    with Archive.open(place) as archive:
        found, out = archive["w"], np.zeros(400, np.float32)
        archive.fill({"w": out})
        archive.check()
    assert np.isinf(found).any()
    assert np.isfinite(found).any()
    assert not np.isnan(found).any()
    assert found.tobytes() == out.tobytes() == reference.decode(place)["w"].tobytes()


# ---- attacks


@pytest.mark.parametrize(("make", "text"), ATTACKS)
def test_attack(make, text, place):
    with pytest.raises(FormatError, match=text) as caught:
        check(place, make())
    assert caught.value.remedy
    assert "\n" not in caught.value.fact


MEMORY = """
import resource, sys
from pathlib import Path
from netweight.archive import Archive
from netweight.errors import FormatError
for path in sys.argv[2:3]:
    Archive.open(path).check()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[3:]:
    try:
        Archive.open(path).check()
    except FormatError:
        continue
    sys.exit(path + " was accepted")
"""


def in_little_memory(files: list[Path], limit_bytes: int) -> None:
    """Open and verify files, the first of which is valid, in a process that may allocate only so much."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(limit_bytes), *map(str, files)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux does")
def test_attacks_in_little_memory(tmp_path):
    files = [tmp_path / "valid.nwt"]
    files[0].write_bytes(tiny())
    for number, param in enumerate(ATTACKS):
        files.append(tmp_path / f"{number}.nwt")
        files[-1].write_bytes(param.values[0]())
    in_little_memory(files, 256 << 20)
    with pytest.raises(AssertionError, match="MemoryError"):
        in_little_memory(files, 1 << 20)
    with pytest.raises(AssertionError, match="was accepted"):
        in_little_memory([files[0], files[0]], 256 << 20)


# ---- random damage behind checksums that are right


@pytest.fixture(scope="module")
def files_to_break() -> list[bytes]:
    return [small(), larger(), headers.valid(), plain()]


@settings(max_examples=300)
@given(random=st.randoms(use_true_random=True), which=st.integers(0, 3))
def test_random_damage(random, which, files_to_break, place):
    """Either the damage is found, or the file is another valid one; there is no third."""
    data = forge.mutate(random, files_to_break[which])
    with contextlib.suppress(FormatError):
        check(place, healed(place, data))


def test_random_damage_gets_far(files_to_break, place):
    """Mutations reach all parts of a file, and both decoders agree on the files that stay valid."""
    random = Random(2)
    seen = set()
    for turn in range(300):
        try:
            check(place, healed(place, forge.mutate(random, files_to_break[turn % 4])))
        except FormatError as error:
            seen.add(error.fact.split()[1])
        else:
            seen.add("valid")
            with Archive.open(place) as archive:
                found = reference.decode(place)
                assert [(name, array.tobytes()) for name, array in archive.items()] == [
                    (name, array.tobytes()) for name, array in found.items()
                ]
    assert {"header", "section", "chunk", "valid"} <= seen


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux does")
def test_random_damage_in_little_memory(files_to_break, tmp_path, place):
    random = Random(1)
    files = [tmp_path / "valid.nwt"]
    files[0].write_bytes(tiny())
    for turn in range(200):
        data = healed(place, forge.mutate(random, files_to_break[turn % 4]))
        try:
            check(place, data)
        except FormatError:
            files.append(tmp_path / f"{turn}.nwt")
            files[-1].write_bytes(data)
    assert len(files) > 100
    in_little_memory(files, 256 << 20)
