"""Pruning a Gaussian ReLU unit: magnitude against importance against the best subset (Gao et al., Corollary 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, command, floats, holds
from netweight.theory import relu

SIZE, PROBLEMS = 10, 60


def keep_top(w: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """Zero all weights but those of the highest scores."""
    kept = np.zeros_like(w)
    top = np.argsort(-score, kind="stable")[:count]
    kept[top] = w[top]
    return kept


def run(seed: int) -> Result:
    """Prune random units with unequal input variances to every size and compare exact errors."""
    rng = np.random.default_rng(seed)
    errors = np.zeros((PROBLEMS, SIZE + 1, 3))
    for problem in range(PROBLEMS):
        w, lam = rng.normal(size=SIZE), np.exp(1.5 * rng.normal(size=SIZE))
        cov = np.diag(lam)
        unit = float(lam @ w**2)
        for count in range(SIZE + 1):
            rules = [keep_top(w, np.abs(w), count), keep_top(w, lam * w**2, count)]
            errors[problem, count, :2] = [float(relu.error(w, v, cov)) / unit for v in rules]
            errors[problem, count, 2] = relu.best_subset(w, cov, count)[1] / unit
    mean = errors.mean(axis=0)
    mismatches = int((errors[..., 1] > errors[..., 2] * (1 + 1e-9) + 1e-12).sum())
    excess = float((mean[1:-1, 0] / mean[1:-1, 2]).max())

    def draw(axes: Sequence[Axes]) -> None:
        kept = np.arange(SIZE + 1) / SIZE
        for column, label in enumerate(("magnitude |w|", "importance l w^2", "best subset, brute force")):
            axes[0].plot(kept[:-1], mean[:-1, column], ("o-", "s-", "k:")[column], label=label, markersize=4)
        axes[0].set(xlabel="fraction of weights kept", ylabel="error / (w^T S w)", yscale="log")
        axes[0].legend()

    return Result(
        {
            "kept": list(range(SIZE + 1)),
            "magnitude": floats(mean[:, 0]),
            "importance": floats(mean[:, 1]),
            "best_subset": floats(mean[:, 2]),
        },
        draw,
        holds(
            mismatches == 0 and excess > 1.2,
            f"importance is the best subset in {PROBLEMS * (SIZE + 1) - mismatches} of {PROBLEMS * (SIZE + 1)} cases; "
            f"magnitude errs up to {excess:.1f} times as much",
        ),
    )


if __name__ == "__main__":
    command("relu_pruning", run)
