"""Pruning in one cut, no retraining: SuRP's own stream beside magnitude rules (Isik et al. 2022, one-shot)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from experiments.figures import Result, holds, network_command
from experiments.networks import Network, Score, Weights, judge_weights, load, paired
from netweight.codecs.base import index_of
from netweight.codecs.messages import Rule, normalised, receive, send, write
from netweight.codecs.surp import Surp
from netweight.importance.stat import Stat
from netweight.prune import masks

RULES = ("surp", "lamp", "erk", "uniform+", "uniform", "global")
SPARSITIES = {
    "lenet300": tuple(1 - 0.8**k for k in (3, 5, 7, 9, 11, 13)),
    "lenet5": tuple(1 - 0.8**k for k in (5, 7, 9, 11, 13, 15)),
    "resnet20": tuple(1 - 0.8**k for k in (1, 2, 3, 4, 5)),
}
REDUCED, FULL = ("lenet300",), ("lenet300", "lenet5", "resnet20")
TESTS = {False: 2000, True: 10_000}
HEADER = ("network", "method", "sparsity", "accuracy", "cross_entropy_nats")
SURE = 2.0  # standard errors


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Judge every method at every sparsity 1 - 0.8^k."""
    del seed  # nothing is random but the order of the messages, which is fixed
    networks = [network for name in (FULL if full else REDUCED) if (network := load(name, data)) is not None]
    if not networks:
        return None
    found = {network.name: judged(network, TESTS[full], full) for network in networks}
    rows = [
        (name, method, sparsity, score.accuracy, score.loss_nats)
        for name, scores in found.items()
        for (method, sparsity), score in scores.items()
    ]
    lines = [compared(name, scores) for name, scores in found.items()]

    def draw(axes: Sequence[Axes]) -> None:
        for axis, (name, scores) in zip(axes, found.items(), strict=True):
            for method in dict.fromkeys(method for method, _ in scores):
                points = [(-np.log10(1 - s), scores[method, s].accuracy) for s in SPARSITIES[name]]
                axis.plot(*zip(*points, strict=True), "o-", markersize=3, label=method)
            ticks = [-np.log10(1 - s) for s in SPARSITIES[name]]
            axis.set_xticks(ticks, [f"{100 * s:.0f} %" for s in SPARSITIES[name]])
            axis.set(xlabel="zeros", ylabel="test accuracy", title=name)
        axes[0].legend()

    columns = dict(zip(HEADER, zip(*rows, strict=True), strict=True))
    return Result(columns, draw, holds(all(ok for ok, _ in lines), "; ".join(text for _, text in lines)), len(networks))


def judged(network: Network, tests: int, full: bool) -> dict[tuple[str, float], Score]:
    """Scores by method and sparsity; the authors' loop takes a minute and is left out of the reduced setting."""
    images, weights = network.test.first(tests), {name: network.weights[name] for name in network.matrices}
    scores = {}
    data = stream(weights, min(SPARSITIES[network.name])) if full else None
    for sparsity in SPARSITIES[network.name]:
        changed = {method: cut(weights, 1 - sparsity, method) for method in RULES}
        if data is not None:
            changed["surp, messages"] = stopped(weights, *data, 1 - sparsity)
        changed["surp, ladder"] = climbed(weights, 1 - sparsity)
        for method, tensors in changed.items():
            scores[method, sparsity] = judge_weights(network, tensors, images)
    return scores


def cut(weights: Weights, density: float, method: str) -> Weights:
    """The weights that a rule keeps, as they are."""
    return {name: weights[name] * kept for name, kept in masks(weights, density, method).items()}


def stream(weights: Weights, sparsity: float) -> tuple[bytes, NDArray[np.int64]]:
    """The authors' loop on all layers over their norms, once, and how many weights are not zero after each message."""
    sent = send(normalised(list(weights.values()))[0], Rule(10.0, refreshed=True), zeros=sparsity)
    return write(sent), np.cumsum(sent.first)


def stopped(weights: Weights, data: bytes, hit: NDArray[np.int64], density: float) -> Weights:
    """What a reader of the stream has when so many weights are not zero."""
    _, norms = normalised(list(weights.values()))
    sizes = np.cumsum([w.size for w in weights.values()])
    count = int(np.searchsorted(hit, round(density * sizes[-1]))) + 1
    parts = np.split(receive(data, count), sizes[:-1])
    return {
        name: (part * norm).astype(np.float32).reshape(w.shape)
        for (name, w), part, norm in zip(weights.items(), parts, norms, strict=True)
    }


def climbed(weights: Weights, density: float) -> Weights:
    """The ladder down to the threshold over which so many weights over their layer's norm are."""
    joined, norms = normalised(list(weights.values()))
    step = float(np.quantile(np.abs(joined), 1 - density))
    codec, out = Surp(), {}
    for (name, w), norm in zip(weights.items(), norms, strict=True):
        parts = codec.encode(w, Stat(), index_of(step * float(norm)))
        out[name] = codec.decode(parts, {key: k.k for key, k in parts.streams.items()}, w.shape)
    return out


def compared(name: str, scores: Mapping[tuple[str, float], Score]) -> tuple[bool, str]:
    """The stream against LAMP, paired over images, and against its own weights without the stream's rounding."""
    texts, worse = [], 0
    for sparsity in SPARSITIES[name]:
        ours, lamp = scores["surp, ladder", sparsity], scores["lamp", sparsity]
        difference, error = paired(ours.hits.astype(float), lamp.hits.astype(float))
        worse += difference < -SURE * error
        texts.append(
            f"{100 * sparsity:.0f} % {100 * ours.accuracy:.1f} / {100 * scores['surp', sparsity].accuracy:.1f} / "
            f"{100 * lamp.accuracy:.1f} / {100 * scores['global', sparsity].accuracy:.1f}"
        )
    text = f"{name}, SuRP's ladder / its mask / LAMP / global, accuracy % at " + ", ".join(texts)
    return worse == 0, f"{text}; surely below LAMP at {worse} of {len(texts)}"


if __name__ == "__main__":
    network_command("one_shot_pruning", run)
