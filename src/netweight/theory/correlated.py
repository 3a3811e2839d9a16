"""R(D) of correlated Gaussian weights under correlated inputs, exact, beside the bound that is printed for them.

A linear model w^T x with E x = 0, E x x^T = Sigma_X and W ~ N(0, Sigma_W) loses

    d(w, v) = E (w^T x - v^T x)^2 = (w - v)^T Sigma_X (w - v),

so T = Sigma_X^(1/2) W is a Gaussian vector under plain squared error, and its rate-distortion function is that of
independent components with the eigenvalues of Sigma_X^(1/2) Sigma_W Sigma_X^(1/2) as variances. Both matrices may be
singular. docs/theory.md section 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory import gaussian
from netweight.theory.checks import Array, covariance, finite


def square_root(matrix: ArrayLike) -> Array:
    """Return the symmetric square root of a positive semidefinite matrix, shape (m, m).

    Example:
        >>> np.round(square_root([[4.0, 0.0], [0.0, 9.0]]), 12)
        array([[2., 0.],
               [0., 3.]])
    """
    values, basis = np.linalg.eigh(covariance("matrix", matrix))
    return np.asarray((basis * np.sqrt(np.maximum(values, 0))) @ basis.T)


def components(cov_w: ArrayLike, cov_x: ArrayLike) -> Array:
    """Reduce correlated weights and inputs to the variances of independent components.

    The eigenvalues of Sigma_X^(1/2) Sigma_W Sigma_X^(1/2), which are those of Sigma_W Sigma_X.

    Args:
        cov_w: Sigma_W, positive semidefinite, shape (m, m).
        cov_x: Sigma_X, positive semidefinite, shape (m, m).

    Returns:
        Variances in descending order, shape (m,), for `gaussian.rate_nats` and `gaussian.distortion_at`.

    Raises:
        ValueError: a matrix that is not square, symmetric and positive semidefinite, or sizes that differ.

    Example:
        >>> np.round(components([[1, 0.9], [0.9, 1]], np.eye(2)), 6)
        array([1.9, 0.1])

    Source: docs/theory.md section 2.
    """
    sw = covariance("cov_w", cov_w)
    root = square_root(covariance("cov_x", cov_x, sw.shape[0]))
    return np.asarray(np.maximum(np.linalg.eigvalsh(root @ sw @ root)[::-1], 0.0))


def paper_bound_nats(cov_w: ArrayLike, weights: ArrayLike, distortion: ArrayLike) -> Array:
    """Evaluate the lower bound printed as Theorem 2 for a Sigma_W that need not be diagonal.

    1/2 ln det Sigma_W - sum_i 1/2 ln D_i with D_i filled from the diagonal of Sigma_W. It is exact when Sigma_W is
    diagonal, a valid but loose bound otherwise, and *negative* once enough vessels are full; clip it at 0 to use it.

    Args:
        cov_w: Sigma_W, positive definite, shape (m, m).
        weights: l_i = E x_i^2 > 0 of uncorrelated inputs, shape (m,).
        distortion: D > 0, any shape.

    Raises:
        ValueError: a matrix that is not a covariance, or lengths that differ.

    Example:
        >>> np.round(paper_bound_nats([[1, 0.9], [0.9, 1]], [1, 1], [0.1, 1.0]), 6)
        array([ 2.165367, -0.137218])

    Source: Gao et al., Theorem 2; its reach is corrected in docs/theory.md section 2.
    """
    sw = covariance("cov_w", cov_w)
    diagonal = np.diag(sw)
    gap = 0.5 * (float(np.linalg.slogdet(sw)[1]) - float(np.log(diagonal).sum()))
    return np.asarray(gaussian.rate_nats(diagonal, distortion, weights) + gap)


def code(w: ArrayLike, cov_w: ArrayLike, cov_x: ArrayLike, distortion: float, rng: np.random.Generator) -> Array:
    """Reach the exact R(D) for correlated weights and inputs by coding in the joint eigenbasis.

    T = Sigma_X^(1/2) W is coded by `gaussian.code` along the eigenvectors of Sigma_X^(1/2) Sigma_W Sigma_X^(1/2) and
    mapped back by the pseudo-inverse; directions the inputs never excite come back as zero and cost nothing.

    Args:
        w: draws of W ~ N(0, Sigma_W), shape (..., m).
        cov_w: Sigma_W, positive semidefinite, shape (m, m).
        cov_x: Sigma_X, the same.
        distortion: D > 0, expected (W - V)^T Sigma_X (W - V).
        rng: source of the noise.

    Raises:
        ValueError: as `components`.

    Example:
        >>> v = code([[1.0, 1.0]], [[1, 0.9], [0.9, 1]], np.eye(2), 2.5, np.random.default_rng(0))
        >>> bool(np.abs(v).max() < 1e-12)
        True

    Source: docs/theory.md section 2.
    """
    x = finite("w", w)
    sw = covariance("cov_w", cov_w)
    root = square_root(covariance("cov_x", cov_x, sw.shape[0]))
    variances, basis = np.linalg.eigh(root @ sw @ root)
    into = root @ basis
    coded = gaussian.code(x @ into, np.maximum(variances, 0.0), distortion, rng)
    return np.asarray(coded @ np.linalg.pinv(into, rcond=1e-12))
