"""The benchmarks' own arithmetic: the search for equal SNR, the verdicts, the page, and what a process takes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.claims import judge
from benchmarks.page import render
from benchmarks.process import run
from benchmarks.search import match_snr

SETTING = {
    "date": "2026-11-22 04:00 UTC",
    "machine": {"processor": "P", "cores": 2, "memory_bytes": 8 * 10**9, "system": "Linux"},
    "load_before": 0.1,
    "load_after": 0.2,
    "versions": {"netweight": "0.1.0"},
}


def section(*records):
    return {**SETTING, "records": list(records)}


def rate_point(
    network="resnet20", scope="matrices", *, weights=268_336, rival=117_538, own=115_000, snr=22.33, how="equal", qp=-24
):
    return {
        "network": network,
        "scope": scope,
        "weights": weights,
        "nncodec": {"qp": qp, "bytes": rival, "snr_db": snr},
        "netweight": {"bytes": own, "snr_db": snr - 0.1 * (how == "nearest"), "how": how, "codecs": {"trellis": 20}},
    }


def outcome(results, start):
    return next(v.outcome for v in judge(results) if v.promise.startswith(start))


class TestSearch:
    def test_a_smooth_coder_is_matched_by_one_file(self):
        asked = []

        def measure(bits):
            asked.append(bits)
            return round(1e6 * bits), 6.02 * bits + 1.3 + 0.2 * np.sin(bits)

        match = match_snr(measure, 20.0, 4.0)
        assert match.how == "equal"
        assert abs(match.snr_db - 20.0) < 0.02
        assert len(asked) <= 5
        assert [m.asked_bits for m in match.files] == asked

    def test_a_coder_with_steps_is_matched_between_two_files(self):
        def measure(bits):
            return round(1e6 * bits), 6.0 * round(bits * 24) / 24  # steps of 0.25 dB

        match = match_snr(measure, 18.1, 3.5)
        assert match.how == "between"
        around = sorted(m.snr_db for m in match.files)
        assert around[0] < 18.1 < around[-1]
        assert 2.9e6 < match.bytes < 3.1e6

    def test_wide_steps_are_no_comparison(self):
        match = match_snr(lambda bits: (round(1e6 * bits), 6.0 * round(bits)), 20.0, 3.3)
        assert match.how == "nearest"

    def test_few_files(self):
        count = 0

        def measure(bits):
            nonlocal count
            count += 1
            return 1000, float(np.random.default_rng(count).normal(20, 5))

        match_snr(measure, 20.0, 3.0, files=5)
        assert count <= 5


class TestVerdicts:
    def test_nothing_measured(self):
        assert {v.outcome for v in judge({})} == {"NOT MEASURED"}

    @pytest.mark.parametrize(("own", "verdict"), [(115_719, "PASS"), (115_721, "FAIL")])
    def test_resnet_at_its_limit(self, own, verdict):
        assert outcome({"rate": section(rate_point(own=own))}, "ResNet-20 matrices") == verdict

    def test_a_worse_file_is_no_evidence(self):
        results = {"rate": section(rate_point(own=100_000, how="nearest"))}
        assert outcome(results, "ResNet-20 matrices") == "NOT MEASURED"

    def test_complete_resnet_is_not_judged_by_the_matrices(self):
        results = {"rate": section(rate_point(own=117_000))}
        assert outcome(results, "complete ResNet-20") == "NOT MEASURED"
        results = {"rate": section(rate_point(scope="complete", own=117_000, rival=128_829))}
        assert outcome(results, "complete ResNet-20") == "PASS"

    @pytest.mark.parametrize(("worst", "verdict"), [(0.979, "PASS"), (0.981, "FAIL")])
    def test_two_percent_at_three_points(self, worst, verdict):
        sizes = [(1_000_000, 0.96), (1_500_000, worst), (2_000_000, 0.95)]
        points = [rate_point("minilm", weights=4_000_000, rival=size, own=size * share) for size, share in sizes]
        assert outcome({"rate": section(*points)}, "all-MiniLM-L6-v2 matrices") == verdict
        assert outcome({"rate": section(*points[:2])}, "all-MiniLM-L6-v2 matrices") == "NOT MEASURED"

    @pytest.mark.parametrize(("bits", "verdict"), [(10.59, "PASS"), (10.61, "FAIL")])
    def test_lossless(self, bits, verdict):
        records = [
            {"dtype": "BF16", "method": m, "bits_per_weight": b}
            for m, b in [("netweight exact", bits), ("ZipNN", 10.64)]
        ]
        assert outcome({"lossless": section(*records)}, "all-MiniLM-L6-v2 cast to BF16") == verdict

    def test_speed_is_the_worst_rate(self):
        records = [{"coder": "limit, warm memory", "weights_per_s": 5e9}]
        for bits, speed in ((2.2, 1.1e9), (3.0, 0.99e9)):
            records.append({"coder": "uniform", "asked_bits": bits, "weights_per_s": speed})
            records.append({"coder": "NNCodec", "asked_bits": bits, "weights_per_s": 15e6})
        results = {"speed": section(*records)}
        assert outcome(results, "uniform decodes at 20 %") == "FAIL"
        assert outcome(results, "... into new arrays") == "NOT MEASURED"
        assert outcome(results, "uniform decodes at 20x") == "PASS"
        assert outcome(results, "trellis") == "NOT MEASURED"

    def test_speed_of_like_against_like(self):
        records = [
            {"coder": f"limit, {kind} memory", "weights_per_s": s} for kind, s in (("warm", 5e9), ("fresh", 2e9))
        ]
        speeds = {"weights_per_s": 0.39e9, "weights_per_cpu_s": 0.41e9, "warm_weights_per_cpu_s": 0.99e9}
        records.append({"coder": "uniform", "asked_bits": 3.0, **speeds})
        results = {"speed": section(*records)}
        assert outcome(results, "uniform decodes at 20 %") == "FAIL"
        assert outcome(results, "... into new arrays") == "PASS"

    def test_encode(self):
        own = {"coder": "netweight", "asked_bits": 3.0, "wall_s": 5.0, "peak_bytes": 310, "input_bytes": 100}
        rival = {**own, "coder": "NNCodec", "wall_s": 11.0, "peak_bytes": 1200}
        results = {"encode": section(own, rival)}
        assert outcome(results, "all-MiniLM-L6-v2 end to end") == "PASS"
        assert outcome(results, "... in under 3x") == "FAIL"

    def test_overhead_is_the_worst_tensor(self):
        records = [
            {
                "tensor": t,
                "codec": "uniform",
                "weights": 2_000_000,
                "asked_bits": 3.0,
                "model_bytes": 10**6,
                "entropy_bytes": 999_000,
                "coded_bytes": coded,
            }
            for t, coded in (("a", 1_004_000), ("b", 1_006_000))
        ]
        assert outcome({"overhead": section(*records)}, "the coder adds") == "FAIL"
        assert outcome({"overhead": section(records[0])}, "the coder adds") == "PASS"


def test_ideal_cost_of_a_known_source():
    from benchmarks.overhead import ideal_bits

    from netweight.entropy.layout import Layout, Levels
    from netweight.entropy.stream import IntStream

    rng = np.random.default_rng(0)
    k = rng.choice(np.array([-1, 0, 1], np.int32), 1 << 17, p=[0.25, 0.5, 0.25])
    model, entropy = ideal_bits(IntStream(k, Layout(1, k.size), Levels(8)), 0)
    assert entropy == pytest.approx(1.5 * k.size, rel=1e-3)
    assert entropy <= model < 1.01 * entropy


class TestPage:
    def test_every_section_of_the_results_has_its_table(self):
        results = {
            "rate": section(rate_point(), rate_point(scope="complete", qp=-24, rival=128_829)),
            "start": section(
                {"command": "netweight --help", "runs": 15, "median_s": 0.2, "fastest_s": 0.19, "slowest_s": 0.3}
            ),
        }
        page = render(copy.deepcopy(results))
        assert "| -24 | 22.33 | 117,538 | 3.504 | 115,000 | 3.429 | -2.16 % | equal | trellis 20 |" in page
        assert "| netweight --help | 15 | 0.200 | 0.190 | 0.300 |" in page
        assert "complete checkpoint: 268,336 weights" in page

    def test_a_nearest_file_shows_how_far_it_is(self):
        assert "nearest, -0.10 dB" in render({"rate": section(rate_point(how="nearest"))})


class TestProcess:
    def test_memory_and_seconds_of_a_child(self):
        code = "b = bytearray(80_000_000); b[::4096] = b'x' * len(b[::4096]); print('done')"
        outcome = run([sys.executable, "-c", code])
        assert outcome.stdout == "done\n"
        assert 80e6 < outcome.peak_bytes < 200e6
        assert 0 < outcome.cpu_s < 10
        assert outcome.wall_s > 0

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of children is read from /proc")
    def test_memory_of_grandchildren_counts(self):
        inner = "b = bytearray(80_000_000); b[::4096] = b'x' * len(b[::4096]); import time; time.sleep(0.3)"
        twice = f"[subprocess.Popen([sys.executable, '-c', {inner!r}]) for _ in '12']"
        outer = f"import subprocess, sys; [p.wait() for p in {twice}]"
        assert run([sys.executable, "-c", outer]).peak_bytes > 160e6

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere the kernel's own count is taken")
    def test_memory_of_the_parent_does_not_count(self):
        ballast = bytearray(300_000_000)
        ballast[::4096] = b"x" * len(ballast[::4096])
        assert run([sys.executable, "-c", "import time; time.sleep(0.2)"]).peak_bytes < 50e6

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_what_a_fork_shares_counts_once(self):
        code = "import os, time; b = bytearray(80_000_000); b[::4096] = b'x' * len(b[::4096])\n"
        code += "if os.fork(): os.wait()\nelse: time.sleep(0.3); os._exit(0)"
        assert 80e6 < run([sys.executable, "-c", code]).peak_bytes < 150e6

    def test_failure_is_raised(self):
        with pytest.raises(subprocess.CalledProcessError):
            run([sys.executable, "-c", "raise SystemExit(3)"])


def test_snr_of_a_known_error(tmp_path):
    from benchmarks.networks import same_tensors, snr_db
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors = {"matrix": rng.normal(size=(64, 32)).astype(np.float32), "bias": np.full(32, 100, np.float32)}
    original = tmp_path / "model.safetensors"
    save_file(tensors, original)
    changed = {"matrix": tensors["matrix"] * np.float32(0.9), "bias": tensors["bias"]}
    restored = tmp_path / "restored.safetensors"
    save_file(changed, restored)
    assert snr_db(original, restored, axes=2) == pytest.approx(20.0, abs=1e-4)
    assert snr_db(original, restored) > 40
    assert snr_db(original, changed, axes=2) == pytest.approx(20.0, abs=1e-4)
    assert snr_db(original, original) == float("inf")
    assert same_tensors(original, original)
    assert not same_tensors(original, restored)


def test_derived_checkpoints(tmp_path, monkeypatch):
    from benchmarks.networks import bf16_cast, float_weights, matrices
    from safetensors.numpy import save_file

    from netweight.checkpoint import open_checkpoint

    monkeypatch.setenv("NETWEIGHT_RIVALS", str(tmp_path / "cache"))
    source = tmp_path / "model.safetensors"
    save_file({"w": np.ones((4, 3), np.float32), "b": np.ones(3, np.float32), "n": np.ones((2, 2), np.int64)}, source)
    assert float_weights(source) == 15
    with open_checkpoint(matrices(source)) as checkpoint:
        assert set(checkpoint.infos) == {"w"}
    with open_checkpoint(bf16_cast(source)) as checkpoint:
        assert {name: info.dtype for name, info in checkpoint.infos.items()} == {"w": "BF16", "b": "BF16", "n": "I64"}
        assert checkpoint.read("w").tobytes() == b"\x80\x3f" * 12
