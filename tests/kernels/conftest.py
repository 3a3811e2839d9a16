"""Chunks of every kind that the format allows, coded; and the two paths side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from netweight import kernels, kernels_numpy
from netweight.errors import FormatError
from netweight.kernels import Model, Segment, Tables

# Parity-check polynomials (h0, h1) of trellises of 8 .. 256 states, octal.
POLYNOMIALS = {
    3: (0o13, 0o04),
    4: (0o23, 0o04),
    5: (0o45, 0o10),
    6: (0o103, 0o024),
    7: (0o235, 0o126),
    8: (0o515, 0o362),
}


def taps_of(bits: int) -> tuple[int, int]:
    first, second = ((h >> 1) & ((1 << bits) - 1) for h in POLYNOMIALS[bits])
    return first, second


@pytest.fixture(scope="session")
def taps() -> Callable[[int], tuple[int, int]]:
    return taps_of


@dataclass(frozen=True)
class Chunk:
    """Integers of some segments and everything that follows from them, by the NumPy path."""

    model: Model
    segments: list[Segment]
    lanes: int
    k: list[NDArray[np.int16]]
    symbol: NDArray[np.uint8]
    index: NDArray[np.uint16]
    fine: NDArray[np.int16]
    tables: Tables

    @property
    def lengths(self) -> list[int]:
        return [s.size for s in self.segments]

    def encoded(self) -> bytes:
        return kernels_numpy.encode(
            self.symbol, self.index, self.lengths, self.lanes, self.tables.freq, self.tables.cum
        )

    def decoded(self, data: bytes | memoryview) -> tuple[int, NDArray[np.int16]]:
        """Bytes used, or -1 or -2, and fine indices: by NumPy."""
        fine, used = kernels_numpy.decode(data, self.lanes, self.tables.entries, self.model, self.segments)
        return used, fine

    def decoded_by_c(self, data: bytes | memoryview) -> tuple[int, NDArray[np.int16]]:
        """Bytes used, or -1 or -2, and fine indices: by the path in use."""
        try:
            fine, used = kernels.decode(data, self.lanes, self.tables, self.model, self.segments)
        except FormatError as error:
            return -1 if "ends before" in error.fact else -2, np.zeros(0, np.int16)
        return used, fine


def fitted(counts: NDArray[np.int64]) -> Tables:
    """Tables in which every symbol that occurs has a frequency; tables that do not occur stay empty."""
    freq = np.zeros(counts.shape, np.uint16)
    for row, count in zip(freq, counts, strict=True):
        if count.any():
            row[:] = np.where(count > 0, np.maximum(count * 3800 // count.sum(), 1), 0)
            row[count.argmax()] += 4096 - int(row.sum())
    return Tables(freq)


def chunk(
    seed: int,
    lengths: list[int],
    *,
    lanes: int = 32,
    bits: int = 0,
    plane: int = 0,
    classes: int = 1,
    spread: float = 3.0,
) -> Chunk:
    """Random segments: a trellis where `bits` > 0, neighbours where `plane` > 0."""
    random = np.random.default_rng(seed)
    width, height, codebooks, levels = int(random.integers(1, 5)), int(random.integers(1, 4)), 1 + (bits > 0), 1
    if plane:
        levels = 5
    tap0, tap1 = taps_of(bits) if bits else (0, 0)
    thresholds = np.sort(random.integers(0, 12 * codebooks, (classes, 4)), axis=1).astype(np.int32)
    model = Model(codebooks, levels, tap0, tap1, thresholds)
    segments, k, parts = [], [], []
    for length in lengths:
        of_symbols = random.integers(0, classes, length).astype(np.uint8) if classes > 1 else None
        start = int(random.integers(0, 4 * plane + 1))
        segment = Segment(length, start, plane, width, width * height, of_symbols)
        values = np.rint(random.laplace(scale=spread, size=length))
        rare = random.random(length) < 0.02
        values[rare] = random.integers(-200, 200, length)[rare]
        segments.append(segment)
        k.append(values.astype(np.int16))
        parts.append(kernels_numpy.contexts(k[-1], model, segment))
    symbol, index, fine = (np.concatenate([p[j] for p in parts]) for j in range(3))
    counts = kernels_numpy.histogram(symbol, index, classes * levels * codebooks)
    return Chunk(model, segments, lanes, k, symbol, index, fine, fitted(counts))


@pytest.fixture(scope="session")
def make() -> Callable[..., Chunk]:
    return chunk
