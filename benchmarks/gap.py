"""How far whole files are from R(D) of their weights' laws, and where the gap goes, on two real networks.

The parts are differences of lengths on the way from R(D) to the file (`netweight.bound.gap`); their sum is compared
with the size of the file on disk.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import netweight as nw
from netweight.bound import MODELS
from netweight.bound.gap import split

from . import store
from .networks import find

__all__ = ["BITS", "MODEL", "measure"]

BITS: Final = (2.0, 3.0, 4.0)
MODEL: Final = "gaussian-kernels"


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each network and rate."""
    records = []
    for key in ("resnet20", "minilm"):
        source = find(key, options.networks)
        if source is None:
            print(f"{key}: no checkpoint found, skipped")
            continue
        with ThreadPoolExecutor(options.workers) as executor:
            curves = nw.sweep(source, executor=executor)
            for bits in BITS:
                archive = nw.encode(source, nw.allocate(curves, bits=bits), executor=executor)
                record = {"network": key, "asked_bits": bits, **_one(source, archive)}
                above = (record["modelled_bits"] - record["rate_bits"][MODEL]) / record["modelled_weights"]
                print(f"{key} at {bits:g} bits: {above:+.4f} bits/weight above {MODEL}", flush=True)
                records.append(record)
    return records


def _one(source: Path, archive: nw.Archive) -> dict[str, Any]:
    """The bound of one file, split."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "out.nwt"
        archive.save(path)
        size_bytes = path.stat().st_size
    found = nw.bound(source, archive=archive)
    return {
        "weights": found.weights,
        "modelled_weights": sum(t.weights for t in found.modelled),
        "file_bytes": size_bytes,
        "modelled_bits": found.spent_bits,
        "loss": found.loss,
        "rate_bits": {model: found.rate_bits(model) for model in MODELS},
        "parts": {part.id: part.bits for part in split(found, MODEL).parts},
    }


if __name__ == "__main__":
    from .page import finish

    finish("gap", measure, store.arguments(__doc__))
