"""What calibration costs: the page says what was measured, and the promises follow from it."""

import json

import pytest
from benchmarks import cost
from benchmarks.claims import judge


def records(*, encode_s=10.0, encode_bytes=200e6):
    """Stages of a run."""
    about = {"bytes": 250, "weights": 1000, "largest_tensor_bytes": 50e6, "largest_sums_bytes": 40e6,
             "all_sums_bytes": 300e6, "idle_bytes": 60e6}  # fmt: skip
    taken = {"measure": (20.0, 400e6), "sweep": (15.0, 190e6), "encode": (encode_s, encode_bytes)}
    return [
        *(
            {"stage": stage, **about, "wall_s": s, "cpu_s": 2 * s, "peak_bytes": peak}
            for stage, (s, peak) in taken.items()
        ),
        {"stage": "NNCodec", "qp": -20, "bytes": 300, "weights": 1000, "wall_s": 8.0, "cpu_s": 8.0, "peak_bytes": 1e9},
    ]  # fmt: skip


def outcomes(found):
    return [v.outcome for v in judge({"cost": {"records": found}}) if v.section == "cost"]


def test_promises_are_kept_or_broken_by_what_was_measured():
    assert outcomes(records()) == ["PASS", "PASS", "PASS"]
    assert outcomes(records(encode_s=13.0)) == ["PASS", "PASS", "PASS"]
    assert outcomes(records(encode_s=13.1)) == ["FAIL", "PASS", "PASS"]
    assert outcomes(records(encode_bytes=200.1e6)) == ["PASS", "FAIL", "PASS"]
    assert outcomes([]) == ["NOT MEASURED"] * 3
    assert outcomes(records()[1:]) == ["NOT MEASURED", "PASS", "NOT MEASURED"]


def test_its_part_of_the_page():
    text = cost.write({"records": records()}, lambda head, rows: json.dumps([head, rows]), lambda _: "stamp")
    assert '["sweep", "15.0", "30.0", "190", "60"]' in text
    assert "2.000 bits/weight, NNCodec's 2.400" in text


@pytest.mark.parametrize("stage", cost.IDLE)
def test_what_is_idle_imports(stage):
    pytest.importorskip("torch")
    exec(cost.IDLE[stage], {})
