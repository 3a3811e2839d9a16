"""One codec's part of a curve: its lower convex hull, and what lies between the points of it.

Between two points of a smooth knob, ln(loss) and log2 of the step go with the bits as the cubics through both points
with a common fall at each point (Hermite), so that the slope has no jump there. On the high-rate law, loss = c step^2
= d 4^(-bits / n), they are exact.
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp

from netweight.codecs.base import Point, index_of, step_of

SOLVE = 13  # halvings: a quarter of a knob's step where points are four octaves apart


def hull(points: Iterable[Point]) -> tuple[Point, ...]:
    """Keep the points that are best for some slope: the lower convex hull, from the fewest bits on.

    >>> [p.bits for p in hull([Point(0, 9.0), Point(1, 8.0), Point(2, 1.0), Point(3, 2.0)])]
    [0, 2]
    """
    out: list[Point] = []
    for p in sorted(points, key=lambda p: (p.bits, p.loss)):
        if out and p.loss >= out[-1].loss:
            continue
        while len(out) >= 2 and _above(out[-2], out[-1], p):
            out.pop()
        out.append(p)
    return tuple(out)


def _above(a: Point, b: Point, c: Point) -> bool:
    return (b.loss - a.loss) * (c.bits - a.bits) >= (c.loss - a.loss) * (b.bits - a.bits)


@dataclass(frozen=True, slots=True)
class Chain:
    """Points of one codec, bits rising and loss falling, convex.

    Attributes:
        points: at least one.
        bits: of each.
        savings: minus the loss that a bit saves on the way from each point to the next, rising.
        falls: how fast ln(loss) falls with the bits at each point, 0 where it is not smooth on both sides.
        steps: how fast log2 of the step falls, likewise.
    """

    points: tuple[Point, ...]
    bits: tuple[float, ...]
    savings: tuple[float, ...]
    falls: tuple[float, ...]
    steps: tuple[float, ...]

    @classmethod
    def of(cls, points: Sequence[Point]) -> "Chain":
        """Prepare a hull for many questions."""
        pairs = list(itertools.pairwise(points))
        savings = tuple((b.loss - a.loss) / (b.bits - a.bits) for a, b in pairs)
        joined = [_joined(a, b) for a, b in pairs]
        losses = [math.log(a.loss / b.loss) if j else 0.0 for (a, b), j in zip(pairs, joined, strict=True)]
        steps = [_octaves(a, b) if j else 0.0 for (a, b), j in zip(pairs, joined, strict=True)]
        spans = [b.bits - a.bits for a, b in pairs]
        return cls(tuple(points), tuple(p.bits for p in points), savings, _falls(losses, spans), _falls(steps, spans))

    def choose(self, slope: float) -> Point:
        """Give the point with the least loss + slope bits, steps between those of the points included."""
        at = bisect_left(self.savings, -slope)
        best = self.points[at]
        if slope <= 0 or math.isinf(slope):
            return best
        for left in (at - 1, at):
            middle = self._where(left, slope) if 0 <= left < len(self.savings) else None
            if middle and middle.loss + slope * middle.bits < best.loss + slope * best.bits:
                best = middle
        return best

    def within(self, bits: float) -> Point:
        """Give the point with the least loss that takes at most so many bits; the first if none does."""
        at = max(bisect_right(self.bits, bits) - 1, 0)
        first = self.points[at]
        if at + 1 == len(self.points) or bits <= first.bits or not _joined(first, self.points[at + 1]):
            return first
        return self._at(at, (bits - first.bits) / (self.bits[at + 1] - first.bits))

    def _cubic(self, left: int, falls: Sequence[float], drop: float) -> tuple[float, float, float]:
        """Coefficients of t, t^2, t^3 of a fall, t from 0 at a point to 1 at the next, where it is `drop`."""
        span = self.bits[left + 1] - self.bits[left]
        a, b = falls[left] * span, falls[left + 1] * span
        return a, 3 * drop - 2 * a - b, a + b - 2 * drop

    def _losses(self, left: int) -> tuple[float, float, float]:
        return self._cubic(left, self.falls, math.log(self.points[left].loss / self.points[left + 1].loss))

    def _at(self, left: int, t: float) -> Point:
        first, second = self.points[left], self.points[left + 1]
        c1, c2, c3 = self._losses(left)
        loss = first.loss * exp(-t * (c1 + t * (c2 + t * c3)))
        bits = first.bits + t * (second.bits - first.bits)
        s1, s2, s3 = self._cubic(left, self.steps, _octaves(first, second))
        finer = 2.0 ** -(t * (s1 + t * (s2 + t * s3)))
        return Point(bits, loss, first.codec, index_of(step_of(first.knob) * finer), smooth=True)

    def _where(self, left: int, slope: float) -> Point | None:
        """Where the way from a point to the next has a slope; None if that is not between them."""
        first, second = self.points[left], self.points[left + 1]
        if not _joined(first, second):
            return None
        if not self.falls[left + 1] * second.loss < slope < self.falls[left] * first.loss:
            return None
        c1, c2, c3 = self._losses(left)
        target = slope * (second.bits - first.bits) / first.loss
        low, high = 0.0, 1.0
        for _ in range(SOLVE):
            t = (low + high) / 2
            if (c1 + t * (2 * c2 + t * 3 * c3)) * exp(-t * (c1 + t * (c2 + t * c3))) > target:
                low = t
            else:
                high = t
        return self._at(left, t)


def _falls(drops: Sequence[float], spans: Sequence[float]) -> tuple[float, ...]:
    """Slope at each point: the harmonic mean of those to both sides, or the one there is."""
    chords = [0.0, *(drop / span for drop, span in zip(drops, spans, strict=True)), 0.0]
    return tuple(
        2 * left * right / (left + right) if left and right else left or right
        for left, right in itertools.pairwise(chords)
    )


def _octaves(first: Point, second: Point) -> float:
    return math.log2(step_of(first.knob) / step_of(second.knob))


def _joined(first: Point, second: Point) -> bool:
    """Whether steps between two points' are on the curve."""
    return first.smooth and second.smooth and second.loss > 0
