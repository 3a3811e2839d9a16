"""What the experiments of Gao et al. 2019 share: objectives, pruning and quantisation at equal ratios, comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch.nn import functional

import netweight as nw
from experiments.networks import Network, Score, Weights, load, paired
from netweight.importance.stat import Stat

Stats = Mapping[str, Stat]
SURE = 2.0  # standard errors of a paired difference


@dataclass(frozen=True, slots=True)
class Setting:
    """How much is measured, and judged on what.

    Attributes:
        samples: training images that importance is measured on, by network.
        tests: test images, the first so many.
    """

    samples: Mapping[str, int]
    tests: int


REDUCED = Setting({"lenet300": 300}, 2000)
FULL = Setting({"lenet300": 1000, "lenet5": 300, "resnet20": 300}, 10_000)
# Of the objectives with labels, and of the Hessian: the networks are too sure of their training images. 4 did best of
# 1, 2, 4 and 8 for the perceptron pruned to a quarter, on 3,000 training images that nothing else looks at.
TEMPERATURE = 4.0


def networks(setting: Setting, data: Path) -> list[Network]:
    """The setting's networks that the folder has."""
    found = [load(name, data) for name in setting.samples]
    return [network for network in found if network is not None]


def measured(network: Network, objective: str, samples: int, *, temperature: float = 1.0) -> nw.Importance:
    """Diagonal importance of the matrices, from training images; labels only where the objective has them."""
    images = network.train.first(samples)
    split = list(zip(torch.split(images.x, 50), torch.split(images.y, 50), strict=True))

    def loss(outputs: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(outputs / temperature, batch[1], reduction="none")

    return nw.measure(
        network.model,
        split,
        "kl" if objective == "fisher" else loss,
        objective=objective,
        structure="diagonal",
        names=network.matrices,
        temperature=temperature if objective == "fisher" else 1.0,
    )


def objectives(network: Network, samples: int) -> dict[str, Stats]:
    """All five; the gradient is that of gradient + Hessian without the quartic term."""
    both = measured(network, "gradient+hessian", samples, temperature=TEMPERATURE)
    return {
        "baseline": {name: Stat() for name in network.matrices},
        "fisher": measured(network, "fisher", samples),
        "gradient": {name: replace(stat, quartic=None) for name, stat in both.items()},
        "hessian": measured(network, "hessian", samples, temperature=TEMPERATURE),
        "gradient+hessian": both,
    }


def pruned(network: Network, stats: Stats, kept: float) -> Weights:
    """Keep the same share of every matrix: the weights of the largest I w^2 + Q w^4."""
    out = {}
    for name in network.matrices:
        w = network.weights[name]
        score = scores(stats[name], w)
        count = max(1, int(kept * w.size))
        top = np.argsort(-score.reshape(-1), kind="stable")[:count]
        values = np.zeros(w.size, np.float32)
        values[top] = w.reshape(-1)[top]
        out[name] = values.reshape(w.shape)
    return out


def scores(stat: Stat, w: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a weight's loss would cost; of equal ones (dead inputs) the larger weight goes last."""
    square = w.astype(np.float64) ** 2
    score = square if stat.diagonal is None else stat.diagonal * square
    if stat.quartic is not None:
        score = score + stat.quartic * square**2
    return score + 1e-12 * float(score.mean()) * square / max(float(square.mean()), 1e-300)


Judge = Callable[[Weights], Score]


@dataclass(frozen=True, slots=True)
class Curves:
    """Scores of one network by x and objective; the same images for all."""

    network: str
    scores: dict[tuple[float, str], Score] = field(default_factory=dict)

    def difference(self, x: float, ours: str, theirs: str = "baseline") -> tuple[float, float]:
        """Cross-entropy of ours less theirs, and its standard error."""
        return paired(self.scores[x, ours].losses_nats, self.scores[x, theirs].losses_nats)

    def against(self, ours: str, theirs: str = "baseline") -> tuple[int, int, int, int]:
        """Points; lower; surely lower; surely higher, by `SURE` standard errors."""
        found = [self.difference(x, ours, theirs) for x, objective in self.scores if objective == ours]
        lower = sum(d < 0 for d, _ in found)
        sure = sum(d < -SURE * e for d, e in found)
        return len(found), lower, sure, sum(d > SURE * e for d, e in found)

    def sentence(self, ours: str, theirs: str = "baseline") -> str:
        """The comparison in words."""
        points, lower, sure, higher = self.against(ours, theirs)
        than = "" if theirs == "baseline" else f" than {theirs}"
        return f"{ours} lower{than} at {lower} of {points} (surely {sure}; surely higher {higher})"

    def rows(self) -> list[tuple[str, float, str, float, float, float, float]]:
        """Network, x, objective, accuracy, cross-entropy, less the baseline's, standard error."""
        return [
            (self.network, x, objective, score.accuracy, score.loss_nats, *self.difference(x, objective))
            for (x, objective), score in self.scores.items()
        ]


def columns(curves: Sequence[Curves], x: str) -> dict[str, Sequence[object]]:
    """For the CSV."""
    names = ("network", x, "objective", "accuracy", "cross_entropy_nats", "minus_baseline_nats", "se_nats")
    rows = [row for each in curves for row in each.rows()]
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def draw(axes: Sequence[Axes], curves: Sequence[Curves], label: str) -> None:
    """One panel a network: cross-entropy against x."""
    for axis, each in zip(axes, curves, strict=True):
        for objective in dict.fromkeys(o for _, o in each.scores):
            points = sorted((x, score.loss_nats) for (x, o), score in each.scores.items() if o == objective)
            axis.plot([x for x, _ in points], [y for _, y in points], "o-", label=objective, markersize=3)
        axis.set(xlabel=label, ylabel="cross-entropy, nats", yscale="log", title=each.network)
    axes[0].legend()


def claims(curves: Sequence[Curves]) -> tuple[bool, str]:
    """The paper's two: Fisher below the baseline everywhere, gradient + Hessian not above gradient."""
    ok, texts = True, []
    for each in curves:
        points, lower, sure, _ = each.against("fisher")
        ok = ok and lower == points and 2 * sure > points
        ok = ok and each.against("gradient+hessian", "gradient")[3] == 0
        texts.append(
            f"{each.network}: {each.sentence('fisher')}, {each.sentence('gradient')}, {each.sentence('hessian')}, "
            f"{each.sentence('gradient+hessian')}, {each.sentence('gradient+hessian', 'gradient')}"
        )
    return ok, "; ".join(texts)
