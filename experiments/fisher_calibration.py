"""Why Fisher-weighted pruning loses on ResNet-20: images known by heart, temperature, the mean, or a fact?

All weights of a layer compete only with one another here, so scales of layers cannot matter. What can is measured:
importance from training images, at temperature 4, from mixtures that no training showed, and from the very test images
that judge (without labels; no user can have these).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes

import netweight as nw
from experiments.figures import Result, holds, network_command
from experiments.networks import Images, Network, Score, judge, load, paired, put, renormalise
from experiments.paper1 import SURE, Stats, pruned
from experiments.retraining import Budget, lesson
from netweight.importance.stat import Stat

WAYS = ("magnitude", "train", "train, temperature 4", "mixtures", "test images")
HEADER = ("calibration", "norms", "kept", "accuracy", "cross_entropy_nats", "minus_magnitude_nats", "se_nats")


@dataclass(frozen=True, slots=True)
class Setting:
    """Images to measure from, images to judge by, shares to keep."""

    samples: int
    tests: int
    kept: tuple[float, ...]


REDUCED = Setting(8, 100, (0.6,))
FULL = Setting(200, 932, (0.7, 0.5))


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Prune by each, with norms as they are and renewed."""
    network = load("resnet20", data)
    if network is None:
        return None
    setting = FULL if full else REDUCED
    scores: dict[tuple[str, str, float], Score] = {}
    for way in WAYS:
        stats = measured(network, way, setting, seed)
        for kept in setting.kept:
            for norms, score in judged(network, stats, kept, setting):
                scores[way, norms, kept] = score
    rows = [(*key, score.accuracy, score.loss_nats, *against(scores, *key)) for key, score in scores.items()]

    def draw(axes: Sequence[Axes]) -> None:
        for at, norms in enumerate(("as they are", "renewed")):
            found = [against(scores, way, norms, setting.kept[-1]) for way in WAYS[1:]]
            x = [j + 0.3 * at for j in range(len(found))]
            axes[0].errorbar(x, [d for d, _ in found], [e for _, e in found], fmt="o", label=f"norms {norms}")
        axes[0].set_xticks(range(len(WAYS) - 1), [way.replace(", ", "\n") for way in WAYS[1:]])
        axes[0].axhline(0, color="0.4", linewidth=0.8)
        axes[0].set(ylabel=f"nats above magnitude, {setting.kept[-1]:g} kept", yscale="symlog")
        axes[0].legend()

    better = [key for key in scores if key[0] != "magnitude" and surely(against(scores, *key)) < 0]
    worse = [key for key in scores if key[0] != "magnitude" and surely(against(scores, *key)) > 0]
    texts = [
        f"{way}, norms {norms}: {score.loss_nats:.3f} nats ({difference:+.3f} +- {error:.3f})"
        for (way, norms, kept), score in scores.items()
        if kept == setting.kept[-1]
        for difference, error in [against(scores, way, norms, kept)]
    ]
    return Result(
        dict(zip(HEADER, zip(*rows, strict=True), strict=True)),
        draw,
        holds(
            not worse and bool(better),
            f"surely below magnitude at {len(better)}, surely above at {len(worse)} of {len(scores) * 4 // 5}; "
            f"{setting.kept[-1]:g} kept: " + ", ".join(texts),
        ),
    )


def measured(network: Network, way: str, setting: Setting, seed: int) -> Stats:
    """Fisher information of every weight, from some images."""
    if way == "magnitude":
        return {name: Stat() for name in network.matrices}
    images = (network.test if way == "test images" else network.train).first(setting.samples).x
    if way == "mixtures":
        random = torch.Generator().manual_seed(seed)
        first = network.train.first(2 * setting.samples)
        images = lesson(network.model, first, 1, Budget(0, 0, shift=4, flip=True), random)[0].x[: setting.samples]
    return nw.measure(
        network.model,
        list(torch.split(images, 50)),
        "kl",
        structure="diagonal",
        names=network.matrices,
        temperature=4.0 if "temperature" in way else 1.0,
    )


def judged(network: Network, stats: Stats, kept: float, setting: Setting) -> Iterator[tuple[str, Score]]:
    """Test with the norms' old statistics, then with those of training images."""
    put(network.model, {**network.weights, **pruned(network, stats, kept)})
    test = network.test.first(setting.tests)
    yield "as they are", judge(network.model, test)
    renormalise(network.model, Images(network.train.x[:1000], network.train.y[:1000]))
    yield "renewed", judge(network.model, test)
    put(network.model, network.weights)


def against(scores: dict[tuple[str, str, float], Score], way: str, norms: str, kept: float) -> tuple[float, float]:
    """Cross-entropy above magnitude's, and its standard error."""
    return paired(scores[way, norms, kept].losses_nats, scores["magnitude", norms, kept].losses_nats)


def surely(found: tuple[float, float]) -> int:
    """Sign of a difference; 0 within two standard errors."""
    difference, error = found
    return int(difference > SURE * error) - int(difference < -SURE * error)


if __name__ == "__main__":
    network_command("fisher_calibration", run)
