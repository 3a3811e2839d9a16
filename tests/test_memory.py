"""Peak memory of sweep and encode: bounded by the largest layer's statistics and twice the largest tensor."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from netweight import kernels
from netweight.checkpoint.infos import TensorInfo
from netweight.checkpoint.safetensors_io import write_safetensors
from netweight.freed import TRIM
from netweight.importance.core import Importance
from netweight.importance.record import Record
from netweight.importance.sums import Sums
from netweight.single import LAPACK

SHAPES = {"embedding": (49_152, 256), "wide": (64, 1024), **{f"small.{j}": (256, 256) for j in range(6)}}
# What a process keeps beside arrays: two threads' work space of BLAS, the interpreter's objects and small blocks.
BESIDE_BYTES = 32e6
CHILD = """
import sys
import netweight.cli.run, netweight.pipeline
from netweight.cli import main
def peak():
    with open("/proc/self/status") as status:
        return 1024 * int(status.read().partition("VmHWM:")[2].split()[0])
idle = peak()
code = main(sys.argv[1:])
print(code, peak() - idle, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> tuple[Path, Path, float]:
    """A checkpoint with one dominant tensor, its importance, and the bound."""
    folder, random = tmp_path_factory.mktemp("memory"), np.random.default_rng(0)
    weights = {name: (random.standard_normal(shape) / 16).astype(np.float32) for name, shape in SHAPES.items()}
    entries = {}
    for name, (rows, columns) in SHAPES.items():
        x = random.standard_normal((2, 2 * columns, columns)) * np.linspace(0.2, 2, columns)
        outputs = random.uniform(0.5, 2, (2, rows))
        entries[name] = (Sums((rows, columns), np.swapaxes(x, 1, 2)[:, None] @ x[:, None], outputs, (500.0, 500.0)),)
    importance = Importance(entries, Record(samples=1000, predictions=1000.0))
    importance.save(folder / "importance")
    infos = [(TensorInfo(name, "F32", w.shape), lambda w=w: w) for name, w in weights.items()]
    write_safetensors(folder / "x.safetensors", infos)
    largest = 4 * max(math.prod(shape) for shape in SHAPES.values())
    return folder / "x.safetensors", folder / "importance", max(map(importance.nbytes, entries)) + 2 * largest


@pytest.mark.skipif(kernels.backend() != "c", reason="the NumPy path takes minutes")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_the_peak_is_bounded_by_the_largest_layer(network, tmp_path):
    checkpoint, importance, bound = network
    plan, out = tmp_path / "plan.json", tmp_path / "out.nwt"
    given = [checkpoint, "--importance", importance, "--workers", "2", "--quiet"]
    sweep = peak_above_idle("plan", *given, "--bits=2.2", "-o", plan)
    encode = peak_above_idle("compress", *given, "--plan", plan, "-o", out)
    assert out.stat().st_size < 5e6
    assert sweep <= bound + BESIDE_BYTES, f"{sweep / 1e6:.0f} MB, bound {bound / 1e6:.0f}"
    assert encode <= bound + BESIDE_BYTES, f"{encode / 1e6:.0f} MB, bound {bound / 1e6:.0f}"


@pytest.mark.skipif(kernels.backend() != "c", reason="the NumPy path takes minutes")
@pytest.mark.skipif(TRIM is None or LAPACK is None, reason="memory that is freed stays, or double precision is taken")
def test_a_wide_layer_is_worked_on_in_less_than_twice_its_sums(tmp_path):
    """LAPACK's copy, work space and eigenvectors are two and a half of its sums in double precision."""
    rows, columns = 64, 1536
    random = np.random.default_rng(0)
    w = (random.standard_normal((rows, columns)) / 16).astype(np.float32)
    x = random.standard_normal((2, 512, columns))
    inputs = (np.swapaxes(x, 1, 2) @ x)[:, None] + 256 * np.eye(columns)
    sums = Sums((rows, columns), inputs, random.uniform(0.5, 2, (2, rows)), (500.0, 500.0))
    importance, out, plan = tmp_path / "importance", tmp_path / "out.nwt", tmp_path / "plan.json"
    Importance({"w": (sums,)}, Record(samples=1000, predictions=1000.0)).save(importance)
    write_safetensors(tmp_path / "x.safetensors", [(TensorInfo("w", "F32", w.shape), lambda: w)])
    given = [tmp_path / "x.safetensors", "--importance", importance, "--quiet"]
    for command in (["plan", *given, "--bits=2.2", "-o", plan], ["compress", *given, "--plan", plan, "-o", out]):
        peak = peak_above_idle(*command)
        assert peak < 1.95 * inputs.nbytes, f"{command[0]}: {peak / inputs.nbytes:.2f} times its sums"


def peak_above_idle(*command: object) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )
    code, peak = done.stderr.splitlines()[-1].split()
    assert code == "0", done.stderr
    return int(peak)
