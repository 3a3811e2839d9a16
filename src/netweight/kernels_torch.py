"""Successive quantisation and its linear algebra on a device of torch; imported only where one was asked for.

What grows as rows x columns^2 is done there: decompositions in double precision, and what a block of columns takes off
all that follow, one matrix product in single precision. Where there are many rows and no trellis the decisions are made
there too, all rows of a column at once. A path through a trellis stays with the C library: it is one short step after
the other, and each would cost four calls or more (docs/results.md has the figures).

Single precision arithmetic is that of csrc/kernels.c operation by operation, but for the sums of that product: on the
same targets the same integers come out, and targets differ by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from netweight.errors import UsageError
from netweight.kernels_feedback import Columns, Successive

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from netweight.kernel_types import Bytes, Float32, Int16, Int32, Uint16

CENTRE, BOUND, FARTHEST, MOST_PAID = 128, 1e5, 30000.0, 0.5  # as in csrc/kernels.c
MANY = 8192  # rows: a column costs some 25 calls however few they are, and below this C is done before them


@lru_cache(maxsize=8)
def device_of(name: str) -> Device:
    """Find a device by its name in torch.

    Raises:
        UsageError: torch has none of this name here, or it cannot compute in double precision.
    """
    try:
        place = torch.device(name)
        torch.ones(1, dtype=torch.float64, device=place).item()
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UsageError(
            f"The device {name!r} cannot be used: {why}", "Take another one, or none: the processor computes then."
        ) from None
    return Device(place)


@dataclass(frozen=True, slots=True)
class Device:
    """Linear algebra on a device; NumPy arrays go in and come out."""

    place: torch.device

    def _sent(self, a: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(a)).to(self.place)

    def product(self, a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
        """Give a b."""
        return _fetched(self._sent(a) @ self._sent(b))

    def eigh(self, a: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Eigenvalues, ascending, and eigenvectors."""
        values, basis = torch.linalg.eigh(self._sent(a))
        return _fetched(values), _fetched(basis)

    def cholesky(self, a: NDArray[np.floating]) -> NDArray[np.floating]:
        """Lower triangular L of a = L L^T."""
        return _fetched(torch.linalg.cholesky(self._sent(a)))

    def columns(
        self, x: Float32, m: Float32, down: Float32 | None, paid: tuple[Float32, Float32], how: Successive, rate: Int32
    ) -> OnDevice:
        """Begin to quantise a matrix; arguments as for `kernels_feedback.feedback`; x stays as it is."""
        groups, height = how.groups, how.rows // how.groups
        start = self._sent(x).view(how.columns, groups, height).transpose(0, 1).contiguous()
        tilt, tables = self._sent(paid[1]).view(groups, height), self._sent(rate).reshape(-1)
        host = Columns(x, m, down, paid, how, rate)
        return OnDevice(host, self.place, start.clone(), start, self._sent(m), self._sent(paid[0]), tilt, tables)


def _fetched(a: Tensor) -> NDArray[np.floating]:
    found: NDArray[np.floating] = a.cpu().numpy()
    return found


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A matrix on its way through the device.

    Attributes:
        host: the same before any feedback, for what is decided there.
        place: device.
        x: targets in fine steps, float32 [groups, n, rows of one]; changed in place.
        start: the same before any feedback.
        m: float32 [groups, n, n]; what an error of one fine step takes off each later column.
        rho: float32 [groups, n]; times `tilt`, and at most a half, the share of the rate that the ridge has paid.
        tilt: float32 [groups, rows of one].
        rate: int32, all tables.
    """

    host: Columns
    place: torch.device
    x: Tensor
    start: Tensor
    m: Tensor
    rho: Tensor
    tilt: Tensor
    rate: Tensor

    def quantise(self, columns: range, contexts: tuple[Uint16, Bytes]) -> Int16:
        """Choose the fine indices of columns of one kernel position, [columns, O]; later ones take what is left."""
        at, to = columns.start, columns.stop
        how = self.host.how
        if how.span or how.rows < MANY or self.host.down is not None:
            r = self._searched(columns, contexts)
            found = self._by_group(torch.from_numpy(r).to(self.place)).float()
        else:
            found = self.rounded(columns, contexts)
            r = found.transpose(0, 1).reshape(to - at, -1).cpu().numpy().astype(np.int16)
        error = found - self.start[:, at:to]
        self.x[:, to:].baddbmm_(self.m[:, at:to, to:].transpose(1, 2), error, alpha=-1)
        return r

    def _by_group(self, a: Tensor) -> Tensor:
        """[columns, O] to [groups, columns, rows of one]."""
        return a.view(len(a), self.x.shape[0], self.x.shape[2]).transpose(0, 1)

    def _searched(self, columns: range, contexts: tuple[Uint16, Bytes]) -> Int16:
        """Let the host choose: of the matrix as far as these columns, where of others nothing is read or written."""
        at, to = columns.start, columns.stop
        host, how = self.host, self.host.how
        x, m = np.zeros((to, how.rows), np.float32), np.zeros((how.groups, to, to), np.float32)
        x[at:] = host.x[at:to]
        m[:, at:, at:] = host.m[:, at:to, at:to]
        paid = (np.ascontiguousarray(host.paid[0][:, :to]), host.paid[1])
        part = replace(host, x=x, m=m, paid=paid, how=replace(how, columns=to))
        fed = self.x[:, at:to].transpose(0, 1).reshape(to - at, -1).cpu().numpy()
        return part.quantise(columns, contexts, fed)

    def rounded(self, columns: range, contexts: tuple[Uint16, Bytes]) -> Tensor:
        """Round column after column, float32 [groups, columns, rows of one]."""
        at, to = columns.start, columns.stop
        table, flip = (
            self._by_group(torch.from_numpy(np.ascontiguousarray(a).astype(np.int64)).to(self.place)) for a in contexts
        )
        share = (self.rho[:, at:to, None] * self.tilt[:, None]).clamp_(max=MOST_PAID)
        turned, table = flip != 0, table * 256 + CENTRE
        x, m, start = self.x[:, at:to], self.m[:, at:to, at:to, None], self.start[:, at:to]
        found = torch.empty_like(x)
        for j in range(to - at):
            found[:, j] = self._nearest(x[:, j], share[:, j], turned[:, j], table[:, j])
            x[:, j + 1 :] -= m[:, j, j + 1 :] * (found[:, j] - start[:, j])[:, None]
        return found

    def _nearest(self, x: Tensor, share: Tensor, turned: Tensor, table: Tensor) -> Tensor:
        """The cheapest of the nearest integer, its two neighbours and zero; of two the first."""
        a, below = x.abs().clamp_(max=FARTHEST), x < 0
        near = (a + 0.5).int()
        tried = torch.stack([near, near - 1, near + 1, torch.zeros_like(near)])
        r = tried.float()
        d = a - r
        paid = share * (d * (a + r))
        cost = ((d * d + paid) * 1024).clamp_(-BOUND, BOUND).int()
        signed = torch.where(below != turned, -tried, tried)
        escape = torch.where((signed & 1) != 0, CENTRE - 1, -CENTRE)
        symbol = torch.where((signed < 1 - CENTRE) | (signed > CENTRE - 2), escape, signed)
        cost += self.rate[table + symbol]
        best = tried.gather(0, cost.argmin(0, keepdim=True))[0]
        return torch.where(below, -best, best).float()
