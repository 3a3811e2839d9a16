"""Sums as a pass keeps them: of a symmetric matrix its upper half, the whole of it when somebody asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from netweight.importance.sums import HALVES, Sums, digest, joined
from netweight.importance.triangle import Triangle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

__all__ = ["Collected", "PackedSums"]


@dataclass(frozen=True, slots=True)
class PackedSums:
    """What `Sums` holds, before symmetric matrices are unfolded.

    Attributes:
        shape: of the tensor.
        inputs: of what faces the columns.
        outputs: of what faces the rows, one matrix for each group, or a diagonal [2, R].
        tokens: as in `Sums`.
        diagonal: as in `Sums`.
        positions: as in `Sums`.
    """

    shape: tuple[int, ...]
    inputs: Triangle | None = None
    outputs: Triangle | Float64 | None = None
    tokens: tuple[float, float] = (0.0, 0.0)
    diagonal: Float64 | None = None
    positions: Triangle | None = None

    def full(self) -> Sums:
        """Give the sums; rows of different groups meet different inputs: nothing is known across."""
        outputs = _block_diagonal(self.outputs.full()) if isinstance(self.outputs, Triangle) else self.outputs
        inputs = None if self.inputs is None else self.inputs.full()
        positions = None if self.positions is None else self.positions.full()
        return Sums(self.shape, inputs, outputs, self.tokens, self.diagonal, positions=positions)


class Collected(Mapping[str, tuple[Sums, ...]]):
    """Sums of a network's tensors: those of one tensor are unfolded each time somebody asks for them.

    Equal inputs are kept once: a network's queries, keys and values meet the same.

    Args:
        uses: of each tensor its uses, of each use the parts of the weight from the first row on.
    """

    def __init__(self, uses: Mapping[str, tuple[tuple[PackedSums, ...], ...]]) -> None:
        known: dict[bytes, Triangle] = {}
        self._uses = {
            name: tuple(tuple(_interned(part, known) for part in parts) for parts in found)
            for name, found in uses.items()
        }

    def __getitem__(self, name: str) -> tuple[Sums, ...]:
        return tuple(_unfolded(parts) for parts in self._uses[name])

    def folded(self, name: str) -> tuple[Sums | PackedSums, ...]:
        """Give the sums, unfolded only where parts of a weight or groups must be joined."""
        return tuple(
            _unfolded(parts) if len(parts) > 1 or _grouped(parts[0]) else parts[0] for parts in self._uses[name]
        )

    def nbytes(self, name: str) -> int:
        """Bytes of one tensor's sums, unfolded; nothing is."""
        return sum(_nbytes(use) for use in self._uses[name])

    def __contains__(self, name: object) -> bool:
        return name in self._uses

    def __iter__(self) -> Iterator[str]:
        return iter(self._uses)

    def __len__(self) -> int:
        return len(self._uses)


def _interned(part: PackedSums, known: dict[bytes, Triangle]) -> PackedSums:
    return part if part.inputs is None else replace(part, inputs=known.setdefault(digest(part.inputs), part.inputs))


def _unfolded(parts: tuple[PackedSums, ...]) -> Sums:
    return joined([part.full() for part in parts]) if len(parts) > 1 else parts[0].full()


def _grouped(part: PackedSums) -> bool:
    return isinstance(part.outputs, Triangle) and part.outputs.shape[1] > 1


def _nbytes(use: tuple[PackedSums, ...]) -> int:
    """Bytes of one use as `Sums`; rows of all parts make one matrix."""
    total = rows = 0
    for part in use:
        total += 0 if part.diagonal is None else part.diagonal.nbytes
        kept = (part.inputs, part.positions if len(use) == 1 else None)  # parts are joined without
        total += sum(8 * math.prod(each.shape) for each in kept if each is not None)
        if isinstance(part.outputs, Triangle):
            rows += part.outputs.shape[1] * part.outputs.n
        elif part.outputs is not None:
            total += part.outputs.nbytes
    return total + 8 * HALVES * rows**2


def _block_diagonal(blocks: Float64) -> Float64:
    """[2, groups, b, b] to [2, groups b, groups b]."""
    halves, groups, b, _ = blocks.shape
    if groups == 1:
        return blocks[:, 0]
    out = np.zeros((halves, groups, b, groups, b))
    for k in range(groups):
        out[:, k, :, k] = blocks[:, k]
    return out.reshape(halves, groups * b, groups * b)
