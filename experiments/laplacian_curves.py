"""Laplacian weights under absolute error: R(D) in three settings, real quantisers, and their zeros (Isik et al.)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import COLOURS, Result, command, floats, holds
from netweight.theory import ecsq, laplace, surp
from netweight.theory.scalar import GeneralizedGaussian

DISTORTIONS = np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1])
SAMPLES = 272_474  # weights of ResNet-20


def run(seed: int) -> Result:
    """Evaluate the curves, the best dead-zone quantiser and the ladder on one exponential sample."""
    rng = np.random.default_rng(seed)
    law = GeneralizedGaussian.laplace(2.0)
    quantisers = [ecsq.best(law, float(d), power=1) for d in DISTORTIONS]
    steps = surp.ladder(rng.exponential(size=SAMPLES), start=10.0)
    bits = np.interp(-DISTORTIONS, -steps.distortion, steps.bits)
    ladder_zeros = np.interp(-DISTORTIONS, -steps.distortion, steps.zeros)
    plain = laplace.rate_nats(DISTORTIONS) / np.log(2)
    exact = laplace.sign_exact_at(DISTORTIONS)
    columns = {
        "distortion": floats(DISTORTIONS),
        "rate_bits": floats(plain),
        "sign_exact_bits": floats(exact.rate_nats / np.log(2)),
        "dead_zone_quantiser_bits": [q.rate_bits for q in quantisers],
        "ladder_bits": floats(bits),
        "zeros_two_sided": floats(DISTORTIONS**2),
        "zeros_sign_exact": floats(exact.atom),
        "zeros_dead_zone_quantiser": [q.zero_probability for q in quantisers],
        "zeros_ladder": floats(ladder_zeros),
    }
    # The ladder keeps signs and only shrinks magnitudes, so its bound is the sign-exact curve.
    ordered = all(
        a < s < b and a < q.rate_bits
        for a, s, b, q in zip(plain, columns["sign_exact_bits"], bits, quantisers, strict=True)
    )
    sparse = all(z > d**2 for d, z in zip(DISTORTIONS, columns["zeros_dead_zone_quantiser"], strict=True))

    def draw(axes: Sequence[Axes]) -> None:
        labels = ("R(D), two-sided or one-sided", "sign exact, one-sided", "dead-zone quantiser", "ladder")
        names = ("rate_bits", "sign_exact_bits", "dead_zone_quantiser_bits", "ladder_bits")
        for colour, label, name in zip(COLOURS, labels, names, strict=False):
            axes[0].plot(DISTORTIONS, columns[name], "o-", color=colour, label=label, markersize=3)
        axes[0].set(xlabel="D / E|u|", ylabel="bits a weight")
        axes[0].legend()
        zeros = ("zeros_two_sided", "zeros_sign_exact", "zeros_dead_zone_quantiser", "zeros_ladder")
        for colour, label, name in zip(COLOURS, ("two-sided R(D)", *labels[1:]), zeros, strict=False):
            axes[1].plot(DISTORTIONS, columns[name], "o-", color=colour, label=label, markersize=3)
        axes[1].plot(DISTORTIONS, DISTORTIONS, "k:", label="one-sided R(D)")
        axes[1].set(xlabel="D / E|u|", ylabel="fraction of zeros")
        axes[1].legend()

    half = list(DISTORTIONS).index(0.5)
    return Result(
        columns,
        draw,
        holds(
            ordered and sparse,
            f"at half the distortion R(D) is 1 bit, the dead-zone quantiser {quantisers[half].rate_bits:.3f} with "
            f"{100 * quantisers[half].zero_probability:.0f} % zeros, the ladder {bits[half]:.2f} with "
            f"{100 * ladder_zeros[half]:.0f} %; the two-sided optimum has 25 %, the sign-exact one "
            f"{100 * float(exact.atom[half]):.0f} %",
        ),
        panels=2,
    )


if __name__ == "__main__":
    command("laplacian_curves", run)
