"""Pruning by magnitude, Fisher, gradient, Hessian and both, every layer alike (Gao et al. 2019, figures 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from experiments.figures import Result, holds, network_command
from experiments.networks import Network, judge, put, renormalise
from experiments.paper1 import (
    FULL,
    REDUCED,
    Curves,
    Stats,
    claims,
    columns,
    draw,
    networks,
    objectives,
    pruned,
)

KEPT = {
    "lenet300": (0.02, 0.05, 0.1, 0.15, 0.2, 0.25),
    "lenet5": (0.02, 0.05, 0.1, 0.2),
    "resnet20": (0.3, 0.4, 0.5, 0.6, 0.7),
}


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Keep the same share of every layer by each objective; no retraining."""
    del seed  # nothing is random: the first images of each set
    setting = FULL if full else REDUCED
    found = networks(setting, data)
    if not found:
        return None
    curves = []
    for network in found:
        stats = objectives(network, setting.samples[network.name])
        curves.append(judged(network, stats, setting.tests))
        if network.name == "resnet20":
            curves.append(judged(network, stats, setting.tests, norms=setting.samples[network.name]))

    def panels(axes: Sequence[Axes]) -> None:
        draw(axes, curves, "share of the weights kept")

    ok, text = claims(curves)
    return Result(columns(curves, "kept"), panels, holds(ok, text), len(curves))


def judged(network: Network, stats: dict[str, Stats], tests: int, norms: int = 0) -> Curves:
    """Prune by every objective at every ratio; with `norms`, batch norms see that many training images after it."""
    curves = Curves(network.name + (", norms renewed" if norms else ""))
    for kept in KEPT[network.name]:
        for objective, stat in stats.items():
            put(network.model, {**network.weights, **pruned(network, stat, kept)})
            if norms:
                renormalise(network.model, network.train.first(norms))
            curves.scores[kept, objective] = judge(network.model, network.test.first(tests))
    put(network.model, network.weights)
    return curves


if __name__ == "__main__":
    network_command("importance_pruning", run)
