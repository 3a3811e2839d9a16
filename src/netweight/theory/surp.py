"""The successively refinable pruner of Isik et al. in its textbook form, for experiments; the codec is another matter.

Magnitudes are refined one at a time: everything above T = mean residual * c is a candidate, one candidate is sent and
lowered by T, and the mean residual that fixes the next T is known to both sides without being sent. `ladder` is the
form that works on finite vectors: whole levels at once, thresholds on a geometric ladder.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log2

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netweight.theory.checks import Array, nonnegative, positive, refuse, vector


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What the encoder sent and what the decoder has."""

    thresholds: Array
    """T of every step, shape (steps,)."""
    messages: NDArray[np.intp]
    """Index sent at every step, shape (steps,)."""
    reconstruction: Array
    """Magnitudes at the decoder, shape (n,)."""
    residual: Array
    """Magnitudes still missing, shape (n,)."""


def textbook(magnitudes: ArrayLike, log_ratio: float, steps: int, rng: np.random.Generator | None = None) -> Run:
    """Run the pruner exactly as the theory has it, until no candidate is left or `steps` were made.

    T = c mean_t, S = {i: residual_i > T}, send one of S, mean_(t+1) = mean_t - T/n = mean_t (1 - c/n).

    Args:
        magnitudes: u >= 0, shape (n,).
        log_ratio: c = ln(n / beta) > 0.
        steps: most iterations.
        rng: draws the candidate; without it the lowest index is sent.

    Raises:
        ValueError: negative magnitudes, only zeros, or a ratio that is not positive.

    Example:
        >>> run = textbook([5, 3, 1, 1], log_ratio=1.2, steps=10)
        >>> np.round(run.thresholds, 6), run.messages
        (array([3.  , 2.1 , 1.47]), array([0, 1, 0]))

    Source: Isik et al., algorithm for magnitudes.
    """
    u, c = nonnegative("magnitudes", vector("magnitudes", magnitudes)), positive("log_ratio", log_ratio)
    if not u.any():
        raise refuse("All magnitudes are zero.", "There is nothing to refine.")
    residual, mean = u.copy(), float(u.mean())
    thresholds, messages = [], []
    for _ in range(steps):
        threshold = c * mean
        candidates = np.flatnonzero(residual > threshold)
        if candidates.size == 0:
            break
        index = int(candidates[0] if rng is None else rng.choice(candidates))
        residual[index] -= threshold
        mean -= threshold / u.size
        thresholds.append(threshold)
        messages.append(index)
    return Run(np.array(thresholds), np.array(messages, dtype=np.intp), u - residual, residual)


def efficiency(n: int, beta: float | None = None) -> float:
    """Distortion bought by one message over what R(D) buys with ln n nats: ln(n / beta) / ln n, beta = ln n if absent.

    Raises:
        ValueError: beta outside (0, n).

    Example:
        >>> [round(efficiency(10**k), 2) for k in (3, 4, 5, 6, 7)]
        [0.72, 0.76, 0.79, 0.81, 0.83]

    Source: Isik et al., zero-rate optimality.
    """
    b = log(n) if beta is None else beta
    if not 0 < b < n:
        raise refuse(f"beta is {b:.4g} for n = {n}.", "Give 0 < beta < n.")
    return log(n / b) / log(n)


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """Rate and distortion after every level; all arrays of shape (levels,)."""

    distortion: Array
    """Mean residual over mean magnitude."""
    bits: Array
    """Bits a weight, set codes and signs."""
    zeros: Array
    """Fraction of weights still zero."""


def ladder(magnitudes: ArrayLike, start: float = 12.0, ratio: float = 0.9, stop: float = 0.05) -> Ladder:
    """Refine all weights above a threshold at once, thresholds falling geometrically against the mean residual.

    Level k sends the set S_k = {residual > start ratio^k mean residual}, at the ideal log2 C(n, |S_k|) bits, and one
    raw sign bit the first time a weight leaves zero; every member is lowered by the threshold. Thresholds cost nothing:
    the decoder knows the mean residual.

    Args:
        magnitudes: u >= 0, shape (n,).
        start: first threshold in units of the mean magnitude.
        ratio: in (0, 1).
        stop: end when the mean residual is this fraction of the mean magnitude.

    Raises:
        ValueError: a ratio or stop outside (0, 1), or only zeros.

    Example:
        >>> run = ladder(np.random.default_rng(0).exponential(size=20_000), stop=0.5)
        >>> print(f"{np.interp(-0.5, -run.distortion, run.bits):.1f} bits at half the distortion")
        1.5 bits at half the distortion

    Source: the levels that the official rule of Isik et al. amounts to (docs/theory.md section 5).
    """
    u = nonnegative("magnitudes", vector("magnitudes", magnitudes))
    if not 0 < ratio < 1 or not 0 < stop < 1 or not u.any():
        raise refuse(f"ratio is {ratio}, stop is {stop}.", "Give both in (0, 1) and magnitudes that are not all zero.")
    residual, touched, factor, bits = u.copy(), np.zeros(u.size, dtype=bool), positive("start", start), 0.0
    first = float(u.mean())
    rows: list[tuple[float, float, float]] = []
    while True:
        mean = float(residual.mean())
        if rows and mean <= stop * first:
            break
        chosen = residual > factor * mean
        count = int(chosen.sum())
        bits += _log2_choose(u.size, count) + int((chosen & ~touched).sum())
        residual = np.where(chosen, residual - factor * mean, residual)
        touched |= chosen
        factor *= ratio
        rows.append((float(residual.mean()) / first, bits / u.size, 1 - float(touched.mean())))
        if factor < 1e-6:
            break
    d, b, z = np.array(rows).T
    return Ladder(d, b, z)


def _log2_choose(n: int, k: int) -> float:
    """log2 of n over k by Stirling's series, exact enough (1e-6 bit) for an ideal code length."""
    if k in (0, n):
        return 0.0
    if min(k, n - k) == 1:
        return log2(n)

    def log_factorial(x: int) -> float:
        return x * log(x) - x + 0.5 * log(2 * np.pi * x) + 1 / (12 * x) - 1 / (360 * x**3)

    return (log_factorial(n) - log_factorial(k) - log_factorial(n - k)) / log(2)
