"""A task: a network as a function, inputs to calibrate on, inputs to judge by, and how far two outputs are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["DATA", "Task", "batches", "embedding_nats", "load", "outputs", "softmax_nats"]

DATA: Final = Path(__file__).parents[3] / "shared" / "data"
Scores = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Task:
    """A network that is judged by what it does.

    Attributes:
        key: short name.
        title: for tables.
        file: safetensors file whose names the module's state dict has.
        build: gives the module, in eval mode, with the weights of `file`.
        calibration: batches without labels; none of them occurs in `heldout`.
        heldout: batches that nothing may be chosen on.
        nats: divergence of each sample's output (second) from the original's (first).
        score: the task's own figure from the outputs of `heldout`: one number for each item, paired between networks.
        summary: makes the figure that is reported of the scores and the outputs.
        figure: its name.
    """

    key: str
    title: str
    file: Path
    build: Callable[[], nn.Module]
    calibration: Sequence[Tensor]
    heldout: Sequence[Tensor]
    nats: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Sequence[Tensor]], Scores]
    summary: Callable[[Scores], float] = field(default=lambda scores: float(scores.mean()))
    figure: str = "top-1"


def load(module: nn.Module, file: Path, *, drop: Sequence[str] = ()) -> nn.Module:
    """Give the module the file's weights, every name matching; `drop` names may be missing from the module."""
    from safetensors.torch import load_file

    state = {name: tensor for name, tensor in load_file(file).items() if name not in drop}
    module.load_state_dict(state)
    return module.eval()


def batches(inputs: Tensor, size: int) -> list[Tensor]:
    """Inputs in groups of at most `size`."""
    return [inputs[at : at + size] for at in range(0, len(inputs), size)]


def outputs(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs batch by batch."""
    with torch.inference_mode():
        return [module(batch) for batch in inputs]


def softmax_nats(original: Tensor, changed: Tensor) -> Tensor:
    """Divergence KL(p || p') of each sample: the last axis are logits, axes between are positions and averaged."""
    p = torch.log_softmax(original.double(), -1)
    q = torch.log_softmax(changed.double(), -1)
    return (p.exp() * (p - q)).sum(-1).reshape(len(original), -1).mean(1)


def embedding_nats(original: Tensor, changed: Tensor) -> Tensor:
    """Half the squared distance of unit vectors: the divergence of two Gaussians of unit variance about them."""
    return 0.5 * (original.double() - changed.double()).square().sum(-1)
