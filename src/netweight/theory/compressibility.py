"""How sparse a weight vector is, before anything is coded.

Magnitudes sorted as |w|_(1) >= |w|_(2) >= ... decide how well k weights can stand for all. Three views: the best k-term
error itself, the weak l_q radius that bounds it for every k, and the PQ index with the number of weights it forces one
to keep. All are invariant or homogeneous under scaling, and none is a rate: R(D) also prices the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, positive, refuse, vector


def _magnitudes(w: ArrayLike) -> Array:
    x = np.sort(np.abs(vector("w", np.ravel(np.asarray(w, dtype=np.float64)))))[::-1]
    if x[0] == 0:
        raise refuse(f"All {x.size} weights are zero.", "Sparsity of a zero vector is undefined.")
    return x


def best_k_term_errors(w: ArrayLike, power: float = 2.0) -> Array:
    """Relative error of keeping the k largest weights, for every k: (sum_{i>k} |w|_(i)^p / sum |w|^p)^(1/p).

    Args:
        w: weights, any shape, m in total.
        power: p > 0 of the norm.

    Returns:
        Shape (m + 1,) for k = 0 .. m, from 1 down to 0.

    Raises:
        ValueError: only zeros, NaN or infinity, or a power that is not positive.

    Example:
        >>> np.round(best_k_term_errors([3.0, -4.0, 0.0]), 6)
        array([1. , 0.6, 0. , 0. ])
    """
    p = positive("power", power)
    x = _magnitudes(w)
    tail = np.append(np.cumsum((x[::-1] / x[0]) ** p)[::-1], 0.0)
    return np.asarray((tail / tail[0]) ** (1 / p))


def weak_lq_radius(w: ArrayLike, q: float) -> float:
    """Smallest R with |w|_(i) <= R i^(-1/q) for all i: the weak l_q quasi-norm max_i i^(1/q) |w|_(i).

    For q < p it bounds every best k-term error: (sum_{i>k} |w|_(i)^p)^(1/p) <= R (p/q - 1)^(-1/p) k^(1/p - 1/q).

    Args:
        w: weights, any shape.
        q: exponent > 0; smaller means sparser.

    Raises:
        ValueError: as `best_k_term_errors`.

    Example:
        >>> weak_lq_radius([8.0, 4.0, 2.0, 1.0], 1.0)
        8.0

    Source: DeVore 1998; proof in docs/theory.md section 9.
    """
    x = _magnitudes(w)
    return float((np.arange(1, x.size + 1) ** (1 / positive("q", q)) * x).max())


def decay_exponent(w: ArrayLike, low: float = 0.01, high: float = 0.5) -> float:
    """Exponent q of the power law |w|_(i) ~ i^(-1/q) fitted by least squares over the ranks [low, high] * m.

    Args:
        w: weights, any shape.
        low: first relative rank.
        high: last relative rank.

    Returns:
        q; below 2 the l_2 error of pruning decays with a power of k, the smaller the faster.

    Raises:
        ValueError: fewer than two non-zero magnitudes in the range, or magnitudes that do not decay.

    Example:
        >>> print(f"{decay_exponent(np.arange(1, 1001) ** -2.0):.3f}")
        0.500
    """
    x = _magnitudes(w)
    first, last = max(0, int(low * x.size)), max(2, int(high * x.size))
    part = x[first:last]
    part = part[part > 0]
    if part.size < 2 or part[0] == part[-1]:
        raise refuse(f"{part.size} magnitudes between ranks {first} and {last} do not decay.", "Widen the range.")
    ranks = np.log(np.arange(first + 1, first + 1 + part.size))
    return float(-1 / np.polyfit(ranks, np.log(part), 1)[0])


def pq_index(w: ArrayLike, p: float = 0.5, q: float = 1.0) -> float:
    """PQ index 1 - m^(1/q - 1/p) |w|_p / |w|_q: 0 when all magnitudes are equal, towards 1 when few carry the vector.

    Args:
        w: weights, any shape, m in total.
        p: smaller exponent, above 0.
        q: larger exponent.

    Raises:
        ValueError: only zeros, or exponents out of order.

    Example:
        >>> print(f"{pq_index([1, 1, 1, 1]):.3f} {pq_index([1, 0, 0, 0]):.3f}")
        0.000 0.750

    Source: Diao et al. 2023, *Pruning deep neural networks from a sparsity perspective*.
    """
    if not 0 < p < q:
        raise refuse(f"p = {p}, q = {q}.", "Give 0 < p < q.")
    x = _magnitudes(w)
    x = x / x[0]
    return float(1 - np.mean(x**p) ** (1 / p) / np.mean(x**q) ** (1 / q))


def pq_keep_bound(w: ArrayLike, eta: float = 0.0, p: float = 0.5, q: float = 1.0) -> float:
    """Fewest weights that can be kept when the p-mass of the rest is at most eta times that of the kept ones.

    r >= m (1 + eta)^(-q/(q-p)) (1 - PQ)^(p q/(q-p)).

    Args:
        w: weights, any shape, m in total.
        eta: >= 0.
        p: smaller exponent, above 0.
        q: larger exponent.

    Returns:
        A real number in (0, m]; round up.

    Raises:
        ValueError: a negative eta, or as `pq_index`.

    Example:
        >>> print(f"{pq_keep_bound([1, 1, 0, 0]):.3f}")
        2.000

    Source: Diao et al. 2023; proof in docs/theory.md section 9.
    """
    if eta < 0:
        raise refuse(f"eta is {eta}.", "Give zero or more.")
    index = pq_index(w, p, q)
    return float(np.size(w) * (1 + eta) ** (-q / (q - p)) * (1 - index) ** (p * q / (q - p)))
