"""What the weights of a tensor are taken for: seven laws, and R(D) of each under the loss of a `Stat`.

A law says how the weights spread around the tensor's mean, and what they are where they spread alike:

    gaussian                    N(mean, s^2)
    gaussian-rows               N(mean, s_j^2), each row with its own variance: R_j(D) = 1/2 ln(s_j^2 / D), exact
    gaussian-kernels            N(mean, s_j^2 C): positions of a convolution's kernel have a covariance C, one a tensor
    gaussian-inputs             N(mean, s_j^2 U diag(t) U^T): each eigenvector of the input covariance A has a variance
    laplace, laplace-rows       Laplacian of variance s^2, s_j^2: R(D) by Blahut-Arimoto, to 2e-4 nat (`theory.scalar`)
    entropy-rows                any density that the rows share up to scale: Shannon's lower bound

Under a loss 1/2 (w - w')^T I_w (w - w') a Gaussian law turns into independent components, whose variances are the
eigenvalues of Sigma_W I_w (`theory.correlated`), and all tensors together into one reverse water-filling. For the
others that holds where I_w is diagonal. Where it is G (x) A they get Shannon's lower bound: independent weights of
entropy powers N_i = exp(2 h_i) / (2 pi e) have no smaller R(D) than Gaussian ones of the variances N_i, whatever the
quadratic form (docs/theory.md section 4); h is estimated from spacings (`theory.general`), or the Laplacian's.
The decoder of the bound is told the law, means, spreads and I_w for nothing.
Letters: n weights of a group, c its capacity, the variance times the importance; loss = 1/2 sum of n x, x <= c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import e, log, pi
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from netweight.theory import gaussian, scalar
from netweight.theory.scalar import GeneralizedGaussian

__all__ = ["MODELS", "Components", "Model", "least_loss", "rate_nats"]

Array = NDArray[np.float64]
Law = Literal["gaussian", "laplace", "entropy"]
Spread = Literal["tensor", "rows", "kernels", "inputs"]

LAPLACE_POWER: Final = e / pi  # entropy power of a Laplacian of variance one
_TABULATED: Final = 0.0125  # D / variance below which the Laplacian's R(D) is Shannon's bound to 1e-5 nat
_HALVINGS: Final = 80


@dataclass(frozen=True, slots=True)
class Model:
    """A law that the weights are assumed to have.

    Attributes:
        id: in JSON and options.
        title: a few words for tables.
        assumes: one sentence that completes "R(D) for weights that are ...".
        spread: how variances differ within a tensor.
        law: of the components; for "entropy" Shannon's bound, which is that of Gaussians of the same entropy.
    """

    id: str
    title: str
    assumes: str
    spread: Spread
    law: Law


MODELS: Final = {
    model.id: model
    for model in (
        Model(
            "gaussian-kernels", "Gaussian by row, kernels correlated",
            "independent Gaussian kernels with the tensor's mean, each row's variance and one covariance of kernel "
            "positions a tensor; where there are no kernels, as by row; exact",
            "kernels", "gaussian",
        ),
        Model(
            "gaussian-inputs", "Gaussian by row and input",
            "independent Gaussian rows with the tensor's mean and each row's variance, and one variance along each "
            "eigenvector of the input covariance; where none was measured, as with kernels; exact",
            "inputs", "gaussian",
        ),
        Model(
            "gaussian-rows", "Gaussian by row",
            "independent Gaussian with the tensor's mean and each row's variance; exact", "rows", "gaussian",
        ),
        Model(
            "gaussian", "Gaussian", "independent Gaussian with the tensor's mean and variance; exact",
            "tensor", "gaussian",
        ),
        Model(
            "laplace-rows", "Laplacian by row",
            "independent Laplacian with the tensor's mean and each row's variance; numerical, to 2e-4 nat a weight; "
            "where an input covariance was measured, Shannon's lower bound", "rows", "laplace",
        ),
        Model(
            "laplace", "Laplacian",
            "independent Laplacian with the tensor's mean and variance; numerical, to 2e-4 nat a weight; where an "
            "input covariance was measured, Shannon's lower bound", "tensor", "laplace",
        ),
        Model(
            "entropy-rows", "entropy estimate",
            "independent, of whatever density the rows share up to their scale; Shannon's lower bound, which is below "
            "R(D) and close to it at high rate only, with an entropy estimated from spacings",
            "rows", "entropy",
        ),
    )
}  # fmt: skip
"""All laws by id; the first is the one that tables and pictures show where there is room for one."""


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Groups of independent components of one law each.

    Attributes:
        counts: of each group, shape (m,).
        capacities: importance times variance, or times entropy power, shape (m,): twice the loss of a weight at rate 0.
        laplace: whether a group is Laplacian, shape (m,); Gaussian else.
    """

    counts: Array
    capacities: Array
    laplace: NDArray[np.bool_]

    @classmethod
    def gaussian(cls, counts: Array, capacities: Array) -> Components:
        """Gaussian groups."""
        return cls(counts, capacities, np.zeros(counts.shape, np.bool_))

    @classmethod
    def join(cls, parts: list[Components]) -> Components:
        """All groups of several tensors."""
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.capacities for part in parts]),
            np.concatenate([part.laplace for part in parts]),
        )

    def scaled(self, factor: float) -> Components:
        """The same with all capacities multiplied."""
        return Components(self.counts, self.capacities * factor, self.laplace)

    def as_laplace(self) -> Components:
        """The same with every group Laplacian."""
        return Components(self.counts, self.capacities, np.ones(self.counts.shape, np.bool_))

    @property
    def largest_loss(self) -> float:
        """Loss at rate zero: 1/2 sum n c."""
        return float(self.counts @ self.capacities) / 2


def rate_nats(parts: Components, loss: float) -> float:
    """Least rate of all groups together at a total loss > 0.

    Args:
        parts: the groups.
        loss: 1/2 sum n x, all groups together.

    Returns:
        Nats for all weights; 0 from the loss at rate zero on.

    >>> four = Components.gaussian(np.array([100.0]), np.array([4.0]))
    >>> f"{rate_nats(four, loss=50.0) / 100:.4f} {0.5 * log(4 / 1.0):.4f}"
    '0.6931 0.6931'
    """
    if loss >= parts.largest_loss:
        return 0.0
    if not parts.laplace.any():
        return float(gaussian.rate_nats(parts.capacities / 2, loss, counts=parts.counts))
    nats, _ = _mixed(parts, loss=loss)
    return nats


def least_loss(parts: Components, nats: float) -> float:
    """Least loss of all groups together at a total rate: the inverse of `rate_nats`.

    >>> four = Components.gaussian(np.array([100.0]), np.array([4.0]))
    >>> f"{least_loss(four, 100 * log(2)):.3f} {least_loss(four.as_laplace(), 100 * log(2)):.3f}"
    '50.000 43.430'
    """
    if not parts.laplace.any():
        return float(gaussian.distortion_at(parts.capacities / 2, nats, counts=parts.counts))
    if nats <= 0:
        return parts.largest_loss
    _, loss = _mixed(parts, nats=nats)
    return loss


@lru_cache(maxsize=1)
def _laplace_curve() -> tuple[Array, Array, Array]:
    """Slope -dr/dx, falling, with x = D / variance and r(x) of the Laplacian, from the tabulated range."""
    x = np.geomspace(_TABULATED, 1.0, 4001)
    r = scalar.rate_nats(GeneralizedGaussian.laplace(), x)
    slope = np.minimum.accumulate(-np.diff(r) / np.diff(x))
    return slope, np.sqrt(x[1:] * x[:-1]), np.interp(np.sqrt(x[1:] * x[:-1]), x, r)


def _at(parts: Components, level: float) -> tuple[float, float]:
    """Rate and loss where one nat more saves `level` of loss in every group: -r'(x) = c / (2 level)."""
    slope, x, r = _laplace_curve()
    wanted = parts.capacities / (2 * level)
    plain = np.minimum(0.5 / np.maximum(wanted, 0.5), 1.0)
    steep = wanted > slope[0]
    curved = np.where(steep, 0.5 / np.maximum(wanted, slope[0]), np.interp(wanted, slope[::-1], x[::-1]))
    curved = np.where(wanted < slope[-1], 1.0, curved)
    laplace = np.where(
        steep, r[0] + 0.5 * np.log(x[0] / curved), np.interp(curved, np.append(x, 1.0), np.append(r, 0.0))
    )
    at, rate = np.where(parts.laplace, curved, plain), np.where(parts.laplace, laplace, -0.5 * np.log(plain))
    return float(parts.counts @ rate), float(parts.counts @ (parts.capacities * at)) / 2


def _mixed(parts: Components, *, loss: float | None = None, nats: float | None = None) -> tuple[float, float]:
    """Rate and loss on the curve of all groups together, at a loss or at a rate."""
    if parts.laplace.all() and parts.capacities.min() == parts.capacities.max():
        return _laplace_one(parts, loss, nats)
    top = float(parts.capacities.max()) * 10
    low, high = log(top) - 150.0, log(top)  # ln of the level: loss rises and rate falls with it
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found_nats, found_loss = _at(parts, float(np.exp(middle)))
        too_low = found_loss < loss if loss is not None else found_nats > (nats or 0.0)
        low, high = (middle, high) if too_low else (low, middle)
    # The two ends may lie on either side of a kink of the tabulated curve; in between it is a line.
    one, two = _at(parts, float(np.exp(low))), _at(parts, float(np.exp(high)))
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
