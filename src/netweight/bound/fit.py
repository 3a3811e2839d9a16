"""Fit the laws of `models` to the weights of one tensor: mean, spread by row, entropy."""

from __future__ import annotations

from dataclasses import dataclass
from math import e, exp, pi
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from netweight.bound.models import MODELS, Components
from netweight.dtypes import is_float, to_float32
from netweight.entropy.layout import Layout
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
    """A tensor's weights as the laws see them.

    Attributes:
        mean: of all weights.
        counts: weights of each row, or of the tensor where its rows are short.
        variances: around the mean, of each row.
        kernel: eigenvalues, of mean 1, of the covariance of kernel positions after each row is scaled to variance 1;
            [1] where there are no kernels, or too few for a covariance.
        entropy_nats: estimated differential entropy of (w - mean) / deviation of its row, each weight spread over the
            storage step that it was rounded to; -inf for fewer than 64 weights, or where that step vanishes.
    """

    mean: float
    counts: Array
    variances: Array
    kernel: Array
    entropy_nats: float

    @property
    def variance(self) -> float:
        """Of all weights."""
        return float(np.sum(self.counts * self.variances) / np.sum(self.counts))

    def components(self, model: str, importance: float) -> Components:
        """The tensor's groups under a model.

        Args:
            model: id.
            importance: loss = importance / 2 times the squared error.
        """
        law = MODELS[model]
        if law.id in ("gaussian", "laplace"):
            counts, spreads = np.array([self.counts.sum()]), np.array([self.variance])
        elif law.id == "gaussian-kernels":
            spreads = np.outer(self.variances, self.kernel).reshape(-1)
            counts = np.repeat(self.counts / self.kernel.size, self.kernel.size)
        elif law.id == "entropy-rows":
            counts, spreads = self.counts, self.variances * (exp(2 * self.entropy_nats) / (2 * pi * e))
        else:
            counts, spreads = self.counts, self.variances
        return Components(counts, spreads, np.full(counts.shape, importance))


def fit(storage: NDArray[Any], dtype: str, shape: tuple[int, ...]) -> Fit:
    """Measure what the laws need.

    Args:
        storage: the tensor as stored, finite.
        dtype: its code.
        shape: of the tensor; rows are its first axis, a vector is one row.

    >>> w = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
    >>> found = fit(w, "F32", w.shape)
    >>> f"{found.variance:.2f} {found.entropy_nats:.2f} {0.5 * np.log(2 * np.pi * np.e):.2f}"
    '1.00 1.42 1.42'
    """
    layout = Layout.of(shape)
    rows = layout.rows if layout.size >= LEAST_ROW * layout.rows else 1
    matrix = storage.reshape(rows, -1)
    length = matrix.shape[1]
    height = max(1, _BLOCK // max(1, length))
    mean = sum(float(np.sum(_floats(matrix[at : at + height], dtype))) for at in range(0, rows, height)) / matrix.size
    variances = np.zeros(rows)
    for at in range(0, rows, height):
        block = _floats(matrix[at : at + height], dtype) - mean
        variances[at : at + height] = np.mean(block * block, axis=1)
    counts = np.full(rows, float(length))
    kernel = _kernel(matrix, dtype, mean, variances, layout.positions) if rows == layout.rows else np.ones(1)
    return Fit(mean, counts, variances, kernel, _entropy_nats(matrix, dtype, mean, variances))


def _kernel(matrix: NDArray[Any], dtype: str, mean: float, variances: Array, positions: int) -> Array:
    """Eigenvalues of the covariance of kernel positions, of kernels in rows of variance 1."""
    if positions < 2 or matrix.size < LEAST_KERNELS * positions**2:
        return np.ones(1)
    scale = 1 / np.sqrt(np.where(variances > 0, variances, 1.0))
    total = np.zeros((positions, positions))
    height = max(1, _BLOCK // matrix.shape[1])
    for at in range(0, len(matrix), height):
        block = (_floats(matrix[at : at + height], dtype) - mean) * scale[at : at + height, None]
        kernels = block.reshape(-1, positions)
        total += kernels.T @ kernels
    values = np.maximum(np.linalg.eigvalsh(total), 0.0)
    return np.asarray(values * positions / values.sum())


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
