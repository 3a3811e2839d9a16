"""In which order a tensor's weights are coded, and what is known of each from its place: scan, levels, classes, neighbours.

Letters: O rows (outputs), I columns (inputs), K kernel positions.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.kernels import LANES, Bytes, Int16, Segment

LARGEST_KERNEL = 64
CLASSES = 32
UNIT_CLASS = 8  # the class of weights as large as one step; four classes an octave
# |2 left + 2 up - corner| in fine steps from which on a prediction of class c is weak, fair, good, strong: round of
# (0.35, 1.1, 2.0, 3.2) 2^((c - 8)/4), at least 1. Written out because a decoder may not compute powers.
THRESHOLDS = np.maximum(np.rint(np.outer(2.0 ** ((np.arange(CLASSES) - UNIT_CLASS) / 4), (0.35, 1.1, 2.0, 3.2))), 1).astype(np.int32)

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor of some shape is scanned; it follows from the shape alone.

    Attributes:
        rows: O.
        columns: I.
        positions: K, 1 for everything that is not a convolution of 2 .. 64 positions.
        width: kernel width, the last dimension.
        order: "oik" (as stored), "oki" or "koi".
    """

    rows: int
    columns: int
    positions: int = 1
    width: int = 1
    order: str = "oik"

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Layout":
        """Choose the scan of a shape.

        A convolution goes kernel position by kernel position, so that the neighbours in its kernel lie at least 32 symbols back: within
        each row where it has 32 columns, else over the whole tensor. A vector is one row.
        """
        size = math.prod(shape)
        if len(shape) < 2 or size == 0:
            return cls(1, size)
        kernel = math.prod(shape[2:])
        if len(shape) >= 3 and kernel <= LARGEST_KERNEL:
            rows, columns = shape[:2]
            if kernel == 1:
                return cls(rows, columns)
            if columns >= LANES:
                return cls(rows, columns, kernel, shape[-1], "oki")
            if rows * columns >= LANES:
                return cls(rows, columns, kernel, shape[-1], "koi")
            return cls(rows, columns * kernel)
        return cls(size // shape[-1], shape[-1])

    @property
    def size(self) -> int:
        """Weights."""
        return self.rows * self.columns * self.positions

    @property
    def plane(self) -> int:
        """Symbols of one kernel position that follow each other; 0 where no neighbours are looked at."""
        return {"oik": 0, "oki": self.columns, "koi": self.rows * self.columns}[self.order]

    def scan(self, tensor: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Flatten a tensor into scan order."""
        if self.order == "oik":
            return tensor.reshape(-1)
        cube = tensor.reshape(self.rows, self.columns, self.positions)
        return cube.transpose((0, 2, 1) if self.order == "oki" else (2, 0, 1)).reshape(-1)

    def unscan(self, flat: NDArray[_Scalar], shape: tuple[int, ...]) -> NDArray[_Scalar]:
        """Undo `scan`."""
        if self.order == "oki":
            flat = flat.reshape(self.rows, self.positions, self.columns).transpose(0, 2, 1)
        elif self.order == "koi":
            flat = flat.reshape(self.positions, self.rows, self.columns).transpose(1, 2, 0)
        return np.ascontiguousarray(flat).reshape(shape)


@dataclass(frozen=True, slots=True)
class Levels:
    """How large the weights are by place, in classes: base + row level + column level.

    Attributes:
        base: class of the tensor, -128 .. 127.
        row: int16 [O], or None for zeros.
        column: int16 [I], or None for zeros.
    """

    base: int
    row: Int16 | None = None
    column: Int16 | None = None

    def classes(self, layout: Layout, start: int, size: int) -> Bytes:
        """Class of each scan position start .. start + size, clamped to 0 .. 31."""
        row = np.full(layout.rows, self.base, np.int16) if self.row is None else (self.row + self.base).astype(np.int16)
        if layout.order == "oki":
            row = np.repeat(row, layout.positions)
        column = np.zeros(layout.columns, np.int16) if self.column is None else self.column
        return kernels.classes(row, column, start, size, CLASSES - 1)


def segment(layout: Layout, levels: Levels, start: int, size: int) -> Segment:
    """What the kernels need to know of a run of a scan."""
    classes = levels.classes(layout, start, size)
    return Segment(size, start, layout.plane, layout.width, layout.positions, classes)
