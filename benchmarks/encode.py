"""Encoding all-MiniLM-L6-v2 end to end, two threads: seconds and memory, against NNCodec's trellis.

netweight is timed as a user runs it, interpreter, reading and writing included; of NNCodec only the call that encodes.
Memory is the peak of the resident set of the whole process.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from . import nncodec, store
from .networks import find, float_weights
from .process import quiet_environment, run

__all__ = ["measure"]

POINTS: Final = ((-20, 2.2), (-24, 3.0), (-28, 4.0))  # qp of NNCodec, bits/weight asked of netweight
_REPEATS: Final = 3


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each coder and rate; the quickest of several runs that take turns, the largest memory."""
    source = find("minilm", options.networks)
    assert source is not None
    records = []
    for qp, bits in POINTS:
        rounds = [(_netweight(source, bits, options.workers), _nncodec(source, qp)) for _ in range(_REPEATS)]
        for runs in zip(*rounds, strict=True):
            best = min(runs, key=lambda run: float(run["wall_s"]))
            best["peak_bytes"] = max(run["peak_bytes"] for run in runs)
            best |= {"weights": float_weights(source), "input_bytes": source.stat().st_size, "asked_bits": bits}
            times = best["peak_bytes"] / best["input_bytes"]
            print(f"{best['coder']} {bits}: {best['wall_s']:.2f} s, {times:.2f}x the input", flush=True)
            records.append(best)
    return records


def _netweight(source: Path, bits: float, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "out.nwt"
        command = [sys.executable, "-m", "netweight", "compress", source, "-o", packed, f"--bits={bits}"]
        outcome = run([*command, f"--workers={workers}", "--quiet"], quiet_environment())
        taken = {"bytes": packed.stat().st_size, "wall_s": outcome.wall_s, "cpu_s": outcome.cpu_s}
        return {"coder": "netweight", "workers": workers, **taken, "peak_bytes": outcome.peak_bytes}


def _nncodec(source: Path, qp: int) -> dict[str, Any]:
    rival = nncodec.code(source, qp)
    memory = {"peak_bytes": rival["peak_bytes"], "idle_peak_bytes": rival["idle_peak_bytes"]}
    return {"coder": "NNCodec", "qp": qp, "workers": 1, "bytes": rival["bytes"], **rival["encode"], **memory}


if __name__ == "__main__":
    from .page import finish

    finish("encode", measure, store.arguments(__doc__))
