"""The price of a decoder that does not know the input covariance, over spectra and rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, command, floats, holds
from netweight.theory import gaussian, universal

SIZE = 64
SPECTRA = {
    "power law k^-1": np.arange(1, SIZE + 1) ** -1.0,
    "power law k^-2": np.arange(1, SIZE + 1) ** -2.0,
    "exponential, 60 dB": np.exp(-np.linspace(0, np.log(1e6), SIZE)),
    "two levels, 1 in 8 strong": np.r_[np.ones(SIZE // 8), np.full(SIZE - SIZE // 8, 1e-3)],
}
RIDGES = np.exp(np.linspace(-16, 4, 161))


def run(seed: int) -> Result:
    """Evaluate four spectra, then search random two- and three-level spectra for the worst price."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, lam in SPECTRA.items():
        r, d, _ = universal.curve(lam, RIDGES * lam[0])
        rows.append((name, r / SIZE / np.log(2), (r - gaussian.rate_nats(lam, d)) / SIZE / np.log(2)))
    worst, least = 0.0, 0.0
    for _ in range(400):
        lam = np.repeat(np.exp(-rng.uniform(0, 12, 3)), rng.integers(0, 20, 3) + 1)
        r, d, _ = universal.curve(lam, RIDGES * lam.max())
        price = (r - gaussian.rate_nats(lam, d)) / lam.size / np.log(2)
        worst, least = max(worst, float(price.max())), min(least, float(price.min()))

    def draw(axes: Sequence[Axes]) -> None:
        for name, rate, price in rows:
            axes[0].plot(rate, price, label=name)
        axes[0].axhline(0.11, color="0.4", linewidth=0.8, linestyle=":")
        axes[0].set(xlabel="bits a weight", ylabel="bits above R(D)", xlim=(0, 4), ylim=(0, 0.12))
        axes[0].legend()

    return Result(
        {
            "spectrum": [name for name, _, _ in rows for _ in RIDGES[::8]],
            "rate_bits": floats(np.concatenate([r[::8] for _, r, _ in rows])),
            "price_bits": floats(np.concatenate([p[::8] for _, _, p in rows])),
        },
        draw,
        holds(
            worst < 0.11 and least > -1e-9,
            f"never below R(D) and at most {worst:.3f} bit above it over 400 random spectra (theorem: 0.11)",
        ),
    )


if __name__ == "__main__":
    command("universal_price", run)
