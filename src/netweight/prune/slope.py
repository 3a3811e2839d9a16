"""One slope over all tensors: loss of what is pruned against the bits of what is kept.

    minimise  sum of the losses of the pruned  +  slope (log2 C(n, k) + b k)   for each tensor

log2 C(n, k) are the bits of k positions among n, b those of a sign and a value. At one slope one more bit saves the
same loss in every tensor (reverse water-filling), which no single threshold does: where few weights are kept, a
position costs more.
"""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
VALUE_BITS = 5.0  # of a sign and a value: what `sparse` spends at its usual precision
HALVINGS = 100


def positions_bits(n: int, k: Float64) -> Float64:
    """log2 of the number of ways to choose k of n: the enumerative bound of a mask.

    >>> positions_bits(4, np.array([0.0, 2.0])).round(4)
    array([0.   , 2.585])
    """
    logs = np.concatenate([[0.0, 0.0], np.cumsum(np.log2(np.arange(2, n + 1)))]) if n > 1 else np.zeros(2)
    chosen = k.astype(np.int64)
    bits: Float64 = logs[n] - logs[chosen] - logs[n - chosen]
    return bits


def one_slope(scores: list[Float64], total: int, value_bits: float = VALUE_BITS) -> NDArray[np.int64]:
    """How many of the largest scores of each tensor to keep: `total` of all, at one slope.

    The slope is found by halving; what it leaves open, because a tensor jumps, goes to the weights that save most loss
    for their bits.

    Args:
        scores: loss of pruning each weight, by tensor.
        total: weights to keep.
        value_bits: b.
    """
    losses = [np.concatenate([np.cumsum(np.sort(score))[::-1], [0.0]]) for score in scores]
    bits = [positions_bits(s.size, np.arange(s.size + 1.0)) + value_bits * np.arange(s.size + 1) for s in scores]

    def counts(slope: float) -> NDArray[np.int64]:
        return np.array([int((a + slope * b).argmin()) for a, b in zip(losses, bits, strict=True)], np.int64)

    positive = max((float(loss[0]) for loss in losses), default=0.0)
    low, high = -1000.0, float(np.log2(positive)) + 1 if positive > 0 else 0.0  # log2 of slopes: all, and none or few
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if int(counts(2.0**middle).sum()) >= total:
            low = middle
        else:
            high = middle
    return _between(counts(2.0**high), counts(2.0**low), losses, bits, total)


def _between(
    few: NDArray[np.int64], many: NDArray[np.int64], losses: list[Float64], bits: list[Float64], total: int
) -> NDArray[np.int64]:
    """Grow the counts of the steep slope until they add up, by what saves most loss for its bits."""
    kept = few.copy()
    while (left := total - int(kept.sum())) > 0:
        gains = []
        for j, k in enumerate(kept):
            top = min(len(losses[j]) - 1, max(int(many[j]), int(k) + 1), int(k) + left)
            saved = (losses[j][k] - losses[j][top]) / max(bits[j][top] - bits[j][k], 1e-9)
            gains.append((float(saved) if top > k else -np.inf, -j, top))
        _, j, top = max(gains)
        kept[-j] = top
    while int(kept.sum()) > total:  # the steepest slope keeps more than asked for: only where scores are all zero
        kept[int(kept.argmax())] -= 1
    return kept
