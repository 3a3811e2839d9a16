"""Fit the laws of `models` to the weights of one tensor: mean, spread by row, kernel and input, entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import e, exp, pi
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from netweight.bound.ignorant import Ignorant, ignorant
from netweight.bound.models import LAPLACE_POWER, MODELS, Components, Spread
from netweight.bound.spread import Rows, components
from netweight.dtypes import is_float, to_float32
from netweight.entropy.layout import Layout
from netweight.importance.stat import PLAIN, Stat
from netweight.theory.general import spacing_entropy_nats

__all__ = ["Fit", "fit"]

Array = NDArray[np.float64]

ENTROPY_SAMPLE: Final = 1 << 17  # the estimate's standard error is then some 0.002 nat
LEAST_ENTROPY_SAMPLE: Final = 64
LEAST_ROW: Final = 16  # weights from which on a row has a variance of its own: fewer would fit their own law too well
LEAST_KERNELS: Final = 16  # kernels for each position, from which on their covariance is fitted
_BLOCK: Final = 1 << 20
_MANTISSA_BITS: Final = {"F64": 23, "F32": 23, "F16": 10, "BF16": 7}


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A tensor's weights as the laws see them; its importance is used up, for a matrix' can be larger than the matrix.

    Attributes:
        mean: of all weights.
        rows: variances around it.
        entropy_nats: estimated differential entropy of (w - mean) / deviation of its row, each weight spread over the
            storage step that it was rounded to; -inf for fewer than 64 weights, or where that step vanishes.
        flat: all weights matter alike.
        hidden: rows of a tensor with a measured input covariance, for a decoder that does not know it; none without.
        own: by spread, components under the tensor's importance.
        plain: the same under half the squared error.
    """

    mean: float
    rows: Rows
    entropy_nats: float
    flat: bool
    hidden: tuple[Ignorant, ...]
    own: Mapping[Spread, Components]
    plain: Mapping[Spread, Components]

    def components(self, model: str, *, plain: bool = False) -> Components:
        """The tensor's components under a model.

        Args:
            model: id.
            plain: under half the squared error instead of the tensor's own importance.
        """
        law = MODELS[model]
        parts = (self.plain if plain else self.own)[law.spread]
        if law.law == "entropy":
            return parts.scaled(exp(2 * self.entropy_nats) / (2 * pi * e))
        if law.law == "laplace":
            return parts.scaled(LAPLACE_POWER) if self.hidden and not plain else parts.as_laplace()
        return parts


def fit(storage: NDArray[Any], dtype: str, shape: tuple[int, ...], stat: Stat = PLAIN) -> Fit:
    """Measure what the laws need.

    Args:
        storage: the tensor as stored, finite.
        dtype: its code.
        shape: of the tensor; rows are its first axis, a vector is one row.
        stat: its importance.

    >>> w = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
    >>> found = fit(w, "F32", w.shape)
    >>> f"{found.rows.variance:.2f} {found.entropy_nats:.2f} {0.5 * np.log(2 * np.pi * np.e):.2f}"
    '1.00 1.42 1.42'
    """
    layout = Layout.of(shape)
    own = layout.rows if stat.inputs is None else layout.size // stat.inputs.shape[1]
    rows = own if layout.size >= LEAST_ROW * own else 1
    matrix = storage.reshape(rows, -1)
    length = matrix.shape[1]
    height = max(1, _BLOCK // max(1, length))
    mean = sum(float(np.sum(_floats(matrix[at : at + height], dtype))) for at in range(0, rows, height)) / matrix.size
    variances = np.zeros(rows)
    for at in range(0, rows, height):
        block = _floats(matrix[at : at + height], dtype) - mean
        variances[at : at + height] = np.mean(block * block, axis=1)
    kernel = _kernel(matrix, dtype, mean, variances, layout.positions) if rows == layout.rows else np.ones((1, 1))
    spectra, directions = _inputs(matrix, dtype, mean, variances, stat)
    found = Rows(np.full(rows, float(length)), variances, kernel, spectra, directions)
    entropy_nats = _entropy_nats(matrix, dtype, mean, variances)
    spreads = get_args(Spread)
    plain = {spread: components(found, PLAIN, spread) for spread in spreads}
    own = {spread: components(found, stat, spread) for spread in spreads}
    hidden = () if stat.inputs is None else ignorant(found, stat)
    return Fit(mean, found, entropy_nats, stat.is_flat, hidden, own, plain)


def _inputs(
    matrix: NDArray[Any], dtype: str, mean: float, variances: Array, stat: Stat
) -> tuple[Array | None, Array | None]:
    """Eigenvalues of the input covariance, and variances of rows of variance 1 along its eigenvectors, by group."""
    if stat.inputs is None:
        return None, None
    values, vectors = np.linalg.eigh(stat.inputs)
    values = np.maximum(values, 0.0)
    height = len(matrix) // len(values)
    if height < LEAST_ROW or matrix.shape[1] != values.shape[1]:
        return values, None
    directions = np.ones_like(values)
    for group, basis in enumerate(vectors):
        mine = slice(group * height, (group + 1) * height)
        live = variances[mine] > 0
        if live.any():
            z = (_floats(matrix[mine][live], dtype) - mean) / np.sqrt(variances[mine][live])[:, None]
            directions[group] = np.mean(np.square(z @ basis), axis=0)
    return values, directions


def _kernel(matrix: NDArray[Any], dtype: str, mean: float, variances: Array, positions: int) -> Array:
    """Covariance of kernel positions, of mean diagonal 1, of kernels in rows of variance 1."""
    if positions < 2 or matrix.size < LEAST_KERNELS * positions**2:
        return np.ones((1, 1))
    scale = 1 / np.sqrt(np.where(variances > 0, variances, 1.0))
    total = np.zeros((positions, positions))
    height = max(1, _BLOCK // matrix.shape[1])
    for at in range(0, len(matrix), height):
        block = (_floats(matrix[at : at + height], dtype) - mean) * scale[at : at + height, None]
        kernels = block.reshape(-1, positions)
        total += kernels.T @ kernels
    trace = float(np.trace(total))
    return total * (positions / trace) if trace > 0 else np.ones((1, 1))


def _floats(block: NDArray[Any], dtype: str) -> Array:
    assert is_float(dtype)
    return block.astype(np.float64) if dtype == "F64" else to_float32(block, dtype).astype(np.float64)


def _entropy_nats(matrix: NDArray[Any], dtype: str, mean: float, variances: Array) -> float:
    """Entropy of standardised weights of a regular sample, each spread over the storage step it was rounded to."""
    stride = max(1, -(-matrix.size // ENTROPY_SAMPLE))
    while matrix.shape[1] % stride == 0 and stride > 1:  # else the sample would be a few columns
        stride += 1
    places = np.arange(0, matrix.size, stride)
    w = _floats(matrix.reshape(-1)[places], dtype)
    variance = variances[places // matrix.shape[1]]
    w, variance = w[variance > 0], variance[variance > 0]
    if w.size < LEAST_ENTROPY_SAMPLE:
        return -np.inf
    step = 2.0 ** (np.frexp(w)[1] - 1 - _MANTISSA_BITS[dtype])
    dithered = w + step * (np.random.default_rng(0).random(w.size) - 0.5)
    try:
        return spacing_entropy_nats((dithered - mean) / np.sqrt(variance))
    except ValueError:  # a window of equal values: no density
        return -np.inf
