"""What is known of a tensor before it is read, and what every kind of source offers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from netweight.dtypes import bits_per_element, nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from netweight.dtypes import Array

__all__ = ["TensorInfo", "TensorSource"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, element type and shape of a tensor.

    Args:
        name: unique in its checkpoint.
        dtype: safetensors code such as "F32" or "BF16".
        shape: elements along each axis; () for a scalar.

    >>> TensorInfo("w", "BF16", (3, 4)).nbytes
    24
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements as safetensors stores them."""
        return nbytes(self.dtype, self.shape)

    @property
    def storage_shape(self) -> tuple[int, ...]:
        """Shape of the array that `read` gives: `shape`, but flat bytes for types below 8 bits."""
        return (self.nbytes,) if bits_per_element(self.dtype) < 8 else self.shape


class TensorSource(Protocol):
    """One weight file or one mapping in memory; names are its own, without any prefix."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Tensors that have data of their own, in the order of the source."""

    @property
    def ties(self) -> Mapping[str, str]:
        """Alias to owner, for names that share one tensor."""

    @property
    def names(self) -> tuple[str, ...]:
        """Owners and aliases in the order of the source."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """String to string, as safetensors keeps it."""

    def read(self, name: str) -> Array:
        """Storage of an owner, read-only."""

    def forget(self) -> None:
        """Give back the memory of what was read of a file; what is still in use is read again when it is looked at."""

    def close(self) -> None:
        """Let go of the file."""
