"""What the kernels are given and what they give: runs of scans, models of contexts, tables, decoded runs.

Letters as in kernels.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netweight import kernels_numpy
from netweight.clibrary import LIBRARY, call

LANES = 32
PRECISION_BITS = 12

Bytes = NDArray[np.uint8]
Int16 = NDArray[np.int16]
Uint16 = NDArray[np.uint16]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """Classes by row and column: clamp(row level + column level, 0, top).

    Attributes:
        row: int16, of each row of the scan; after the last comes the first again.
        column: int16, of each column; where positions are dealt, of each column of each position.
        columns: in a row.
        dealt: lanes that each position is dealt to (docs/format.md, 7.7); 0 for a scan by rows.
        top: largest class.
    """

    row: Int16
    column: Int16
    columns: int
    dealt: int
    top: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of one tensor's scan: symbols `start` .. `start + size`.

    Attributes:
        size: symbols.
        start: index of the first one in the tensor's scan.
        plane: symbols of one kernel position, or 0 where neighbours are not looked at.
        width: width of the kernel.
        positions: kernel positions; plane p of the scan is position p mod positions.
        classes: class of each symbol, uint8 [size], or None where all are 0.
        top: no class is larger.
        grid: says the classes instead; for decoders, which make them as they go.
    """

    size: int
    start: int = 0
    plane: int = 0
    width: int = 1
    positions: int = 1
    classes: Bytes | None = None
    top: int = 255
    grid: Grid | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """How the table of a symbol follows from its class, its neighbours and the trellis.

    Table = (class P + level) Z + codebook.

    Attributes:
        codebooks: Z, 1 or 2.
        levels: P, 1 or 5.
        tap0: what codebook 1 flips in the trellis' next state.
        tap1: what an odd integer flips in it.
        thresholds: int32 [classes, 4], ascending; the level counts those that |2 left + 2 up - corner| reaches.
    """

    codebooks: int
    levels: int
    tap0: int
    tap1: int
    thresholds: Int32


@dataclass(frozen=True, slots=True)
class Target:
    """Where the fine indices of a segment go as float32(r) factor, rounded once.

    Attributes:
        out: float32 [size], contiguous.
        factor: float32.
        around: best written around the caches, for there is more than they hold.
    """

    out: Float32
    factor: np.float32
    around: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What a segment decoded to.

    Attributes:
        size: symbols.
        sums: sum r_i and sum i r_i mod 2^32, i from 1.
        places: int64, where the symbols are escapes.
        held: int16, the fine indices that stand there.
        fine: int16 [size]; None where they went to a target and no neighbour is looked at.
    """

    size: int
    sums: tuple[int, int]
    places: NDArray[np.int64]
    held: Int16
    fine: Int16 | None


@dataclass(frozen=True, slots=True)
class Job:
    """A chunk to be decoded.

    Attributes:
        data: lane states, words, and whatever follows them.
        segments: what it holds.
        targets: of each segment: its memory, or None where fine indices are wanted.
    """

    data: bytes | memoryview
    segments: Sequence[Segment]
    targets: Sequence[Target | None]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a chunk decoded to.

    Attributes:
        runs: of its segments.
        used: bytes that the coder used.
        checksum: of its bytes and integers (docs/format.md, 4.2), if it was counted.
    """

    runs: list[Run]
    used: int
    checksum: int | None = None


class Tables:
    """T frequency tables of 256 symbols that sum to 4096 each (a table may also be empty, all zero)."""

    def __init__(self, freq: NDArray[np.uint16]) -> None:
        self.freq = np.ascontiguousarray(freq, np.uint16)

    @cached_property
    def cum(self) -> Uint16:
        """Sum of the frequencies of all smaller symbols, uint16 [T, 256]."""
        total = np.cumsum(self.freq, axis=1, dtype=np.uint32)
        return np.ascontiguousarray(total - self.freq, np.uint16)

    @cached_property
    def entries(self) -> NDArray[np.uint32]:
        """Decoder's table, uint32 [T, 4096]: v << 24 | (frequency - 1) << 12 | slot - cumulative."""
        if LIBRARY is None:
            return kernels_numpy.entries(self.freq)
        out = np.zeros((len(self.freq), 1 << PRECISION_BITS), np.uint32)
        call("nw_entries", self.freq, len(self.freq), out)
        return out
