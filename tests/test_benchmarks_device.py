"""Feedback by C and by torch: both are timed on the same layer, and the page says what was found."""

import json

import pytest
from benchmarks import device


def test_a_small_layer_is_timed_and_written(monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    from netweight import kernels_torch

    monkeypatch.setattr(device, "SHAPE", (64, 96))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    records = device.measure(None)
    ours = [r for r in records if r["device"] == "C" and r["what"] != "alone"]
    assert {(r["codec"], r["outputs"], r["what"]) for r in ours} == {
        (codec, outputs, what)
        for codec, outputs in (("feedback", "none"), ("feedback", "full"), ("feedback-scalar", "none"))
        for what in ("sweep", "encode")
    }
    assert all(r["differ"] == 0 and r["cpu_s"] > 0 for r in ours)
    alone = {r["device"]: r for r in records if r["what"] == "alone"}
    assert 0 < alone["C"]["step_s"] < alone["cpu"]["step_s"] < 1e-2
    assert 0 < alone["C"]["few_s"] < alone["C"]["many_s"] < 1e-1
    text = device.write({"records": records}, lambda head, rows: json.dumps([head, rows]), lambda _: "stamp")
    assert '["feedback-scalar", "none", "encode", ' in text
    assert "of 6,144" in text
    assert device.MANY == kernels_torch.MANY
    assert ("No CUDA device was there" in text) == ("cuda" not in alone)
