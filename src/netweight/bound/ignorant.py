"""What a decoder pays for not knowing the input covariance: the rate of a Gaussian codebook that is the same for all.

`theory.universal` for one row of unit variance gives R and D as functions of the slope; a row of another variance, or
of other importance, has the same curve at another slope, and all rows of all tensors stand at one. Tensors without a
measured input covariance have nothing to hide: theirs is R(D) of Gaussian rows.

This rate is reached by random codes, so it is no lower bound; with the law "Gaussian by row" it is at most 0.11 bit a
weight above R(D) (Harbuzova, Ordentlich and Polyanskiy 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from netweight.bound.models import Components
from netweight.bound.spread import Rows, binned, output_scales
from netweight.importance.stat import Stat
from netweight.theory import universal

__all__ = ["Ignorant", "ignorant", "rate_nats"]

Array = NDArray[np.float64]

_POINTS: Final = 800  # ridges of the tabulated curve
_HALVINGS: Final = 80


@dataclass(frozen=True, slots=True, eq=False)
class Ignorant:
    """Rows that share a spectrum of inputs.

    Attributes:
        rows: how many of each scale, and the scales: importance times variance.
        slope: ln theta of a row of scale 1, rising, shape (p,).
        nats: rate of such a row there.
        error: its distortion.
    """

    rows: Components
    slope: Array
    nats: Array
    error: Array

    def at(self, level: float) -> tuple[float, float]:
        """Rate and loss of all rows where one nat more saves 2 theta of distortion."""
        live = self.rows.capacities > 0
        scales, counts = self.rows.capacities[live], self.rows.counts[live]
        place = log(level) - np.log(scales)
        nats = np.where(place > self.slope[-1], 0.0, np.interp(place, self.slope, self.nats))
        error = scales * np.interp(place, self.slope, self.error)
        return float(counts @ nats), float(counts @ error) / 2


def ignorant(rows: Rows, stat: Stat) -> tuple[Ignorant, ...]:
    """Give the curves of a tensor with a measured input covariance, one for each group of rows."""
    assert rows.spectra is not None
    pairs = zip(output_scales(rows, stat, "rows"), rows.spectra, strict=True)
    return tuple(
        Ignorant(binned(np.ones(scales.size), scales), *_curve(spectrum))
        for scales, spectrum in pairs
        if spectrum.any()
    )


def _curve(spectrum: Array) -> tuple[Array, Array, Array]:
    """Ln theta, rate and distortion of a row of unit variance, from the finest to the coarsest."""
    ridges = float(spectrum.max()) * np.geomspace(1e-18, 1e9, _POINTS)
    rates, errors, powers = universal.curve(spectrum, ridges)
    return np.log(ridges * powers), rates, errors


def rate_nats(known: Components, hidden: Sequence[Ignorant], loss: float) -> float:
    """Rate of all rows together at a total loss > 0.

    Args:
        known: components of tensors without an input covariance, Gaussian.
        hidden: rows with one.
        loss: of all.
    """
    top = known.largest_loss + sum(part.at(1e300)[1] for part in hidden)
    if loss >= top:
        return 0.0
    low, high = log(loss) - 200.0, log(loss) + 200.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at(known, hidden, float(np.exp(middle)))[1] < loss else (low, middle)
    return _at(known, hidden, float(np.exp(high)))[0]


def _at(known: Components, hidden: Sequence[Ignorant], level: float) -> tuple[float, float]:
    """Rate and loss of everything at one slope."""
    error = np.minimum(known.capacities, level)
    ratio = np.divide(known.capacities, error, out=np.ones_like(error), where=error > 0)
    nats, loss = float(known.counts @ np.log(ratio)) / 2, float(known.counts @ error) / 2
    for part in hidden:
        more_nats, more_loss = part.at(level)
        nats, loss = nats + more_nats, loss + more_loss
    return nats, loss
