"""What a tensor's loss was found to be where it was tried: predictions on one side, measured divergences on the other.

A tensor that was tried at several rates has several secants, and one factor for all rates would forget all but the
last: a plan then jumps from one side of a cliff to the other and back. Here the measured divergence is a function of
the predicted loss: through all points that were tried, straight in logarithms, with the first one's factor before it
and the last one's after it; and it rises, though not slower than the power 0.3 of the prediction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from netweight.archive import Archive
from netweight.chain import hull
from netweight.checkpoint import Checkpoint
from netweight.codecs.base import Point
from netweight.curve import Curve
from netweight.dtypes import to_float32
from netweight.importance.core import Importance

__all__ = ["Found", "bent", "on_new_inputs"]

NEAR: Final = math.log(1.5)  # predictions nearer than that are one point: their difference is noise
LEAST_POWER: Final = 0.3
APART: Final = 0.02  # share of the bits


@dataclass(frozen=True, slots=True)
class Found:
    """Points of one tensor.

    Attributes:
        points: logarithms of predicted losses, rising, and of the divergences that were measured there.
    """

    points: tuple[tuple[float, float], ...] = ()

    def also(self, predicted: float, measured: float) -> Found:
        """Add a point; near another one it becomes their mean.

        >>> two = Found().also(1.0, 2.0).also(8.0, 64.0)
        >>> [round(two.nats(loss), 4) for loss in (0.5, 4.0, 16.0)]
        [1.0, 20.1587, 128.0]
        """
        x, y = math.log(predicted), math.log(measured)
        near = [p for p in self.points if abs(p[0] - x) < NEAR]
        kept = [p for p in self.points if p not in near]
        count = len(near) + 1
        mean = ((x + sum(p[0] for p in near)) / count, (y + sum(p[1] for p in near)) / count)
        return Found(_rising(sorted([*kept, mean])))

    def nats(self, predicted: float) -> float:
        """Divergence that a predicted loss stands for."""
        if not self.points or predicted <= 0:
            return predicted
        return math.exp(_line(self.points, math.log(predicted)))

    def loss(self, nats: float) -> float:
        """Prediction that stands for a divergence.

        >>> round(Found().also(1.0, 2.0).also(8.0, 64.0).loss(128.0), 4)
        16.0
        """
        if not self.points or nats <= 0:
            return nats
        return math.exp(_line([(y, x) for x, y in self.points], math.log(nats)))


def _line(points: Iterable[tuple[float, float]], x: float) -> float:
    """Straight between points, of slope 1 before the first and after the last."""
    known = list(points)
    for (a, y), (b, z) in itertools.pairwise(known):
        if a <= x <= b:
            return y + (x - a) * (z - y) / (b - a)
    a, y = known[0] if x < known[0][0] else known[-1]
    return y + x - a


def _rising(points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Pool neighbours until divergences rise with the power LEAST_POWER at least: the nearest such in least squares."""
    pools: list[tuple[float, int]] = []
    for x, y in points:
        pools.append((y - LEAST_POWER * x, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((m * a + n * b) / (m + n), m + n)]
    heights = [height for height, count in pools for _ in range(count)]
    return tuple((x, height + LEAST_POWER * x) for (x, _), height in zip(points, heights, strict=True))


def bent(curves: Mapping[str, Curve], found: Mapping[str, Found], tried: Mapping[str, list[Point]]) -> dict[str, Curve]:
    """Curves in nats that were measured.

    Args:
        curves: in predicted losses.
        found: by name; curves of other tensors stay.
        tried: points of plans, in predicted losses, which the new curves go through.
    """
    out = dict(curves)
    for name, known in found.items():
        if not known.points:
            continue
        parts: list[Point] = []
        for chain in curves[name].chains:
            points = [*chain.points]
            for p in tried.get(name, ()):
                if p.codec == points[0].codec and all(abs(p.bits - q.bits) > APART * q.bits for q in points):
                    points.append(p)
            parts += hull(replace(p, loss=known.nats(p.loss)) for p in points)
        out[name] = Curve(name, curves[name].size, tuple(parts))
    return out


def on_new_inputs(
    checkpoint: Checkpoint, importance: Importance, archive: Archive, points: Mapping[str, Point]
) -> dict[str, float]:
    """Tell what a network's errors cost on new inputs, in what they cost on those that were measured.

        o(rate) tr(G' E A' E^T) / tr(G E A E^T)

    A and G are the moments as measured, A' and G' those believed (`Importance`), o what the halves of the samples say
    of errors shaped to A' (`Stat.optimism`). A quantiser leaves the larger errors where the moments are small: in
    directions that few samples have, and in rows that count for little. Most tokens of a vocabulary do not occur in any
    256 sentences, and on those sentences their errors do not show: 13 times the divergence on others, of MiniLM at two
    bits.

    Args:
        checkpoint: the network.
        importance: of it.
        archive: the network as coded.
        points: of the tensors to look at; those without moments are left out, and those whose factor is one.
    """
    out = {}
    for name, point in points.items():
        stat = importance.get(name)
        if stat is None or stat.inputs is None:
            continue
        info = checkpoint.infos[name]
        w, v = (to_float32(np.asarray(x), info.dtype) for x in (checkpoint.read(name), archive[name]))
        error = np.subtract(w, v, dtype=np.float64)
        new, here = stat.loss(w, error), importance.raw(name).loss(w, error)
        times = stat.optimism.at(point.bits / max(info.size, 1)) * (new / here if here > 0 else 1.0)
        if times > 1:
            out[name] = times
    return out
