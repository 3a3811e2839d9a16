"""Weight error against output error through the layers (Isik et al., perturbation theorem)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, command, floats, holds
from netweight.theory import perturbation

SHAPES = ((1, 1, 1), (4, 4), (8, 16, 4), (16, 32, 32, 10), (16, 32, 32, 32, 10))
KEPT = (0.02, 0.1, 0.3, 0.6, 0.9, 0.99)


def prune(w: np.ndarray, kept: float) -> np.ndarray:
    """Magnitude pruning: |v_i| <= |w_i| for every weight, which is the theorem's condition."""
    count = max(1, round(kept * w.size))
    threshold = np.sort(np.abs(w), axis=None)[-count]
    return np.where(np.abs(w) >= threshold, w, 0.0)


def run(seed: int) -> Result:
    """Prune random networks of five shapes and search the worst output error over the l_1 ball."""
    rng = np.random.default_rng(seed)
    names, bounds, found, fractions = [], [], [], []
    for sizes in SHAPES:
        for kept in KEPT:
            layers = [rng.laplace(size=(b, a)) / a**0.5 for a, b in pairwise(sizes)]
            smaller = [prune(w, kept) * (0.5 if w.size == 1 else 1.0) for w in layers]
            bounds.append(perturbation.output_bound(layers, smaller))
            found.append(perturbation.output_error(layers, smaller, rng, lambda x: np.maximum(x, 0.0)))
            names.append("-".join(map(str, sizes)))
            fractions.append(kept)
    bound, worst = np.array(bounds), np.array(found)
    positive = bound > 0
    slack = bound[positive] / np.maximum(worst[positive], 1e-300)

    def draw(axes: Sequence[Axes]) -> None:
        for name in dict.fromkeys(names):
            mine = [i for i, n in enumerate(names) if n == name and bound[i] > 0]
            axes[0].plot(bound[mine], worst[mine], "o", label=name, markersize=4)
        ends = [bound[positive].min(), bound.max()]
        axes[0].plot(ends, ends, "k:", label="equality")
        axes[0].set(xlabel="bound", ylabel="worst error found", xscale="log", yscale="log")
        axes[0].legend(fontsize=7, title="layer sizes")

    return Result(
        {"network": names, "kept": fractions, "bound": floats(bound), "worst_error_found": floats(worst)},
        draw,
        holds(
            bool((worst <= bound * (1 + 1e-9)).all()),
            f"all {len(bound)} points under the diagonal, by a factor from {slack.min():.2g} (one weight a layer) to "
            f"{slack.max():.2g} (deep nets)",
        ),
    )


if __name__ == "__main__":
    command("perturbation", run)
