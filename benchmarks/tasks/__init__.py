"""Six networks that do something: what the calibrated benchmarks judge compression by."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.networks import find

from .core import DATA, Task
from .images import lenet5, mobilenet_v2, resnet
from .sentences import minilm
from .stories import stories260k

__all__ = ["TASKS", "task"]

TASKS: Final = ("lenet5", "resnet20", "resnet32", "mobilenet_v2", "minilm", "stories260k")


def task(key: str, folder: Path | None = None) -> Task | None:
    """A network with its data; None where either is missing.

    Args:
        key: one of `TASKS`.
        folder: where checkpoints are looked for first.
    """
    if key in ("mobilenet_v2", "minilm"):
        file = find(key, folder)
        if file is None or not DATA.exists():
            return None
        return mobilenet_v2(file) if key == "mobilenet_v2" else minilm(file)
    if not DATA.exists():
        return None
    return {"lenet5": lenet5, "stories260k": stories260k}[key]() if key[:6] != "resnet" else resnet(int(key[6:]))
