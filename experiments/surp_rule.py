"""What the officially published rule of Isik et al. does on a finite vector: thresholds, candidates, refreshes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, command, floats, holds

WEIGHTS, ALPHA, TARGET_ZEROS = 50_000, 10.0, 0.8


@dataclass(frozen=True, slots=True)
class Trace:
    """One row for each message."""

    thresholds: np.ndarray
    candidates: np.ndarray
    refreshes: np.ndarray
    reconstruction: np.ndarray


def official(u: np.ndarray, rng: np.random.Generator) -> Trace:
    """Threshold alpha mean(residual), x (n-1)/n a message; without candidates refreshed, every 20th time x 0.9."""
    n = u.size
    residual, alpha, refreshes = u.copy(), ALPHA / log(n / log(n)), 0
    inverse_rate = alpha * u.mean()
    rows = []
    zeros = n
    while zeros > TARGET_ZEROS * n:
        threshold = inverse_rate * log(n / log(n))
        candidates = np.flatnonzero(residual > threshold)
        while candidates.size == 0:
            refreshes += 1
            alpha *= 0.9 if refreshes % 20 == 0 else 1.0
            inverse_rate = alpha * residual.mean()
            threshold = inverse_rate * log(n / log(n))
            candidates = np.flatnonzero(residual > threshold)
        index = rng.choice(candidates)
        zeros -= int(residual[index] == u[index])
        residual[index] -= threshold
        rows.append((threshold, candidates.size, refreshes))
        inverse_rate *= (n - 1) / n
    table = np.array(rows)
    return Trace(table[:, 0], table[:, 1], table[:, 2], u - residual)


def run(seed: int) -> Result:
    """Run the rule on exponential magnitudes until 20 % of them are non-zero."""
    rng = np.random.default_rng(seed)
    u = rng.exponential(size=WEIGHTS)
    trace = official(u, rng)
    steps = np.arange(1, trace.thresholds.size + 1)
    hit = trace.reconstruction > 0
    updates = steps.size / int(hit.sum())
    error = float((1 - trace.reconstruction[hit] / u[hit]).mean())
    drops = trace.thresholds[1:] / trace.thresholds[:-1]
    ladder = drops[drops < 0.97]
    kept = np.sort(u)[-int(hit.sum()) :].sum() / u[hit].sum()

    def draw(axes: Sequence[Axes]) -> None:
        axes[0].plot(steps / WEIGHTS, trace.thresholds / u.mean(), label="threshold / mean magnitude")
        axes[0].set(xlabel="messages / weights", ylabel="threshold", yscale="log")
        axes[1].plot(steps / WEIGHTS, trace.candidates, linewidth=0.6, label="candidates")
        axes[1].plot(steps / WEIGHTS, trace.refreshes, label="refreshes so far")
        axes[1].set(xlabel="messages / weights", ylabel="count", yscale="log")
        axes[1].legend()

    every = np.unique(np.linspace(0, steps.size - 1, 400).astype(int))
    return Result(
        {
            "message": [int(s) for s in steps[every]],
            "threshold": floats(trace.thresholds[every]),
            "candidates": [int(c) for c in trace.candidates[every]],
            "refreshes": [int(r) for r in trace.refreshes[every]],
        },
        draw,
        holds(
            updates < 1.05 and 0.02 < error < 0.06 and abs(float(np.median(ladder)) - 0.9) < 0.02,
            f"{updates:.2f} updates for each non-zero, values {100 * error:.1f} % low on average, {ladder.size} rungs "
            f"of ratio {np.median(ladder):.2f}, kept magnitudes {100 / kept:.1f} % of the largest ones': magnitude "
            "pruning with a logarithmic value quantiser",
        ),
        panels=2,
    )


if __name__ == "__main__":
    command("surp_rule", run)
