"""Every experiment runs, its claim holds with another seed, and its files are complete."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    "waterfilling", "tightness", "universal_price", "relu_pruning", "relu_centroids", "perturbation",
    "laplacian_curves", "zero_rate", "surp_rule", "ladder_rate",
)  # fmt: skip


def module(name: str):
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"experiments.{name}")


@pytest.mark.parametrize("name", [*QUICK, pytest.param("scalar_references", marks=pytest.mark.slow)])
def test_the_claim_holds_with_another_seed(name, tmp_path):
    result = module(name).run(1)
    assert result.verdict.startswith("holds: "), result.verdict
    module("figures").write(name, result, 1, tmp_path)
    comment, *lines = (tmp_path / f"{name}.csv").read_text().splitlines()
    rows = list(csv.reader(lines))
    assert f"experiments.{name} --seed 1" in comment
    assert len(rows) > 3
    assert {len(row) for row in rows} == {len(rows[0])}
    assert (tmp_path / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_all_names_every_experiment():
    files = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    shared = {"__init__", "all", "figures", "networks", "paper1", "parts", "retraining", "vgg"}
    runs = module("all")
    assert set(runs.RUNS) | set(runs.NETWORK_RUNS) | {"laplacian_weights"} == files - shared


def test_the_same_seed_gives_the_same_files(tmp_path):
    for folder in ("one", "two"):
        module("figures").write("tightness", module("tightness").run(0), 0, tmp_path / folder)
    for name in ("tightness.csv", "tightness.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_missing_networks_are_said_loudly_and_present_ones_are_fitted(tmp_path):
    weights = module("laplacian_weights")
    line = weights.report(tmp_path, 0, tmp_path)
    assert line.startswith("SKIPPED: no .safetensors file below")
    assert "--data" in line
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    save_file({"a": rng.laplace(size=(80, 80)), "b": rng.normal(size=(80, 80))}, tmp_path / "net.safetensors")
    assert weights.run(tmp_path, 0) is None, "float64 is not a weight format of these networks"
    tensors = {"a": rng.laplace(size=(80, 80)), "b": rng.normal(size=(80, 80)), "bias": rng.normal(size=80)}
    save_file({k: v.astype(np.float32) for k, v in tensors.items()}, tmp_path / "net.safetensors")
    columns = weights.run(tmp_path, 0).columns
    assert len(columns["layer"]) == 2
    assert columns["shape"][0] == pytest.approx(1, abs=0.1)
    assert columns["shape"][1] == pytest.approx(2, abs=0.2)
    assert columns["log2_laplacian"][0] > columns["log2_gaussian"][0]
    assert columns["log2_laplacian"][1] < columns["log2_gaussian"][1]
