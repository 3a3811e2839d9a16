"""What pruning rules think a weight is worth. All but one rank the weights of a tensor alike; tensors they do not."""

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.words import weights_of
from netweight.importance.stat import Stat

Float64 = NDArray[np.float64]
Array = NDArray[np.floating]


def magnitude(w: Array) -> Float64:
    """|w|.

    >>> magnitude(np.array([-2.0, 1.0]))
    array([2., 1.])
    """
    return np.abs(w.reshape(-1).astype(np.float64))


def normalised(w: Array) -> Float64:
    """|w| over the length of the tensor: what the published SuRP ranks weights by.

    >>> normalised(np.array([3.0, -4.0]))
    array([0.6, 0.8])
    """
    size = magnitude(w)
    length = float(np.sqrt(np.dot(size, size)))
    return size / length if length else size


def lamp(w: Array) -> Float64:
    """Layer-adaptive magnitude: w_j^2 over the squares of all weights that are not smaller, itself included.

    The largest weight of every tensor scores 1, so no tensor is ever emptied before all are down to one. Of equal
    weights the later one counts as the smaller.

    >>> lamp(np.array([1.0, -2.0, 2.0]))
    array([0.11111111, 1.        , 0.5       ])

    Source: Lee, Park, Mo, Ahn, Shin, "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021.
    """
    squares = np.square(magnitude(w))
    order = np.argsort(-squares, kind="stable")
    above = np.cumsum(squares[order])
    out = np.zeros_like(squares)
    out[order] = np.divide(squares[order], above, out=np.zeros_like(above), where=above > 0)
    return out


def saliency(w: Array, stat: Stat) -> Float64:
    """Loss of pruning a weight alone, 1/2 weight (I w^2 + Q w^4): rule 2 of Gao et al. where what is kept stays exact.

    Structured importance counts by its diagonal.

    >>> saliency(np.array([1.0, -2.0], np.float32), Stat(2.0, diagonal=np.array([4.0, 1.0], np.float32)))
    array([4., 4.])
    """
    known = weights_of(w.astype(np.float32), stat)
    square = np.square(magnitude(w))
    out: Float64 = square.copy() if known.importance is None else square * known.importance
    if known.quartic is not None:
        out += square * square * known.quartic
    if stat.relative:
        out = (square > 0).astype(np.float64)
    out *= 0.5 * stat.weight
    return out
