"""Optimal codebooks on the line: weighted k-means and the quartic objective of Gao et al.

The diagonal quadratic objective sum_i I_i (w_i - c_{A_i})^2 is one-dimensional weighted k-means: clusters are
intervals of the sorted weights, so dynamic programming finds the optimum. Its centroids satisfy golden rule 1 cluster
by cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netweight.theory.checks import Array, nonnegative, refuse, vector

# O(k m^2) time and O(m^2) memory; the codec works on a histogram instead.
MAX_WEIGHTS = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Centroids in ascending order, the index of each weight, and the objective reached."""

    centroids: Array
    assignment: NDArray[np.intp]
    cost: float

    @property
    def values(self) -> Array:
        """The quantised weights, shape (m,)."""
        return np.asarray(self.centroids[self.assignment])


def _weights(w: ArrayLike, importance: ArrayLike | None, k: int) -> tuple[Array, Array]:
    x = vector("w", w)
    h = np.ones_like(x) if importance is None else nonnegative("importance", vector("importance", importance))
    if h.shape != x.shape:
        raise refuse(f"importance has {h.size} entries, w {x.size}.", "Give each weight one.")
    if not 1 <= k <= x.size:
        raise refuse(f"k is {k} for {x.size} weights.", "Use 1 <= k <= m.")
    # Zero importance leaves a weight free to go anywhere; a trace of weight makes it go to the nearest centroid.
    return x, np.maximum(h, 1e-12 * max(float(h.mean()), np.finfo(float).tiny))


def optimal(w: ArrayLike, k: int, importance: ArrayLike | None = None) -> Codebook:
    """Find the globally best k centroids by dynamic programming over the sorted weights.

    Args:
        w: weights, shape (m,), m <= 4000.
        k: number of centroids, 1 <= k <= m.
        importance: I_i >= 0, shape (m,); ones if absent.

    Raises:
        ValueError: too many weights, k out of range, negative importance.

    Example:
        >>> book = optimal([-1, -0.9, 0, 0.1, 0.9, 1.2], 3, importance=[1, 2, 1, 4, 1, 3])
        >>> np.round(book.centroids, 6), round(book.cost, 7)
        (array([-0.933333,  0.08    ,  1.125   ]), 0.0821667)

    Source: Gao et al., Corollary 2; Fisher 1958 for the dynamic programme.
    """
    x, h = _weights(w, importance, k)
    m = x.size
    if m > MAX_WEIGHTS:
        raise refuse(f"{m} weights need a table of {m}^2.", f"Give at most {MAX_WEIGHTS}, or use `lloyd`.")
    order = np.argsort(x, kind="stable")
    # Centring keeps the difference of running sums accurate.
    y, g = x[order] - float(np.average(x, weights=h)), h[order]
    s0, s1, s2 = (np.concatenate(([0.0], np.cumsum(g * y**p))) for p in (0, 1, 2))
    start, stop = np.arange(m)[:, None], np.arange(1, m + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (s2[stop] - s2[start]) - (s1[stop] - s1[start]) ** 2 / (s0[stop] - s0[start])
    inside = np.where(stop > start, np.maximum(inside, 0.0), np.inf)
    best = inside[0]
    cuts = np.zeros((k, m), dtype=np.intp)
    for j in range(1, k):
        # The last cluster is [start, stop): the clusters before it end at start - 1.
        total = np.concatenate(([np.inf], best[:-1]))[:, None] + inside
        cuts[j] = total.argmin(axis=0)
        best = np.take_along_axis(total, cuts[j][None], axis=0)[0]
    edges = [m]
    for j in range(k - 1, 0, -1):
        edges.append(int(cuts[j][edges[-1] - 1]))
    edges = [0, *edges[::-1]]
    assignment = np.empty(m, dtype=np.intp)
    assignment[order] = np.repeat(np.arange(k), np.diff(edges))
    return _codebook(x, h, assignment, k)


def _codebook(x: Array, h: Array, assignment: NDArray[np.intp], k: int) -> Codebook:
    mass = np.bincount(assignment, h, k)
    centroids = np.bincount(assignment, h * x, k) / np.where(mass > 0, mass, 1.0)
    return Codebook(centroids, assignment, float((h * (x - centroids[assignment]) ** 2).sum()))


def lloyd(w: ArrayLike, k: int, importance: ArrayLike | None = None, iterations: int = 100) -> Codebook:
    """Run Lloyd's weighted k-means from the quantiles (2i+1)/(2k); a local optimum, as in the paper's experiments.

    Args:
        w: weights, shape (m,).
        k: number of centroids.
        importance: I_i >= 0, shape (m,).
        iterations: at most this many; stops when no assignment changes.

    Raises:
        ValueError: k out of range, negative importance.

    Example:
        >>> np.round(lloyd([0.0, 0.1, 0.9, 1.1], 2).centroids, 6)
        array([0.05, 1.  ])

    Source: Gao et al., Algorithm 2 with H = 0.
    """
    x, h = _weights(w, importance, k)
    centroids = np.quantile(x, (2 * np.arange(k) + 1) / (2 * k))
    assignment = np.full(x.size, -1, dtype=np.intp)
    for _ in range(iterations):
        nearest = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, x).astype(np.intp)
        if (nearest == assignment).all():
            break
        assignment = nearest
        mass = np.bincount(assignment, h, k)
        moved = np.bincount(assignment, h * x, k) / np.where(mass > 0, mass, 1.0)
        centroids = np.sort(np.where(mass > 0, moved, centroids))
    return Codebook(centroids, assignment, float((h * (x - centroids[assignment]) ** 2).sum()))


def quartic_centroid(w: ArrayLike, importance: ArrayLike, curvature: ArrayLike) -> float:
    """Minimise sum_i I_i (w_i - c)^2 + H_i (w_i - c)^4 over c: the centroid of the gradient + Hessian objective.

    The derivative is an increasing cubic, so a bracketed Newton iteration finds its one real root.

    Args:
        w: weights of one cluster, shape (m,).
        importance: I_i >= 0, shape (m,).
        curvature: H_i >= 0 (a quarter of E[(d^2 L)^2] in the paper's objective), shape (m,).

    Raises:
        ValueError: negative coefficients, lengths that differ, or nothing but zeros.

    Example:
        >>> print(f"{quartic_centroid([0.1, 0.2, 0.9], [1, 1, 1], [5, 1, 50]):.7f}")
        0.6194666

    Source: Gao et al., Algorithm 2 (appendix C.2).
    """
    x = vector("w", w)
    a, b = nonnegative("importance", vector("importance", importance)), nonnegative("curvature", curvature)
    if a.shape != x.shape or b.shape != x.shape or not (a + b).any():
        raise refuse(f"{x.size} weights, {a.size} and {b.size} coefficients.", "Match them, not all zero.")
    low, high = float(x.min()), float(x.max())
    c = float(np.average(x, weights=a + b))
    for _ in range(200):
        d = c - x
        slope, bend = float((2 * a * d + 4 * b * d**3).sum()), float((2 * a + 12 * b * d**2).sum())
        low, high = (c, high) if slope < 0 else (low, c)
        new = c - slope / bend if bend > 0 else (low + high) / 2
        new = new if low <= new <= high else (low + high) / 2
        if abs(new - c) <= 1e-15 * max(1.0, abs(c)):
            break
        c = new
    return c
