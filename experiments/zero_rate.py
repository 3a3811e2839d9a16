"""How fast the textbook pruner becomes optimal at zero rate: ln(n/beta)/ln n, predicted and measured (Isik et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, command, floats, holds
from netweight.theory import surp

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
STEPS = 3


def measured(n: int, rng: np.random.Generator, trials: int) -> float:
    """Distortion bought by the first steps over what D(R) = scale exp(-R) buys with the same ln n nats a message."""
    ratios = []
    for _ in range(trials):
        u = rng.exponential(size=n)
        run = surp.textbook(u, log(n / log(n)), STEPS, rng)
        sent = run.messages.size
        if sent:
            ideal = -np.expm1(-sent * log(n) / n) * u.mean()
            ratios.append(float(u.mean() - run.residual.mean()) / ideal)
    return float(np.mean(ratios))


def run(seed: int) -> Result:
    """Measure seven sizes."""
    rng = np.random.default_rng(seed)
    predicted = [surp.efficiency(n) for n in SIZES]
    found = [measured(n, rng, max(5, 20_000 // (n // 100))) for n in SIZES]
    naive = [log(n / 2) / log(n) for n in SIZES]
    miss = float(np.abs(np.array(found) - predicted).max())

    def draw(axes: Sequence[Axes]) -> None:
        axes[0].plot(SIZES, predicted, label="ln(n / beta) / ln n, beta = ln n")
        axes[0].plot(SIZES, found, "o", label=f"measured, first {STEPS} messages")
        axes[0].plot(SIZES, naive, "--", color="0.5", label="beta = 2")
        axes[0].axhline(1, color="0.4", linewidth=0.8)
        axes[0].set(xlabel="weights n", ylabel="efficiency", xscale="log", ylim=(0.6, 1.02))
        axes[0].legend()

    return Result(
        {"weights": list(SIZES), "predicted": floats(predicted), "measured": floats(found)},
        draw,
        holds(
            miss < 0.01,
            f"efficiency {found[0]:.2f} at n = 10^3, {found[-1]:.2f} at 10^6, within {miss:.3f} of the formula; "
            "optimal in the limit, but the limit is far",
        ),
    )


if __name__ == "__main__":
    command("zero_rate", run)
