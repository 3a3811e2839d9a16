"""The target of successive quantisation: a ridge, and the factor that whitens what it leaves.

For rows w of a matrix whose inputs have the second moment A, the loss of an error e is e A e^T. At the water level
theta the best channel whose decoder does not know A (`theory.universal`) is a ridge followed by noise:

    w' = w A (A + mu)^-1,   mu = theta / tau^2,   tau^2 = |w'|^2 / tr A (A + mu)^-1

With A + mu = U U^T, U upper triangular, the loss of w' - v is then |(w' - v) U|^2 less what the ridge has paid already,
mu |v|^2, and the columns can be chosen one after the other. Sources: Frantar et al. 2022 (feedback by Cholesky
factors), Conzelmann and Bamler 2025 (a quadratic part of the rate as a ridge), Harbuzova et al. 2026 (the channel).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.layout import Layout
from netweight.importance.stat import Stat
from netweight.kernels import Float32

Array = NDArray[np.float64]

FLOOR = 1e-9  # least ridge, of the mean diagonal: A may be singular
HALVINGS = 60  # of the bracket of ln mu


@dataclass(frozen=True, slots=True)
class Matrix:
    """A tensor as the matrix of its columns in scan order, by groups of rows that meet the same inputs.

    Attributes:
        w: float64 [groups, rows of one, n].
        a: float64 [groups, n, n]; half of e a e^T is the loss of an error of a row.
        layout: scan.
    """

    w: Array
    a: Array
    layout: Layout


@dataclass(frozen=True, slots=True)
class Target:
    """What is quantised.

    Attributes:
        mu: [groups].
        shrunk: w', [groups, rows, n].
        factor: U, [groups, n, n].
    """

    mu: Array
    shrunk: Array
    factor: Array


def matrix_of(w: Float32, stat: Stat) -> Matrix | None:
    """Arrange a tensor, None where the statistics say nothing of its columns."""
    a = stat.inputs
    if a is None or w.ndim < 2 or w.size == 0 or a.shape[1] != w.size // w.shape[0] or w.shape[0] % a.shape[0]:
        return None
    layout = Layout.down(w.shape)
    order = column_order(layout)
    factor = stat.weight
    if stat.outputs is not None:
        factor *= float(np.mean(stat.outputs if stat.outputs.ndim == 1 else np.diagonal(stat.outputs)))
    rows = w.reshape(w.shape[0], -1)[:, order].astype(np.float64)
    moments = a[:, order[:, None], order] * factor
    traces = np.trace(moments, axis1=1, axis2=2)
    if not (np.isfinite(moments).all() and traces.min() > 0):
        return None
    return Matrix(rows.reshape(a.shape[0], -1, order.size), moments, layout)


def column_order(layout: Layout) -> NDArray[np.intp]:
    """Stored column of each column in scan order: kernel position by kernel position."""
    return np.arange(layout.places).reshape(layout.columns, layout.positions).T.reshape(-1)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A matrix along the eigenvectors of its moments; the ridge at any water level is then cheap.

    Attributes:
        matrix: weights and moments.
        values: eigenvalues, [groups, n].
        basis: eigenvectors, [groups, n, n].
        along: w in that basis, [groups, rows, n].
    """

    matrix: Matrix
    values: Array
    basis: Array
    along: Array

    @classmethod
    def of(cls, matrix: Matrix) -> "Spectrum":
        """Decompose."""
        values, basis = np.linalg.eigh(matrix.a)
        return cls(matrix, np.maximum(values, 0.0), basis, matrix.w @ basis)

    def ridge(self, theta: float) -> Array:
        """Solve mu tau^2(mu) = theta for each group; the left side grows with mu."""
        floor = FLOOR * self.values.mean(axis=1)
        energy = np.mean(np.square(self.along), axis=1)
        low, high = np.log(floor), np.log(floor) + 120.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            mu = np.exp(middle)
            kept = self.values / (self.values + mu[:, None])
            above = mu * np.sum(energy * kept**2, axis=1) > theta * np.sum(kept, axis=1)
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.asarray(np.exp(high))

    def target(self, theta: float, rows: NDArray[np.intp] | None = None) -> Target:
        """Give what is quantised at a water level.

        Args:
            theta: loss of a whitened component, of e a e^T.
            rows: of each group; all if None.
        """
        mu = self.ridge(theta)
        along = self.along if rows is None else self.along[:, rows]
        kept = self.values / (self.values + mu[:, None])
        shrunk = (along * kept[:, None]) @ np.swapaxes(self.basis, 1, 2)
        ridged = self.matrix.a + mu[:, None, None] * np.eye(self.values.shape[1])
        factor = np.linalg.cholesky(ridged[:, ::-1, ::-1])[:, ::-1, ::-1]
        return Target(mu, shrunk, np.asarray(factor, np.float64))

    def expected(self, theta: float) -> Array:
        """Loss of each row that the channel expects, as e a e^T: [groups, rows]."""
        mu = self.ridge(theta)[:, None]
        lost = self.values * np.square(mu / (self.values + mu))
        noise = theta * np.sum(self.values / (self.values + mu), axis=1, keepdims=True)
        return np.asarray(np.sum(np.square(self.along) * lost[:, None], axis=2) + noise)
