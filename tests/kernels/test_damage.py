"""Chunks cut, changed or made up: an error code or other symbols, the same on both paths, and no byte out of bounds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import kernels, kernels_numpy
from netweight.errors import FormatError
from netweight.kernels import Segment

pytestmark = pytest.mark.core
ROOT = Path(__file__).parents[2]
needs_c = pytest.mark.skipif(kernels.backend() != "c", reason="the C library is not in use: nothing to compare with")

KINDS = [
    {"lanes": 1},
    {"lanes": 4, "classes": 3},
    {"lanes": 32, "classes": 3},
    {"lanes": 32, "bits": 5},
    {"lanes": 32, "bits": 3, "plane": 40, "classes": 2},
    {"lanes": 32, "plane": 64, "spread": 40.0},
]


def agree(chunk: Any, data: bytes) -> int:
    """Decode on both paths and compare; returns the code."""
    used: int
    used, fine = chunk.decoded(data)
    other, others = chunk.decoded_by_c(data)
    assert used == other
    if used >= 0:
        np.testing.assert_array_equal(fine, others)
    return used


@needs_c
@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation(make: Any, kind: dict[str, Any]) -> None:
    chunk = make(1, [70, 0, 41], **kind)
    data = chunk.encoded()
    codes = [agree(chunk, data[:size]) for size in range(len(data) + 1)]
    assert codes[:-1] == [-1] * len(data)
    assert codes[-1] == len(data)


@needs_c
@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 99), kind=st.sampled_from(KINDS), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7)
)
def test_flipped_bits(make: Any, seed: int, kind: dict[str, Any], where: float, bit: int) -> None:
    chunk = make(seed, [200, 77], **kind)
    data = bytearray(chunk.encoded())
    data[int(where * len(data))] ^= 1 << bit
    agree(chunk, bytes(data))  # now and then other symbols that end well: the archive's checksums are for those


@needs_c
@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), size=st.integers(0, 1200), high=st.integers(1, 256))
def test_made_up_bytes(make: Any, seed: int, kind: dict[str, Any], size: int, high: int) -> None:
    chunk = make(2, [300, 5], **kind)
    data = np.random.default_rng(seed).integers(0, high, size).astype(np.uint8).tobytes()
    agree(chunk, data)


@needs_c
def test_states_below_the_least(make: Any) -> None:
    """Lane states that no encoder leaves behind, down to 0, and words of zeros: lanes starve, nothing hangs."""
    chunk = make(3, [640], classes=2)
    for state in (0, 1, 4095, 65535, 2**32 - 1):
        data = state.to_bytes(4, "little") * 32 + bytes(4000)
        assert agree(chunk, data) < 0


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_of_the_format(make: Any, kind: dict[str, Any]) -> None:
    chunk = make(4, [130], **kind)
    data = kernels.encode(chunk.symbol, chunk.index, chunk.lengths, chunk.lanes, chunk.tables)
    for bad in (b"", data[:3], data[:-1], bytes(len(data)), data[::-1], b"\xff" * len(data)):
        with pytest.raises(FormatError):
            kernels.decode(bad, chunk.lanes, chunk.tables, chunk.model, chunk.segments)


@pytest.mark.parametrize("lanes", [-1, 0, 33])
def test_impossible_lane_counts(make: Any, lanes: int) -> None:
    chunk = make(4, [130])
    with pytest.raises(FormatError):
        kernels.decode(bytes(1000), lanes, chunk.tables, chunk.model, chunk.segments)


def test_small_kernel_planes_are_refused(make: Any) -> None:
    """A neighbour in the same group of lanes is not decoded yet: the format has none, and nothing may look at it."""
    chunk = make(5, [100], plane=32)
    segment = Segment(100, 0, 31, 2, 2)
    with pytest.raises(ValueError, match="31"):
        kernels_numpy.contexts(chunk.k[0], chunk.model, segment)
    with pytest.raises(ValueError, match="31"):
        kernels_numpy.decode(chunk.encoded(), 32, chunk.tables.entries, chunk.model, [segment])


def test_a_class_without_tables_is_refused(make: Any) -> None:
    chunk = make(5, [100], classes=3)
    segment = Segment(100, classes=np.full(100, 3, np.uint8))
    with pytest.raises(ValueError, match="no table among 3"):
        kernels_numpy.decode(chunk.encoded(), 32, chunk.tables.entries, chunk.model, [segment])


def sanitizer() -> tuple[str, str] | None:
    """A compiler with AddressSanitizer, and the library to load first."""
    for compiler in ("gcc", "clang"):
        path = shutil.which(compiler)
        if path and sys.platform == "linux":
            name = "libasan.so" if compiler == "gcc" else "libclang_rt.asan-x86_64.so"
            found = subprocess.run([path, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
            library = Path(found.stdout.strip())
            if library.is_absolute() and library.exists():
                return path, str(library)
    return None


@needs_c
@pytest.mark.slow
@pytest.mark.parametrize("vector", [True, False], ids=["vector", "scalar"])
def test_no_byte_out_of_bounds(tmp_path: Path, vector: bool) -> None:
    """All of the above and more in a process whose memory accesses and arithmetic are watched."""
    found, original = sanitizer(), ROOT / "csrc" / "kernels.c"
    if found is None or not original.exists():
        pytest.skip("no compiler with AddressSanitizer here: memory accesses are not checked")
    compiler, preload = found
    text, guard = original.read_text(encoding="utf-8"), "#if defined(__GNUC__) && defined(__x86_64__)\n"
    assert text.count(guard) == 1
    source, library = tmp_path / "kernels.c", tmp_path / "watched.so"
    source.write_text(text if vector else text.replace(guard, "#if 0\n"), encoding="utf-8")
    flags = ["-g", "-O1", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror"]
    watch = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, *watch, "-I", str(original.parent), str(source), "-o", str(library)], check=True)
    environment = os.environ | {
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(Path(kernels.__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("watched.py")
    done = subprocess.run(
        [sys.executable, str(script), str(library)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith("checked ")
