"""What a loss makes of a tensor's spread: variances and importance become the capacities of independent components.

For weights of covariance Sigma_W under I_w they are the eigenvalues of Sigma_W I_w (docs/theory.md section 2). With
rows of variances s_j^2, a covariance C of kernel positions, inputs A and outputs G that is

    nothing measured     s_j^2 eig(C)
    diagonal             eigenvalues of D^(1/2) C D^(1/2) s_j^2 for each kernel, D its part of the diagonal
    inputs and outputs   eig(S G S) x eig(C^(1/2) A C^(1/2)), S = diag(s_j), a group of rows at a time

There may be as many as weights: they are put into classes of 1/256 octave, whose geometric mean keeps every rate and
changes a loss by less than 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from netweight.bound.models import Components, Spread
from netweight.importance.stat import Stat

__all__ = ["Rows", "binned", "components", "couples", "output_scales"]

Array = NDArray[np.float64]

_CLASSES: Final = 256  # an octave
_OFFSET: Final = 1100 * _CLASSES  # doubles are above 2^-1074
_BLOCK: Final = 1 << 20
_FEW: Final = 512  # groups that need no classes


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """How the weights of a tensor spread around its mean.

    Attributes:
        counts: weights of each row, or of the tensor where its rows are short, shape (m,).
        variances: of each, shape (m,).
        kernel: C, covariance of kernel positions in rows of variance 1, of mean diagonal 1; [[1]] where there is none.
        spectra: eigenvalues of A by group of rows, rising, shape (groups, n); None where it was not measured.
        directions: variances along the eigenvectors, in rows of variance 1, of the same shape; None where rows are too
            few, too.
    """

    counts: Array
    variances: Array
    kernel: Array
    spectra: Array | None = None
    directions: Array | None = None

    @property
    def variance(self) -> float:
        """Of all weights."""
        return float(np.sum(self.counts * self.variances) / np.sum(self.counts))


def components(rows: Rows, stat: Stat, spread: Spread) -> Components:
    """Turn a tensor's spread and its importance into independent Gaussian components.

    Args:
        rows: of the tensor.
        stat: its importance; a quartic term is left out, which leaves a lower bound.
        spread: which differences of variance the law knows.
    """
    if stat.inputs is not None:
        return _structured(rows, stat, spread)
    if spread == "inputs" and rows.directions is not None:
        pairs = zip(np.split(rows.variances, len(rows.directions)), rows.directions, strict=True)
        return _products([(stat.weight * scales, values) for scales, values in pairs])
    variances = np.array([rows.variance]) if spread == "tensor" else rows.variances
    kernel = rows.kernel if spread in ("kernels", "inputs") else np.ones((1, 1))
    if stat.diagonal is not None:
        return _diagonal(stat, variances, kernel)
    counts = np.array([rows.counts.sum()]) if spread == "tensor" else rows.counts
    values = np.maximum(np.linalg.eigvalsh(kernel), 0.0)
    spreads = np.outer(variances, values).reshape(-1)
    return binned(np.repeat(counts / values.size, values.size), stat.weight * spreads)


def _diagonal(stat: Stat, variances: Array, kernel: Array) -> Components:
    """Components where every weight has an importance of its own."""
    assert stat.diagonal is not None
    flat = stat.diagonal.reshape(-1)
    length = flat.size // variances.size
    positions = len(kernel)
    parts = []
    step = max(positions, _BLOCK // positions**2 * positions)
    for at in range(0, flat.size, step):
        importance = flat[at : at + step].astype(np.float64)
        spreads = variances[np.arange(at, at + importance.size) // length]
        if positions > 1:
            # A kernel lies within a row, so its weights have one variance.
            root = np.sqrt(importance * spreads).reshape(-1, positions)
            values = np.linalg.eigvalsh(root[:, :, None] * kernel * root[:, None, :]).reshape(-1)
        else:
            values = importance * spreads
        parts.append(binned(np.ones(values.size), stat.weight * np.maximum(values, 0.0)))
    joined = Components.join(parts)
    return binned(joined.counts, joined.capacities)


def _structured(rows: Rows, stat: Stat, spread: Spread) -> Components:
    """Components under G (x) A."""
    assert stat.inputs is not None
    assert rows.spectra is not None
    spectra = rows.spectra
    if spread == "inputs" and rows.directions is not None:
        spectra = spectra * rows.directions
    elif spread in ("kernels", "inputs") and len(rows.kernel) > 1:
        spectra = np.maximum(np.linalg.eigvalsh(_with_kernel(np.asarray(stat.inputs, np.float64), rows.kernel)), 0.0)
    return _products(list(zip(output_scales(rows, stat, spread), spectra, strict=True)))


def couples(stat: Stat) -> bool:
    """Whether outputs of groups that meet different inputs are correlated, which is no Kronecker product."""
    if stat.inputs is None or stat.outputs is None or stat.outputs.ndim == 1 or len(stat.inputs) == 1:
        return False
    groups = len(stat.inputs)
    height = len(stat.outputs) // groups
    apart = stat.outputs.reshape(groups, height, groups, height).copy()
    apart[range(groups), :, range(groups)] = 0
    return bool(apart.any())


def output_scales(rows: Rows, stat: Stat, spread: Spread) -> list[Array]:
    """Eigenvalues of S G S for each group of rows, weight included: what multiplies the spectrum of the inputs."""
    assert stat.inputs is not None
    groups, n, _ = stat.inputs.shape
    outputs = round(float(rows.counts.sum())) // n
    per_row = rows.counts.size > 1 and spread != "tensor"
    variances = rows.variances if per_row else np.full(outputs, rows.variance)
    if stat.outputs is not None and stat.outputs.ndim == 1:
        variances = variances * stat.outputs
    parts = np.split(stat.weight * variances, groups)
    if stat.outputs is None or stat.outputs.ndim == 1:
        return parts
    out = []
    for group, part in enumerate(parts):
        mine = slice(group * part.size, (group + 1) * part.size)
        root = np.sqrt(part)
        out.append(np.maximum(np.linalg.eigvalsh(root[:, None] * stat.outputs[mine, mine] * root), 0.0))
    return out


def _products(factors: list[tuple[Array, Array]]) -> Components:
    """Components whose capacities are all products of a scale and a value of the same group."""
    parts = []
    for scales, values in factors:
        capacities = np.outer(scales, values).reshape(-1)
        parts.append(binned(np.ones(capacities.size), capacities))
    joined = Components.join(parts)
    return binned(joined.counts, joined.capacities)


def _with_kernel(inputs: Array, kernel: Array) -> Array:
    """C^(1/2) A C^(1/2), C acting on the kernel positions within the columns."""
    values, basis = np.linalg.eigh(kernel)
    root = (basis * np.sqrt(np.maximum(values, 0.0))) @ basis.T
    groups, n, _ = inputs.shape
    half = (inputs.reshape(groups, n, -1, len(kernel)) @ root).reshape(groups, n, n)
    return np.asarray((half.swapaxes(1, 2).reshape(groups, n, -1, len(kernel)) @ root).reshape(groups, n, n))


def binned(counts: Array, capacities: Array) -> Components:
    """Put components into classes by capacity where there are many; those of capacity zero stay one class.

    >>> found = binned(np.ones(1000), np.linspace(1, 2, 1000))
    >>> found.counts.size, round(float(found.counts[:-1] @ np.log(found.capacities[:-1])), 6)
    (258, 386.254599)
    """
    if counts.size <= _FEW:
        return Components.gaussian(counts, capacities)
    live = capacities > 0
    logs = np.log2(capacities[live])
    places = np.floor(logs * _CLASSES).astype(np.int64) + _OFFSET
    weights = counts[live]
    number = np.bincount(places, weights).astype(np.float64)
    used = np.flatnonzero(number)
    means = 2.0 ** (np.bincount(places, weights * logs)[used] / number[used])
    return Components.gaussian(np.append(number[used], counts[~live].sum()), np.append(means, 0.0))
