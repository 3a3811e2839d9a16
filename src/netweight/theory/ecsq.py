"""The best entropy-coded scalar quantiser: uniform steps, a dead zone around zero, every bin at its best point.

Bins are [-t, t] and +-[t + k w, t + (k+1) w]; the reproduction is the bin's mean (squared error) or median (absolute
error), the rate the entropy of the bin index, which is what an ideal entropy coder spends. For the Laplacian this
family contains the optimal entropy-constrained scalar quantiser (Sullivan 1996); for other laws it is a good one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log

import numpy as np

from netweight.theory.checks import Array, positive, refuse
from netweight.theory.scalar import GeneralizedGaussian

# Probability left out beyond the last bin is below exp(-40); bins are capped so that absurd steps fail loudly.
_TAIL = 40.0
_MAX_BINS = 200_000
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Quantiser:
    """A dead-zone quantiser and what it costs on its law."""

    step: float
    """w, width of the outer bins."""
    dead_zone: float
    """t, half width of the zero bin."""
    rate_nats: float
    """Entropy of the index, nats a weight."""
    distortion: float
    """E|u - v|^power."""
    zero_probability: float
    outputs: Array
    """Reproductions of the positive bins, ascending."""

    @property
    def rate_bits(self) -> float:
        """Entropy of the index in bits a weight."""
        return self.rate_nats / log(2)


def _median(law: GeneralizedGaussian, low: Array, high: Array) -> Array:
    if law.shape == 1.0:
        return np.asarray(low - law.alpha * np.log((1 + np.exp(-(high - low) / law.alpha)) / 2))
    target = (law.moment_below(0, low) + law.moment_below(0, high)) / 2
    left, right = low, np.where(np.isinf(high), low + law.alpha * _TAIL ** (1 / law.shape), high)
    for _ in range(60):
        middle = (left + right) / 2
        below = law.moment_below(0, middle) < target
        left, right = np.where(below, middle, left), np.where(below, right, middle)
    return np.asarray((left + right) / 2)


def quantise(law: GeneralizedGaussian, step: float, dead_zone: float, power: int = 2) -> Quantiser:
    """Evaluate one dead-zone quantiser exactly, by the law's moments on its bins.

    Args:
        law: the source.
        step: w > 0.
        dead_zone: t > 0.
        power: 2 for squared error, 1 for absolute error.

    Raises:
        ValueError: a step that is not positive or needs more than 200 000 bins, or another power.

    Example:
        >>> q = quantise(GeneralizedGaussian.laplace(2.0), step=1.90, dead_zone=1.36, power=1)
        >>> print(f"{q.rate_bits:.4f} bit, D = {q.distortion:.3f}, {100 * q.zero_probability:.1f} % zeros")
        1.2621 bit, D = 0.501, 74.3 % zeros
    """
    w, t = positive("step", step), positive("dead_zone", dead_zone)
    if power not in (1, 2):
        raise refuse(f"power is {power}.", "Use 1 or 2.")
    end = law.alpha * _TAIL ** (1 / law.shape)
    bins = max(1, int(np.ceil((end - t) / w)))
    if bins > _MAX_BINS:
        raise refuse(f"A step of {w:.3g} needs {bins} bins.", "Use Shannon's bound plus 0.254 bit instead.")
    low = t + w * np.arange(bins)
    high = np.append(low[1:], np.inf)
    edges = np.append(low, np.inf)
    below, first = law.moment_below(0, edges), law.moment_below(1, edges)
    mass = np.diff(below)
    if power == 2:
        second = law.moment_below(2, edges)
        outputs = np.divide(np.diff(first), mass, out=low + w / 2, where=mass > 1e-18)
        inside = np.diff(second) - mass * outputs**2
        distortion = 2 * float(second[0] + np.maximum(inside, 0).sum())
    else:
        outputs = _median(law, low.astype(np.float64), high.astype(np.float64))
        at, moment = law.moment_below(0, outputs), law.moment_below(1, outputs)
        inside = outputs * (2 * at - below[:-1] - below[1:]) + first[1:] + first[:-1] - 2 * moment
        distortion = 2 * float(first[0] + inside.sum())
    zero = 2 * float(below[0])
    p = np.append(zero, np.maximum(mass, 0))
    entropy = -float((p * np.log(np.where(p > 0, p, 1.0)))[0] + 2 * (p * np.log(np.where(p > 0, p, 1.0)))[1:].sum())
    return Quantiser(w, t, entropy, distortion, zero, outputs)


def _scaled(law: GeneralizedGaussian, ratio: float, power: int, miss: Callable[[Quantiser], float]) -> Quantiser:
    """Scale (step, dead zone = ratio * step) until `miss`, which grows with the step, is zero."""
    low, high = log(law.alpha) - 8.0, log(law.alpha) + 5.0
    x, x_old, value_old = log(law.alpha), 0.0, 0.0
    slope = 1.0
    for step in range(100):
        found = quantise(law, exp(x), ratio * exp(x), power)
        value = miss(found)
        if abs(value) < 1e-10 or high - low < 1e-13:
            break
        if step and x != x_old:
            slope = max((value - value_old) / (x - x_old), 1e-3)
        x_old, value_old = x, value
        low, high = (x, high) if value < 0 else (low, x)
        x = x - value / slope
        if not low < x < high:
            x = (low + high) / 2
    return found


def _golden(cost: Callable[[float], tuple[float, Quantiser]]) -> Quantiser:
    """Minimise over the ratio t/w in [0.2, 3]."""
    low, high = 0.2, 3.0
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    for _ in range(22):
        if at_left[0] < at_right[0]:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = cost(right)
    return min(at_left, at_right, key=lambda pair: pair[0])[1]


def best(law: GeneralizedGaussian, distortion: float, power: int = 2) -> Quantiser:
    """Find the dead-zone quantiser of least entropy at a distortion.

    Golden-section search over t/w in [0.2, 3]; the step follows from the distortion.

    Args:
        law: the source.
        distortion: D in (0, D_max), D_max = E|u|^power.
        power: 2 or 1.

    Raises:
        ValueError: a distortion outside that range.

    Example:
        >>> q = best(GeneralizedGaussian.laplace(2.0), 0.5, power=1)
        >>> print(f"{q.rate_bits:.4f} bit, t = {q.dead_zone:.2f}, w = {q.step:.2f}")
        1.2642 bit, t = 1.36, w = 1.91

    Source: Sullivan 1996; numbers in docs/theory.md section 8.
    """
    top = law.variance if power == 2 else law.mean_absolute
    if not 0 < distortion < top:
        raise refuse(f"distortion is {distortion:.4g}.", f"Give a number between 0 and {top:.4g}.")

    def cost(ratio: float) -> tuple[float, Quantiser]:
        found = _scaled(law, ratio, power, lambda q: log(q.distortion / distortion))
        return found.rate_nats, found

    return _golden(cost)


def best_at_rate(law: GeneralizedGaussian, rate_nats: float, power: int = 2) -> Quantiser:
    """Find the dead-zone quantiser of least distortion at an entropy.

    Golden-section search over t/w in [0.2, 3]; the step follows from the rate.

    Args:
        law: the source.
        rate_nats: entropy > 0, nats a weight.
        power: 2 or 1.

    Raises:
        ValueError: a rate that is not positive.

    Example:
        >>> q = best_at_rate(GeneralizedGaussian.gaussian(), 3 * np.log(2))
        >>> print(f"{3 - 0.5 * np.log2(1 / q.distortion):.3f} bit above R(D)")
        0.255 bit above R(D)
    """
    rate = positive("rate_nats", rate_nats)

    def cost(ratio: float) -> tuple[float, Quantiser]:
        found = _scaled(law, ratio, power, lambda q: rate - q.rate_nats)
        return found.distortion, found

    return _golden(cost)
