"""The target of successive quantisation: a ridge, and the factors that whiten what it leaves.

The loss of an error E of a matrix is half of tr(G E A E^T): A is the second moment of its inputs, G that of the
gradients at its outputs, so that I_w = G (x) A with eigenvalues g_i a_j. At the water level theta the best channel
whose decoder knows neither (`theory.universal`) is a ridge followed by noise, in the eigenvectors of both

    w'_ij = k_ij w_ij,   k_ij = g_i a_j / (g_i a_j + lambda),   lambda = theta / tau^2,   tau^2 = |w'|^2 / sum k_ij

and the noise has the covariance theta (G (x) A + lambda)^-1. That sum is no Kronecker product; the one nearest to it in
relative entropy is (G + gamma) (x) (A + mu), and gamma and mu follow from the moments of each other (`_nearest`). With
G + gamma = V V^T and A + mu = U U^T, V and U upper triangular, the loss of w' - v is |V^T (w' - v) U|^2 less what the
ridge has paid already, lambda |v|^2, and the entries can be chosen one after the other. Sources: Frantar et al. 2022
(feedback by Cholesky factors), Conzelmann and Bamler 2025 (a quadratic part of the rate as a ridge), Harbuzova et al.
2026 (the channel), Dutilleul 1999 (the nearest Kronecker product).
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from netweight.checkpoint.pages import give_back
from netweight.codecs.machine import Machine
from netweight.codecs.matrix import LEAST, Array, Matrix, blocks
from netweight.freed import give_back_freed

FLOOR = 1e-9  # least ridge, of the mean diagonal: A may be singular
ROUNDS, CLOSE = 60, 1e-12  # of Newton's method for ln lambda, and the step that ends it
TINY = np.finfo(np.float64).tiny
RISE = 1e-3  # least slope that a step of it believes
SINGLE = 2.0**60  # ridge below which A + mu is within single precision, where A is
FIXED = 12  # rounds between gamma and mu
FEW_ROWS = 64  # that are worked on at a time where several arrays of a matrix's size would be made
BINS = 16  # of an octave: rows of nearly the same g share their sums
LISTED_BITS = 0.03  # a weight: what full G must win over its diagonal; a search over a list of paths loses some


@dataclass(frozen=True, slots=True)
class Target:
    """What is quantised.

    Attributes:
        mu: lambda, [groups].
        shrunk: w', float32 [groups, rows, n].
        factor: U, [groups, n, n].
        rows: diagonal of V, [groups, rows]; of all rows, also where only some are to be quantised.
        size: mean square of a whitened weight of each of them, before the ridge.
        down: V, [rows, rows]; None where it is diagonal, or near enough.
        more: what the rows above add to the variance of a row's noise, in that noise, [rows]; with `down` only.
    """

    mu: Array
    shrunk: NDArray[np.floating]
    factor: Array
    rows: Array
    size: Array
    down: Array | None = None
    more: Array | None = None


def _upper(a: Array, machine: Machine) -> Array:
    """Upper triangular U of A = U U^T."""
    return machine.cholesky(a[..., ::-1, ::-1])[..., ::-1, ::-1]


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A matrix along the eigenvectors of its moments; the ridge at any water level is then cheap.

    Attributes:
        matrix: weights and moments.
        values: eigenvalues a_j, [groups, n].
        basis: eigenvectors, [groups, n, n], in the precision of the moments.
        weights: g_i, [groups, rows]: the diagonal of G or its eigenvalues.
        size: mean of a_j w_ij^2 in each row as stored, [groups, rows].
        bins: the different g of all groups, coarsely, [bins].
        bin_of: of each row, [groups, rows].
        counts: rows in each bin, [groups, bins].
        energy: sums of squares of `along` over the rows of a bin, [groups, bins, n].
        rows: eigenvectors of G, [rows, rows], if it is full.
        turned: w in the basis of both, [1, rows, n], if it is full.
        solved: ridges that were asked for, by theta.
        near: products nearest to them, by ridge.
    """

    matrix: Matrix
    values: Array
    basis: Array
    weights: Array
    size: Array
    bins: Array
    bin_of: NDArray[np.intp]
    counts: Array
    energy: Array
    rows: Array | None = None
    turned: Array | None = None
    solved: dict[float, Array] = field(default_factory=dict, repr=False, compare=False)
    near: dict[bytes, tuple[Array, Array, Array]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, matrix: Matrix) -> "Spectrum":
        """Decompose."""
        machine = matrix.machine
        found, basis = machine.eigh(matrix.a)
        groups, height, n = matrix.w.shape
        values = np.maximum(found.astype(np.float64), 0.0)
        weights, rows, turned = np.ones((groups, height)) if matrix.g is None else matrix.g, None, None
        if matrix.full is not None:
            found, rows = machine.eigh(matrix.full)
            weights = np.maximum(found, LEAST)[None]
        level, at = np.unique(np.rint(BINS * np.log2(weights)), return_inverse=True)
        at = at.reshape(groups, height)
        counts, energy = np.zeros((groups, level.size)), np.zeros((groups, level.size, n))
        size = np.empty((groups, height))
        for part in blocks(matrix.w.shape) if rows is None else (slice(None),):
            along = machine.product(matrix.w[:, part].astype(basis.dtype, copy=False), basis)
            size[:, part] = np.einsum("grj,grj,gj->gr", along, along, values) / n
            if rows is not None:
                along = turned = machine.product(rows.T.astype(along.dtype, copy=False), along)
            for g in range(groups):
                np.add.at(counts[g], at[g, part], 1)
                np.add.at(energy[g], at[g, part], np.square(along[g], dtype=np.float64))
            give_back(matrix.w[0, part])
        del along
        give_back_freed(basis.nbytes)
        bins = np.bincount(at.reshape(-1), weights.reshape(-1)) / counts.sum(axis=0)
        return cls(matrix, values, basis, weights, size, bins, at, counts, energy, rows, turned)

    def along(self, rows: slice | NDArray[np.intp]) -> Array:
        """Some rows of w along the eigenvectors, also those of G where that is full: [groups, some, n]."""
        if self.turned is not None:
            return self.turned[:, rows]
        return self.matrix.machine.product(self.matrix.w[:, rows].astype(self.basis.dtype, copy=False), self.basis)

    def _products(self) -> Array:
        """Eigenvalues g_i a_j by bin: [groups, bins, n]."""
        return np.asarray(self.bins[:, None] * self.values[:, None])

    def ridge(self, theta: float) -> Array:
        """Solve lambda tau^2(lambda) = theta for each group; the left side grows with lambda."""
        if theta not in self.solved:
            self.solved[theta] = self._solve(theta)
        return self.solved[theta]

    def _solve(self, theta: float) -> Array:
        """By Newton's method in ln lambda, with a bracket that halves where a step leaves it."""
        products = self._products()
        low = np.log(FLOOR * self.values.mean(axis=1))
        high = low + 120.0
        at = low.copy()  # the least ridge first: where that is too much it is the answer
        for _ in range(ROUNDS):
            ridge = np.exp(at)[:, None, None]
            kept = products / (products + ridge)
            lost = 1 - kept
            counted = self.counts[:, :, None] * kept
            paid = self.energy * kept
            paid *= kept
            sums = [np.sum(part, axis=(1, 2)) for part in (counted, counted * lost, paid, paid * lost)]
            parts, parts_lost, energy, energy_lost = (np.maximum(total, TINY) for total in sums)
            miss = at + np.log(energy) - np.log(theta * parts)
            rise = 1 - 2 * energy_lost / energy + parts_lost / parts
            low, high = np.where(miss > 0, low, at), np.where(miss > 0, at, high)
            step = at - miss / np.maximum(rise, RISE)
            near = np.abs(step - at) < CLOSE
            at = np.where(near | ((step > low) & (step < high)), step, (low + high) / 2)
            if near.all():
                break
        return np.asarray(np.exp(at))

    def _nearest(self, ridge: Array) -> tuple[Array, Array, Array]:
        """Scale, gamma and mu, each [groups], of the Kronecker product nearest to G (x) A + lambda.

        Least is tr(H K^-1) + ln det K, which is what noise of the covariance theta K^-1 costs, in loss and in rate.
        """
        if ridge.tobytes() not in self.near:
            self.near[ridge.tobytes()] = self._find_nearest(ridge)
        return self.near[ridge.tobytes()]

    def _find_nearest(self, ridge: Array) -> tuple[Array, Array, Array]:
        """From the moments of each other, in turns."""
        gamma = np.zeros(ridge.size)
        share = self.counts / self.counts.sum(axis=1, keepdims=True)
        for _ in range(FIXED):
            inverse = share / (self.bins + gamma[:, None])
            mu = ridge * inverse.sum(axis=1) / (inverse @ self.bins)
            inverse = 1 / (self.values + mu[:, None])
            gamma = ridge * inverse.sum(axis=1) / np.sum(self.values * inverse, axis=1)
        kron = (self.bins + gamma[:, None])[:, :, None] * (self.values + mu[:, None])[:, None]
        whole = (self._products() + ridge[:, None, None]) / kron
        return np.einsum("gb,gbj->g", share, whole) / self.values.shape[1], gamma, mu

    def target(self, theta: float, rows: NDArray[np.intp] | None = None) -> Target:
        """Give what is quantised at a water level.

        Args:
            theta: loss of a whitened component, twice.
            rows: of each group; all if None.
        """
        ridge, machine = self.ridge(theta), self.matrix.machine
        scale, gamma, mu = self._nearest(ridge)
        count = self.matrix.w.shape[1] if rows is None else rows.size
        # Columns one after the other, as the search goes through them.
        shrunk = np.empty((self.values.shape[1], len(mu), count), np.float32).transpose(1, 2, 0)
        if self.rows is not None:
            kept = self._kept(ridge, slice(None))
            turn = self.rows if rows is None else self.rows[rows]
            kept = machine.product(turn.astype(kept.dtype, copy=False), kept)
            shrunk[:] = machine.product(kept, np.swapaxes(self.basis, 1, 2))
        for part in blocks(shrunk.shape) if self.rows is None else ():
            kept = self._kept(ridge, part if rows is None else rows[part])
            shrunk[:, part] = machine.product(kept, np.swapaxes(self.basis, 1, 2))
            give_back(self.matrix.w[0, part])
        factor = self._factor(mu)
        if self.rows is None:
            square = scale[:, None] * (self.weights + gamma[:, None])
            return Target(ridge, shrunk, factor, np.sqrt(square), square * self.size)
        values = scale[0] * (self.weights[0] + gamma[0])
        diagonal = np.square(self.rows) @ values
        down = more = None
        if 0.5 * float(np.mean(np.log2(diagonal)) - np.mean(np.log2(values))) > LISTED_BITS:
            down = _upper(machine.product(self.rows * values, self.rows.T), machine)
            inverse = np.square(self.rows) @ (1 / values)
            diagonal = np.square(np.diagonal(down))
            more = np.maximum(inverse * diagonal - 1, 0.0)
        square = diagonal[None]
        return Target(ridge, shrunk, factor, np.sqrt(square), square * self.size, down, more)

    def _factor(self, mu: Array) -> Array:
        """Factor of A + mu. A changes for as long as that takes: it may be the largest thing in memory."""
        a, at = self.matrix.a, range(self.matrix.a.shape[1])
        scale = np.maximum(mu / SINGLE, 1.0)
        if scale.max() > 1 and a.dtype == np.float32:  # of w next to nothing is left
            own = replace(self, matrix=replace(self.matrix, a=a * (1 / scale[:, None, None]).astype(a.dtype)))
            return np.asarray(own._factor(mu / scale) * np.sqrt(scale[:, None, None]).astype(a.dtype))
        diagonal = a[:, at, at]
        a[:, at, at] = diagonal + mu[:, None]
        try:
            return _upper(a, self.matrix.machine)
        finally:
            a[:, at, at] = diagonal

    def _kept(self, ridge: Array, rows: slice | NDArray[np.intp]) -> Array:
        """What the ridge keeps of some rows, along the eigenvectors."""
        kept = self.along(rows)
        kept = kept.copy() if self.turned is not None and isinstance(rows, slice) else kept
        weights = self.weights[:, rows]
        for at in range(0, kept.shape[1], FEW_ROWS):
            part = slice(at, at + FEW_ROWS)
            share = weights[:, part, None] * self.values[:, None]
            share /= share + ridge[:, None, None]
            kept[:, part] *= share
        return kept

    def expected(self, theta: float, rows: NDArray[np.intp] | None = None) -> Array:
        """Loss of some rows that the channel expects, twice: [groups, rows]."""
        some, ridge = slice(None) if rows is None else rows, self.ridge(theta)
        weights = self.weights[:, some]
        left = weights[:, :, None] * self.values[:, None]
        left *= np.square(ridge[:, None, None] / (left + ridge[:, None, None]))
        left *= np.square(self.along(some), dtype=np.float64)
        return np.asarray(np.sum(left, axis=2) + self._noise(theta, ridge, weights))

    def expected_sum(self, theta: float) -> float:
        """Loss of all rows that the channel expects, twice; by bins, so that many rows cost little."""
        ridge = self.ridge(theta)
        left = self._products()
        left *= np.square(ridge[:, None, None] / (left + ridge[:, None, None]))
        bins = np.broadcast_to(self.bins, self.counts.shape)
        return float(np.sum(left * self.energy) + np.sum(self.counts * self._noise(theta, ridge, bins)))

    def expected_apart(self, theta: float, found: Target, rows: NDArray[np.intp]) -> float:
        """Loss of some rows that the channel expects, twice, were each measured by V_ii^2 alone."""
        _, _, mu = self._nearest(found.mu)
        bias = self.matrix.w[:, rows] - found.shrunk
        through = self.matrix.machine.product(bias.astype(self.matrix.a.dtype, copy=False), self.matrix.a)
        lost = np.sum(np.multiply(through, bias, dtype=np.float64), axis=2) * np.square(found.rows[:, rows])
        return float(np.sum(lost)) + theta * rows.size * float(np.sum(self.values / (self.values + mu[:, None])))

    def noise(self, found: Target, rows: int) -> Array:
        """Gaussian rows of the covariance (A + mu)^-1, always the same ones: [groups, rows, n]."""
        _, _, mu = self._nearest(found.mu)
        white = np.random.default_rng(0).standard_normal((len(mu), rows, self.values.shape[1]))
        white /= np.sqrt(self.values + mu[:, None])[:, None]
        return self.matrix.machine.product(white.astype(self.basis.dtype, copy=False), np.swapaxes(self.basis, 1, 2))

    def rates(self, theta: float) -> Array:
        """Bits of each row, or eigenvector of G, that the channel expects: [groups, rows]."""
        snr = self.values[:, None] / self.ridge(theta)[:, None, None]
        by_bin = 0.5 * np.sum(np.log2(1 + self.bins[:, None] * snr), axis=2)
        return np.stack([bits[at] for bits, at in zip(by_bin, self.bin_of, strict=True)])

    def _noise(self, theta: float, ridge: Array, weights: Array) -> Array:
        """Loss of the noise in rows of these g."""
        scale, gamma, mu = self._nearest(ridge)
        of_columns = theta * np.sum(self.values / (self.values + mu[:, None]), axis=1) / scale
        return np.asarray(of_columns[:, None] * weights / (weights + gamma[:, None]))
