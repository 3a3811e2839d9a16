"""Pruning in one cut, no retraining: SuRP's own stream beside magnitude rules (Isik et al. 2022, one-shot)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from experiments import vgg
from experiments.figures import Result, holds, network_command
from experiments.networks import Network, Score, Weights, judge_weights, paired
from experiments.parts import Arrays, arrays_of, kept, scores_of, stamp
from netweight.codecs.base import index_of
from netweight.codecs.messages import Rule, normalised, receive, send, write
from netweight.codecs.surp import Surp
from netweight.importance.stat import Stat
from netweight.prune import masks

RULES = ("surp", "lamp", "erk", "uniform+", "uniform", "global")
OURS = ("surp, messages", "surp, ladder")
SPARSITIES = {
    "lenet300": tuple(1 - 0.8**k for k in (3, 5, 7, 9, 11, 13)),
    "lenet5": tuple(1 - 0.8**k for k in (5, 7, 9, 11, 13, 15)),
    "resnet20": tuple(1 - 0.8**k for k in (2, 3, 4, 5, 6)),
    vgg.NAME: tuple(1 - 0.8**k for k in (1, 2, 3, 4, 5)),
}
REDUCED, FULL = ("lenet300",), ("lenet300", "lenet5", "resnet20", vgg.NAME)
DENSE = {vgg.NAME: vgg.FULL}  # those that come without weights
TESTS = {False: 2000, True: 10_000}
MESSAGES = 500_000  # weights; the authors' loop, one message at a time, takes longer than all else for more
HEADER = ("network", "method", "sparsity", "accuracy", "cross_entropy_nats")
SURE = 2.0  # standard errors
Scores = dict[tuple[str, float], Score]


def run(seed: int, data: Path, full: bool, resume: Path | None = None) -> Result | None:
    """Judge every method at every sparsity 1 - 0.8^k; random is only the training of VGG-16."""
    found: dict[str, Scores] = {}
    for name in FULL if full else REDUCED:
        network = vgg.found(name, data, seed, resume, DENSE.get(name))
        if network is not None:
            found[name] = finished(network, TESTS[full], full, resume, seed)
    if not found:
        return None
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
    return Result(columns, draw, holds(all(ok for ok, _ in lines), "; ".join(text for _, text in lines)), len(found))


def finished(network: Network, tests: int, full: bool, folder: Path | None, seed: int) -> Scores:
    """Scores of a network, read again where the folder has them; in the order of `judged`."""
    points = SPARSITIES[network.name]
    places = {(method, s): f"{method} {k}" for k, s in enumerate(points) for method in (*RULES, *OURS)}

    def make(_: Path | None) -> Arrays:
        return arrays_of({places[place]: score for place, score in judged(network, tests, full).items()})

    settings = DENSE[network.name].settings if network.name in DENSE else ()
    key = f"one_shot_pruning-{network.name}-{stamp(seed, tests, full, points, *settings)}"
    found = scores_of(kept(folder, key, make))
    return {place: found[name] for place, name in places.items() if name in found}


def judged(network: Network, tests: int, full: bool) -> Scores:
    """Scores by method and sparsity; the authors' loop takes a minute and is left out of the reduced setting."""
    images, weights = network.test.first(tests), {name: network.weights[name] for name in network.matrices}
    scores = {}
    loop = full and sum(w.size for w in weights.values()) <= MESSAGES
    data = stream(weights, min(SPARSITIES[network.name])) if loop else None
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
    """The papers' order, SuRP >= LAMP > ERK, Uniform+ > Uniform, Global, paired over images at each sparsity.

    It holds where SuRP's stream is nowhere surely below LAMP, and LAMP nowhere surely below the others.
    """
    points = SPARSITIES[name]
    pairs = [(ours, "lamp") for ours in (*OURS, "surp") if (ours, points[0]) in scores]
    pairs += [("lamp", rule) for rule in RULES if rule not in ("surp", "lamp")]
    texts, good = [], True
    for ours, theirs in pairs:
        above, below = surely(scores, ours, theirs, points)
        good = good and (below == 0 or ours == "surp")
        texts.append(f"{ours} against {theirs} {above} / {below}")
    best = [max(RULES, key=lambda rule: scores[rule, s].hits.sum()) for s in points]
    return good, (
        f"{name}, surely above / surely below at {len(points)} sparsities: {', '.join(texts)}; accuracy % of SuRP's "
        "ladder / its mask / LAMP / best rule at "
        + ", ".join(
            f"{100 * s:.0f} % "
            + " / ".join(f"{100 * scores[m, s].accuracy:.1f}" for m in ("surp, ladder", "surp", "lamp", rule))
            + f" ({rule})"
            for s, rule in zip(points, best, strict=True)
        )
    )


def surely(
    scores: Mapping[tuple[str, float], Score], ours: str, theirs: str, points: Sequence[float]
) -> tuple[int, int]:
    """Points where the first has surely more hits than the second, and surely fewer."""
    found = [paired(*(scores[m, s].hits.astype(float) for m in (ours, theirs))) for s in points]
    return sum(d > SURE * e for d, e in found), sum(d < -SURE * e for d, e in found)


if __name__ == "__main__":
    network_command("one_shot_pruning", run, resumes=True)
