"""Iterative pruning of ResNet-20 with retraining: the scores of SuRP beside LAMP, at one budget (Isik et al. 2022).

The network came trained on 50,000 images, of which 7,728 are here; it teaches on moved and mixed copies of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments.figures import Result, network_command
from experiments.iterative_pruning import Case, judged
from experiments.networks import load
from experiments.retraining import Budget

_LOAD = partial(load, "resnet20")
REDUCED = {"resnet20": Case(_LOAD, Budget(0.3, 0.01, teacher=1.0, batch=20), 20, copies=1, tests=40)}
# The rate did best of 0.01, 0.03 and 0.1 on 728 training images, after one cut to a fifth by LAMP.
FULL = {"resnet20": Case(_LOAD, Budget(0.7, 0.01, teacher=1.0, batch=64, half=True), 7728, copies=2)}


def run(seed: int, data: Path, full: bool, resume: Path | None = None) -> Result | None:
    """Judge ResNet-20."""
    return judged(FULL if full else REDUCED, seed, data, resume)


if __name__ == "__main__":
    network_command("iterative_cifar", run, resumes=True)
