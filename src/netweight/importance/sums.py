"""What `measure` adds up for one tensor, and the Stat that it makes."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from netweight.checkpoint.pages import give_back
from netweight.errors import UsageError
from netweight.importance.optimism import NONE, Optimism, most
from netweight.importance.shrink import Choice, choose, shrink, toward, toward_mean
from netweight.importance.stat import BLOCK, Stat
from netweight.importance.triangle import Triangle

Float64 = NDArray[np.float64]

HALVES: Final = 2  # the samples fall into two halves, so that one can judge what the other says
MOST_TOKENS: Final = 64  # tokens of one input count as independent samples up to this number
FLOOR: Final = 1e-4  # of the mean: what an input that was never on counts for
PRIOR_SAMPLES: Final = 4.0  # a diagonal is mixed with its mean as if so many samples had said that


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over samples, of one use of a tensor.

    A tensor that is a map of R rows and n columns has second moments of what faces its columns and its rows; one of
    the two is the layer's input (a mean over `tokens`), the other the gradient (a mean over predictions).

    Attributes:
        shape: of the tensor.
        inputs: sums of v v^T of what faces the columns, [2 halves, groups, n, n], float64.
        outputs: of what faces the rows, [2, R] for a diagonal or [2, R, R].
        tokens: vectors of the layer's input that were counted, by half; 0 where inputs and outputs are the moments of
            the two sides of each sample's whole gradient D, the sums of D^T D and of D D^T.
        diagonal: sums of squared gradients of each sample, in the tensor's shape.
        quartic: sums of a quarter of the squared second derivatives of each sample.
        positions: sums of v v^T of what faces the columns at each position, [2, groups, n, n], where `inputs` are of
            something that a sample's positions make together: its whole gradient, or their mean.
    """

    shape: tuple[int, ...]
    inputs: Float64 | None = None
    outputs: Float64 | None = None
    tokens: tuple[float, float] = (0.0, 0.0)
    diagonal: Float64 | None = None
    quartic: Float64 | None = None
    positions: Float64 | None = None

    def __add__(self, other: "Sums") -> "Sums":
        """Sums of the samples of both."""
        parts = {}
        for field in ARRAYS:
            a, b = getattr(self, field), getattr(other, field)
            if (a is None) != (b is None) or (a is not None and a.shape != b.shape):
                raise UsageError("The two importances hold different statistics.", "Measure both in the same way.")
            parts[field] = None if a is None else a + b
        tokens = (self.tokens[0] + other.tokens[0], self.tokens[1] + other.tokens[1])
        return Sums(self.shape, tokens=tokens, **parts)


ARRAYS: Final = tuple(f.name for f in fields(Sums) if f.name not in ("shape", "tokens"))


@dataclass(frozen=True, slots=True)
class Counts:
    """How much data the sums are of.

    Attributes:
        samples: inputs.
        predictions: softmaxes (images, tokens) or samples, whose mean loss is meant.
    """

    samples: int
    predictions: float


class Shrinkage(NamedTuple):
    """How far the sums of one use are believed (`netweight.importance.shrink`).

    Attributes:
        inputs: rho of A; 0 is the measured matrix, 1 its diagonal.
        outputs: rho of G.
        optimism: what errors shaped to the shrunk A cost on new inputs, in what it says that they cost, by rate.
        positions: tau of A; 1 is the moment of the positions, scaled.
    """

    inputs: float
    outputs: float
    optimism: Optimism = NONE
    positions: float = 0.0


def digest(array: NDArray[Any] | Triangle) -> bytes:
    """SHA-256 of an array, by which it is known again when it is not kept; a triangle has another than its matrices.

    >>> digest(np.zeros(2)) == digest(np.zeros((1, 2)))
    False
    """
    values = array.values if isinstance(array, Triangle) else array
    found = hashlib.sha256(f"{values.dtype} {values.shape} {array.shape}".encode())
    found.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return found.digest()


class Judge:
    """Chooses shrinkage, once for equal matrices: a network's queries, keys and values meet the same inputs."""

    def __init__(self) -> None:
        self._found: dict[bytes, Choice] = {}

    def choose(self, halves: Float64 | Triangle, targets: Float64 | Triangle | None) -> Choice:
        """As `shrink.choose`."""
        key = digest(halves) + (b"" if targets is None else digest(targets))
        if key not in self._found:
            self._found[key] = choose(halves, targets)
        return self._found[key]


class Facing(Protocol):
    """What faces the columns and the rows of a weight, unfolded or not."""

    @property
    def inputs(self) -> Float64 | Triangle | None:
        """Of the columns."""

    @property
    def outputs(self) -> Float64 | Triangle | None:
        """Of the rows."""

    @property
    def positions(self) -> Float64 | Triangle | None:
        """Of the columns, at each position."""


def shrinkage(sums: Facing, judge: Judge) -> Shrinkage:
    """What each half would have chosen, had it known the other."""
    rho, optimism, tau = Choice(0.0) if sums.inputs is None else judge.choose(sums.inputs, sums.positions)
    return Shrinkage(rho, 0.0 if sums.outputs is None else choose(sums.outputs).rho, optimism, tau)


def stat(sums: Sums, counts: Counts, by: Shrinkage | None) -> Stat:
    """Make the importance of a tensor from its sums.

    Args:
        sums: of all samples.
        counts: how many there are.
        by: shrinkage of inputs and outputs; None for the plain means.
    """
    if sums.inputs is None:
        return _diagonal(sums, counts, by is not None)
    assert sums.outputs is not None
    a, g = _total(sums.inputs), _total(sums.outputs)
    if by is not None:
        least = _prior(counts) if g.ndim == 1 else 0.0  # a token that was never seen may come yet
        if sums.positions is not None and by.positions:
            a = toward(a, _total(sums.positions), by.positions)
        a, g = shrink(a, by.inputs, out=a), shrink(g[None], max(by.outputs, least))[0]
        a = _floored(a)
        if g.ndim == 2:
            g = _even(g, sums.outputs)
    if not any(sums.tokens):
        return _whole(a, g, counts, NONE if by is None else by.optimism)
    diagonal = g if g.ndim == 1 else np.diagonal(g)
    scale = float(np.mean(diagonal))
    g = g / scale if scale > 0 else np.ones_like(g) if g.ndim == 1 else np.eye(len(g))
    total = sum(sums.tokens)
    a *= scale / (max(total, 1.0) * max(counts.predictions, 1.0))
    samples = round(min(total, counts.samples * float(MOST_TOKENS)))
    return Stat(inputs=a, outputs=g, samples=samples, optimism=NONE if by is None else by.optimism)


def _total(halves: Float64) -> Float64:
    """Sum of both halves, row by row: those of a file need not be in memory as a whole."""
    first, second = (half.reshape(-1) for half in halves)
    total = np.empty(first.size)
    for at in range(0, total.size, BLOCK):
        part = slice(at, at + BLOCK)
        np.add(first[part], second[part], out=total[part])
        give_back(first[part])
        give_back(second[part])
    return total.reshape(halves.shape[1:])


def averaged(sums: Sums) -> Sums:
    """Sums of the mean column: all that their mean importance needs."""
    if sums.inputs is None:
        return sums
    mean = np.diagonal(sums.inputs, axis1=2, axis2=3).mean(axis=2)[:, :, None, None]
    return replace(sums, inputs=mean, positions=None)


def _even(g: Float64, halves: Float64) -> Float64:
    """Shrink the diagonal of a matrix too: a class that no sample was near has outputs that seem not to matter."""
    diagonal = np.diagonal(g)
    rho = choose(np.ascontiguousarray(np.diagonal(halves, axis1=1, axis2=2))).rho
    if rho > 0:
        root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        wanted = np.sqrt(toward_mean(diagonal, rho))
        g = g * (wanted / root)[:, None] * (wanted / root)
        g[range(len(g)), range(len(g))] = wanted**2
    return g


def _whole(a: Float64, g: Float64, counts: Counts, optimism: Optimism) -> Stat:
    """Make it of E[D^T D] by group and of E[D D^T]: each has the trace of I_w, so G gets a mean of 1 in each group."""
    rows = len(g) // len(a)
    diagonal = (g if g.ndim == 1 else np.diagonal(g)).reshape(len(a), rows)
    mean = np.repeat(diagonal.mean(axis=1), rows)
    mean = np.where(mean > 0, mean, 1.0)
    g = g / mean if g.ndim == 1 else g / np.sqrt(mean[:, None] * mean)
    a /= rows * max(counts.predictions, 1.0)
    return Stat(inputs=a, outputs=g, samples=counts.samples, optimism=optimism)


def _floored(a: Float64) -> Float64:
    n = a.shape[1]
    a[:, range(n), range(n)] += FLOOR * max(float(np.mean(np.diagonal(a, axis1=1, axis2=2))), 0.0)
    return a


def _diagonal(sums: Sums, counts: Counts, shrunk: bool) -> Stat:
    assert sums.diagonal is not None
    rho = _prior(counts) if shrunk else 0.0
    return Stat(
        diagonal=_mean(sums.diagonal, counts, rho),
        quartic=None if sums.quartic is None else _mean(sums.quartic, counts, rho),
        samples=counts.samples,
    )


def _prior(counts: Counts) -> float:
    return PRIOR_SAMPLES / (PRIOR_SAMPLES + counts.samples)


def _mean(total: Float64, counts: Counts, rho: float) -> NDArray[np.float32]:
    mean = np.maximum(total / max(counts.predictions, 1.0), 0.0)  # an estimated Hessian may be negative
    return np.asarray(toward_mean(mean, rho), np.float32)


def merged(uses: list[Stat]) -> Stat:
    """Importance of a tensor that is used in several places: the factors' means, with the trace of the sum.

    A sum of Kronecker products is none. Columns get the sum of the columns' matrices, each times the mean of its rows;
    rows the sum of their diagonals, each times the mean of its columns.
    """
    if len(uses) == 1:
        return uses[0]
    if any(use.inputs is None for use in uses):
        total = sum((dense_diagonal(use) for use in uses), start=np.zeros((), np.float32))
        return Stat(diagonal=np.asarray(total), samples=max(use.samples for use in uses))
    groups = max(len(use.inputs) for use in uses if use.inputs is not None)
    rows: Float64 = np.zeros(1)
    inputs: Float64 = np.zeros(1)
    for use in uses:
        assert use.inputs is not None
        assert use.outputs is not None
        diagonal = use.outputs if use.outputs.ndim == 1 else np.diagonal(use.outputs)
        a = np.broadcast_to(use.inputs, (groups, *use.inputs.shape[1:]))
        inputs = inputs + use.weight * a
        rows = rows + use.weight * diagonal * float(np.mean(np.diagonal(a, axis1=1, axis2=2)))
    outputs = rows / max(float(np.mean(rows)), float(np.finfo(float).tiny))
    samples = max(use.samples for use in uses)
    return Stat(inputs=inputs, outputs=outputs, samples=samples, optimism=most(use.optimism for use in uses))


def dense_diagonal(stat: Stat) -> NDArray[np.float32]:
    """Every I_ii of a tensor with a diagonal or a structure, rows by columns or in the tensor's shape."""
    if stat.diagonal is not None:
        return np.asarray(stat.weight * stat.diagonal, np.float32)
    assert stat.inputs is not None
    assert stat.outputs is not None
    rows = stat.outputs if stat.outputs.ndim == 1 else np.diagonal(stat.outputs)
    columns = np.diagonal(stat.inputs, axis1=1, axis2=2)
    return np.asarray(stat.weight * rows[:, None] * np.repeat(columns, len(rows) // len(columns), axis=0), np.float32)


def joined(parts: list[Sums]) -> Sums:
    """Sums of a packed weight from those of its parts: a group of columns for each, rows without cross terms."""
    rows = sum(part.shape[0] for part in parts)
    shape = (rows, parts[0].shape[1])
    if parts[0].inputs is None:
        return Sums(shape, diagonal=np.concatenate([part.diagonal for part in parts if part.diagonal is not None]))
    total = [max(sum(part.tokens), 1.0) for part in parts]
    inputs = np.concatenate(
        [p.inputs * (total[0] / t) for p, t in zip(parts, total, strict=True) if p.inputs is not None], 1
    )
    gradients = [part.outputs for part in parts if part.outputs is not None]
    if gradients[0].ndim == 2:
        return Sums(shape, inputs, np.concatenate(gradients, axis=1), parts[0].tokens)
    outputs = np.zeros((HALVES, rows, rows))
    at = 0
    for g in gradients:
        outputs[:, at : at + g.shape[1], at : at + g.shape[1]] = g
        at += g.shape[1]
    return Sums(shape, inputs, outputs, parts[0].tokens)
