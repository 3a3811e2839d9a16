"""Which exponents and which words of floats get symbols of their own: where that measured shorter."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.planes_float import TABLES, Alphabet, Words
from netweight.entropy.planes_levels import Format

SLOTS = 64  # exponents that may have symbols
LARGEST_SPECIALS = 7
SPECIAL_SHARE = 1 / 64
SAMPLE = 1 << 12
LEVEL_BITS = 2.0  # of a frequency
EASE = 0.01  # bits that a fine symbol may cost more than a coarse one, which decodes slower
ESCAPE_BITS = 12.0  # of an escape, more than the symbol it stands for

Counts = NDArray[np.int64]
Float64 = NDArray[np.float64]


def find_specials(arrays: Sequence[Words]) -> tuple[int, ...]:
    """Words that a sixty-fourth of a sample consists of, at most seven, the most frequent first."""
    step = max(1, sum(x.size for x in arrays) // SAMPLE)
    values, counts = np.unique(np.concatenate([x[::step] for x in arrays]), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LARGEST_SPECIALS]
    least = max(4.0, SPECIAL_SHARE * counts.sum())
    return tuple(int(values[j]) for j in order if counts[j] >= least)


def is_special(words: Words, specials: Sequence[int]) -> NDArray[np.bool_] | None:
    """Which words are special; None where there are no special words."""
    if not specials:
        return None
    out = words == words.dtype.type(specials[0])
    for word in specials[1:]:
        out |= words == words.dtype.type(word)
    return np.asarray(out, np.bool_)


def choose_slots(counts: Counts, form: Format, specials: tuple[int, ...]) -> Alphabet:
    """Give symbols to the exponents that pay for them: a window of coarse ones, and the best run of fine ones in it.

    Args:
        counts: int64 [5, keys].
        form: of the floats.
        specials: special words.
    """
    k = form.prefix
    by_slot = counts.reshape(TABLES, -1, 1 << k)
    whole = by_slot.sum(axis=2)
    n = whole.sum(axis=0)
    share = counts.sum(axis=1) / 4096  # a frequency of 1
    present = n * ESCAPE_BITS > 10 + LEVEL_BITS * (whole > 0).sum(axis=0) + _waste(whole, share[:, None]).sum(axis=0)
    if not present.any():
        return Alphabet(form, specials)
    kept = np.concatenate([[0], np.cumsum(np.where(present, n, 0))])
    width = min(SLOTS, n.size)
    first = int((kept[width:] - kept[:-width]).argmax())
    slots = first + np.flatnonzero(present[first : first + width])
    first, last = int(slots[0]), int(slots[-1]) + 1
    room = (256 - 1 - len(specials) - (last - first)) // max(1, (1 << k) - 1)
    gain = _fine_gain(by_slot[:, first:last], share)
    begin, end = _best_run(gain.tolist(), room)
    return Alphabet(form, specials, first, begin, end - begin, last - first - end)


def _waste(counts: NDArray[np.integer], share: Float64) -> Float64:
    """Bits lost to the smallest frequency where counts call for a smaller one."""
    return np.asarray(1.44 * np.clip(share - counts, 0, None) * (counts > 0), np.float64)


def _fine_gain(by_slot: Counts, share: Float64) -> Float64:
    """Bits that coding the prefix with the exponent saves, by slot."""
    each = by_slot.shape[2]
    n = by_slot.sum(axis=2)
    packed = n * np.log2(each)
    ideal = n * np.log2(np.maximum(n, 1)) - np.sum(by_slot * np.log2(np.maximum(by_slot, 1)), axis=2)
    waste = _waste(by_slot, share[:, None, None]).sum(axis=2)
    gain = (n > 0) * (packed - ideal - waste - LEVEL_BITS * (each - 1)) + EASE * n
    return np.asarray(gain.sum(axis=0), np.float64)


def _best_run(gain: Sequence[float], longest: int) -> tuple[int, int]:
    """Run of slots with the largest sum, empty where none is positive."""
    total = np.concatenate([[0.0], np.cumsum(gain)])
    best, run = 0.0, (0, 0)
    for begin in range(len(gain)):
        ends = total[begin + 1 : begin + 1 + longest] - total[begin]
        if ends.size and float(ends.max()) > best:
            best, run = float(ends.max()), (begin, begin + 1 + int(ends.argmax()))
    return run
