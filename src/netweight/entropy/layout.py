"""In which order a tensor's weights are coded, and what is known of each from its place.

Scan, levels, classes, neighbours.
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
# By class, |2 left + 2 up - corner| in fine steps from which on a prediction is weak, fair, good, strong:
# (0.5, 1.5, 3, 5) 2^((c - 8)/4) rounded, at least 1. Written out because a decoder may not compute powers. Finer or
# lower thresholds win nothing: all sets tried between (0.35, 0.9, 1.7, 3) and (0.7, 1.5, 2.5, 4) lie within 0.2 % of
# each other on three convolutional networks.
_THRESHOLDS = (
    (1, 1, 1, 1),
    (1, 1, 1, 1),
    (1, 1, 1, 2),
    (1, 1, 1, 2),
    (1, 1, 2, 2),
    (1, 1, 2, 3),
    (1, 1, 2, 4),
    (1, 1, 3, 4),
    (1, 2, 3, 5),
    (1, 2, 4, 6),
    (1, 2, 4, 7),
    (1, 3, 5, 8),
    (1, 3, 6, 10),
    (1, 4, 7, 12),
    (1, 4, 8, 14),
    (2, 5, 10, 17),
    (2, 6, 12, 20),
    (2, 7, 14, 24),
    (3, 8, 17, 28),
    (3, 10, 20, 34),
    (4, 12, 24, 40),
    (5, 14, 29, 48),
    (6, 17, 34, 57),
    (7, 20, 40, 67),
    (8, 24, 48, 80),
    (10, 29, 57, 95),
    (11, 34, 68, 113),
    (13, 40, 81, 135),
    (16, 48, 96, 160),
    (19, 57, 114, 190),
    (23, 68, 136, 226),
    (27, 81, 161, 269),
)
THRESHOLDS = np.array(_THRESHOLDS, np.int32)

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

        A convolution goes kernel position by kernel position, so that the neighbours in its kernel lie at least 32
        symbols back: within each row where it has 32 columns, else over the whole tensor. A vector is one row.
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
        row = np.zeros(layout.rows, np.int16) if self.row is None else self.row
        if layout.order == "oki":
            row = np.repeat(row, layout.positions)
        column = np.full(layout.columns, self.base, np.int16)
        if self.column is not None:
            column += self.column
        return kernels.classes(row, column, start, size, CLASSES - 1)


def segment(layout: Layout, levels: Levels, start: int, size: int) -> Segment:
    """What the kernels need to know of a run of a scan."""
    classes = levels.classes(layout, start, size)
    return Segment(size, start, layout.plane, layout.width, layout.positions, classes, CLASSES - 1)
