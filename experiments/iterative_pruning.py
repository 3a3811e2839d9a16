"""Iterative pruning with retraining: the scores of SuRP beside LAMP and others, at one budget (Isik et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes

from experiments.figures import Result, holds, network_command
from experiments.networks import Network, Score, judge, load, paired, put
from experiments.retraining import Budget, device, optimizer_of, retrain
from netweight import train

KEEP = 10.0**-0.1  # 0.794 a round where the papers have 0.8: 80, 90, 95 and 98 % are rounds 7, 10, 13 and 17
STOPS = {7: 0.8, 10: 0.9, 13: 0.95, 17: 0.98}
BUDGETS = {
    "lenet300": Budget(1.0, 0.02),
    "lenet5": Budget(0.25, 0.02),
}
# Epochs a round are few: a run has to end in minutes on one core. Other methods of `netweight.prune` go in by name.
REDUCED = (("lenet300",), ("surp", "lamp"), 6000, 1)
FULL = (("lenet5",), ("surp", "lamp"), 60_000, 1)


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Prune in 17 rounds with retraining after each, and in one cut without any."""
    names, methods, count, seeds = FULL if full else REDUCED
    found = [load(name, data) for name in names]
    networks = [network for network in found if network is not None]
    if not networks:
        return None
    rows: list[tuple[str, str, str, int, float, float, float]] = []
    final: dict[tuple[str, str, float], list[Score]] = {}
    for network in networks:
        for method in methods:
            for each in range(seed, seed + seeds):
                for sparsity, score in iterate(network, method, count, each).items():
                    final.setdefault((network.name, method, sparsity), []).append(score)
                    rows.append((network.name, method, "iterative", each, sparsity, score.accuracy, score.loss_nats))
            for sparsity, score in one_shot(network, method).items():
                rows.append((network.name, method, "one-shot", seed, sparsity, score.accuracy, score.loss_nats))
    header = ("network", "method", "way", "seed", "sparsity", "accuracy", "cross_entropy_nats")
    columns: dict[str, Sequence[object]] = dict(zip(header, zip(*rows, strict=True), strict=True))
    lines = [compare(network.name, final) for network in networks]

    def draw(axes: Sequence[Axes]) -> None:
        for axis, network in zip(axes, networks, strict=True):
            for method in methods:
                points = [
                    (s, float(np.mean([score.accuracy for score in final[network.name, method, s]])))
                    for s in STOPS.values()
                ]
                axis.plot(
                    [-np.log10(1 - s) for s, _ in points], [a for _, a in points], "o-", label=method, markersize=3
                )
            axis.set_xticks([-np.log10(1 - s) for s in STOPS.values()], [f"{100 * s:.0f} %" for s in STOPS.values()])
            axis.set(xlabel="zeros", ylabel="test accuracy", title=network.name)
        axes[0].legend()

    return Result(columns, draw, holds(all(ok for ok, _ in lines), "; ".join(text for _, text in lines)), len(networks))


def iterate(network: Network, method: str, count: int, seed: int) -> dict[float, Score]:
    """Judge at the stops of one run."""
    place = device()
    model = network.model.to(place)
    put(model, network.weights)
    images, test = network.train.first(count).to(place), network.test.to(place)
    budget = BUDGETS[network.name]
    optimizer = optimizer_of(model, budget)
    random = torch.Generator().manual_seed(seed)
    pruner = train.Pruner(model, train.chooser(method), keep=KEEP, names=network.matrices)
    out = {}
    with pruner.masks.attach(optimizer):
        for number in range(1, max(STOPS) + 1):
            pruner.step()
            retrain(model, images, budget, optimizer, random)
            if number in STOPS:
                out[STOPS[number]] = judge(model, test)
    put(model, network.weights)
    network.model.cpu()
    return out


def one_shot(network: Network, method: str) -> dict[float, Score]:
    """Judge the trained network after a single cut."""
    out = {}
    for sparsity in STOPS.values():
        put(network.model, network.weights)
        pruner = train.Pruner(network.model, train.chooser(method), names=network.matrices)
        pruner.prune_to(1 - sparsity)
        out[sparsity] = judge(network.model, network.test)
    put(network.model, network.weights)
    return out


def compare(network: str, final: dict[tuple[str, str, float], list[Score]]) -> tuple[bool, str]:
    """SuRP's scores against LAMP's: accuracies, and the paired difference of hits over images and seeds."""
    texts, ok = [], True
    for sparsity in STOPS.values():
        ours, theirs = final[network, "surp", sparsity], final[network, "lamp", sparsity]
        hits = [np.mean([score.hits for score in scores], axis=0) for scores in (ours, theirs)]
        difference, error = paired(hits[0], hits[1])
        ok = ok and difference > -2 * error
        texts.append(
            f"{100 * sparsity:.0f} % {100 * float(hits[0].mean()):.2f} / {100 * float(hits[1].mean()):.2f} "
            f"({100 * difference:+.2f} +- {100 * error:.2f})"
        )
    return ok, f"{network}, SuRP's scores / LAMP after retraining, accuracy % at " + ", ".join(texts)


if __name__ == "__main__":
    network_command("iterative_pruning", run)
