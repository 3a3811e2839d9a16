"""Masks with structure: N of every M weights, blocks, channels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.errors import UsageError
from netweight.importance.stat import PLAIN, Stat
from netweight.prune.scores import Array, saliency
from netweight.prune.select import Bools, by_threshold

Groups = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which weights are kept or pruned together.

    A tensor of shape (O, I, K..) is a matrix of O rows and I K.. columns.

    Attributes:
        kind: "nm": n of every m consecutive inputs I; "block": tiles of n rows and m columns of the matrix; "channel":
            whole rows.
        n: see kind; 1 for channels.
        m: see kind; 1 for channels.

    >>> Pattern.parse("2:4"), Pattern.parse("4x1"), Pattern.parse("channel")
    (Pattern(kind='nm', n=2, m=4), Pattern(kind='block', n=4, m=1), Pattern(kind='channel', n=1, m=1))
    """

    kind: str
    n: int = 1
    m: int = 1

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read 2:4, 4x1 or channel.

        Raises:
            UsageError: it is none of these.
        """
        if text == "channel":
            return cls("channel")
        for sign, kind in ((":", "nm"), ("x", "block")):
            parts = text.split(sign)
            if len(parts) == 2 and all(p.isascii() and p.isdigit() for p in parts):
                n, m = int(parts[0]), int(parts[1])
                if n > 0 and m > 0 and (kind == "block" or n <= m <= 32):
                    return cls(kind, n, m)
        raise UsageError(
            f"There is no pattern {text!r}.", "Known are N:M such as 2:4, blocks such as 4x1, and channel."
        )

    def groups(self, shape: tuple[int, ...]) -> Groups:
        """Which group each weight belongs to: int64 in the shape; groups count from 0.

        Groups at the border are smaller where a side is no multiple.
        """
        rows, columns = (shape[0], int(np.prod(shape[1:], dtype=np.int64))) if len(shape) > 1 else (1, shape[0])
        if self.kind == "nm":
            inputs = shape[1] if len(shape) > 1 else shape[0]
            lines = np.arange(rows * columns // max(1, inputs)).reshape(rows, 1, -1)
            each = -(-inputs // self.m)
            return (lines * each + (np.arange(inputs) // self.m)[:, None]).reshape(shape)
        high, wide = (1, columns) if self.kind == "channel" else (self.n, self.m)
        across = -(-columns // max(1, wide))
        tiles = (np.arange(rows) // high)[:, None] * across + np.arange(columns) // max(1, wide)
        return tiles.reshape(shape)


def pattern_masks(
    weights: Mapping[str, Array],
    pattern: Pattern,
    density: float = 0.5,
    importance: Mapping[str, Stat] | None = None,
    *,
    least: int = 1,
) -> dict[str, Bools]:
    """Choose groups of weights to keep by the loss of pruning them, I w^2 summed; for each weight they hold.

    Args:
        weights: the tensors that may be pruned, in the order of the network.
        pattern: what goes together.
        density: share of all weights to keep, for blocks and channels; the last group may not fit, and then stays out.
            N:M keeps N of M whatever this says.
        importance: by tensor; squared error without.
        least: blocks or channels that each tensor keeps at least.

    Raises:
        UsageError: a density outside 0 .. 1.

    >>> w = {"w": np.array([[3.0, -1.0, 0.5, 2.0]])}
    >>> pattern_masks(w, Pattern.parse("2:4"))["w"].tolist()
    [[True, False, False, True]]
    """
    if not 0 <= density <= 1:
        raise UsageError(f"A share of {density:g} of the weights cannot be kept.", "Take one from 0 to 1.")
    scores = {name: saliency(w, (importance or {}).get(name, PLAIN)) for name, w in weights.items()}
    groups = {name: pattern.groups(w.shape).reshape(-1) for name, w in weights.items()}
    if pattern.kind == "nm":
        return {n: _n_of_m(scores[n], groups[n], pattern).reshape(w.shape) for n, w in weights.items()}
    sizes = {name: np.bincount(group) for name, group in groups.items()}
    worth = [np.bincount(groups[name], scores[name]) / sizes[name] for name in weights]
    room = round(density * sum(w.size for w in weights.values()))
    kept = _as_many(worth, [sizes[name] for name in weights], room, least)
    return {n: k[groups[n]].reshape(w.shape) for (n, w), k in zip(weights.items(), kept, strict=True)}


def _n_of_m(score: NDArray[np.float64], group: Groups, pattern: Pattern) -> Bools:
    """The n largest of each group, of a smaller one at the border its share rounded up; of equal ones the first."""
    order = np.lexsort((np.arange(score.size), -score, group))
    sizes = np.bincount(group)
    first = np.cumsum(sizes) - sizes
    rank = np.arange(score.size) - first[group[order]]
    kept = np.zeros(score.size, bool)
    kept[order] = rank < -(-sizes * pattern.n // pattern.m)[group[order]]
    return kept


def _as_many(worth: list[NDArray[np.float64]], sizes: list[Groups], room: int, least: int) -> list[Bools]:
    """The groups worth most for each weight, as many as fit."""
    low, high = 0, sum(w.size for w in worth)
    while low < high:
        middle = (low + high + 1) // 2
        kept = by_threshold(worth, middle, least)
        held = sum(int(size[k].sum()) for size, k in zip(sizes, kept, strict=True))
        low, high = (middle, high) if held <= room else (low, middle - 1)
    return by_threshold(worth, low, least)
