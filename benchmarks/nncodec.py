"""Drive NNCodec from here: one call codes a checkpoint, decodes it, and says how well."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .networks import snr_db
from .process import run
from .rivals import NNCODEC, environment

__all__ = ["code"]


def code(source: Path, qp: int, *, decodes: int = 1, restored: Path | None = None) -> dict[str, Any]:
    """Code every float tensor of a checkpoint with the trellis at `qp`.

    Args:
        source: checkpoint.
        qp: of its quantiser.
        decodes: how often to decode.
        restored: safetensors file for what comes back; none without.

    Returns:
        bytes; snr_db of all float tensors; encode and decode, each cpu_s and wall_s; peak_bytes of the whole process
        while it encoded and idle_peak_bytes, of which, before it began.
    """
    driver = Path(__file__).with_name("rival_nncodec.py")
    with tempfile.TemporaryDirectory() as scratch:
        restored = restored or Path(scratch) / "restored.safetensors"
        command = [environment(NNCODEC), "-P", driver, source, restored, f"--qp={qp}", f"--decodes={decodes}"]
        report = dict(json.loads(run(command, sample=False).stdout))
        return {"qp": qp, **report, "snr_db": snr_db(source, restored)}
