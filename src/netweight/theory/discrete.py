"""R(D) of any finite source by the Blahut-Arimoto iteration, with a certificate of how far it is from the optimum.

At slope s (nats per unit of distortion) the iteration minimises F(q) = -sum_x p(x) ln c(x) over the output law q, where
c(x) = sum_v q(v) exp(-s d(x, v)). With a(v) = sum_x p(x) exp(-s d(x, v)) / c(x), every q certifies

    F(q) - max_v ln a(v)  <=  min_q F = R(D) + s D  <=  F(q),

so the gap is max ln a, and R(D') >= F(q) - gap - s D' at *every* distortion D'. See docs/theory.md section 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, nonnegative, positive, refuse, vector

# Exponent of the over-relaxed update; 60 needs a tenth of the iterations of 1 on smooth sources, 200 overshoots.
MAX_POWER = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A point of R(D) with its certificate."""

    slope: float
    rate_nats: float
    """Mutual information of the channel found; never below R(distortion)."""
    distortion: float
    output: Array
    """q(v), shape (outputs,)."""
    gap_nats: float
    """The Lagrangian R + s D of the point exceeds the optimum by at most this."""
    iterations: int

    def lower_bound_nats(self, distortion: ArrayLike) -> Array:
        """Certified lower bound of R at any distortion: the tangent, lowered by the gap.

        Example:
            >>> binary = solve([0.5, 0.5], 1 - np.eye(2), slope=np.log(9))
            >>> print(f"{binary.lower_bound_nats(0.1):.6f}")                # ln 2 - H(0.1)
            0.368064
        """
        d = nonnegative("distortion", distortion)
        return np.asarray(self.rate_nats - self.gap_nats + self.slope * (self.distortion - d))


def solve(
    source: ArrayLike,
    cost: ArrayLike,
    slope: float,
    *,
    tolerance_nats: float = 1e-9,
    max_iterations: int = 100_000,
    start: ArrayLike | None = None,
) -> Solution:
    """Find the point of R(D) whose tangent has slope -s.

    q(v) <- q(v) a(v), over-relaxed: the exponent of a grows while F falls and returns to 1 when it does not; the gap is
    that of the q returned, whatever the path.

    Args:
        source: p(x) >= 0 with sum 1, shape (inputs,).
        cost: d(x, v), shape (inputs, outputs); infinity forbids a pair.
        slope: s > 0 in nats per unit of distortion.
        tolerance_nats: stop when max ln a(v) is at most this.
        max_iterations: stop at the latest here; the gap then says how good the point is.
        start: first q, shape (outputs,); uniform if absent.

    Returns:
        The point, its output law and its optimality gap.

    Raises:
        ValueError: probabilities that do not sum to 1, shapes that do not match, an input without a permitted output.

    Example:
        >>> p = solve([0.5, 0.5], 1 - np.eye(2), slope=np.log(9))           # a fair bit, 10 % errors
        >>> print(f"{p.rate_nats / np.log(2):.6f} bit at D = {p.distortion:.3f}, gap {p.gap_nats:.0e}")
        0.531004 bit at D = 0.100, gap 0e+00

    Source: Blahut 1972, Arimoto 1972; the certificate is Blahut's Theorem 6.
    """
    p = nonnegative("source", vector("source", source))
    if abs(float(p.sum()) - 1) > 1e-9:
        raise refuse(f"source sums to {p.sum():.12g}.", "Normalise it.")
    d = np.asarray(cost, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != p.size or np.isnan(d).any() or (d < 0).any():
        raise refuse(f"cost has shape {d.shape} for {p.size} inputs.", "Give (inputs, outputs), entries >= 0.")
    s = positive("slope", slope)
    # Subtracting each row's least cost keeps exp() in range; it moves F by a constant that is added back.
    floor = d.min(axis=1)
    if not np.isfinite(floor[p > 0]).all():
        raise refuse("An input has no permitted output.", "Allow each input at least one output.")
    kernel = np.exp(-s * (d - np.where(np.isfinite(floor), floor, 0.0)[:, None]))
    base = s * float(p @ np.where(p > 0, floor, 0.0))
    q = np.full(d.shape[1], 1 / d.shape[1]) if start is None else nonnegative("start", finite("start", start))
    q = q / q.sum()
    best, power, value = q, 1.0, np.inf
    gap = np.inf
    for step in range(1, max_iterations + 1):
        c = kernel @ q
        trial = -float(p @ np.log(np.where(p > 0, c, 1.0)))
        if trial > value + 1e-15 and power > 1.0:
            q, power = best, 1.0
            continue
        best, value = q, trial
        ratio = (p / np.where(p > 0, c, 1.0)) @ kernel
        gap = max(0.0, float(np.log(ratio.max())))
        if gap <= tolerance_nats or step == max_iterations:
            break
        # The floor keeps every output reachable: a step too far may shrink one, never remove it.
        q = np.maximum(q * ratio**power, 1e-60)
        q /= q.sum()
        power = min(power * 1.1, MAX_POWER)
    joint = (p / np.where(p > 0, kernel @ best, 1.0))[:, None] * kernel * best
    total = float((joint * np.where(joint > 0, d, 0.0)).sum())
    return Solution(s, max(0.0, value + base - s * total), total, best, gap, step)


def geometric_rate_nats(mean: float, distortion: ArrayLike) -> Array:
    """R(D) of a geometric weight on {0, 1, ...} when reproductions may not exceed the weight.

    R(D) = g(M) - g(D), g(x) = (x+1) ln(x+1) - x ln x; zero from D = M on. The best output is zero with probability
    (1+D)/(1+M), the slope is ln(1 + 1/D). The discrete twin of the one-sided exponential, and a sharp test of `solve`.

    Args:
        mean: M > 0.
        distortion: D >= 0, any shape.

    Raises:
        ValueError: a mean that is not positive, a negative distortion.

    Example:
        >>> np.round(geometric_rate_nats(19.0, [15, 8, 3, 1]), 6)
        array([0.229638, 0.830816, 1.720964, 2.584011])

    Source: docs/theory.md section 7.
    """
    m, d = positive("mean", mean), nonnegative("distortion", distortion)

    def g(x: Array) -> Array:
        return np.asarray((x + 1) * np.log1p(x) - x * np.log(np.where(x > 0, x, 1.0)))

    return np.asarray(np.maximum(g(np.asarray(m)) - g(d), 0.0))
