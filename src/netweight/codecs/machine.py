"""Where the arithmetic of feedback is done: here by NumPy and the C library, or on a device of torch."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from netweight import single
from netweight.errors import UsageError
from netweight.kernel_types import Bytes, Float32, Int16, Int32, Uint16
from netweight.kernels_feedback import Columns, Successive

Array = NDArray[np.floating]


class Work(Protocol):
    """A matrix that is being quantised, block of columns by block of columns."""

    def quantise(self, columns: range, contexts: tuple[Uint16, Bytes]) -> Int16:
        """Choose the integers of columns of one kernel position, in order: fine indices [columns, O]."""


class Machine(Protocol):
    """Linear algebra of one matrix or a stack of them, in their own precision, and the search for integers."""

    def product(self, a: Array, b: Array) -> Array:
        """Give a b."""

    def eigh(self, a: Array) -> tuple[Array, Array]:
        """Eigenvalues, ascending, and eigenvectors."""

    def cholesky(self, a: Array) -> Array:
        """Lower triangular L of a = L L^T."""

    def columns(
        self, x: Float32, m: Float32, down: Float32 | None, paid: tuple[Float32, Float32], how: Successive, rate: Int32
    ) -> Work:
        """Begin to quantise a matrix; arguments as for `kernels_feedback.feedback`, of which x is overwritten."""


class Host:
    """The processor."""

    def product(self, a: Array, b: Array) -> Array:
        """Give a b."""
        return np.asarray(a @ b)

    def eigh(self, a: Array) -> tuple[Array, Array]:
        """Eigenvalues, ascending, and eigenvectors."""
        return single.eigh(a)

    def cholesky(self, a: Array) -> Array:
        """Lower triangular L of a = L L^T."""
        return single.cholesky(a)

    def columns(
        self, x: Float32, m: Float32, down: Float32 | None, paid: tuple[Float32, Float32], how: Successive, rate: Int32
    ) -> Work:
        """Begin to quantise a matrix; arguments as for `kernels_feedback.feedback`, of which x is overwritten."""
        return Columns(x, m, down, paid, how, rate)


HOST = Host()


def machine_of(device: str | None) -> Machine:
    """Give the one that computes on a device of torch, such as "cuda" or "cuda:1", or here if None.

    Raises:
        UsageError: torch is not installed, or has no such device.
    """
    if device is None:
        return HOST
    try:
        from netweight.kernels_torch import device_of
    except ImportError:
        raise UsageError(
            f"The device {device!r} needs torch, which is not installed.",
            'Install it ("netweight[torch]"), or name no device.',
        ) from None
    found: Machine = device_of(str(device))
    return found
