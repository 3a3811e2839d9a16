"""Frequency tables of fields: all 256 symbols, no escapes, perhaps holes, perhaps one table a class.

A table is described by the logarithm of its frequencies, in quarters or eighths of an octave: value by value where few
occur, else for a run of values, each predicted by the value below and by how the table before rises there.
"""

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.normalise import TOTAL, normalise
from netweight.entropy.small import Reader, damaged, decode_small, encode_small
from netweight.entropy.tables import EIGHTHS, TOP_OCTAVES
from netweight.kernels import Tables
from netweight.kernels_counts import cheap_levels, level_bits

MOST_LISTED = 32  # values that a table may list one by one
LEAST_RUN = 9  # values from which on a run may be shorter
SPREAD = 2  # levels tried around the ideal one
SMOOTHED = 0.6  # part of the levels' bits that may be left when they have been fitted

# Bits of a level that is so far from its prediction.
_PRICES = 2.0 * np.log2(1 + 2 * np.arange(4 * (2 + TOP_OCTAVES * 8)))

Counts = NDArray[np.int64]


def least_bits(counts: Counts, fine: bool) -> float:
    """About the least that the tables of these counts cost; cheap, and only good to see that they cannot win."""
    bits, values, tables = level_bits(counts, 8 if fine else 4)
    run, listed = SMOOTHED * bits, 8.0 * values * (1 + tables)
    return run if values > MOST_LISTED else min(run, listed)


def describe(counts: Counts, fine: bool) -> tuple[bytes, Tables]:
    """Which classes occur; then the values and levels one by one, or the lowest and highest value and all between."""
    occurs = counts.sum(axis=1) > 0
    used = np.flatnonzero(counts.sum(axis=0))
    octave = 8 if fine else 4
    head = np.packbits(occurs, bitorder="little").tobytes() if len(counts) > 1 else b""
    found = []
    if used.size <= MOST_LISTED:
        levels = _ideal(counts[occurs][:, used], octave)
        data = bytes([used.size, *used.tolist()]) + levels.astype(np.uint8).tobytes()
        found.append((head + data, used, levels))
    if used.size >= LEAST_RUN:
        between = np.arange(used[0], used[-1] + 1)
        levels = _fit(counts[occurs][:, between], octave)
        data = bytes([0, int(used[0]), int(used[-1])]) + encode_small(_wrapped(levels - _predictions(levels)))
        found.append((head + data, between, levels))
    data, values, levels = min(found, key=lambda f: len(f[0]))
    return data, _build(levels, occurs, values, fine)


def read(reader: Reader, classes: int, width: int, fine: bool) -> Tables:
    """Read what `describe` wrote.

    Raises:
        FormatError: the description contradicts itself.
    """
    occurs = np.ones(1, np.bool_)
    if classes > 1:
        packed = np.frombuffer(reader.take((classes + 7) // 8), np.uint8)
        occurs = np.unpackbits(packed, count=classes, bitorder="little").astype(np.bool_)
    tables = int(occurs.sum())
    listed = reader.take(1)[0]
    if listed:
        values = np.frombuffer(reader.take(listed), np.uint8).astype(np.int64)
        levels = np.frombuffer(reader.take(tables * listed), np.uint8).astype(np.int64).reshape(tables, listed)
    else:
        low, high = reader.take(2)
        values = np.arange(low, high + 1)
        levels = decode_small(reader, tables * values.size).reshape(tables, values.size)
        levels = levels.cumsum(axis=1).cumsum(axis=0) & 255
    if not values.size or (np.diff(values) <= 0).any() or values[-1] >> width:
        raise damaged(f"a table of the values {values.tolist()[:1]} .. {values.tolist()[-1:]} in {width} bits")
    if levels.size and (levels.min() < 0 or levels.max() > 1 + TOP_OCTAVES * (8 if fine else 4)):
        raise damaged(f"a frequency level of {levels.min()} or {levels.max()}")
    return _build(levels, occurs, values, fine)


def _wrapped(residuals: Counts) -> Counts:
    """Residuals modulo 256, as -128 .. 127."""
    return (residuals.ravel() + 128 & 255) - 128


def _predictions(levels: Counts) -> Counts:
    """A level is predicted by the value below, plus how much the table before rises there."""
    before = np.zeros_like(levels)
    before[1:] = levels[:-1]
    before[:, 1:] += levels[:, :-1]
    before[1:, 1:] -= levels[:-1, :-1]
    return before


def _ideal(counts: Counts, octave: int) -> Counts:
    """Level of each value: 0 for a hole, else 1 + log2 of the frequency in octaves' parts."""
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    level = 1 + np.rint(octave * np.log2(np.maximum(counts, 0.5) * TOTAL / total)).clip(0, TOP_OCTAVES * octave)
    return np.asarray(np.where(counts > 0, level, 0), np.int64)


def _fit(counts: Counts, octave: int) -> Counts:
    """Levels that are cheap to write.

    With n of N symbols at frequency 2^c / 4096: N 2^c / 4096 log2(e) - n c bits, and some 2 log2(1 + 2 |residual|)
    for the level.
    """
    total = np.maximum(counts.sum(axis=1)[:, None, None], 1)
    tried = (_ideal(counts, octave)[..., None] + np.arange(-SPREAD, SPREAD + 1)).clip(1, 1 + TOP_OCTAVES * octave)
    c = (tried - 1) / octave
    cost = total * 2.0**c / 2839.1 - counts[..., None] * c
    holes = counts == 0
    tried[holes, 0] = 0
    cost[holes, 0] = 0.0
    return cheap_levels(tried, cost, _PRICES)


def _build(levels: Counts, occurs: NDArray[np.bool_], values: Counts, fine: bool) -> Tables:
    weights = np.zeros((occurs.size, 256), np.int64)
    eighths = np.maximum(levels - 1, 0) * (1 if fine else 2)
    weights[np.ix_(occurs, values)] = np.where(levels > 0, EIGHTHS[eighths % 8] << (eighths // 8), 0)
    return Tables(normalise(weights))
