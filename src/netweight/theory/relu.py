"""One ReLU unit with Gaussian inputs: the exact error, and what the quadratic objective says about it.

f_w(x) = max(0, w^T x), x ~ N(0, S). With a = |w|_S, b = |v|_S and rho = w^T S v / (a b),

    E (f_w - f_v)^2 = a^2/2 + b^2/2 - a b kappa(rho),   kappa(rho) = ( sqrt(1 - rho^2) + rho (pi - arccos rho) ) / pi,

the arc-cosine kernel. The importance matrix of Gao et al. is I_w = E grad f grad f^T = S/2. Their Corollary 1 (pruning)
holds for diagonal S; Theorem 4 and Corollary 2 (quantisation) do not hold for classes closed under scaling: the best
centroids are kappa(rho)/rho times the quadratic ones. docs/theory.md section 6 proves both statements.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, covariance, finite, refuse, vector

# 20 choose 10 subsets of float64 rows are 30 MB; beyond that a brute force is a mistake.
MAX_WEIGHTS = 20


def kappa(rho: ArrayLike) -> Array:
    """Normalised correlation of two ReLU units whose inputs have correlation rho.

    Args:
        rho: correlation in [-1, 1], any shape; rounding outside is clipped.

    Returns:
        2 E[max(0, U) max(0, V)] for unit Gaussians with correlation rho: 1 at rho = 1, 1/pi at 0, 0 at -1.

    Raises:
        ValueError: |rho| > 1 by more than rounding.

    Example:
        >>> np.round(kappa([1.0, 0.0, -1.0]), 6)
        array([1.     , 0.31831, 0.     ])

    Source: Cho and Saul 2009; docs/theory.md section 6.
    """
    r = finite("rho", rho)
    if (np.abs(r) > 1 + 1e-9).any():
        raise refuse(f"rho reaches {np.abs(r).max()}.", "Give correlations in [-1, 1].")
    r = np.clip(r, -1.0, 1.0)
    return np.asarray((np.sqrt(1 - r * r) + r * (pi - np.arccos(r))) / pi)


def error(w: ArrayLike, v: ArrayLike, cov_x: ArrayLike) -> Array:
    """Exact mean squared error between two ReLU units.

    a^2/2 + b^2/2 - a b kappa(rho).

    Args:
        w: weights, shape (m,).
        v: compressed weights, shape (..., m).
        cov_x: S = E x x^T, shape (m, m).

    Returns:
        E (f_w(x) - f_v(x))^2, shape of `v` without its last axis.

    Raises:
        ValueError: a matrix that is not a covariance, or sizes that differ.

    Example:
        >>> print(f"{error([0.7, -0.3, 1.1], [0.5, 0, 1.3], np.diag([1, 2, 0.5])):.6f}")
        0.108956

    Source: docs/theory.md section 6; replaces the Hermite series of Gao et al., appendix B, for norms other than 1.
    """
    x = vector("w", w)
    s, y = covariance("cov_x", cov_x, x.size), finite("v", v)
    aa, bb, ab = float(x @ s @ x), np.einsum("...i,ij,...j->...", y, s, y), y @ s @ x
    norm = np.sqrt(np.maximum(aa * bb, 0.0))
    rho = np.divide(ab, norm, out=np.zeros_like(norm), where=norm > 0)
    return np.asarray(np.maximum(aa / 2 + bb / 2 - norm * kappa(np.clip(rho, -1, 1)), 0.0))


def importance(cov_x: ArrayLike) -> Array:
    """Weight importance matrix of one ReLU unit: I_w = S/2, because half of a symmetric input opens the gate.

    Example:
        >>> importance([[2.0]])
        array([[1.]])

    Source: Gao et al., appendix B, step (i).
    """
    return covariance("cov_x", cov_x) / 2


def quadratic_error(w: ArrayLike, v: ArrayLike, matrix: ArrayLike) -> Array:
    """Golden rule 2: the quadratic (w - v)^T I_w (w - v), batched over v of shape (..., m).

    Example:
        >>> float(quadratic_error([1.0, 2.0], [1.0, 0.0], np.eye(2)))
        4.0

    Source: Gao et al., section 3.
    """
    d = finite("v", v) - vector("w", w)
    return np.asarray(np.einsum("...i,ij,...j->...", d, covariance("matrix", matrix, d.shape[-1]), d))


def rule1_residual(w: ArrayLike, v: ArrayLike, matrix: ArrayLike) -> Array:
    """Golden rule 1: v^T I_w (w - v), zero for an orthogonal reproduction, batched over v of shape (..., m).

    Example:
        >>> float(rule1_residual([1.0, 2.0], [1.0, 0.0], np.eye(2)))
        0.0

    Source: Gao et al., section 3.
    """
    y = finite("v", v)
    x = vector("w", w)
    return np.asarray(np.einsum("...i,ij,...j->...", y, covariance("matrix", matrix, x.size), x - y))


def centroid_scale(w: ArrayLike, v: ArrayLike, cov_x: ArrayLike) -> float:
    """Factor by which the exact error wants quadratic-optimal values v scaled: kappa(rho)/rho >= 1.

    d/db (b^2/2 - a b kappa) = 0 at b = a kappa(rho), while golden rule 1 puts b = a rho.

    Raises:
        ValueError: v not positively correlated with w; the best scale is then not near 1.

    Example:
        >>> print(f"{0.6 * centroid_scale([1, 0.2], [0.6, 0.6], np.eye(2)):.7f}")
        0.6150237

    Source: docs/theory.md section 6, counter-example to Gao et al., Corollary 2.
    """
    x, y = vector("w", w), vector("v", v)
    s = covariance("cov_x", cov_x, x.size)
    rho = float(x @ s @ y) / sqrt(float(x @ s @ x) * float(y @ s @ y))
    if rho <= 0:
        raise refuse(f"v has correlation {rho:.3g} with w.", "Give a reproduction that points along w.")
    return float(kappa(rho)) / rho


def best_subset(w: ArrayLike, cov_x: ArrayLike, keep: int) -> tuple[tuple[int, ...], float]:
    """Find by brute force the weights to keep so that the pruned unit errs least.

    Args:
        w: weights, shape (m,), m <= 20.
        cov_x: S, shape (m, m).
        keep: number of weights kept.

    Returns:
        (indices kept in ascending order, exact error).

    Raises:
        ValueError: more than 20 weights, or a count outside 0..m.

    Example:
        >>> best_subset([1.0, 2.0, 3.0], np.diag([9.0, 1.0, 0.1]), 1)[0]
        (0,)
    """
    x = vector("w", w)
    if x.size > MAX_WEIGHTS or not 0 <= keep <= x.size:
        raise refuse(f"{keep} of {x.size} weights.", f"Give at most {MAX_WEIGHTS} weights and 0 <= keep <= m.")
    subsets = list(combinations(range(x.size), keep))
    rows = np.zeros((len(subsets), x.size))
    if keep:
        chosen = np.array(subsets)
        np.put_along_axis(rows, chosen, x[chosen], axis=1)
    errors = error(x, rows, cov_x)
    best = int(errors.argmin())
    return subsets[best], float(errors[best])


def hermite_coefficients(order: int) -> Array:
    """Coefficients c_0 .. c_order of max(0, x) in the normalised Hermite polynomials.

    c_0 = 1/sqrt(2 pi), c_1 = 1/2, c_p = (-1)^(p/2 + 1) (p - 3)!! / sqrt(2 pi p!) for even p, 0 for odd p >= 3;
    (-1)!! = 1. For unit Gaussians with correlation rho, E[relu relu] = sum_p c_p^2 rho^p = kappa(rho)/2.

    Raises:
        ValueError: a negative order, or one above 150 (the factorial leaves float64).

    Example:
        >>> np.round(hermite_coefficients(6) ** 2, 8)
        array([0.15915494, 0.25      , 0.07957747, 0.        , 0.00663146,
               0.        , 0.00198944])

    Source: Gao et al., appendix B, step (ii), with the signs restored.
    """
    if not 0 <= order <= 150:
        raise refuse(f"order is {order}.", "Give an order from 0 to 150.")
    c = np.zeros(order + 1)
    c[:2] = (1 / sqrt(2 * pi), 0.5)[: order + 1]
    for p in range(2, order + 1, 2):
        odd = 1
        for k in range(p - 3, 1, -2):
            odd *= k
        c[p] = (-1) ** (p // 2 + 1) * odd / sqrt(2 * pi * factorial(p))
    return c
