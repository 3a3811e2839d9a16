"""Golden files: the package, with C and with NumPy, and the reference decoder give the recorded bits, for ever."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coder
import decode as reference
import numpy as np
import pytest

import netweight as nw
from netweight import kernels
from netweight.archive import Archive
from netweight.archive.header import MAJOR
from netweight.dtypes import ALIGNMENT_ORDER

pytestmark = pytest.mark.core

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
EXPECTED = {
    path.with_name(name): record
    for path in sorted(GOLDEN.glob("v*/expected.json"))
    for name, record in json.loads(path.read_text(encoding="utf-8")).items()
}
FILES = [pytest.param(path, id=f"{path.parent.name}/{path.name}") for path in EXPECTED]


def hashes(tensors: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Shape and sha256 of each tensor."""
    return {
        name: [list(array.shape), hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()]
        for name, array in tensors.items()
    }


def recorded(path: Path) -> dict[str, list[Any]]:
    """What `hashes` has to give for a golden file."""
    with Archive.open(path) as archive:
        shapes = {name: list(info.storage_shape) for name, info in archive.infos.items()}
    return {name: [shapes[name], sha256] for name, (_, _, sha256) in EXPECTED[path]["tensors"].items()}


def test_every_version_has_a_set():
    assert {path.parent.name for path in EXPECTED} == {f"v{version}" for version in range(1, MAJOR + 1)}
    assert set(EXPECTED) == set(GOLDEN.glob("v*/*.nwt"))


@pytest.mark.parametrize("path", FILES)
def test_file_is_as_it_was_written(path):
    assert hashlib.sha256(path.read_bytes()).hexdigest() == EXPECTED[path]["sha256"]


@pytest.mark.parametrize("path", FILES)
def test_package(path):
    with Archive.open(path) as archive:
        archive.check()
        assert hashes(archive) == recorded(path)
        dtypes = {name: [info.dtype, list(info.shape)] for name, info in archive.infos.items()}
        layout = [[g.file, g.prefix, g.tensors, dict(g.metadata)] for g in archive.layout]
        found = {"ties": archive.ties, "metadata": archive.metadata, "layout": layout}
    assert dtypes == {name: entry[:2] for name, entry in EXPECTED[path]["tensors"].items()}
    assert found == {key: EXPECTED[path][key] for key in found}


@pytest.mark.parametrize("path", FILES)
def test_reference(path):
    assert hashes(reference.decode(path)) == recorded(path)


OTHER_PATH = """
import hashlib, json, sys
from netweight import kernels
from netweight.archive import Archive
found = {"backend": kernels.backend()}
for path in sys.argv[1:]:
    with Archive.open(path) as archive:
        found[path] = {name: [list(a.shape), hashlib.sha256(a.tobytes()).hexdigest()] for name, a in archive.items()}
print(json.dumps(found))
"""


def in_numpy(paths: list[Path]) -> dict[str, Any]:
    """What a process without the C library finds in files."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PATH, *map(str, paths)],
        env=os.environ | {"NETWEIGHT_KERNELS": "numpy"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("backend") == "numpy"
    return found


def test_numpy_path():
    found = in_numpy(list(EXPECTED))
    assert found == {str(path): recorded(path) for path in EXPECTED}


def test_one_tensor_alone():
    """A tensor does not depend on what was decoded before it."""
    for path in EXPECTED:
        for name, (_, sha256) in recorded(path).items():
            with Archive.open(path) as archive:
                assert hashlib.sha256(archive[name].tobytes()).hexdigest() == sha256


def test_the_set_covers_the_format():
    """Every codec, every dtype, every way of storing one, and everything a head of weights can say."""
    seen: set[str] = set()
    for path in GOLDEN.glob(f"v{MAJOR}/*.nwt"):
        with Archive.open(path) as archive:
            seen |= {info.dtype for info in archive.infos.values()}
            seen |= {"ties"} & {key for key in ("ties",) if archive.ties}
            for number, section in enumerate(archive.header.sections):
                opened = archive.section(number)
                seen.add(section.codec)
                seen |= {f"{section.codec} in pieces"} & {f"{section.codec} in pieces" for _ in opened.chunks[1:]}
                seen |= head_facts(section.codec, opened)
    wanted = {*ALIGNMENT_ORDER, "ties"}
    for codec in ("trellis", "uniform", "relative"):
        wanted |= {codec, f"{codec} in pieces", f"{codec} with escapes"}
    wanted |= {"surp", "surp in pieces", "surp with escapes", "surp koi", "surp oki", "surp by row"}
    for codec in ("trellis", "uniform"):
        wanted |= {f"{codec} {what}" for what in ("with neighbours", "without", "by row", "by column", "koi")}
    wanted |= {"codebook", "codebook oki", "codebook koi", "codebook with escapes", "codebook by row"}
    wanted |= {"sparse", "sparse oki", "sparse koi", "sparse with escapes", "sparse by row"}
    wanted |= {"trellis oki", "uniform with low bits", "relative with low bits", "exact", "exact in pieces"}
    wanted |= {f"exact, way {way}" for way in range(4)} | {"palette", "differences", "special words", "tails"}
    wanted |= (
        {f"filter {how}" for how in range(3)} | {f"field {kind}" for kind in range(4)} | {"fine slots", "coarse slots"}
    )
    assert wanted - seen == set()


def head_facts(codec: str, opened: Any) -> set[str]:
    """What a section's head makes use of."""
    if codec == "exact":
        inner = opened._planes.inner
        facts = {f"exact, way {opened._planes.way}"}
        if hasattr(inner, "filters"):
            facts |= {f"filter {how}" for how in inner.filters} | {f"field {field.kind}" for field in inner.fields}
            facts |= {"palette"} if inner.palette is not None else set()
            facts |= {"differences"} if inner.index_delta else set()
        elif inner is not None:
            fields = [inner.symbols, *(field for fields in inner.rest for field in fields)]
            facts |= {f"field {field.kind}" for field in fields}
            facts |= {"special words"} if inner.alphabet.specials else set()
            facts |= {"fine slots"} if inner.alphabet.fine else set()
            facts |= {"coarse slots"} if inner.alphabet.below + inner.alphabet.above else set()
            facts |= {"tails"} if inner.tails is not None else set()
        return facts
    head = opened.head
    facts = {f"{codec} {layout.order}" for layout in head.layouts}
    facts.add(f"{codec} with neighbours" if head.model.levels > 1 else f"{codec} without")
    facts |= {f"{codec} with escapes"} if head.escapes else set()
    facts |= {f"{codec} with low bits"} if any(head.shifts) else set()
    facts |= {f"{codec} by row"} if any(levels.row is not None for levels in head.levels) else set()
    facts |= {f"{codec} by column"} if any(levels.column is not None for levels in head.levels) else set()
    return facts


def test_a_set_is_written_once():
    done = subprocess.run(
        [sys.executable, str(GOLDEN / "make.py")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert "golden files are written only once" in done.stderr


# ---- the reference decoder


def test_reference_shares_no_code():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "reference").glob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    own = {path.stem for path in (ROOT / "reference").glob("*.py")}
    assert imported <= {*sys.stdlib_module_names, "numpy", *own}
    assert "netweight" not in imported


def test_reference_as_a_program(tmp_path):
    path = GOLDEN / "v1" / "shards.nwt"
    out = tmp_path / "out.npz"
    subprocess.run([sys.executable, str(ROOT / "reference" / "decode.py"), str(path), str(out)], check=True)
    with np.load(out) as found:
        assert hashes(found) == recorded(path)


@pytest.mark.parametrize("at", [3, 9, 11, 13, 17, 30, -1, -200])
def test_reference_finds_damage(at, tmp_path):
    data = bytearray((GOLDEN / "v1" / "trellis.nwt").read_bytes())
    data[at] ^= 2
    (tmp_path / "damaged.nwt").write_bytes(data)
    with pytest.raises(coder.Damaged):
        reference.decode(tmp_path / "damaged.nwt")


# ---- a real network


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2.0, 4.0])
def test_real_network(real, tmp_path, bits):
    path = tmp_path / "resnet20.nwt"
    nw.compress(real("cifar10/resnet20.safetensors"), path, bits=bits)
    with Archive.open(path) as archive:
        found = hashes(archive)
    assert hashes(reference.decode(path)) == found
    if kernels.backend() == "c":
        assert in_numpy([path]) == {str(path): found}


@pytest.mark.slow
def test_real_network_without_loss(real, tmp_path):
    path = tmp_path / "resnet20.nwt"
    archive = nw.compress(real("cifar10/resnet20.safetensors"), path, slope=1.0, codecs=["exact"])
    assert hashes(reference.decode(path)) == hashes(archive)
