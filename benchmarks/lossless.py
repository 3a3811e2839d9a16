"""Lossless rate: the whole file of all-MiniLM-L6-v2, float32 and cast to BF16, against ZipNN, lmzip and zstd."""

from __future__ import annotations

import argparse
import filecmp
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import store
from .networks import bf16_cast, find, float_weights, same_tensors
from .process import Outcome, run
from .rivals import LOSSLESS, environment

__all__ = ["measure"]


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each dtype and method."""
    source = find("minilm", options.networks)
    assert source is not None
    records = []
    for dtype, path, word in (("F32", source, "float32"), ("BF16", bf16_cast(source), "bfloat16")):
        weights = float_weights(path)
        for record in (_netweight(path), *_rivals(path, word)):
            bits = 8 * record["bytes"] / weights
            print(f"{dtype} {record['method']}: {record['bytes']:,} bytes, {bits:.3f} bits/weight", flush=True)
            records.append({"dtype": dtype, "weights": weights, "bits_per_weight": bits, **record})
    return records


def _netweight(path: Path) -> dict[str, Any]:
    """The `exact` codec through the command line, one thread, and every tensor compared."""
    with tempfile.TemporaryDirectory() as scratch:
        packed, restored = Path(scratch) / "out.nwt", Path(scratch) / "out.safetensors"
        ours = [sys.executable, "-m", "netweight"]
        made = run([*ours, "compress", path, "-o", packed, "--codec", "exact", "--workers", "1", "--quiet"])
        back = run([*ours, "restore", packed, "-o", restored, "--quiet"])
        return _record("netweight exact", packed, made, back, restored=same_tensors(path, restored))


def _record(method: str, packed: Path, made: Outcome, back: Outcome, *, restored: bool) -> dict[str, Any]:
    """What a method took; one that does not give back what it got ends the benchmark."""
    if not restored:
        raise SystemExit(f"{method} did not restore its input")
    sizes = {"bytes": packed.stat().st_size, "encode_cpu_s": made.cpu_s, "decode_cpu_s": back.cpu_s}
    return {"method": method, **sizes}


def _rivals(path: Path, word: str) -> Iterator[dict[str, Any]]:
    python = environment(LOSSLESS)
    driver = Path(__file__).with_name("rival_lossless.py")
    for title, method in (("ZipNN", f"zipnn-{word}"), ("zstd -3", "zstd-3"), ("zstd -19", "zstd-19")):
        yield {"method": title, **json.loads(run([python, "-P", "-W", "ignore", driver, path, method]).stdout)}
    with tempfile.TemporaryDirectory() as scratch:
        packed, restored = Path(scratch) / "out.lmz", Path(scratch) / "out.safetensors"
        made = run([python.with_name("lmz"), "compress", "--quiet", "-j", "1", path, packed])
        back = run([python.with_name("lmz"), "decompress", "--quiet", "-j", "1", packed, restored])
        yield _record("lmzip", packed, made, back, restored=filecmp.cmp(path, restored, shallow=False))


if __name__ == "__main__":
    from .page import finish

    finish("lossless", measure, store.arguments(__doc__))
