"""Lower bounds that hold for weights of any law.

Four tools: Lemma 1 of Gao et al. for a joint entropy and marginal entropies, Shannon's lower bound for a difference
distortion, its extension to independent weights under any quadratic form, and an entropy estimate from samples to put
into any of them when the law is not known.
"""

from __future__ import annotations

from math import e, lgamma, log, pi

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, nonnegative, positive, refuse, vector
from netweight.theory.correlated import components
from netweight.theory.gaussian import rate_nats, waterfill


def gaussian_entropy_nats(cov: ArrayLike) -> float:
    """Differential entropy of N(0, cov): 1/2 ln det(2 pi e cov).

    Args:
        cov: positive definite matrix, shape (m, m), or variances, shape (m,), or a scalar variance.

    Raises:
        ValueError: a matrix without a positive determinant; its entropy is minus infinity.

    Example:
        >>> print(f"{gaussian_entropy_nats(1.0):.6f}")
        1.418939
    """
    c = np.atleast_1d(finite("cov", cov))
    sign, logdet = np.linalg.slogdet(np.diag(c) if c.ndim == 1 else c)
    if sign <= 0:
        raise refuse("cov has no positive determinant.", "Remove the directions of zero variance first.")
    return float(0.5 * (logdet + c.shape[0] * log(2 * pi * e)))


def lemma1_bound_nats(
    joint_entropy_nats: float, entropies_nats: ArrayLike, weights: ArrayLike, distortion: float
) -> float:
    """Bound R(D) from below for any weight law under a weighted quadratic distortion.

    R(D) >= h(W) - C,  C = max sum_i min{h(W_i), 1/2 ln(2 pi e e_i)}  subject to  sum_i l_i e_i <= D.
    The maximum is concave and solved by weighted water-filling with the entropy powers exp(2 h(W_i)) / (2 pi e) as
    variances. For a loss that is not quadratic, any l_i with d(w, v) >= sum_i l_i (w_i - v_i)^2 gives a valid bound.

    Args:
        joint_entropy_nats: h(W_1, ..., W_m).
        entropies_nats: h(W_i), shape (m,).
        weights: l_i > 0, shape (m,).
        distortion: D > 0.

    Returns:
        Nats of the whole vector; negative when dependence or a large D makes the bound empty.

    Raises:
        ValueError: a weight that is zero (its coordinate is unconstrained: leave it out), or lengths that differ.

    Example:
        >>> h = [gaussian_entropy_nats(v) for v in (3.0, 2.0, 1.0)]
        >>> print(f"{lemma1_bound_nats(sum(h), h, [3, 2, 1], 5.0):.6f}")
        1.098612

    Source: Gao et al., Lemma 1 (appendix A.1), with the maximum solved in docs/theory.md section 4.
    """
    h, lam = vector("entropies_nats", entropies_nats), nonnegative("weights", vector("weights", weights))
    if not lam.all():
        raise refuse(f"weights has {int((lam == 0).sum())} zeros.", "Leave out weights that cost no distortion.")
    filling = waterfill(np.exp(2 * h) / (2 * pi * e), distortion, lam)
    return float(joint_entropy_nats - 0.5 * np.log(2 * pi * e * filling.distortions).sum())


def shannon_lower_bound_nats(entropy_nats: ArrayLike, distortion: ArrayLike, power: float = 2.0) -> Array:
    """Shannon's lower bound of one weight under the distortion |w - v|^power.

    R(D) >= h(W) - max{h(Z): E|Z|^r <= D},  max = ln(2 Gamma(1 + 1/r)) + (1/r) ln(r e D):
    1/2 ln(2 pi e D) for squared error, ln(2 e D) for absolute error.

    Args:
        entropy_nats: h(W), any shape.
        distortion: D > 0, broadcast against it.
        power: r > 0.

    Returns:
        Nats a weight, negative where the bound is empty.

    Raises:
        ValueError: a distortion that is not positive.

    Example:
        >>> laplace = 1 + np.log(2)                       # entropy at E|W| = 1
        >>> print(f"{shannon_lower_bound_nats(laplace, 0.5, power=1):.6f}")     # tight: R(D) = -ln D
        0.693147

    Source: Shannon 1959; docs/theory.md section 4.
    """
    d, r = nonnegative("distortion", distortion), positive("power", power)
    if not d.all():
        raise refuse("distortion contains 0.", "Shannon's bound is infinite there; give D > 0.")
    noise = log(2) + lgamma(1 + 1 / r) + (1 + log(r) + np.log(d)) / r
    return np.asarray(np.asarray(entropy_nats, dtype=np.float64) - noise)


def quadratic_bound_nats(entropies_nats: ArrayLike, importance: ArrayLike, distortion: ArrayLike) -> Array:
    """Bound R(D) from below for independent weights of any laws under any quadratic distortion.

    R(D) of Gaussian weights of the same entropies: of variances N_i = exp(2 h(W_i)) / (2 pi e), under
    d = (w - v)^T I_w (w - v). No weights of these entropies are easier to describe.

    Args:
        entropies_nats: h(W_i), shape (m,).
        importance: I_w, positive semidefinite, shape (m, m).
        distortion: D >= 0, any shape.

    Returns:
        Nats of the whole vector, 0 where the bound is empty.

    Raises:
        ValueError: a matrix that is not positive semidefinite, or sizes that differ.

    Example:
        >>> laplace = 1 + np.log(2)                       # entropy at E|W| = 1, variance 2
        >>> turned = [[1.0, 0.5], [0.5, 1.0]]
        >>> print(np.round(quadratic_bound_nats([laplace, laplace], turned, [0.02, 2.0]), 4))
        [5.0097 0.4137]

    Source: the entropy power inequality of Zamir and Feder 1993; proof in docs/theory.md section 4.
    """
    h = vector("entropies_nats", entropies_nats)
    return rate_nats(components(np.diag(np.exp(2 * h) / (2 * pi * e)), importance), distortion)


def spacing_entropy_nats(samples: ArrayLike, window: int | None = None) -> float:
    """Estimate the differential entropy of a continuous law from samples.

    Vasicek's spacings, divided at the two ends by the neighbours that exist (Ebrahimi, Pflughoeft and Soofi 1994):
    h = 1/n sum_i ln( n (x_(b) - x_(a)) / (b - a) ),  a = max(1, i - m), b = min(n, i + m).

    Args:
        samples: n >= 4 numbers, any shape.
        window: m, half the number of neighbours; round(sqrt(n)) if absent, at least 1, below n/2.

    Raises:
        ValueError: fewer than four samples, or so many equal ones that a window has no width; weights stored in a
            short type must be dithered by half a storage step first.

    Example:
        >>> x = np.random.default_rng(0).standard_normal(100_000)
        >>> print(f"{spacing_entropy_nats(x):.2f} of {gaussian_entropy_nats(1.0):.2f}")
        1.42 of 1.42
    """
    x = np.sort(finite("samples", samples).ravel())
    n = x.size
    m = round(n**0.5) if window is None else window
    if n < 4 or not 0 < m < n / 2:
        raise refuse(f"{n} samples with a window of {m}.", "Give at least 4 samples and 0 < window < n/2.")
    i = np.arange(n)
    upper, lower = np.minimum(i + m, n - 1), np.maximum(i - m, 0)
    width = x[upper] - x[lower]
    if not width.all():
        raise refuse(
            f"{int((width == 0).sum())} of {n} windows contain one repeated value.",
            "Add uniform noise of one storage step, or widen the window.",
        )
    return float(np.log(n * width / (upper - lower)).mean())
