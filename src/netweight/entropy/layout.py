"""In which order a tensor's weights are coded, and what is known of each from its place.

Scan, levels, classes, neighbours.
Letters: O rows (outputs), I columns (inputs), K kernel positions.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels, kernels_feedback
from netweight.kernels import LANES, Bytes, Grid, Int16, Segment

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
        order: "oik" (as stored), "oki" or "koi"; "kio" for codecs that work down the columns (`Layout.down`).
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

    @classmethod
    def down(cls, shape: tuple[int, ...]) -> "Layout":
        """Give the scan "kio": kernel position by kernel position, column by column, rows fastest, dealt to lanes.

        Where a position holds a multiple of 32 weights, each lane walks down the columns of its own 32nd of it, so
        that a trellis runs along whole columns. Kernels of more than 64 positions are columns like any other.
        """
        size = math.prod(shape)
        if len(shape) < 2 or size == 0:
            return cls(1, size, 1, 1, "kio")
        rows, columns = shape[0], size // shape[0]
        kernel = math.prod(shape[2:])
        if 1 < kernel <= LARGEST_KERNEL and rows * shape[1] >= LANES:
            return cls(rows, shape[1], kernel, shape[-1], "kio")
        return cls(rows, columns, 1, 1, "kio")

    @property
    def lanes(self) -> int:
        """Lanes that a position of the scan "kio" is dealt to: 32, or 1 where it cannot be shared out evenly."""
        return LANES if self.rows * self.columns % LANES == 0 else 1

    @property
    def places(self) -> int:
        """Column levels: one for each column, with the scan "kio" for each at each kernel position."""
        return self.columns * (self.positions if self.order == "kio" else 1)

    @property
    def size(self) -> int:
        """Weights."""
        return self.rows * self.columns * self.positions

    @property
    def plane(self) -> int:
        """Symbols of one kernel position that follow each other; 0 where no neighbours are looked at."""
        whole = self.rows * self.columns
        return {"oik": 0, "oki": self.columns, "koi": whole, "kio": whole if self.positions > 1 else 0}[self.order]

    def scan(self, tensor: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Flatten a tensor into scan order."""
        if self.order == "oik":
            return tensor.reshape(-1)
        cube = tensor.reshape(self.rows, self.columns, self.positions)
        if self.order == "kio":
            lanes = cube.transpose(2, 1, 0).reshape(self.positions, self.lanes, -1)
            return lanes.transpose(0, 2, 1).reshape(-1)
        return cube.transpose((0, 2, 1) if self.order == "oki" else (2, 0, 1)).reshape(-1)

    def unscan(self, flat: NDArray[_Scalar], shape: tuple[int, ...]) -> NDArray[_Scalar]:
        """Undo `scan`."""
        if self.order == "kio":
            dealt = flat.reshape(self.positions, -1, self.lanes).transpose(0, 2, 1)
            flat = dealt.reshape(self.positions, self.columns, self.rows).transpose(2, 1, 0)
        elif self.order == "oki":
            flat = flat.reshape(self.rows, self.positions, self.columns).transpose(0, 2, 1)
        elif self.order == "koi":
            flat = flat.reshape(self.positions, self.rows, self.columns).transpose(1, 2, 0)
        return np.ascontiguousarray(flat).reshape(shape)


@dataclass(frozen=True, slots=True)
class Levels:
    """How large the weights are by place, in classes: base + all levels of its row and column.

    Attributes:
        base: class of the tensor, -128 .. 127.
        row: int16 [O], or None for zeros.
        column: int16 [I], with the scan "kio" [K I], or None for zeros.
        row_step: int16 [O], only with the scan "kio": how many quarters of an octave the step of a row is finer.
        column_step: int16 [K I], likewise.
    """

    base: int
    row: Int16 | None = None
    column: Int16 | None = None
    row_step: Int16 | None = None
    column_step: Int16 | None = None

    def given(self) -> list[Int16]:
        """Give the levels that there are, in the order in which they are written."""
        return [x for x in (self.row, self.column, self.row_step, self.column_step) if x is not None]

    def sums(self, layout: Layout) -> tuple[Int16, Int16]:
        """Give what each row and each column, base included, adds to the class of its weights."""
        row = np.zeros(layout.rows, np.int16)
        column = np.full(layout.places, self.base, np.int16)
        for total, parts in ((row, (self.row, self.row_step)), (column, (self.column, self.column_step))):
            for level in parts:
                total += 0 if level is None else level
        return row, column

    def grid(self, layout: Layout) -> Grid:
        """Give classes by place, clamped to 0 .. 31, as the decoder takes them."""
        row, column = self.sums(layout)
        if layout.order == "oki":
            row = np.repeat(row, layout.positions)
        dealt = layout.lanes if layout.order == "kio" else 0
        return Grid(row, column, layout.columns if dealt else max(column.size, 1), dealt, CLASSES - 1)

    def classes(self, layout: Layout, start: int, size: int) -> Bytes:
        """Class of each scan position start .. start + size."""
        g = self.grid(layout)
        if g.dealt:
            return kernels_feedback.dealt_classes(g.row, g.column, g.columns, g.dealt, start, size, g.top)
        return kernels.classes(g.row, g.column, start, size, g.top)


def segment(layout: Layout, levels: Levels, start: int, size: int) -> Segment:
    """What the kernels need to know of a run of a scan."""
    classes = levels.classes(layout, start, size)
    return Segment(size, start, layout.plane, layout.width, layout.positions, classes, CLASSES - 1)
