"""Rate without data against NNCodec with its trellis: whole files at equal weight SNR.

For every qp of NNCodec, the file of netweight with the same SNR over the same tensors is searched: the matrices alone
(float tensors of two axes and more, written as a checkpoint of their own), and the complete checkpoint with norms and
biases.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import netweight as nw

from . import nncodec, store
from .networks import find, float_weights, matrices, snr_db
from .search import match_snr

__all__ = ["measure"]

QPS: Final = {
    "resnet20": (-32, -28, -26, -24, -22, -20, -16, -12),
    "mobilenet_v2": (-32, -28, -24, -20),
    "minilm": (-32, -28, -24, -20),
}


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each network, scope and qp."""
    return [record for key in QPS for record in _network(key, options)]


def _network(key: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    complete = find(key, options.networks)
    if complete is None:
        print(f"{key}: no checkpoint found, skipped")
        return
    for scope, source in (("matrices", matrices(complete)), ("complete", complete)):
        weights = float_weights(source)
        with ThreadPoolExecutor(options.workers) as executor:
            curves = nw.sweep(source, executor=executor)
            for qp in QPS[key]:
                rival = nncodec.code(source, qp)
                own = _match(source, curves, rival, weights, executor)
                bits = [f"{8 * coder['bytes'] / weights:.3f}" for coder in (own, rival)]
                change = f"{100 * (own['bytes'] / rival['bytes'] - 1):+.2f} %"
                print(key, scope, f"{rival['snr_db']:.2f} dB:", " against ".join(bits), change, own["how"], flush=True)
                yield {"network": key, "scope": scope, "weights": weights, "nncodec": rival, "netweight": own}


def _match(
    source: Path, curves: Any, rival: dict[str, Any], weights: int, executor: ThreadPoolExecutor
) -> dict[str, Any]:
    """File of netweight with the rival's SNR."""
    codecs: Counter[str] = Counter()

    def code(bits: float) -> tuple[int, float]:
        plan = nw.allocate(curves, bits=bits)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "out.nwt"
            nw.encode(source, plan, executor=executor).save(path)
            codecs.clear()
            codecs.update(point.codec for point in plan.choices.values())
            return path.stat().st_size, snr_db(source, nw.Archive.open(path))

    found = match_snr(code, rival["snr_db"], 8 * rival["bytes"] / weights)
    return {**asdict(found), "codecs": dict(codecs)}


if __name__ == "__main__":
    from .page import finish

    finish("rate", measure, store.arguments(__doc__))
