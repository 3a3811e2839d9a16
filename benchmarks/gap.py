"""How far whole files are from R(D) of their weights' laws, and where the gap goes, on two real networks.

Once under squared error, as without data, and once in nats, by what `netweight.measure` found on calibration data. The
parts are differences of lengths on the way from R(D) to the file (`netweight.bound.gap`); their sum is compared
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
            for importance in (None, _importance(key, options.networks)):
                curves = nw.sweep(source, importance, executor=executor)
                about = "" if importance is None else f"{importance.record.samples} samples"
                for bits in BITS:
                    archive = nw.encode(source, nw.allocate(curves, bits=bits), importance, executor=executor)
                    record = {
                        "network": key, "measured": about, "asked_bits": bits, **_one(source, archive, importance),
                    }  # fmt: skip
                    above = (record["modelled_bits"] - record["rate_bits"][MODEL]) / record["modelled_weights"]
                    print(f"{key} {about} at {bits:g} bits: {above:+.4f} bits/weight above {MODEL}", flush=True)
                    records.append(record)
    return records


def _importance(key: str, folder: Path | None) -> nw.Importance:
    """Measured on the calibration data of the network's task."""
    from .tasks import task

    found = task(key, folder)
    if found is None:
        raise SystemExit(f"{key}: there is a checkpoint, but no calibration data")
    return nw.measure(found.build(), found.calibration, loss="squared" if key == "minilm" else "kl")


def _one(source: Any, archive: nw.Archive, importance: nw.Importance | None = None) -> dict[str, Any]:
    """The bound of one file, split."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "out.nwt"
        archive.save(path)
        size_bytes = path.stat().st_size
    found = nw.bound(source, importance, archive)
    return {
        "weights": found.weights,
        "modelled_weights": sum(t.weights for t in found.modelled),
        "file_bytes": size_bytes,
        "modelled_bits": found.spent_bits,
        "loss": found.loss,
        "rate_bits": {model: found.rate_bits(model) for model in MODELS},
        "universal_bits": found.universal_bits() if found.inputs else None,
        "parts": {part.id: part.bits for part in split(found, MODEL).parts},
    }


if __name__ == "__main__":
    from .page import finish

    finish("gap", measure, store.arguments(__doc__))
