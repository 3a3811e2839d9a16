"""Softened gradients and lifted Hessians: is there a best temperature, a best mu? (Gao et al., figures 11 and 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments.figures import Result, holds, network_command
from experiments.networks import Network, judge_weights, load
from experiments.paper1 import Stats, measured, pruned

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0)
LIFTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)  # mu in units of the network's mean second derivative


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Prune by the gradient at temperatures of 1 to 12, and by the Hessian plus mu."""
    del seed
    perceptron, residual = load("lenet300", data), load("resnet20", data)
    if perceptron is None or residual is None:
        return None
    samples, tests = (300, 10_000) if full else (100, 2000)
    rows: list[tuple[str, str, float, float, float, float]] = []
    for temperature in TEMPERATURES if full else TEMPERATURES[::3]:
        stats = measured(perceptron, "gradient", samples, temperature=temperature)
        rows += points(perceptron, "temperature", temperature, stats, (0.05, 0.075, 0.1), tests)
    network, kept = (residual, (0.4, 0.5)) if full else (perceptron, (0.1, 0.15, 0.2))
    found = measured(network, "hessian", 100)
    hessian = {name: found.raw(name) for name in found}  # without the floor that `Importance` chooses itself
    for lift in LIFTS if full else LIFTS[::2]:
        rows += points(network, "mu", lift, lifted(hessian, lift), kept, tests)
    header = ("network", "scan", "value", "kept", "accuracy", "cross_entropy_nats")
    columns: dict[str, Sequence[object]] = dict(zip(header, zip(*rows, strict=True), strict=True))
    shares = {scan: sorted({row[3] for row in rows if row[1] == scan}) for scan in ("temperature", "mu")}

    def panels(axes: Sequence[Axes]) -> None:
        for axis, scan in zip(axes, shares, strict=True):
            for share in shares[scan]:
                mine = [(row[2], row[5]) for row in rows if (row[1], row[3]) == (scan, share)]
                axis.plot([x for x, _ in mine], [y for _, y in mine], "o-", label=f"{share:g} kept", markersize=3)
            axis.set(ylabel="cross-entropy, nats", title=next(row[0] for row in rows if row[1] == scan))
            axis.legend()
        axes[0].set(xlabel="temperature")
        axes[1].set(xlabel="mu / mean second derivative", xscale="symlog")

    texts, interior = [], []
    for scan, wanted in shares.items():
        for share in wanted:
            mine = [(row[2], row[5], row[4]) for row in rows if (row[1], row[3]) == (scan, share)]
            best = int(np.argmin([loss for _, loss, _ in mine]))
            interior.append(0 < best < len(mine) - 1)
            texts.append(
                f"{share:g} kept, best {scan} {mine[best][0]:g}: {mine[best][1]:.3f} nats, "
                f"{mine[0][1]:.3f} at {mine[0][0]:g}, {mine[-1][1]:.3f} at {mine[-1][0]:g}"
            )
    return Result(columns, panels, holds(all(interior), f"the best is inside the scan in {sum(interior)} of "
                                         f"{len(interior)}; " + "; ".join(texts)), 2)  # fmt: skip


def points(
    network: Network, scan: str, value: float, stats: Stats, kept: Sequence[float], tests: int
) -> list[tuple[str, str, float, float, float, float]]:
    """Judge the network pruned to some shares."""
    out = []
    for share in kept:
        score = judge_weights(network, pruned(network, stats, share), network.test.first(tests))
        out.append((network.name, scan, value, share, score.accuracy, score.loss_nats))
    return out


def lifted(stats: Stats, lift: float) -> Stats:
    """Add mu, a multiple of the mean over all weights."""
    whole = [s.weight * s.diagonal.astype(np.float64).reshape(-1) for s in stats.values() if s.diagonal is not None]
    mu = lift * float(np.concatenate(whole).mean())
    return {
        name: replace(s, weight=1.0, diagonal=(s.weight * s.diagonal + mu).astype(np.float32))
        for name, s in stats.items()
        if s.diagonal is not None
    }


if __name__ == "__main__":
    network_command("temperature", run)
