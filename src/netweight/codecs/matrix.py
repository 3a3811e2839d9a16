"""A tensor as the matrix that successive quantisation works on, with the moments of its inputs and outputs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from netweight.checkpoint.pages import give_back
from netweight.codecs.machine import HOST, Machine
from netweight.entropy.layout import Layout
from netweight.importance.stat import Stat
from netweight.kernels import Float32

Array = NDArray[np.floating]

AT_ONCE = 1 << 18  # weights in double precision: a matrix is worked on by blocks of rows
LEAST = 2.0**-40  # of the mean g: what a row counts for at least, so that logarithms are finite


class Rows(Protocol):
    """A stack of matrices, [groups, rows, n], or what makes their rows when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(groups, rows, n)."""

    def __getitem__(self, which: tuple[slice, slice], /) -> NDArray[np.floating]:
        """Give some rows of all groups."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A tensor as the matrix of its columns in scan order, by groups of rows that meet the same inputs.

    Attributes:
        w: float32 [groups, rows of one, n].
        a: float64, or float32 where nothing is lost by it (`single`), [groups, n, n]; half of the sum of
            g_o e_o a e_o^T is the loss of errors e_o of rows o.
        layout: scan.
        g: float64 [groups, rows of one], of mean 1: what the outputs of the rows count for; None where all count alike.
        full: float64 [rows, rows]: G of one group, with the diagonal g; None where only that is known, or worth it.
        machine: where its products and decompositions are computed.
    """

    w: NDArray[np.floating]
    a: Array
    layout: Layout
    g: Array | None = None
    full: Array | None = None
    machine: Machine = HOST

    def inner(self, v: Rows, *others: Rows) -> list[float]:
        """Give tr(G V A U^T) for each U of some others."""
        totals = [0.0] * len(others)
        for part in blocks(v.shape) if self.full is None else (slice(None),):
            some = v[:, part]
            through = self.machine.product(some.astype(self.a.dtype, copy=False), self.a)
            if self.full is not None:
                through = self.machine.product(self.full.astype(through.dtype, copy=False), through)
            elif self.g is not None:
                through *= self.g[:, part, None]
            for at, u in enumerate(others):
                totals[at] += float(np.sum(np.multiply(through, some if u is v else u[:, part], dtype=np.float64)))
            give_back(self.w[0, part])
        return totals

    def of_rows(self, rows: NDArray[np.intp]) -> "Matrix":
        """Keep some rows of each group, of G the diagonal; the layout stays."""
        return replace(self, w=self.w[:, rows], g=None if self.g is None else self.g[:, rows], full=None)


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut the rows of [groups, rows, n] into blocks."""
    step = max(1, AT_ONCE // (shape[0] * shape[2]))
    for at in range(0, shape[1], step):
        yield slice(at, at + step)


def matrix_of(w: Float32, stat: Stat, machine: Machine = HOST) -> Matrix | None:
    """Arrange a tensor, None where the statistics say nothing of its columns."""
    a = stat.inputs
    if a is None or w.ndim < 2 or w.size == 0 or a.shape[1] != w.size // w.shape[0] or w.shape[0] % a.shape[0]:
        return None
    layout = Layout.down(w.shape)
    order = column_order(layout)
    factor, g, full = stat.weight, None, None
    if stat.outputs is not None:
        diagonal = stat.outputs if stat.outputs.ndim == 1 else np.diagonal(stat.outputs)
        mean = float(np.mean(diagonal))
        if not mean > 0:
            return None
        factor *= mean
        g = np.maximum(diagonal / mean, LEAST).reshape(a.shape[0], -1) if np.ptp(diagonal) else None
        if stat.outputs.ndim == 2 and len(a) == 1 and len(diagonal) > 1:
            full = stat.outputs / mean
        if g is not None and g.shape[1] == 1:  # a row for itself: what it counts for is part of its A
            a, g = a * g[:, :, None], None
    rows = w.reshape(w.shape[0], -1)
    if layout.positions > 1:
        rows, a = rows[:, order], a[:, order[:, None], order]
    own = stat.spent or a is not stat.inputs
    moments = np.multiply(a, factor, out=a if own else None)  # as large as anything here
    del a
    traces = np.trace(moments, axis1=1, axis2=2)
    if not (np.isfinite(moments).all() and traces.min() > 0):
        return None
    return Matrix(rows.reshape(moments.shape[0], -1, order.size), moments, layout, g, full, machine)


def column_order(layout: Layout) -> NDArray[np.intp]:
    """Stored column of each column in scan order: kernel position by kernel position."""
    return np.arange(layout.places).reshape(layout.columns, layout.positions).T.reshape(-1)
