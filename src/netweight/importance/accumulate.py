"""Sums over samples while they are being made, on the device of the model."""

from __future__ import annotations

import math
import mmap
from typing import Final

import numpy as np
import torch
from torch import Tensor

from netweight.importance.maps import Map, by_sample
from netweight.importance.packed import PackedSums
from netweight.importance.sums import HALVES
from netweight.importance.triangle import Triangle, bands, packed_size

__all__ = ["MatrixSums", "VectorSums"]

CHUNK: Final = 1 << 23  # numbers of unfolded inputs at a time
AT_ONCE: Final = 128  # vectors that are multiplied together
BANDS: Final = 12  # of rows: one of them alone is too little work for two threads
COLUMNS, ROWS, POSITIONS = "columns", "rows", "positions"  # what sums are of
OWN_BYTES: Final = 1 << 16  # from which an array has pages of its own


class MatrixSums:
    """Second moments of what faces the rows and the columns of one weight; or its squared gradients.

    Args:
        layer: the weight as a matrix.
        shape: of the weight.
        exact: collect the square of every weight's gradient instead, which needs inputs and gradients together.
        axis: of the samples, in the layer's input and output; None where there is none.
        full: rows up to which their second moment is a full matrix.
        whole: where a sample meets the weight at several positions, take the moments of its whole gradient, which needs
            inputs and gradients together.
    """

    def __init__(
        self, layer: Map, shape: tuple[int, ...], exact: bool, axis: int | None, full: int, whole: bool = False
    ) -> None:
        self.map, self.shape, self.exact, self.axis, self.full = layer, shape, exact, axis, full
        self.whole = whole and not exact and not layer.tokens and axis is not None
        self.tokens = [0.0] * HALVES
        self.seen = False
        self._columns: Tensor | None = None
        self._rows: Tensor | None = None
        self._positions: Tensor | None = None
        self._squares: Tensor | None = None
        self._waiting: dict[tuple[str, int], tuple[Tensor, int]] = {}

    def add_inputs(
        self, x: Tensor, count: int, halves: Tensor, mask: Tensor | None, pooled: Tensor | None = None
    ) -> None:
        """Count the layer's input.

        Args:
            x: as the layer got it.
            count: samples.
            halves: 0 or 1 for each.
            mask: [samples, tokens] of tokens that count; used where x has these axes.
            pooled: [samples, positions, columns] whose mean x is.
        """
        if self.exact:
            return
        if self.map.tokens:
            self._add_tokens(x, count, halves, mask)
            return
        masked = mask is not None and self.map.item == 1 and x.shape[:-1] == mask.shape
        items = by_sample(x.detach(), count, self.map.item, self.axis)
        # One position: the input's own moment is the better estimate, since unsure samples do not outweigh the others.
        self.whole = self.whole and (self.seen or self.map.inputs(items[:1]).shape[1] > 1)
        if self.whole and self.map.input_rows:
            return
        for half, chosen in _parts(items, halves, self.map.growth):
            v = self.map.inputs(items[chosen].float())
            v = v[mask[chosen]] if masked and mask is not None else v.flatten(0, 1)
            self.tokens[half] += 0 if self.whole else len(v)
            self._add(v, half, ROWS if self.map.input_rows else POSITIONS if self.whole else COLUMNS)
        if pooled is None or self.whole or not self._are_positions(pooled, count):
            return
        for half, chosen in _parts(pooled, halves, 1):
            self._add(pooled[chosen].float().flatten(0, 1)[:, None], half, POSITIONS)

    def _are_positions(self, pooled: Tensor, count: int) -> bool:
        """Whether the layer could have met them one by one."""
        m = self.map
        return m.groups == 1 and not m.input_rows and len(pooled) == count and pooled.shape[2] == m.columns

    def _add_tokens(self, x: Tensor, count: int, halves: Tensor, mask: Tensor | None) -> None:
        items = by_sample(x.detach()[..., None], count, 1, self.axis)[..., 0]
        rows = self._total(ROWS, x.device)
        for half in range(HALVES):
            mine = halves[: len(items)] == half
            masked = mask is not None and x.shape == mask.shape
            tokens = items[mine][mask[mine]] if masked and mask is not None else items[mine].reshape(-1)
            self.tokens[half] += tokens.numel()
            rows[half] += torch.bincount(tokens, minlength=self.map.rows).double()

    def add_gradients(self, g: Tensor, x: Tensor | None, count: int, halves: Tensor) -> None:
        """Count the gradient at the layer's output, with the input where squares are collected."""
        items = by_sample(g.detach(), count, self.map.item, self.axis)
        self.seen = True
        if self.exact:
            assert x is not None
            self._add_squares(items, x, count)
            return
        if self.whole:
            assert x is not None
            self._add_whole(items, x, count, halves)
            if not self.map.input_rows:
                return
        for half, chosen in _parts(items, halves, self.map.growth if self.map.input_rows else 1):
            v = self.map.gradients(items[chosen].float()).flatten(0, 1)
            self._add(v, half, POSITIONS if self.whole else COLUMNS if self.map.input_rows else ROWS)

    def _add(self, v: Tensor, half: int, side: str) -> None:
        """Add sum_t v_t v_t^T: float32 products of a chunk, float64 sums."""
        total = self._total(side, v.device)[half]
        if side == ROWS:
            v = v[:, 0].reshape(len(v), self.map.groups, -1)
        if total.ndim == 1:
            total += v.square().sum(0).double().reshape(-1)
        elif v.shape[1] > 1:
            v = v.permute(1, 0, 2)
            _add_product(total, v, v)
        else:
            self._buffer(total, (side, half), v[:, 0])

    def _buffer(self, total: Tensor, key: tuple[str, int], v: Tensor) -> None:
        """Multiply many vectors at a time: for a few of them the sum itself is what takes the time."""
        if len(v) >= AT_ONCE:
            _add_product(total, v[None], v[None])
            return
        waiting, held = self._waiting.get(key) or (_zeros((AT_ONCE, v.shape[1]), v.dtype, v.device), 0)
        taken = min(len(v), AT_ONCE - held)
        waiting[held : held + taken] = v[:taken]
        if held + taken == AT_ONCE:
            _add_product(total, waiting[None], waiting[None])
            waiting[: len(v) - taken] = v[taken:]
            held = -taken
        self._waiting[key] = waiting, held + len(v)

    def _finish(self) -> None:
        for (side, half), (waiting, held) in self._waiting.items():
            v = waiting[None, :held]
            _add_product(self._total(side, v.device)[half], v, v)
        self._waiting = {}

    def _total(self, side: str, device: torch.device) -> Tensor:
        if side == ROWS:
            if self._rows is None:
                r, groups = self.map.rows, self.map.groups
                block = r // groups
                full = r <= self.full and not self.map.tokens and block > 1
                shape = (HALVES, groups, packed_size(block)) if full else (HALVES, r)
                self._rows = _zeros(shape, torch.float64, device)
            return self._rows
        shape = (HALVES, self.map.groups, packed_size(self.map.columns))
        if side == POSITIONS:
            if self._positions is None:
                self._positions = _zeros(shape, torch.float64, device)
            return self._positions
        if self._columns is None:
            self._columns = _zeros(shape, torch.float64, device)
        return self._columns

    def _add_squares(self, g: Tensor, x: Tensor, count: int) -> None:
        """Add (sum_t r_t c_t^T)^2, sample by sample."""
        m = self.map
        x = x.detach()[..., None] if m.tokens else x.detach()
        inputs = by_sample(x, count, m.item, self.axis)
        if self._squares is None:
            self._squares = torch.zeros(m.groups, m.rows // m.groups, m.columns, dtype=torch.float64, device=g.device)
        for j in range(len(g)):
            gradients = m.gradients(g[j : j + 1].float())[0]
            if m.tokens:
                index = inputs[j].reshape(-1)
                rows, place = torch.unique(index, return_inverse=True)
                summed = torch.zeros(len(rows), m.columns, device=g.device).index_add_(0, place, gradients[:, 0])
                self._squares[0].index_add_(0, rows, summed.square().double())
                continue
            vectors = m.inputs(inputs[j : j + 1].float())[0]
            r, c = (vectors, gradients) if m.input_rows else (gradients, vectors)
            r = r[:, 0].reshape(len(r), m.groups, -1)
            self._squares += (r.permute(1, 2, 0) @ c.permute(1, 0, 2)).square().double()

    def _add_whole(self, g: Tensor, x: Tensor, count: int, halves: Tensor) -> None:
        """Add D^T D and D D^T of each sample's gradient D = sum_t r_t c_t^T, by whichever way is shorter."""
        m = self.map
        inputs = by_sample(x.detach(), count, m.item, self.axis)
        for j in range(len(g)):
            gradients, vectors = m.gradients(g[j : j + 1].float())[0], m.inputs(inputs[j : j + 1].float())[0]
            r, c = (vectors, gradients) if m.input_rows else (gradients, vectors)
            r = r[:, 0].reshape(len(r), m.groups, -1).permute(1, 0, 2)
            c = c.permute(1, 0, 2)
            columns = self._total(COLUMNS, g.device)[int(halves[j])]
            rows = self._total(ROWS, g.device)[int(halves[j])]
            if r.shape[1] < min(r.shape[2], c.shape[2]):
                _add_product(columns, c, (r @ r.mT) @ c)
                through = (c @ c.mT) @ r
                if rows.ndim == 2:
                    _add_product(rows, r, through)
                else:
                    rows += (r * through).sum(1).reshape(-1)
            else:
                d = r.mT @ c
                _add_product(columns, d, d)
                if rows.ndim == 2:
                    _add_product(rows, d.mT, d.mT)
                else:
                    rows += d.square().sum(2).reshape(-1)

    def sums(self) -> PackedSums:
        """Give the sums as arrays."""
        self._finish()
        if self.exact:
            assert self._squares is not None
            return PackedSums(self.shape, diagonal=_array(self._squares).reshape(self.shape))
        assert self._columns is not None
        assert self._rows is not None
        a, b = self.tokens
        rows = _array(self._rows)
        outputs = Triangle(self.map.rows // self.map.groups, rows) if rows.ndim == 3 else rows
        inputs = Triangle(self.map.columns, _array(self._columns))
        positions = None if self._positions is None else Triangle(self.map.columns, _array(self._positions))
        return PackedSums(self.shape, inputs, outputs, (a, b), positions=positions)


class VectorSums:
    """Squared gradients of each sample, of parameters that meet every token: biases, norms, and whatever else."""

    def __init__(self) -> None:
        self._pending: dict[str, Tensor] = {}
        self.totals: dict[str, Tensor] = {}

    def add(self, name: str, gradients: Tensor) -> None:
        """Add to the samples' gradients of this backward pass.

        Args:
            name: of the tensor.
            gradients: [samples, *shape], or [1, *shape] where they are summed already.
        """
        found = self._pending.get(name)
        self._pending[name] = gradients if found is None else found + gradients

    def flush(self) -> None:
        """End a backward pass: square and sum."""
        for name, gradients in self._pending.items():
            squares = gradients.double().square().sum(0)
            if name in self.totals:
                self.totals[name] += squares  # where it is: a sum that moves leaves holes between the activations
            else:
                self.totals[name] = squares
        self._pending = {}


def _parts(items: Tensor, halves: Tensor, growth: int) -> list[tuple[int, Tensor]]:
    """Samples of each half, in chunks that fit when they are unfolded."""
    size = max(1, CHUNK // max(1, growth * items[0].numel()))
    out = []
    for half in range(HALVES):
        mine = torch.nonzero(halves[: len(items)] == half).reshape(-1)
        out += [(half, chunk.to(items.device)) for chunk in torch.split(mine, size) if len(chunk)]
    return out


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left^T right, which is symmetric: [groups, T, n] both, onto the bands [groups, packed_size(n)]."""
    if len(left) == 1:
        total, left, right = total[0], left[0], right[0]
    rows = bands(left.shape[-1])
    for at in range(0, len(rows), BANDS):
        some = rows[at : at + BANDS]
        first, last = some[0][0], some[-1][1]
        product = left[..., first:last].mT @ right[..., first:]
        for start, stop, place in some:
            part = product[..., start - first : stop - first, start - first :]
            total[..., place].view(*total.shape[:-1], *part.shape[-2:]).add_(part)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that stay for the whole pass, in memory of their own, which goes back to the system when they go.

    Between the activations, which come and go, they would keep the allocator from giving back what those leave.
    """
    count = math.prod(shape)
    if device.type != "cpu" or count * dtype.itemsize < OWN_BYTES:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype).reshape(shape)


def _array(t: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(t.cpu().numpy(), np.float64)
