"""The bound of a layer alone, and that each method does what it is said to do."""

import argparse
import json

import numpy as np
import pytest
from benchmarks import layer_gap

from netweight.importance.stat import Stat


@pytest.fixture(scope="module")
def layer():
    """Gaussian rows, correlated inputs."""
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 32)) * np.exp(random.normal(0, 1, 32)) + random.standard_normal((400, 1))
    w = random.standard_normal((256, 32)).astype(np.float32)
    return layer_gap.Layer(w, Stat(inputs=(x.T @ x / 400)[None]))


def test_the_bound_is_that_of_white_inputs_where_they_are_white():
    w = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
    w /= np.sqrt(np.mean(np.square(w)))
    white = layer_gap.Layer(w, Stat(inputs=np.eye(16)[None]))
    assert layer_gap.bound_bits(white, 16 * 2.0**-6) == pytest.approx(3.0, abs=1e-6)
    assert layer_gap.bound_bits(white, 16 * 2.0**-6, rows=True) < 3.0  # Jensen


def test_methods_come_in_their_order_and_none_below_the_bound(layer):
    above = {}
    for method, code in layer_gap.METHODS.items():
        bits, loss = code(layer, 3.0)
        assert 2.4 < bits < 4.0
        above[method] = bits - layer_gap.bound_bits(layer, loss)
    assert min(above.values()) > 0
    order = ["feedback", "feedback-scalar", "CERWU's objective", "GPTQ + entropy", "rounding + entropy"]
    gaps = [above[method] for method in order]
    assert gaps == sorted(gaps)
    assert above["GPTQ largest first + entropy"] < above["GPTQ + entropy"]


def test_a_rounding_rival_is_plain_rounding(layer):
    """Without feedback the loss is that of w rounded to the nearest multiple of the step, its scale refitted."""
    w, stat = layer.w, layer.stat
    bits, loss = layer_gap.METHODS["rounding + entropy"](layer, 3.0)
    step = float(np.sqrt(np.mean(np.square(w.astype(np.float64))) * 2 * np.pi * np.e)) / 8
    rounded = np.rint(w / np.float32(step)).astype(np.float64)
    through = rounded @ stat.inputs[0]
    rounded *= np.sum(through * w) / np.sum(through * rounded)
    assert loss == pytest.approx(2 * stat.loss(w, w - rounded) / len(w), rel=1e-3)
    assert bits > 2.9


def test_a_run_goes_on_where_the_last_one_ended(layer, tmp_path, monkeypatch):
    """What was noted by the same version is not measured again; by another, it is."""
    asked = []

    def counted(found, bits):
        asked.append(bits)
        return layer_gap.METHODS["RDO, as DeepCABAC"](found, bits)

    def run(version):
        monkeypatch.setattr(layer_gap.store, "setting", lambda: {"versions": {"netweight": version}})
        return layer_gap.measure(argparse.Namespace(networks=None))

    monkeypatch.setenv("NETWEIGHT_RIVALS", str(tmp_path))
    monkeypatch.setattr(layer_gap, "_layers", lambda key, _: [(key, layer.w, layer.stat)])
    with monkeypatch.context() as patch:
        patch.setattr(layer_gap, "METHODS", {"RDO": layer_gap.METHODS["RDO, as DeepCABAC"]})
        first = run("1 (a)")
    monkeypatch.setattr(
        layer_gap, "METHODS", {"RDO": counted, "RDO, as DeepCABAC": layer_gap.METHODS["RDO, as DeepCABAC"]}
    )
    again = run("1 (a)")
    assert [r for r in again if r["method"] == "RDO"] == first
    assert not asked
    run("1 (b)")
    assert asked == [2.0, 3.0, 4.0] * 2


def test_its_part_of_the_page():
    records = [
        {"network": "minilm", "layer": str(j), "weights": 10 + 20 * j, "method": "feedback", "bits": [2.0, 3.0, 4.0],
         "above_bits": [0.1 + 0.2 * j] * 3, "above_rows_bits": [0.5] * 3}
        for j in range(2)
    ]  # fmt: skip
    text = layer_gap.write({"records": records}, lambda head, rows: json.dumps([head, rows]), lambda _: "stamp")
    assert "all-MiniLM-L6-v2, 2 layers" in text
    assert '"feedback", "+0.200", "+0.200", "+0.200", "+0.250"' in text


def test_promises_are_kept_or_broken_by_the_means():
    records = [{"network": "minilm", "method": "feedback", "above_bits": [gap] * 3} for gap in (0.05, 0.2)]
    verdicts = {text: check(records) for _, text, check in layer_gap.PROMISES}
    found = [verdict for verdict in verdicts.values() if verdict is not None]
    assert found == [(True, "+0.125 at 2, +0.125 at 3, +0.125 at 4 bits, 2 layers")]
    records[0]["above_bits"] = [0.05, 0.05, 0.2]
    assert [v[0] for _, _, check in layer_gap.PROMISES if (v := check(records))] == [False]
