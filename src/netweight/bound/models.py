"""What the weights of a tensor are taken for: six laws, and R(D) of each under weighted squared error.

Every law is independent weights around the tensor's mean, in groups (the whole tensor, or its rows) that differ in
spread alone:

    gaussian-kernels            N(mean, s_j^2 C): positions of a convolution's kernel have a covariance C, one a tensor;
                                its eigenvalues are components (`theory.correlated`); without kernels as by row
    gaussian, gaussian-rows     N(mean, s_j^2): R_j(D) = 1/2 ln(s_j^2 / D), exact
    laplace, laplace-rows       Laplacian of variance s_j^2: R(D) by Blahut-Arimoto, to 2e-4 nat (`theory.scalar`)
    entropy-rows                any density that the rows share up to scale: Shannon's lower bound
                                R_j(D) >= h(W_j) - 1/2 ln(2 pi e D) = 1/2 ln(N_j / D), N_j = exp(2 h(W_j)) / (2 pi e),
                                with h estimated from spacings (`theory.general`)

Groups at one common slope are reverse water-filling; for all but the Laplacian it is that of Gaussian components
of these variances, or N_j. The decoder of the bound is told the law, means and spreads for nothing.
Letters: v spread, n weights of a group, a importance, loss = a/2 sum of squared errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from netweight.theory import gaussian, scalar
from netweight.theory.scalar import GeneralizedGaussian

__all__ = ["MODELS", "Components", "Model", "least_loss", "rate_nats"]

Array = NDArray[np.float64]
Law = Literal["gaussian", "laplace"]

_TABULATED: Final = 0.0125  # D / variance below which the Laplacian's R(D) is Shannon's bound to 1e-5 nat
_HALVINGS: Final = 80


@dataclass(frozen=True, slots=True)
class Model:
    """A law that the weights are assumed to have.

    Attributes:
        id: in JSON and options.
        title: a few words for tables.
        assumes: one sentence that completes "R(D) for weights that are ...".
        law: whose R(D) the components have; Shannon's bound is that of a Gaussian of the same entropy.
    """

    id: str
    title: str
    assumes: str
    law: Law


MODELS: Final = {
    model.id: model
    for model in (
        Model(
            "gaussian-kernels", "Gaussian by row, kernels correlated",
            "independent Gaussian kernels with the tensor's mean, each row's variance and one covariance of kernel "
            "positions a tensor; where there are no kernels, as by row; exact",
            "gaussian",
        ),
        Model(
            "gaussian-rows", "Gaussian by row",
            "independent Gaussian with the tensor's mean and each row's variance; exact", "gaussian",
        ),
        Model("gaussian", "Gaussian", "independent Gaussian with the tensor's mean and variance; exact", "gaussian"),
        Model(
            "laplace-rows", "Laplacian by row",
            "independent Laplacian with the tensor's mean and each row's variance; numerical, to 2e-4 nat a weight",
            "laplace",
        ),
        Model(
            "laplace", "Laplacian",
            "independent Laplacian with the tensor's mean and variance; numerical, to 2e-4 nat a weight", "laplace",
        ),
        Model(
            "entropy-rows", "entropy estimate",
            "independent, of whatever density the rows share up to their scale; Shannon's lower bound, which is below "
            "R(D) and close to it at high rate only, with an entropy estimated from spacings",
            "gaussian",
        ),
    )
}  # fmt: skip
"""All laws by id; the first is the one that tables and pictures show where there is room for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Groups of independent weights of one law.

    Attributes:
        counts: weights of each group, shape (m,).
        spreads: variance of each group, or entropy power N, shape (m,).
        importance: a of each group, shape (m,).
    """

    counts: Array
    spreads: Array
    importance: Array

    @classmethod
    def join(cls, parts: list[Components]) -> Components:
        """All groups of several tensors."""
        columns = [
            np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "spreads", "importance")
        ]
        return cls(*columns)

    @property
    def largest_loss(self) -> float:
        """Loss at rate zero: a/2 sum n v."""
        return float(np.sum(self.importance / 2 * self.counts * self.spreads))


def rate_nats(law: Law, parts: Components, loss: float) -> float:
    """Least rate of all groups together at a total loss > 0.

    Args:
        law: of every group.
        parts: the groups.
        loss: a/2 sum of squared errors, all groups together.

    Returns:
        Nats for all weights; 0 from the loss at rate zero on.

    >>> four = Components(np.array([100.0]), np.array([4.0]), np.array([1.0]))
    >>> f"{rate_nats('gaussian', four, loss=50.0) / 100:.4f} {0.5 * log(4 / 1.0):.4f}"
    '0.6931 0.6931'
    """
    if loss >= parts.largest_loss:
        return 0.0
    if law == "gaussian":
        return float(gaussian.rate_nats(parts.spreads, loss, weights=parts.importance / 2, counts=parts.counts))
    nats, _ = _laplace(parts, loss=loss)
    return nats


def least_loss(law: Law, parts: Components, nats: float) -> float:
    """Least loss of all groups together at a total rate: the inverse of `rate_nats`.

    >>> four = Components(np.array([100.0]), np.array([4.0]), np.array([1.0]))
    >>> f"{least_loss('gaussian', four, 100 * log(2)):.3f} {least_loss('laplace', four, 100 * log(2)):.3f}"
    '50.000 43.430'
    """
    if law == "gaussian":
        return float(gaussian.distortion_at(parts.spreads, nats, weights=parts.importance / 2, counts=parts.counts))
    if nats <= 0:
        return parts.largest_loss
    _, loss = _laplace(parts, nats=nats)
    return loss


@lru_cache(maxsize=1)
def _laplace_curve() -> tuple[Array, Array, Array]:
    """Slope -dr/dx, falling, with x = D / variance and r(x) of the Laplacian, from the tabulated range."""
    x = np.geomspace(_TABULATED, 1.0, 4001)
    r = scalar.rate_nats(GeneralizedGaussian.laplace(), x)
    slope = np.minimum.accumulate(-np.diff(r) / np.diff(x))
    return slope, np.sqrt(x[1:] * x[:-1]), np.interp(np.sqrt(x[1:] * x[:-1]), x, r)


def _laplace_at(parts: Components, level: float) -> tuple[float, float]:
    """Rate and loss where one nat more saves `level` of loss in every group: -r'(x) = a v / (2 level)."""
    slope, x, r = _laplace_curve()
    wanted = parts.importance * parts.spreads / (2 * level)
    steep = wanted > slope[0]
    at = np.where(steep, 0.5 / np.maximum(wanted, slope[0]), np.interp(wanted, slope[::-1], x[::-1]))
    at = np.where(wanted < slope[-1], 1.0, at)
    rate = np.where(steep, r[0] + 0.5 * np.log(x[0] / at), np.interp(at, np.append(x, 1.0), np.append(r, 0.0)))
    return float(np.sum(parts.counts * rate)), float(np.sum(parts.importance / 2 * parts.counts * parts.spreads * at))


def _laplace(parts: Components, *, loss: float | None = None, nats: float | None = None) -> tuple[float, float]:
    """Rate and loss on the curve of all groups together, at a loss or at a rate."""
    if parts.counts.size == 1 or (parts.spreads * parts.importance).min() == (parts.spreads * parts.importance).max():
        return _laplace_one(parts, loss, nats)
    top = float((parts.importance * parts.spreads).max()) * 10
    low, high = log(top) - 150.0, log(top)  # ln of the level: loss rises and rate falls with it
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found_nats, found_loss = _laplace_at(parts, float(np.exp(middle)))
        too_low = found_loss < loss if loss is not None else found_nats > (nats or 0.0)
        low, high = (middle, high) if too_low else (low, middle)
    # The two ends may lie on either side of a kink of the tabulated curve; in between it is a line.
    one, two = _laplace_at(parts, float(np.exp(low))), _laplace_at(parts, float(np.exp(high)))
    span = two[1] - one[1] if loss is not None else two[0] - one[0]
    asked = (loss - one[1]) if loss is not None else (nats or 0.0) - one[0]
    share = min(1.0, max(0.0, asked / span)) if span else 0.0
    return one[0] + share * (two[0] - one[0]), one[1] + share * (two[1] - one[1])


def _laplace_one(parts: Components, loss: float | None, nats: float | None) -> tuple[float, float]:
    """The same where all groups are alike: no search over levels."""
    law, weights = GeneralizedGaussian.laplace(), float(parts.counts.sum())
    if loss is not None:
        return weights * float(scalar.rate_nats(law, loss / parts.largest_loss)), loss
    asked = (nats or 0.0) / weights
    low, high = -400.0, 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(scalar.rate_nats(law, np.exp(middle))) > asked else (low, middle)
    return nats or 0.0, parts.largest_loss * float(np.exp(high))
