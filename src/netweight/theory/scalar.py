"""Generalised Gaussian weights under squared error: the law, its moments on intervals, and R(D).

Density shape / (2 alpha Gamma(1/shape)) exp(-(|u| / alpha)^shape): Gaussian at shape 2, Laplacian at 1, heavier tails
below. Only the Gaussian has a closed R(D) = 1/2 ln(variance / D). For the others Shannon's lower bound is nearly tight,
and `rate_points` gives the truth by Blahut-Arimoto; for the Laplacian its result is tabulated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, exp, lgamma, log, pi

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, nonnegative, positive, refuse, vector
from netweight.theory.discrete import Solution, solve
from netweight.theory.gamma import lower_gamma
from netweight.theory.general import shannon_lower_bound_nats


@dataclass(frozen=True, slots=True)
class GeneralizedGaussian:
    """A symmetric law with density proportional to exp(-(|u| / alpha)^shape).

    >>> law = GeneralizedGaussian.laplace(variance=2.0)
    >>> print(f"shape {law.shape}, alpha {law.alpha:.6f}, E|u| {law.mean_absolute:.6f}")
    shape 1.0, alpha 1.000000, E|u| 1.000000
    """

    shape: float
    alpha: float

    @classmethod
    def of(cls, shape: float, variance: float = 1.0) -> GeneralizedGaussian:
        """The law of a given shape and variance."""
        b = positive("shape", shape)
        return cls(float(b), positive("variance", variance) ** 0.5 * exp((lgamma(1 / b) - lgamma(3 / b)) / 2))

    @classmethod
    def gaussian(cls, variance: float = 1.0) -> GeneralizedGaussian:
        """N(0, variance)."""
        return cls.of(2.0, variance)

    @classmethod
    def laplace(cls, variance: float = 1.0) -> GeneralizedGaussian:
        """Laplacian of a given variance = 2 (E|u|)^2."""
        return cls.of(1.0, variance)

    @classmethod
    def fit(cls, samples: ArrayLike) -> GeneralizedGaussian:
        """Match E|u| and E u^2: (E|u|)^2 / E u^2 = Gamma(2/b)^2 / (Gamma(1/b) Gamma(3/b)), b in [0.2, 20]."""
        x = vector("samples", np.ravel(np.asarray(samples, dtype=np.float64)))
        power = float(np.mean(x * x))
        if power == 0:
            raise refuse("All samples are zero.", "A law needs spread.")
        ratio = log(float(np.mean(np.abs(x))) ** 2 / power)
        low, high = log(0.2), log(20.0)
        for _ in range(60):
            b = exp((low + high) / 2)
            grows = 2 * lgamma(2 / b) - lgamma(1 / b) - lgamma(3 / b) < ratio
            low, high = (log(b), high) if grows else (low, log(b))
        return cls.of(exp((low + high) / 2), power)

    @property
    def variance(self) -> float:
        """E u^2."""
        return float(self.alpha**2 * exp(lgamma(3 / self.shape) - lgamma(1 / self.shape)))

    @property
    def mean_absolute(self) -> float:
        """E|u|."""
        return float(self.alpha * exp(lgamma(2 / self.shape) - lgamma(1 / self.shape)))

    @property
    def entropy_nats(self) -> float:
        """Differential entropy 1/b + ln(2 alpha Gamma(1/b) / b)."""
        return 1 / self.shape + log(2 * self.alpha / self.shape) + lgamma(1 / self.shape)

    def log_density(self, u: ArrayLike) -> Array:
        """Logarithm of the density at u, any shape."""
        constant = log(self.shape / (2 * self.alpha)) - lgamma(1 / self.shape)
        return np.asarray(constant - (np.abs(np.asarray(u, dtype=np.float64)) / self.alpha) ** self.shape)

    def moment_below(self, order: int, u: ArrayLike) -> Array:
        """Integral of t^order times the density from 0 to u >= 0, any shape; infinity is allowed."""
        a = (order + 1) / self.shape
        unit = 0.5 * self.alpha**order * exp(lgamma(a) - lgamma(1 / self.shape))
        return np.asarray(unit * lower_gamma(a, (np.asarray(u, dtype=np.float64) / self.alpha) ** self.shape))

    def cdf(self, u: ArrayLike) -> Array:
        """Probability of a weight <= u, any shape."""
        x = np.asarray(u, dtype=np.float64)
        return np.asarray(0.5 + np.sign(x) * self.moment_below(0, np.abs(x)))

    def sample(self, size: int, rng: np.random.Generator) -> Array:
        """Draw `size` independent weights: |u| = alpha G^(1/shape), G ~ Gamma(1/shape, 1)."""
        magnitude = self.alpha * rng.gamma(1 / self.shape, size=size) ** (1 / self.shape)
        return np.asarray(np.where(rng.random(size) < 0.5, -magnitude, magnitude))


# (D / variance, R(D) of the Laplacian minus Shannon's lower bound in nats), from `rate_points` at resolution 0.05 and
# 4000 iterations, span 24; a test recomputes some. Between entries linear interpolation is within 2e-4 nat.
LAPLACE_EXCESS_NATS: tuple[tuple[float, float], ...] = (
    (0.0125, 0.00001),
    (0.025, 0.00004),
    (0.04998, 0.00013),
    (0.07138, 0.00023),
    (0.09985, 0.00042),
    (0.12471, 0.00064),
    (0.16595, 0.00111),
    (0.19873, 0.00158),
    (0.24741, 0.00249),
    (0.32683, 0.00449),
    (0.40334, 0.00714),
    (0.47607, 0.01040),
    (0.52208, 0.01288),
    (0.57646, 0.01627),
    (0.64081, 0.02101),
    (0.67715, 0.02407),
    (0.71636, 0.02772),
    (0.75810, 0.03204),
    (0.80193, 0.03713),
    (0.84706, 0.04307),
    (0.89098, 0.04967),
    (0.93135, 0.05667),
    (0.96442, 0.06333),
    (0.98659, 0.06855),
    (0.99718, 0.07146),
    (1.0, 0.5 * log(pi / e)),
)


def rate_points(
    law: GeneralizedGaussian,
    slopes: ArrayLike,
    span: float = 16.0,
    resolution: float = 0.05,
    max_iterations: int = 3000,
) -> Array:
    """Compute R(D) under squared error numerically, one point for each slope.

    The source is integrated by Gauss-Legendre panels as wide as the noise, on the half line with the kernel folded by
    symmetry; outputs lie on a grid of `resolution` noise widths, which can only raise the rate, by about resolution^2/8
    nats at most. Points are achievable; the gap says how far below the optimum can be.

    Args:
        law: the source.
        slopes: s = -dR/dD > 0 in nats per squared unit, shape (k,).
        span: half width of the grid in standard deviations.
        resolution: output grid step in units of the noise deviation 1/sqrt(2s).
        max_iterations: Blahut-Arimoto steps for each slope; the tails, which hardly count, converge last.

    Returns:
        Shape (k, 3): rate in nats, distortion, gap of the Lagrangian in nats.

    Raises:
        ValueError: a slope that is not positive.

    Example:
        >>> r, d, gap = rate_points(GeneralizedGaussian.gaussian(), [2.0], span=6)[0]
        >>> print(f"R = {r:.4f} nats at D = {d:.3f}, exactly {0.5 * np.log(1 / d):.4f}")
        R = 0.6931 nats at D = 0.250, exactly 0.6931

    Source: docs/theory.md section 7.
    """
    reach = span * law.variance**0.5
    nodes, gauss = np.polynomial.legendre.leggauss(8)
    rows = []
    for s in np.atleast_1d(finite("slopes", slopes)):
        noise = (2 * positive("slope", float(s))) ** -0.5
        edges = np.linspace(0.0, reach, int(np.ceil(reach / (2 * noise))) + 1)
        half = np.diff(edges)[:, None] / 2
        u = (edges[:-1, None] + half * (1 + nodes)).ravel()
        p = (half * gauss).ravel() * np.exp(law.log_density(u))
        p, u = p[p > 1e-16], u[p > 1e-16]
        v = np.arange(0.0, u[-1] + noise, resolution * noise)
        near = (u[:, None] - v) ** 2
        # Folded cost: exp(-s cost) is the mean of the kernels at v and -v.
        cost = near + (np.log(2) - np.log1p(np.exp(-4 * s * u[:, None] * v))) / s
        found = solve(p / p.sum(), cost, float(s), tolerance_nats=1e-6, max_iterations=max_iterations)
        rows.append(_unfolded(found, u, v, p / p.sum()))
    return np.array(rows)


def _unfolded(found: Solution, u: Array, v: Array, p: Array) -> tuple[float, float, float]:
    """Rate and distortion of the symmetric channel behind a folded solution."""
    s = found.slope
    lagrangian = found.rate_nats + s * found.distortion
    near = np.exp(-s * (u[:, None] - v) ** 2)
    far = near * np.exp(-4 * s * u[:, None] * v)
    norm = ((near + far) / 2) @ found.output
    spread = near * (u[:, None] - v) ** 2 + far * (u[:, None] + v) ** 2
    distortion = float(p @ (spread @ found.output / (2 * norm)))
    return lagrangian - s * distortion, distortion, found.gap_nats


def rate_nats(law: GeneralizedGaussian, distortion: ArrayLike) -> Array:
    """Lower bound of R(D) under squared error, the exact value for Gaussian and (to 2e-4 nat) Laplacian laws.

    Gaussian: 1/2 ln(variance / D). Laplacian: Shannon's bound plus the tabulated excess. Others: Shannon's bound,
    clipped at zero.

    Args:
        law: the source.
        distortion: D > 0, any shape.

    Returns:
        Nats a weight.

    Raises:
        ValueError: a distortion that is not positive.

    Example:
        >>> np.round(rate_nats(GeneralizedGaussian.gaussian(), [0.25, 1.0]), 6)
        array([0.693147, 0.      ])

    Source: docs/theory.md sections 4 and 7.
    """
    return _rate(law, nonnegative("distortion", distortion))


def _rate(law: GeneralizedGaussian, d: Array) -> Array:
    """`rate_nats` under a name that an argument called rate_nats does not hide."""
    bound = shannon_lower_bound_nats(law.entropy_nats, d)
    if law.shape == 1.0:
        at, excess = np.array(LAPLACE_EXCESS_NATS).T
        bound = bound + np.interp(d / law.variance, at, excess, left=0.0)
    return np.where(d >= law.variance, 0.0, np.maximum(bound, 0.0))


def distortion_at(law: GeneralizedGaussian, rate_nats: ArrayLike) -> Array:
    """Lower bound of D(R) under squared error, the inverse of `rate_nats` by bisection in ln D.

    Args:
        law: the source.
        rate_nats: R >= 0, nats a weight, any shape.

    Returns:
        The smallest distortion whose rate is at most R; the variance at R = 0 for Gaussian and Laplacian laws.

    Raises:
        ValueError: a negative rate.

    Example:
        >>> np.round(distortion_at(GeneralizedGaussian.gaussian(), np.log([1, 2, 4])), 6)
        array([1.    , 0.25  , 0.0625])

    Source: docs/theory.md sections 4 and 7.
    """
    target = nonnegative("rate_nats", rate_nats)
    # D(R) <= variance exp(-2 R) for every law; Shannon's bound is below that by the ratio of entropy powers.
    high = log(law.variance) - 2 * target
    low = high - 2 * max(0.0, 0.5 * log(2 * pi * e * law.variance) - law.entropy_nats) - 1e-9
    for _ in range(60):
        middle = (low + high) / 2
        above = _rate(law, np.exp(middle)) > target
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.exp(high))
