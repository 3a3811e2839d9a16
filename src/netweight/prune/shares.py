"""How many weights each tensor keeps, where shape alone decides.

Source: the baselines of Lee et al. 2021 (uniform+: Gale et al. 2019; ERK: Evci et al. 2020).
"""

import numpy as np
from numpy.typing import NDArray

from netweight.errors import UsageError

Counts = NDArray[np.int64]
Shape = tuple[int, ...]
LAST_LEAST = 0.2  # share of the last tensor that uniform+ keeps at least


def sizes_of(shapes: list[Shape]) -> Counts:
    """Weights of each."""
    return np.array([int(np.prod(shape, dtype=np.int64)) for shape in shapes], np.int64)


def apportion(ideal: NDArray[np.floating], sizes: Counts, total: int) -> Counts:
    """Round counts so that they add up: down, then one more for the largest remainders, the first of equals.

    >>> apportion(np.array([1.5, 1.5, 1.0]), np.array([9, 9, 9]), 4)
    array([2, 1, 1])
    """
    counts: Counts = np.minimum(np.floor(ideal + 1e-9).astype(np.int64), sizes)
    while (left := total - int(counts.sum())) > 0:
        open_ = np.flatnonzero(counts < sizes)
        order = open_[np.argsort(-(ideal - counts)[open_], kind="stable")]
        counts[order[:left]] += 1
    while (over := int(counts.sum()) - total) > 0:
        some = np.flatnonzero(counts > 0)
        counts[some[np.argsort((ideal - counts)[some], kind="stable")][:over]] -= 1
    return counts


def uniform(shapes: list[Shape], total: int) -> Counts:
    """The same share of each.

    >>> uniform([(10, 10), (5, 10)], 15)
    array([10,  5])
    """
    sizes = sizes_of(shapes)
    return apportion(sizes * (total / max(1, int(sizes.sum()))), sizes, total)


def uniform_plus(shapes: list[Shape], total: int) -> Counts:
    """All of the first tensor if it is a convolution, at least a fifth of the last, the same share of what is between.

    >>> uniform_plus([(2, 3, 3, 3), (20, 10), (10, 10)], 94)
    array([54, 20, 20])

    Raises:
        UsageError: fewer weights are to be kept than these take.
    """
    sizes = sizes_of(shapes)
    fixed = np.zeros(len(shapes), np.int64)
    if not shapes:
        return fixed
    if len(shapes[0]) > 2:
        fixed[0] = sizes[0]
    free = fixed == 0
    if free[-1]:
        fifth = round(LAST_LEAST * int(sizes[-1]))
        share = (total - int(fixed.sum())) / max(1, int(sizes[free].sum()))
        if share * sizes[-1] < fifth:
            fixed[-1], free[-1] = fifth, False
    left = total - int(fixed.sum())
    if left < 0 or left > int(sizes[free].sum()):
        raise UsageError(
            f"Uniform+ keeps {int(fixed.sum())} weights of the first and the last tensor, more than {total} in all.",
            "Take a larger density, or another method.",
        )
    out = fixed.copy()
    out[free] = apportion(sizes[free] * (left / max(1, int(sizes[free].sum()))), sizes[free], left)
    return out


def erk(shapes: list[Shape], total: int) -> Counts:
    """Shares in proportion to (sum of the axes) / weights; those that come to more than all are all.

    >>> erk([(10, 10), (100, 100)], 440)
    array([ 40, 400])
    """
    sizes = sizes_of(shapes)
    raw = np.array([float(sum(shape)) for shape in shapes])
    full = np.zeros(len(shapes), bool)
    while True:
        left = total - int(sizes[full].sum())
        factor = left / max(float(raw[~full].sum()), 1e-300)
        over = ~full & (factor * raw > sizes)
        if not over.any():
            break
        full |= over
    return apportion(np.where(full, sizes, factor * raw), sizes, total)
