"""Masks over a network that keep an exact number of weights: one threshold, a share for each tensor, or one slope."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.pruned import largest
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.prune.scores import Array, Float64, lamp, magnitude, normalised, saliency
from netweight.prune.shares import erk, uniform, uniform_plus
from netweight.prune.slope import one_slope

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

_THRESHOLDS: Mapping[str, Callable[[Array], Float64]] = {"global": magnitude, "lamp": lamp, "surp": normalised}
_SHARES: Mapping[str, Callable[[list[tuple[int, ...]], int], Counts]] = {
    "uniform": uniform, "uniform+": uniform_plus, "erk": erk,
}  # fmt: skip
METHODS = (*_THRESHOLDS, *_SHARES, "importance", "slope")


def masks(
    weights: Mapping[str, Array],
    density: float,
    method: str = "lamp",
    importance: Mapping[str, Stat] | None = None,
    *,
    least: int = 1,
) -> dict[str, Bools]:
    """Choose the weights of a network to keep.

    | method | keeps |
    | --- | --- |
    | global | the largest abs(w) |
    | lamp | the largest w^2 / sum of the squares not below it in its tensor |
    | surp | the largest abs(w) / length of its tensor |
    | importance | the largest I w^2 + Q w^4 |
    | uniform | the same share of each tensor, by abs(w) |
    | uniform+ | all of a first convolution, at least a fifth of the last tensor, else uniform |
    | erk | shares in proportion to (sum of the axes) / weights, at most all |
    | slope | what minimises loss + slope bits, positions and values included, by I w^2 + Q w^4 |

    Args:
        weights: the tensors that may be pruned, finite, in the order of the network.
        density: share to keep of all of them together, 0 .. 1; round(density n) weights are kept, exactly. Of equal
            ones the first.
        method: one of `METHODS`.
        importance: by tensor, in one unit; for importance and slope.
        least: weights that each tensor keeps at least, so that none is cut off; as far as there are as many.

    Raises:
        UsageError: an unknown method, a density outside 0 .. 1, weights that are not finite, a method without its
            importance, or a density that uniform+ cannot have.

    >>> weights = {"a": np.array([[3.0, -1.0]]), "b": np.array([[2.0, 0.5], [0.1, 0.0]])}
    >>> {name: kept.tolist() for name, kept in masks(weights, 0.5, "global").items()}
    {'a': [[True, True]], 'b': [[True, False], [False, False]]}
    """
    _check(weights, density, method, importance)
    total = round(density * sum(w.size for w in weights.values()))
    if method in ("importance", "slope"):
        scores = [saliency(w, (importance or {})[name]) for name, w in weights.items()]
    else:
        scores = [_THRESHOLDS.get(method, magnitude)(w) for w in weights.values()]
    if method in _THRESHOLDS or method == "importance":
        kept = by_threshold(scores, total, least)
    else:
        of = (
            one_slope(scores, total)
            if method == "slope"
            else _SHARES[method]([w.shape for w in weights.values()], total)
        )
        kept = [largest(score, int(k)) for score, k in zip(scores, _at_least(of, scores, least), strict=True)]
    return {name: k.reshape(w.shape) for (name, w), k in zip(weights.items(), kept, strict=True)}


def by_threshold(scores: list[Float64], total: int, least: int) -> list[Bools]:
    """Keep the `total` largest scores of all, but first the `least` largest of each tensor if there is room."""
    joined = np.concatenate([np.zeros(0), *scores])
    first = np.zeros(joined.size, bool)
    ends = np.cumsum([0, *(score.size for score in scores)])
    if sum(min(least, score.size) for score in scores) <= total:
        for at, score in zip(ends, scores, strict=False):
            first[at : at + score.size] = largest(score, min(least, score.size))
    joined = np.where(first, np.inf, joined)
    return np.split(largest(joined, total), ends[1:-1])


def _at_least(counts: Counts, scores: list[Float64], least: int) -> Counts:
    """Raise counts that are below `least`, at the cost of the largest, if there is room."""
    floor = np.array([min(least, score.size) for score in scores], np.int64)
    if floor.sum() > counts.sum():
        return counts
    out = np.maximum(counts, floor)
    while out.sum() > counts.sum():
        out[int((out - floor).argmax())] -= 1
    return out


def _check(weights: Mapping[str, Array], density: float, method: str, importance: Mapping[str, Stat] | None) -> None:
    if method not in METHODS:
        raise UsageError(f"There is no pruning method {method!r}.", f"Known are: {', '.join(METHODS)}.")
    if not 0 <= density <= 1:
        raise UsageError(f"A share of {density:g} of the weights cannot be kept.", "Take one from 0 to 1.")
    for name, w in weights.items():
        if not np.isfinite(w).all():
            raise UsageError(f"The tensor {name!r} holds NaN or infinity.", "Leave it out.")
    missing = [name for name in weights if name not in (importance or {})]
    if method in ("importance", "slope") and missing:
        raise UsageError(
            f"The method {method} lacks the importance of {len(missing)} tensors: {missing[0]!r}.",
            "Measure it, or take a method by magnitude.",
        )
