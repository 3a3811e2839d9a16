"""Iterative pruning of LeNet-300-100 with retraining: all six rules at one budget, three seeds (Isik et al. 2022)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments.figures import Result, network_command
from experiments.iterative_pruning import ALL, Case, judged
from experiments.networks import load
from experiments.retraining import Budget

_LOAD = partial(load, "lenet300")
REDUCED = {"lenet300": Case(_LOAD, Budget(0.3, 0.02), 1000, methods=ALL, tests=1000)}
FULL = {"lenet300": Case(_LOAD, Budget(0.25, 0.02), 60_000, methods=ALL, seeds=3)}


def run(seed: int, data: Path, full: bool, resume: Path | None = None) -> Result | None:
    """Judge LeNet-300-100."""
    return judged(FULL if full else REDUCED, seed, data, resume)


if __name__ == "__main__":
    network_command("iterative_rules", run, resumes=True)
