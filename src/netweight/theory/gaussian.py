"""R(D) of independent Gaussian weights: reverse water-filling with weights, and the code that reaches it.

A linear model w^T x with uncorrelated inputs, E x_i^2 = l_i, loses d(w, v) = sum_i l_i (w_i - v_i)^2. Theorem 2 of Gao
et al. fills vessels of capacity c_i = l_i E W_i^2 to one volume mu. `correlated` reduces everything else to this case.
Letters: m weights, l_i = E x_i^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, nonnegative, positive, refuse, vector


@dataclass(frozen=True, slots=True, eq=False)
class Filling:
    """Weighted reverse water-filling at one distortion: the level, what each weight may lose, and the rate."""

    level: float
    """mu, the volume in every vessel that is not full; infinite above D_max."""
    distortions: Array
    """D_i = E (W_i - V_i)^2, unweighted, shape (m,)."""
    rate_nats: float
    """Rate of the whole vector in nats."""
    distortion: float
    """sum_i l_i D_i, at most D_max."""

    @property
    def slope(self) -> float:
        """dR/dD = -1/(2 mu) in nats per unit of distortion."""
        return -0.5 / self.level


def _capacities(variances: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    var = nonnegative("variances", vector("variances", variances))
    lam = np.ones_like(var) if weights is None else nonnegative("weights", vector("weights", weights))
    if lam.shape != var.shape:
        raise refuse(f"weights has {lam.size} entries, variances {var.size}.", "Give one weight a variance.")
    return lam * var, lam, var


@dataclass(frozen=True, slots=True, eq=False)
class _Vessels:
    """Capacities in ascending order with everything the two inversions need, O(m log m) once."""

    full_sum: Array
    left: Array
    log_sum: Array
    capacity: Array
    total: float

    @classmethod
    def of(cls, capacities: Array, counts: ArrayLike | None) -> _Vessels:
        n = np.ones_like(capacities) if counts is None else nonnegative("counts", vector("counts", counts))
        if n.shape != capacities.shape or not n.any():
            raise refuse(f"counts has {n.size} entries for {capacities.size}.", "Give each one, not all zero.")
        order = np.argsort(capacities)
        order = order[n[order] > 0]
        c, n = capacities[order], n[order]
        full = np.cumsum(n * c)
        # Vessels of capacity zero never enter: they are full at every positive level.
        logs = n * np.log(np.where(c > 0, c, 1.0))
        return cls(np.append(0.0, full[:-1]), np.cumsum(n[::-1])[::-1], np.cumsum(logs[::-1])[::-1], c, float(full[-1]))

    def levels_at(self, distortion: Array) -> tuple[Array, Array]:
        knots = self.full_sum + self.left * self.capacity
        j = np.minimum(np.searchsorted(knots, distortion, side="left"), self.capacity.size - 1)
        return np.asarray((distortion - self.full_sum[j]) / self.left[j]), j

    def rates_at(self, distortion: Array) -> Array:
        level, j = self.levels_at(distortion)
        with np.errstate(divide="ignore"):
            rate = 0.5 * (self.log_sum[j] - self.left[j] * np.log(level))
        return np.where(distortion >= self.total, 0.0, np.maximum(rate, 0.0))

    def distortions_at(self, rate: Array) -> Array:
        with np.errstate(divide="ignore"):
            at_knot = 0.5 * (self.log_sum - self.left * np.log(self.capacity))
        # R at the knots falls with j; the segment of a rate is the first knot that needs no more than it.
        j = np.minimum(np.searchsorted(-at_knot, -rate, side="left"), self.capacity.size - 1)
        level = np.exp((self.log_sum[j] - 2 * rate) / self.left[j])
        return np.asarray(self.full_sum[j] + self.left[j] * level)


def waterfill(variances: ArrayLike, distortion: float, weights: ArrayLike | None = None) -> Filling:
    """Pour distortion over independent Gaussian weights so that the rate is smallest.

    D_i = min(mu / l_i, E W_i^2) with sum_i l_i D_i = D, and R(D) = sum_i 1/2 ln(E W_i^2 / D_i).

    Args:
        variances: E W_i^2, shape (m,).
        distortion: D > 0, the total weighted squared error.
        weights: l_i = E x_i^2, shape (m,); ones if absent.

    Raises:
        ValueError: a negative or non-finite argument, or lengths that differ.

    Example:
        >>> f = waterfill([3, 2, 1], 5, weights=[3, 2, 1])
        >>> f.level, f"{f.rate_nats / np.log(2):.6f} bits"
        (2.0, '1.584963 bits')

    Source: Gao et al., Theorem 2; the equal level for scaled variances is classical (Kolmogorov 1956).
    """
    cap, lam, var = _capacities(variances, weights)
    budget = positive("distortion", distortion)
    total = float(cap.sum())
    if budget >= total:
        level = float(cap.max()) if budget == total and total > 0 else np.inf
        return Filling(level, var, 0.0, total)
    level = float(_Vessels.of(cap, None).levels_at(np.asarray(budget))[0])
    with np.errstate(divide="ignore"):
        d = np.minimum(np.where(lam > 0, level / lam, np.inf), var)
    rate = float(0.5 * np.log(cap[cap > level] / level).sum())
    return Filling(level, d, rate, float((lam * d).sum()))


def rate_nats(
    variances: ArrayLike, distortion: ArrayLike, weights: ArrayLike | None = None, counts: ArrayLike | None = None
) -> Array:
    """Evaluate R(D) of independent Gaussian weights for many distortions at once.

    R(D) = sum_i max(0, 1/2 ln(c_i / mu)), c_i = l_i E W_i^2; infinite at D = 0.

    Args:
        variances: E W_i^2, shape (m,); `correlated.components` for correlated weights.
        distortion: D >= 0, any shape.
        weights: l_i, shape (m,); ones if absent.
        counts: how many weights each entry stands for, shape (m,): the rows that share one spectrum; ones if absent.

    Returns:
        Nats for the whole vector, shape of `distortion`.

    Raises:
        ValueError: a negative argument, or lengths that differ.

    Example:
        >>> np.round(rate_nats([3, 2, 1], [3, 9, 14], weights=[3, 2, 1]), 6)
        array([1.791759, 0.405465, 0.      ])

    Source: Gao et al., Theorem 2.
    """
    cap, _, _ = _capacities(variances, weights)
    return _Vessels.of(cap, counts).rates_at(nonnegative("distortion", distortion))


def distortion_at(
    variances: ArrayLike, rate_nats: ArrayLike, weights: ArrayLike | None = None, counts: ArrayLike | None = None
) -> Array:
    """Evaluate D(R), the inverse of `rate_nats`, in closed form.

    With k vessels open, ln mu = (sum of their ln c_i - 2 R) / k and D = sum_i min(mu, c_i).

    Args:
        variances: E W_i^2, shape (m,).
        rate_nats: R >= 0 of the whole vector, any shape.
        weights: l_i, shape (m,); ones if absent.
        counts: how many weights each entry stands for, shape (m,); ones if absent.

    Raises:
        ValueError: a negative argument, or lengths that differ.

    Example:
        >>> np.round(distortion_at([3, 2, 1], np.log([1, 3, 6]), weights=[3, 2, 1]), 6)
        array([14.,  5.,  3.])

    Source: Gao et al., Theorem 2.
    """
    cap, _, _ = _capacities(variances, weights)
    return _Vessels.of(cap, counts).distortions_at(nonnegative("rate_nats", rate_nats))


def code(
    w: ArrayLike, variances: ArrayLike, distortion: float, rng: np.random.Generator, weights: ArrayLike | None = None
) -> Array:
    """Pass weights through the channel that reaches R(D): Algorithm 1 with its test the right way round.

    V_i = a_i W_i + sqrt(a_i D_i) N(0, 1), a_i = 1 - D_i / E W_i^2; a full vessel has a_i = 0 and gives 0.

    Args:
        w: draws of the weights, shape (..., m).
        variances: E W_i^2, shape (m,).
        distortion: D > 0, the total expected weighted squared error.
        rng: source of the noise.
        weights: l_i, shape (m,); ones if absent.

    Returns:
        The reproduction, shape of `w`.

    Raises:
        ValueError: as `waterfill`, or a last axis that is not m.

    Example:
        >>> np.abs(code([[0.3, -2.0]], [1.0, 1.0], 2.0, np.random.default_rng(0)))
        array([[0., 0.]])

    Source: Gao et al., Theorem 3 and Algorithm 1 (whose `if` is printed the wrong way round).
    """
    x = finite("w", w)
    filling = waterfill(variances, distortion, weights)
    var = np.asarray(variances, dtype=np.float64)
    if x.ndim == 0 or x.shape[-1] != var.size:
        raise refuse(f"w has shape {x.shape}, the variances {var.size} entries.", "Put the weights on the last axis.")
    gain = 1 - np.divide(filling.distortions, var, out=np.ones_like(var), where=var > 0)
    return gain * x + np.sqrt(gain * filling.distortions) * rng.standard_normal(x.shape)
