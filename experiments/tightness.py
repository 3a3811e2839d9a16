"""Where the printed bound of Theorem 2 is R(D) and where it is not: correlated weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import COLOURS, Result, command, floats, holds
from netweight.theory import correlated, gaussian

CORRELATIONS = (0.0, 0.5, 0.9)
DISTORTIONS = np.linspace(0.02, 2.0, 100)


def run(seed: int) -> Result:
    """Evaluate bound and exact curve for two weights of correlation rho and white inputs (no sampling)."""
    del seed
    rows = []
    for rho in CORRELATIONS:
        cov = [[1.0, rho], [rho, 1.0]]
        bound = correlated.paper_bound_nats(cov, [1.0, 1.0], DISTORTIONS) / np.log(2)
        exact = gaussian.rate_nats(correlated.components(cov, np.eye(2)), DISTORTIONS) / np.log(2)
        rows.append((rho, bound, exact))
    gap = max(float((exact - bound).max()) for _, bound, exact in rows)
    below = min(float((exact - bound).min()) for _, bound, exact in rows)
    diagonal = float(np.abs(rows[0][2] - rows[0][1]).max())

    def draw(axes: Sequence[Axes]) -> None:
        for colour, (rho, bound, exact) in zip(COLOURS, rows, strict=False):
            axes[0].plot(DISTORTIONS, exact, color=colour, label=f"exact, rho = {rho}")
            axes[0].plot(DISTORTIONS, bound, "--", color=colour, label=f"printed bound, rho = {rho}")
        axes[0].axhline(0, color="0.4", linewidth=0.8)
        axes[0].set(xlabel="distortion D", ylabel="bits for both weights", ylim=(-1.5, 5))
        axes[0].legend(ncols=2, fontsize=7)

    return Result(
        {
            "correlation": [rho for rho, _, _ in rows for _ in DISTORTIONS],
            "distortion": floats(np.tile(DISTORTIONS, len(rows))),
            "printed_bound_bits": floats(np.concatenate([b for _, b, _ in rows])),
            "exact_bits": floats(np.concatenate([e for _, _, e in rows])),
        },
        draw,
        holds(
            diagonal < 1e-9 and below > -1e-9 and gap > 0.5,
            f"equal for rho = 0 and for small D; for rho = 0.9 the printed bound falls {gap:.2f} bit short and "
            "turns negative",
        ),
    )


if __name__ == "__main__":
    command("tightness", run)
