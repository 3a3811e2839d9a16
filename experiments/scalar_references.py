"""Bits above R(D) of the best scalar quantiser and of trellises, Gaussian and Laplacian weights, squared error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import COLOURS, Result, command, floats, holds
from netweight.theory import ecsq, scalar, trellis

RATES = np.array([0.5, 1.0, 2.0, 3.0, 4.0])
STATES = (4, 8, 32)
LAWS = {"gaussian": scalar.GeneralizedGaussian.gaussian(), "laplacian": scalar.GeneralizedGaussian.laplace()}
# Step and price of a nat (in squared steps); dear nats need finer steps at low rate.
KNOBS = ((2.0, 0.25), (1.6, 0.3), (1.3, 0.35), (1.0, 0.38), (0.7, 0.43), (0.5, 0.43), (0.25, 0.5), (0.12, 0.55))


def above(law: scalar.GeneralizedGaussian, rate_bits: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Bits a weight above R(D)."""
    return np.asarray(rate_bits - scalar.rate_nats(law, distortion) / np.log(2))


def run(seed: int) -> Result:
    """Evaluate the quantiser exactly and the trellises on 2^16 samples, interpolated to the five rates."""
    rng = np.random.default_rng(seed)
    names, coders, gaps = [], [], []
    for name, law in LAWS.items():
        found = [ecsq.best_at_rate(law, float(r * np.log(2))) for r in RATES]
        names.append(name)
        coders.append("dead-zone scalar")
        gaps.append(above(law, RATES, np.array([q.distortion for q in found])))
        x = law.sample(2**16, rng).reshape(128, 512)
        for states in STATES:
            points = np.array([trellis.simulate(x, w * law.variance**0.5, states, m) for w, m in KNOBS])
            bits = points[:, 0] / np.log(2)
            order = np.argsort(bits)
            names.append(name)
            coders.append(f"trellis, {states} states")
            gaps.append(np.interp(RATES, bits[order], above(law, bits, points[:, 1])[order]))
    at_three = {(n, c): float(g[3]) for n, c, g in zip(names, coders, gaps, strict=True)}
    eight = max(at_three[n, "trellis, 8 states"] for n in LAWS)
    scalar_loss = max(at_three[n, "dead-zone scalar"] for n in LAWS)

    def draw(axes: Sequence[Axes]) -> None:
        for panel, name in zip(axes, LAWS, strict=True):
            mine = [(c, g) for n, c, g in zip(names, coders, gaps, strict=True) if n == name]
            for colour, (coder, gap) in zip(COLOURS, mine, strict=False):
                panel.plot(RATES, gap, "o-", color=colour, label=coder, markersize=3)
            panel.axhline(0.5 * np.log2(np.pi * np.e / 6), color="0.5", linewidth=0.8, linestyle=":")
            panel.set(xlabel="bits a weight", ylabel="bits above R(D)", title=name, ylim=(0, 0.28))
            panel.legend(loc="lower right")

    return Result(
        {
            "law": names,
            "coder": coders,
            **{f"gap_at_{r:g}_bits": floats([g[i] for g in gaps]) for i, r in enumerate(RATES)},
        },
        draw,
        holds(
            scalar_loss < 0.27 and eight < 0.17,
            f"at 3 bits the scalar quantiser stays {scalar_loss:.3f} bit above R(D), 8 states {eight:.3f}; at high "
            f"rate 256 states leave {trellis.gap_bits(trellis.MEASURED_GAIN_DB[256]):.3f} bit",
        ),
        panels=2,
    )


if __name__ == "__main__":
    command("scalar_references", run)
