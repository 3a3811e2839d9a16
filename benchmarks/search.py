"""Find the rate at which a coder reaches a given SNR, from few encodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["EQUAL_DB", "Match", "Measured", "match_snr"]

EQUAL_DB: Final = 0.02  # two SNRs this close are called equal
_BRACKET_DB: Final = 0.3  # widest pair of points between which a line is drawn
_DB_PER_BIT: Final = 6.02


@dataclass(frozen=True, slots=True)
class Measured:
    """One file: the rate asked for, what it took, and its SNR."""

    asked_bits: float
    bytes: int
    snr_db: float


@dataclass(frozen=True, slots=True)
class Match:
    """Bytes at the wanted SNR, and how they were found.

    `how` is "equal" (one file within 0.02 dB), "between" (a line between two files around it,
    at most 0.3 dB apart) or "nearest" (neither was found: the nearest file, which is no comparison at equal SNR).
    """

    bytes: float
    snr_db: float
    how: str
    files: tuple[Measured, ...]


def match_snr(
    measure: Callable[[float], tuple[int, float]], wanted_db: float, guess_bits: float, *, files: int = 8
) -> Match:
    """Search the rate by secants until one file has the wanted SNR, or two enclose it closely.

    Args:
        measure: rate asked for, in bits/weight, to bytes of the file and its SNR in dB.
        wanted_db: SNR to reach.
        guess_bits: where to begin.
        files: how many files to make at most.

    >>> match_snr(lambda bits: (round(1000 * bits), 6 * bits), 18.0, 3.5).bytes
    3000
    """
    made: list[Measured] = []
    bits = guess_bits
    while len(made) < files:
        measured = Measured(bits, *measure(bits))
        made.append(measured)
        if abs(measured.snr_db - wanted_db) < EQUAL_DB:
            return Match(measured.bytes, measured.snr_db, "equal", tuple(made))
        bits = _next_bits(made, wanted_db)
        if any(abs(bits - m.asked_bits) < 1e-4 for m in made):
            break
    below = max((m for m in made if m.snr_db < wanted_db), key=lambda m: m.snr_db, default=None)
    above = min((m for m in made if m.snr_db > wanted_db), key=lambda m: m.snr_db, default=None)
    if below and above and above.snr_db - below.snr_db <= _BRACKET_DB:
        share = (wanted_db - below.snr_db) / (above.snr_db - below.snr_db)
        return Match(below.bytes + share * (above.bytes - below.bytes), wanted_db, "between", tuple(made))
    nearest = min(made, key=lambda m: abs(m.snr_db - wanted_db))
    return Match(nearest.bytes, nearest.snr_db, "nearest", tuple(made))


def _next_bits(made: list[Measured], wanted_db: float) -> float:
    """Where a line through the two files nearest to the wanted SNR meets it; 6.02 dB a bit from one file alone."""
    near = sorted(made, key=lambda m: abs(m.snr_db - wanted_db))[:2]
    slope = _DB_PER_BIT
    for one, other in pairwise(near):
        if one.snr_db != other.snr_db and one.asked_bits != other.asked_bits:
            slope = (one.snr_db - other.snr_db) / (one.asked_bits - other.asked_bits)
    slope = min(max(slope, 0.5 * _DB_PER_BIT), 3 * _DB_PER_BIT)
    return max(near[0].asked_bits + (wanted_db - near[0].snr_db) / slope, 0.05)
