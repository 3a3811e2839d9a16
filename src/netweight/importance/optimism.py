"""What errors that were shaped to the believed moments of inputs cost on new ones, by the bits that a weight gets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["NONE", "RATES_BITS", "Optimism", "most", "optimism_of"]

RATES_BITS: Final = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 3.0, 4.0)  # a weight


@dataclass(frozen=True, slots=True)
class Optimism:
    """A factor of the loss, mostly one or more, as a function of the rate.

    Without bits the error is the weights themselves, which know nothing of the inputs: the factor is one. It rises with
    the rate, since what few bits leave is large in all directions.

    Attributes:
        times: at `RATES_BITS`; a single number holds for all rates; nothing is one.

    >>> Optimism(tuple(1 + rate for rate in RATES_BITS)).at(1.5), Optimism((1.2,)).at(0.1), NONE.at(2.0)
    (2.5, 1.2, 1.0)
    """

    times: tuple[float, ...] = ()

    def at(self, rate_bits: float) -> float:
        """Give the factor at a rate: straight between those known, from one at no bits, constant after the last."""
        if len(self.times) < 2:
            return self.times[0] if self.times else 1.0
        return float(np.interp(rate_bits, (0.0, *RATES_BITS), (1.0, *self.times)))


NONE: Final = Optimism()


def most(several: Iterable[Optimism]) -> Optimism:
    """Give the largest at each rate.

    >>> most([Optimism((1.5,)), Optimism(), Optimism((1.2,))])
    Optimism(times=(1.5,))
    """
    known = [each for each in several if each.times]
    if all(len(each.times) == 1 for each in known):
        return max(known, key=lambda each: each.times, default=NONE)
    return Optimism(tuple(max(each.at(rate) for each in known) for rate in RATES_BITS))


def optimism_of(value: Any) -> Optimism:
    """Read it from JSON: a list by rate; a number, in files before version 3, holds for all rates.

    Raises:
        ValueError: it is something else.
    """
    times = value if type(value) is list else [value]
    if len(times) not in (0, 1, len(RATES_BITS)) or any(type(each) not in (int, float) for each in times):
        raise ValueError
    if not all(math.isfinite(each) and each > 0 for each in times):
        raise ValueError
    return Optimism(tuple(map(float, times)))
