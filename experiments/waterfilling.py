"""Weighted reverse water-filling and the code that reaches it (Gao et al., Theorems 2 and 3, Figure 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, command, floats, holds
from netweight.theory import gaussian

VARIANCES = WEIGHTS = np.array([3.0, 2.0, 1.0])
TARGETS = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0])
DRAWS = 200_000


def measured(distortion: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """Distortion, its standard error, and bits of the achieving code, the bits from sample correlations."""
    w = rng.standard_normal((DRAWS, 3)) * np.sqrt(VARIANCES)
    v = gaussian.code(w, VARIANCES, distortion, rng, WEIGHTS)
    loss = ((w - v) ** 2) @ WEIGHTS
    sent = v.std(axis=0) > 0
    rho = np.array([np.corrcoef(w[:, i], v[:, i])[0, 1] for i in np.flatnonzero(sent)])
    return float(loss.mean()), float(loss.std() / DRAWS**0.5), float(-0.5 * np.log2(1 - rho**2).sum())


def run(seed: int) -> Result:
    """Compare the curve with draws of the code at nine distortions."""
    rng = np.random.default_rng(seed)
    points = np.array([measured(d, rng) for d in TARGETS])
    bits = gaussian.rate_nats(VARIANCES, TARGETS, WEIGHTS) / np.log(2)
    sigmas = np.abs(points[:, 0] - TARGETS) / points[:, 1]
    worst_bits = float(np.abs(points[:, 2] - bits).max())

    def draw(axes: Sequence[Axes]) -> None:
        d = np.linspace(0.3, 14, 400)
        axes[0].plot(d, gaussian.rate_nats(VARIANCES, d, WEIGHTS) / np.log(2), label="weighted water-filling")
        axes[0].plot(points[:, 0], points[:, 2], "o", label=f"achieving code, {DRAWS} draws")
        for knot in (3, 9):
            axes[0].axvline(knot, color="0.6", linewidth=0.8, linestyle=":")
        axes[0].set(xlabel="distortion D", ylabel="R(D), bits for the three weights", ylim=(0, None))
        axes[0].legend()

    return Result(
        {
            "distortion": floats(TARGETS),
            "rate_bits": floats(bits),
            "measured_distortion": floats(points[:, 0]),
            "standard_error": floats(points[:, 1]),
            "measured_bits": floats(points[:, 2]),
        },
        draw,
        holds(
            float(sigmas.max()) < 4 and worst_bits < 0.02,
            f"the code lies on the curve, distortion within {sigmas.max():.1f} standard errors, "
            f"rate within {worst_bits:.3f} bit; knots at D = 3 and 9",
        ),
    )


if __name__ == "__main__":
    command("waterfilling", run)
