"""From a network's loss to a quadratic in its weights, and where the quadratic stops being the loss.

For class probabilities f, any smooth divergence is coefficient * sum_c delta_c^2 / f_c to second order, which makes the
importance matrix of Gao et al. the Fisher information J^T (diag f - f f^T) J, J the Jacobian of the logits.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, refuse

Divergence = Literal["kl", "reverse_kl", "squared_hellinger", "jensen_shannon"]

SECOND_ORDER: Final[dict[Divergence, float]] = {
    "kl": 1 / 2,
    "reverse_kl": 1 / 2,
    "squared_hellinger": 1 / 8,
    "jensen_shannon": 1 / 8,
}
"""Coefficient of chi^2 = sum delta^2 / f in each divergence; total variation has none, it is of first order."""


def _distributions(p: ArrayLike, q: ArrayLike) -> tuple[Array, Array]:
    a, b = finite("p", p), finite("q", q)
    for name, x in (("p", a), ("q", b)):
        if x.ndim == 0 or (x < 0).any() or not np.allclose(x.sum(-1), 1, atol=1e-9):
            raise refuse(f"{name} is not a probability vector on its last axis.", "Normalise it; no negative entries.")
    return a, b


def divergence_nats(p: ArrayLike, q: ArrayLike, kind: Divergence = "kl") -> Array:
    """Divergence D(p || q) between probability vectors; the compressed model comes first in Gao et al.

    kl: sum p ln(p/q); reverse_kl: sum q ln(q/p); squared_hellinger: 1/2 sum (sqrt p - sqrt q)^2;
    jensen_shannon: mean of the KL divergences to (p+q)/2.

    Args:
        p: shape (..., classes).
        q: shape (..., classes).
        kind: one of the four.

    Returns:
        Shape (...), nats (the Hellinger distance has no unit).

    Raises:
        ValueError: not probabilities, or an unknown kind.

    Example:
        >>> print(f"{divergence_nats([0.5, 0.5], [0.25, 0.75]):.6f}")
        0.143841
    """
    a, b = _distributions(p, q)

    def kl(x: Array, y: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(x > 0, x * np.log(x / y), 0.0).sum(-1))

    if kind == "kl":
        return kl(a, b)
    if kind == "reverse_kl":
        return kl(b, a)
    if kind == "squared_hellinger":
        return np.asarray(0.5 * ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(-1))
    if kind == "jensen_shannon":
        middle = (a + b) / 2
        return np.asarray((kl(a, middle) + kl(b, middle)) / 2)
    raise refuse(f"kind is {kind!r}.", f"Use one of {', '.join(SECOND_ORDER)}.")


def softmax(logits: ArrayLike) -> Array:
    """Softmax over the last axis.

    Example:
        >>> softmax([0.0, np.log(3)])
        array([0.25, 0.75])
    """
    z = finite("logits", logits)
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def softmax_importance(inputs: ArrayLike, weights: ArrayLike) -> Array:
    """Fisher information of softmax regression f = softmax(W x), exact over the classes.

    I_{(c,d),(c',d')} = E[(f_c 1{c=c'} - f_c f_c') x_d x_d']; its diagonal is E[f_c (1 - f_c) x_d^2].

    Args:
        inputs: shape (samples, features).
        weights: W, shape (classes, features).

    Returns:
        Shape (classes * features, classes * features), rows in the order of W.ravel().

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> softmax_importance([[2.0]], [[0.0], [0.0]])
        array([[ 1., -1.],
               [-1.,  1.]])

    Source: Gao et al., equation (6); docs/theory.md section 6.
    """
    x, w = finite("inputs", inputs), finite("weights", weights)
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise refuse(f"inputs {x.shape}, weights {w.shape}.", "Give (samples, features) and (classes, features).")
    f = softmax(x @ w.T)
    spread = f[:, :, None] * np.eye(w.shape[0]) - f[:, :, None] * f[:, None, :]
    full = np.einsum("ncz,nd,ne->cdze", spread, x, x, optimize=True) / x.shape[0]
    return np.asarray(full.reshape(w.size, w.size))


def supervised_loss(noise: float, shift: ArrayLike) -> Array:
    """Exact E[(L_v - L_w)^2] of one-dimensional regression L_w = (w x - y)^2 / 2, x ~ N(0, 1), y = w x + noise N(0, 1).

    noise^2 D^2 + 3/4 D^4 with D = v - w: the gradient + Hessian objective, whose dropped cross term is zero here.

    Example:
        >>> print(f"{supervised_loss(0.5, 0.7):.6f}")
        0.302575

    Source: docs/theory.md section 6; Gao et al., Table 2, last row.
    """
    d = finite("shift", shift)
    return np.asarray(noise**2 * d**2 + 0.75 * d**4)
