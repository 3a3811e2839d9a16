"""How far a measured second moment is believed: mixed with its own diagonal, by what the other half of the data says.

A matrix of n columns from few samples has directions that were never seen, and a quantiser hides its errors exactly
there: on new inputs they show. So

    A <- (1 - rho) A + rho diag A,

with the rho that a quantiser would have chosen had it known the second half. One that shapes its errors to the first
half's A1 makes errors of covariance theta (A1 + mu)^-1, at 1/2 log2 det(1 + A1 / mu) bits; on the second half they cost
theta tr(A2 (A1 + mu)^-1). So rho is the one that at a rate loses least,

    J(rho) = mu tr(A2 M^-1),    M = B + mu,    B = (1 - rho) A1 + rho diag A1,    1/2n log2 det(1 + B / mu) = RATE_BITS.

The ridge mu goes with the rate: a B that lacks directions spends all bits on those it has, and what it leaves of the
others is seen by A2. All is computed in the basis of A1's correlations, where all rho share their eigenvectors. Half
the samples ask for more shrinkage than all: rho = c / (c + samples) for one c.

Where the samples of a matrix have parts of their own (the positions of an image), the moment T of these, scaled to A's
diagonal, has many more directions than A, if not quite the same. Then A is mixed with it first,

    A <- (1 - rho) ((1 - tau) A + tau T) + rho diag A,

and tau is chosen with rho: half of the samples ask for more of it too.

What is left is optimism (Efron 1983): errors shaped to B cost more on the second half than B says, by

    tr(A2 M^-1) / tr(B M^-1),

and errors shaped to all samples cost about that much more on new inputs. It goes with the rate: at few bits mu is
large, and errors are hardly shaped (`optimism`). The same by A1 in the place of B is no use: half of the samples hide
about twice what all of them do.
"""

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from netweight.importance.optimism import NONE, RATES_BITS, Optimism
from netweight.single import eigh

Float64 = NDArray[np.float64]

RATE_BITS: Final = 3.0  # a weight, at which rho is chosen: a network is of use there; two and four give much the same
HALVINGS: Final = 40  # of the bracket of log2 mu
BRACKET: Final = (-40.0, 20.0)
GRID: Final = (
    0.0,
    1e-3,
    2e-3,
    4e-3,
    8e-3,
    0.015,
    0.03,
    0.06,
    0.1,
    0.15,
    0.22,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.97,
    1.0,
)
SHARES: Final = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0)  # tau
EXACT: Final = 640  # columns up to which both halves judge each other, in double precision
LARGE: Final = 3072  # columns above which eigenvectors take too long
LEAST: Final = 1e-12
DIGITS: Final = 4  # of the optimism: sums in another order give the same
LEAST_TIMES: Final = 0.25  # a matrix that is mostly T may promise too much or too little


def shrink(a: Float64, rho: float, out: Float64 | None = None) -> Float64:
    """Mix matrices with their diagonals, or vectors with their mean.

    Args:
        a: [groups, n, n], or [1, n].
        rho: 0 to 1.
        out: where mixed matrices go, which may be `a`.

    >>> shrink(np.array([[[2.0, 1.0], [1.0, 4.0]]]), 0.5).tolist()
    [[[2.0, 0.5], [0.5, 4.0]]]
    """
    if a.ndim == 2:
        return toward_mean(a, rho)
    n = a.shape[1]
    diagonal = np.diagonal(a, axis1=1, axis2=2).copy()
    mixed = np.multiply(a, 1 - rho, out=out)
    mixed[:, range(n), range(n)] = diagonal
    return np.asarray(mixed)


def toward(a: Float64, target: Float64, tau: float) -> Float64:
    """Mix matrices, in their own place, with others that are scaled to their diagonals.

    Args:
        a: [groups, n, n].
        target: likewise.
        tau: 0 to 1.

    >>> toward(np.array([[[4.0, 0.0], [0.0, 1.0]]]), np.array([[[1.0, 0.5], [0.5, 1.0]]]), 0.5).tolist()
    [[[4.0, 0.5], [0.5, 1.0]]]
    """
    d, t = (np.diagonal(m, axis1=1, axis2=2) for m in (a, target))
    root = np.sqrt(np.divide(d, t, out=np.zeros_like(d), where=(d > 0) & (t > 0)))
    diagonal = d.copy()
    scaled = target * (tau * root[:, :, None])
    scaled *= root[:, None, :]
    a *= 1 - tau
    a += scaled
    n = range(a.shape[1])
    a[:, n, n] = diagonal
    return a


def toward_mean(v: Float64, rho: float) -> Float64:
    """Mix the entries of an array with their mean."""
    if rho == 0 or not v.size:
        return v
    mixed: Float64 = (1 - rho) * v + rho * float(np.mean(v))
    return mixed


class Choice(NamedTuple):
    """What one half says of the other.

    Attributes:
        rho: shrinkage for all samples.
        optimism: what shaped errors cost on new inputs, in what the shrunk matrix says that they cost.
        tau: share of the target, for all samples.
    """

    rho: float
    optimism: Optimism = NONE
    tau: float = 0.0


class Halves(Protocol):
    """Sums of two halves of the data: an array, or what makes one of a half when it is looked at."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of both."""

    def __getitem__(self, half: int, /) -> NDArray[Any]:
        """Give one."""


def choose(halves: Halves, targets: Halves | None = None) -> Choice:
    """Give rho and tau for all samples and the optimism that is left, from the sums of two halves.

    Args:
        halves: [2, groups, n, n], [2, n, n], or [2, n] for diagonals.
        targets: of the same shape, what matrices are mixed with.

    >>> x = np.random.default_rng(0).standard_normal((2, 500, 3))
    >>> found = choose(np.einsum("hti,htj->hij", x, x))
    >>> found.rho > 0.5, 1 <= found.optimism.at(3.0) < 1.02
    (True, True)
    """
    if not all(halves[half].any() for half in range(2)):
        return Choice(1.0)  # one half is empty: nothing is known of what it would say
    n, matrices = halves.shape[-1], len(halves.shape) > 2
    if n == 1:
        return Choice(0.0)
    if matrices and n > LARGE:
        return Choice(_for_all(_least_squares(_half(halves, 0), _half(halves, 1))))
    pairs = ((0, 1), (1, 0)) if not matrices or n <= EXACT else ((0, 1),)
    least = np.inf
    for tau in SHARES if targets is not None else SHARES[:1]:
        tried = [_spectra(halves, *pair, targets, tau) for pair in pairs]
        lost = np.mean([_bits_lost(*each) for each in tried], axis=0)
        if lost.min() < least:
            least, best, spectra, share = float(lost.min()), GRID[int(np.argmin(lost))], tried, tau
    times = np.mean([_more(*each, best) for each in spectra], axis=0)
    floor = LEAST_TIMES if share else 1.0
    optimism = Optimism(tuple(max(floor, round(float(each), DIGITS)) for each in times))
    return Choice(_for_all(best), optimism, _for_all(share))


def _for_all(rho: float) -> float:
    """From half of the samples to all: c / (c + m / 2) becomes c / (c + m)."""
    return rho / (2 - rho)


def _half(halves: Halves, half: int) -> NDArray[Any]:
    """[groups, n, n], or [1, n] of diagonals."""
    found = halves[half]
    return found if found.ndim == 3 else found[None]


def _bits_lost(values: Float64, seen: Float64) -> Float64:
    """Half the log2 of J at each rho of the grid: [rho]."""
    rho = np.array(GRID)[:, None, None]
    b = (1 - rho) * values + rho
    mu = _ridge(b, RATE_BITS)
    return np.asarray(0.5 * np.mean(np.log2(mu[..., 0] * np.mean(seen / (b + mu), axis=-1)), axis=1))


def _more(values: Float64, seen: Float64, rho: float) -> Float64:
    """Optimism of the shrunk matrix at each rate: [rates]."""
    b = (1 - rho) * values + rho
    mu = _ridge(b, np.array(RATES_BITS)[:, None, None])
    lost, believed = (np.sum(mu[..., 0] * np.mean(a / (b + mu), axis=-1), axis=1) for a in (seen, b))
    return np.asarray(lost / believed)


def _ridge(b: Float64, rate_bits: float | Float64) -> Float64:
    """Mu at which the eigenvalues of each matrix get so many bits a weight: [.., groups, 1]."""
    shape = np.broadcast_shapes((*b.shape[:-1], 1), np.shape(rate_bits))
    low, high = (np.full(shape, end) for end in BRACKET)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = 0.5 * np.mean(np.log2(1 + b * np.exp2(-middle)), axis=-1, keepdims=True) > rate_bits
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.exp2(high))


def _spectra(halves: Halves, first: int, second: int, targets: Halves | None, tau: float) -> tuple[Float64, Float64]:
    """Eigenvalues of the first half's correlations, and the second half along their eigenvectors, each [groups, n].

    For the eigenvectors LAPACK needs the memory of five matrices, so large ones are in single precision, which the
    ridges here do not notice, and no half is kept meanwhile.
    """
    if len(halves.shape) == 2:
        mine, other = _half(halves, first), _half(halves, second)
        scale = np.maximum(mine.mean(axis=1, keepdims=True), LEAST)
        return mine / scale, _normal(other / scale)
    precision = np.float64 if halves.shape[-1] <= EXACT else np.float32
    values, vectors = eigh(_mixed(halves, first, targets, tau).astype(precision, copy=False))
    other = _correlations(_half(halves, second)).astype(precision, copy=False)
    seen = np.einsum("gji,gji->gi", vectors, other @ vectors)
    return np.maximum(values.astype(np.float64), 0.0), _normal(seen.astype(np.float64))


def _mixed(halves: Halves, half: int, targets: Halves | None, tau: float) -> NDArray[Any]:
    found = _correlations(_half(halves, half))
    if targets is not None and tau:
        found *= 1 - tau
        found += tau * _correlations(_half(targets, half))
    return found


def _correlations(a: NDArray[Any]) -> NDArray[Any]:
    """Scale each half by its own diagonal: rho does not change it, and what was off in one half says nothing."""
    n = a.shape[1]
    d = np.diagonal(a, axis1=1, axis2=2)
    root = np.where(d > 0, 1 / np.sqrt(np.where(d > 0, d, 1)), 0)
    out = a * root[:, :, None]
    out *= root[:, None, :]
    out[:, range(n), range(n)] = 1
    return np.asarray(out)


def _normal(seen: Float64) -> Float64:
    scaled: Float64 = np.maximum(seen / np.maximum(seen.mean(axis=1, keepdims=True), LEAST), LEAST)
    return scaled


def _least_squares(first: Float64, second: Float64) -> float:
    """Best rho for the squared error of the correlations."""
    x, y = _correlations(first), _correlations(second)
    n = x.shape[1]
    x[:, range(n), range(n)] = y[:, range(n), range(n)] = 0.0
    keep = float(np.sum(x * y)) / max(float(np.sum(x * x)), LEAST)
    return 1 - min(max(keep, 0.0), 1.0)
