"""Decoding speed in one thread on all-MiniLM-L6-v2, with the conversion limit and NNCodec beside it.

Weights a second, from an opened file to float32 arrays, checksums included, the quickest of several; the
coders take turns, so that all see the same machine. Like is held against like: decoding into arrays that are there
against converting into memory written before, decoding into new arrays against converting into new memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import netweight as nw

from . import nncodec, store
from .limit import conversion_limit
from .networks import find, float_weights, matrices
from .process import run

__all__ = ["measure"]

BITS: Final = (2.2, 3.0, 4.0)
QPS: Final = (-20, -24, -28)  # what NNCodec needs for these rates
CODECS: Final = ("uniform", "trellis")
_ROUNDS: Final = 2
_REPEATS: Final = 9


def measure(options: argparse.Namespace) -> store.Records:
    """One record for the limit, one for each coder and rate."""
    complete = find("minilm", options.networks)
    assert complete is not None
    source = matrices(complete)
    weights = float_weights(source)
    with tempfile.TemporaryDirectory() as scratch:
        files = {(codec, bits): Path(scratch) / f"{codec}-{bits}.nwt" for codec in CODECS for bits in BITS}
        for codec in CODECS:
            _encode(source, codec, {bits: files[codec, bits] for bits in BITS}, options.workers)
        rounds = [_round(source, files) for _ in range(_ROUNDS)]
    records = []
    for key in rounds[0]:
        best = dict(rounds[0][key])
        best |= {name: max(r[key][name] for r in rounds) for name in best if "weights_per" in name}
        records.append({**best, "weights": weights})
        print(
            f"{best['coder']} {best.get('asked_bits', '')}: {best['weights_per_s'] / 1e6:,.1f} M weights/s", flush=True
        )
    return records


def _encode(source: Path, codec: str, paths: dict[float, Path], workers: int) -> None:
    with ThreadPoolExecutor(workers) as executor:
        curves = nw.sweep(source, codecs=[codec], executor=executor)
        for bits, path in paths.items():
            nw.encode(source, nw.allocate(curves, bits=bits), executor=executor).save(path)


def _round(source: Path, files: dict[tuple[str, float], Path]) -> dict[Any, dict[str, Any]]:
    """Every coder once, one after the other."""
    weights = float_weights(source)
    found: dict[Any, dict[str, Any]] = {}
    limit = conversion_limit(weights)
    for kind, speed in (limit or {}).items():
        found[kind] = {"coder": f"limit, {kind} memory", "weights_per_s": speed}
    for (codec, bits), path in files.items():
        child = json.loads(
            run([sys.executable, "-m", "benchmarks.decode_child", path, str(_REPEATS)], sample=False).stdout
        )
        speed = child["weights"] / child["wall_s"]
        rate = {"asked_bits": bits, "bytes": path.stat().st_size}
        found[codec, bits] = {
            "coder": codec,
            **rate,
            "weights_per_s": speed,
            "weights_per_cpu_s": child["weights"] / child["cpu_s"],
            "warm_weights_per_s": child["weights"] / child["warm_wall_s"],
            "warm_weights_per_cpu_s": child["weights"] / child["warm_cpu_s"],
        }
    for qp, bits in zip(QPS, BITS, strict=True):
        rival = nncodec.code(source, qp, decodes=3)
        seconds = rival["decode"]
        found["nncodec", qp] = {
            "coder": "NNCodec",
            "asked_bits": bits,
            "qp": qp,
            "bytes": rival["bytes"],
            "weights_per_s": weights / seconds["wall_s"],
            "weights_per_cpu_s": weights / seconds["cpu_s"],
        }
    return found


if __name__ == "__main__":
    from .page import finish

    finish("speed", measure, store.arguments(__doc__))
