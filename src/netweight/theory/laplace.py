"""R(D) of Laplacian and exponential weights under absolute error, and why the best code prunes.

A Laplacian weight has density exp(-|u| / scale) / (2 scale), so E|u| = scale (lambda = 1/scale in Isik et al.). For
d = |u - v|, and for an exponential magnitude with d = u - v and v <= u, alike

    R(D) = ln(scale / D),   D(R) = scale exp(-R),   0 < D <= scale,

but the best output has an atom at zero of (D / scale)^2 in the first case and D / scale in the second. When the sign is
kept exactly and the magnitude never grows (what a pruner does) the rate is higher; that curve is parametric, see
`sign_exact`. Each `code_*` is the test channel itself in closed form, drawn forward from u to v. Proofs: docs/theory.md
section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, nonnegative, positive, refuse


@dataclass(frozen=True, slots=True)
class OutputLaw:
    """Law of the best reproduction: an atom at zero, and an exponential tail that starts behind a dead zone."""

    atom: float
    """Probability of exactly zero."""
    scale: float
    """Mean of the exponential tail measured from its start."""
    dead_zone: float = 0.0
    """No mass in 0 < |v| < dead_zone."""
    two_sided: bool = True

    def cdf(self, v: ArrayLike) -> Array:
        """Probability of a reproduction <= v, any shape.

        Example:
            >>> OutputLaw(0.25, 1.0).cdf([-1e-300, 0.0])
            array([0.375, 0.625])
        """
        x = np.asarray(v, dtype=np.float64)
        tail = 1 - self.atom
        beyond = np.exp(-np.maximum(np.abs(x) - self.dead_zone, 0.0) / self.scale) * tail
        if not self.two_sided:
            return np.where(x >= 0, 1 - beyond, 0.0)
        return np.where(x >= 0, 1 - beyond / 2, beyond / 2)


@dataclass(frozen=True, slots=True, eq=False)
class SignExact:
    """One point, or many, of the curve with exact signs and magnitudes that do not grow; arrays of one shape."""

    slope: Array
    """s = -dR/dD in units of 1/scale."""
    dead_zone: Array
    """v_0: outputs are zero or at least v_0 in magnitude, unit of the weights."""
    atom: Array
    """q_0, probability of a zero."""
    distortion: Array
    """E|u - v|, unit of the weights."""
    rate_nats: Array
    """Nats a weight, signs included."""


def rate_nats(distortion: ArrayLike, scale: float = 1.0) -> Array:
    """R(D) = max(0, ln(scale / D)) of a Laplacian (absolute error) or an exponential weight (one-sided error).

    Args:
        distortion: D >= 0 in the unit of the weights, any shape.
        scale: E|u| > 0.

    Returns:
        Nats a weight; infinite at D = 0.

    Raises:
        ValueError: a negative distortion or a scale that is not positive.

    Example:
        >>> np.round(rate_nats([0.5, 0.1, 2.0]), 6)
        array([0.693147, 2.302585, 0.      ])

    Source: Isik et al., rate-distortion theorem for Laplacian weights.
    """
    d, unit = nonnegative("distortion", distortion), positive("scale", scale)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(np.log(unit) - np.log(d), 0.0))


def distortion_at(rate_nats: ArrayLike, scale: float = 1.0) -> Array:
    """D(R) = scale exp(-R), the inverse of `rate_nats`; its slope at zero rate is -scale.

    Example:
        >>> np.round(distortion_at([0.0, np.log(4)], scale=2.0), 6)
        array([2. , 0.5])
    """
    return np.asarray(positive("scale", scale) * np.exp(-nonnegative("rate_nats", rate_nats)))


def _ratio(distortion: float, scale: float) -> float:
    d, s = positive("distortion", distortion), positive("scale", scale)
    if d > s:
        raise refuse(f"distortion {d:.6g} is above E|u| = {s:.6g}.", "All-zero weights already reach E|u|.")
    return d / s


def two_sided_output(distortion: float, scale: float = 1.0) -> OutputLaw:
    """Best output of a Laplacian weight: atom (D/scale)^2, otherwise Laplacian with the source's own scale.

    Raises:
        ValueError: D outside (0, scale].

    Example:
        >>> two_sided_output(0.5).atom
        0.25

    Source: Isik et al.
    """
    return OutputLaw(_ratio(distortion, scale) ** 2, scale)


def one_sided_output(distortion: float, scale: float = 1.0) -> OutputLaw:
    """Best output of an exponential magnitude: atom D/scale, otherwise exponential with the source's own scale.

    Raises:
        ValueError: D outside (0, scale].

    Example:
        >>> one_sided_output(0.5).atom
        0.5

    Source: Isik et al.
    """
    return OutputLaw(_ratio(distortion, scale), scale, two_sided=False)


def code_one_sided(u: ArrayLike, distortion: float, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Draw the best one-sided reproduction: v = max(0, u - E), E exponential with rate 1/D - 1/scale.

    Args:
        u: exponential magnitudes >= 0, any shape.
        distortion: D in (0, scale].
        rng: source of the noise.
        scale: mean of u.

    Raises:
        ValueError: negative magnitudes, D outside (0, scale].

    Example:
        >>> code_one_sided([1.0, 2.0], 1.0, np.random.default_rng(0))
        array([0., 0.])

    Source: docs/theory.md section 5.
    """
    x, ratio = nonnegative("u", u), _ratio(distortion, scale)
    if ratio == 1:
        return np.zeros_like(x)
    return np.maximum(x - rng.exponential(distortion / (1 - ratio), x.shape), 0.0)


def code_two_sided(u: ArrayLike, distortion: float, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Draw the best reproduction of a Laplacian weight.

    With r = D/scale and g = exp(-(1/D - 1/scale)|u|), taking u > 0 by symmetry: zero with probability r g; below zero
    (1-r) g/2; between zero and u (1+r)(1-g)/2; above u (1-r)/2; each piece is an exponential, the middle one truncated.

    Args:
        u: Laplacian weights, any shape.
        distortion: D in (0, scale].
        rng: source of the noise.
        scale: E|u|.

    Raises:
        ValueError: D outside (0, scale].

    Example:
        >>> code_two_sided([1.0, -2.0], 1.0, np.random.default_rng(0))
        array([0., 0.])

    Source: docs/theory.md section 5.
    """
    x, r = finite("u", u), _ratio(distortion, scale)
    if r == 1:
        return np.zeros_like(x)
    a, rate = np.abs(x), 1 / distortion - 1 / scale
    g = np.exp(-rate * a)
    pick, jump = rng.random(x.shape), rng.exponential(1 / (1 / distortion + 1 / scale), x.shape)
    below, above, zero = (1 - r) * g / 2, (1 - r) / 2, r * g
    # Distance u - v of the middle piece: exponential of rate `rate`, truncated to (0, u), by inversion.
    middle = a + np.log1p(-(1 - g) * rng.random(x.shape)) / rate
    v = np.select([pick < above, pick < above + below, pick < above + below + zero], [a + jump, -jump, 0.0], middle)
    return np.asarray(np.copysign(1.0, x) * v)


def _dead_zone(slope: Array) -> Array:
    """Root v_0 of exp((s-1) v) = 2s - 2(s-1) exp(-v), by bisection in (s-1) v, which lies between 0 and ln 2s."""
    low, high = np.zeros_like(slope), np.log(2 * slope)
    for _ in range(80):
        t = (low + high) / 2
        small = np.exp(t) < 2 * slope - 2 * (slope - 1) * np.exp(-t / (slope - 1))
        low, high = np.where(small, t, low), np.where(small, high, t)
    return np.asarray((low + high) / 2 / (slope - 1))


def sign_exact(slope: ArrayLike, scale: float = 1.0) -> SignExact:
    """R(D) of a Laplacian weight whose sign is kept and whose magnitude may only shrink, by its slope.

    With scale 1: v_0 solves exp((s-1) v_0) = 2s - 2(s-1) exp(-v_0); q_0 = 1 - (1 - 1/s) exp(-v_0);
    D = 1 - (1 - 1/s)(1 + v_0) exp(-v_0);  R = -ln q_0 + (s - 1) v_0 exp(-v_0).

    Args:
        slope: s > 1, any shape, in units of 1/scale.
        scale: E|u|.

    Raises:
        ValueError: a slope of 1 or less (there the rate is zero).

    Example:
        >>> p = sign_exact(3.0)
        >>> print(f"{p.dead_zone:.6f} {p.atom:.6f} {p.distortion:.6f} {p.rate_nats:.6f}")
        0.693147 0.666667 0.435618 1.098612

    Source: docs/theory.md section 5 (ours; not in Isik et al.).
    """
    s, unit = finite("slope", slope), positive("scale", scale)
    if (s <= 1).any():
        raise refuse(f"slope reaches {s.min()}.", "Give slopes above 1; at 1 nothing is sent.")
    v0 = _dead_zone(s)
    tail = np.exp(-v0)
    q0 = 1 - (1 - 1 / s) * tail
    distortion = 1 - (1 - 1 / s) * (1 + v0) * tail
    return SignExact(s, unit * v0, q0, unit * distortion, -np.log(q0) + (s - 1) * v0 * tail)


def sign_exact_at(distortion: ArrayLike, scale: float = 1.0) -> SignExact:
    """The point of `sign_exact` with a given distortion, found by bisection on the slope.

    Args:
        distortion: D with 1e-9 scale <= D < scale, any shape.
        scale: E|u|.

    Raises:
        ValueError: D outside that range.

    Example:
        >>> print(f"{sign_exact_at(0.435618).rate_nats:.5f}")
        1.09861
    """
    d, unit = finite("distortion", distortion), positive("scale", scale)
    if (d < 1e-9 * unit).any() or (d >= unit).any():
        raise refuse(f"distortion runs from {d.min():.3g} to {d.max():.3g}.", f"Stay in [1e-9, 1) x {unit:.3g}.")
    low, high = np.full(d.shape, -40.0), np.full(d.shape, 25.0)
    for _ in range(80):
        t = (low + high) / 2
        too_far = sign_exact(1 + np.exp(t)).distortion > d / unit
        low, high = np.where(too_far, t, low), np.where(too_far, high, t)
    return sign_exact(1 + np.exp((low + high) / 2), unit)


def code_sign_exact(u: ArrayLike, slope: float, rng: np.random.Generator, scale: float = 1.0) -> Array:
    """Draw the best sign-exact reproduction: |v| = |u| - E where that is at least v_0, else 0, E ~ Exp((s-1)/scale).

    Args:
        u: Laplacian weights, any shape.
        slope: s > 1.
        rng: source of the noise.
        scale: E|u|.

    Raises:
        ValueError: a slope of 1 or less.

    Example:
        >>> code_sign_exact([0.1, -0.2], 3.0, np.random.default_rng(0))
        array([ 0., -0.])

    Source: docs/theory.md section 5.
    """
    x, point = finite("u", u), sign_exact(slope, scale)
    magnitude = np.abs(x) - rng.exponential(scale / (slope - 1), x.shape)
    return np.copysign(np.where(magnitude >= point.dead_zone, magnitude, 0.0), x)
