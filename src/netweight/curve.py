"""Stage 3: what each tensor would cost, and lose: points of all codecs, and their lower hull."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.codecs.base import Point, between
from netweight.codecs.exact import Exact
from netweight.codecs.registry import choose
from netweight.dtypes import is_float, to_float32
from netweight.importance.prior import prior
from netweight.importance.stat import Stat
from netweight.kernels import Float32

SOLVE = 16  # halvings: far below one step of a knob
# Log2 of the slopes there are: weights of 1e-30 and 1e18 have losses of 1e-70 and 1e46 a bit.
STEEPEST, FLATTEST = 200.0, -300.0

Progress = Callable[[str, int, int], None]
Source = object


@dataclass(frozen=True, slots=True)
class Curve:
    """What the codecs offer for one tensor: the lower convex hull of loss against bits of each.

    One hull for all codecs would lose what lies between two steps of one wherever another wins by a hair.

    Attributes:
        name: of the tensor.
        size: weights.
        points: codec by codec, bits rising and loss falling.

    >>> Curve("w", 8, (Point(8, 1.0, "a", 1), Point(16, 0.2, "a", 2))).choose(0.2).knob
    1
    """

    name: str
    size: int
    points: tuple[Point, ...]

    def choose(self, slope: float) -> Point:
        """Give the point with the least loss + slope bits, steps between those of the points included.

        Args:
            slope: loss for each bit, >= 0.
        """
        best = None
        for _, chain in itertools.groupby(self.points, key=lambda point: point.codec):
            found = _best(tuple(chain), slope)
            if best is None or _key(found, slope) < _key(best, slope):
                best = found
        assert best is not None
        return best

    def within(self, bits: float) -> Point:
        """Give the point with the least loss that takes at most so many bits, the one of fewest bits if none does.

        Args:
            bits: budget of this tensor.
        """
        found = [self.choose(math.inf)]
        for _, chain in itertools.groupby(self.points, key=lambda point: point.codec):
            points = tuple(chain)
            low, high = FLATTEST, STEEPEST
            for _ in range(2 * SOLVE):
                middle = (low + high) / 2
                if _best(points, 2.0**middle).bits <= bits:
                    high = middle
                else:
                    low = middle
            found.append(_best(points, 2.0**high))
        return min(found, key=lambda point: (max(point.bits - bits, 0.0), point.loss, point.bits))


def _key(point: Point, slope: float) -> tuple[float, float]:
    """Order of preference at a slope; an infinite one asks for the fewest bits."""
    return (point.bits, point.loss) if math.isinf(slope) else (point.loss + slope * point.bits, point.bits)


def _best(points: Sequence[Point], slope: float) -> Point:
    """Choose from one codec's hull."""
    at = 0
    while at + 1 < len(points) and _saving(points, at) > slope:
        at += 1
    best = points[at]
    if slope <= 0 or math.isinf(slope):
        return best
    falls = _falls(points[max(at - 2, 0) : at + 3])
    start = max(at - 2, 0)
    for left in (at - 1, at):
        middle = _between(points[start : at + 3], falls, left - start, slope) if 0 <= left < len(points) - 1 else None
        if middle and _key(middle, slope) < _key(best, slope):
            best = middle
    return best


def _joined(first: Point, second: Point) -> bool:
    """Whether steps between two points' are on the curve."""
    return first.smooth and second.smooth and first.codec == second.codec and second.loss > 0


def _falls(points: Sequence[Point]) -> list[float]:
    """How fast ln(loss) falls with the bits at each point: the harmonic mean of the segments that meet there."""
    chords = [
        math.log(a.loss / b.loss) / (b.bits - a.bits) if _joined(a, b) else 0.0 for a, b in itertools.pairwise(points)
    ]
    out = []
    for left, right in itertools.pairwise([0.0, *chords, 0.0]):
        out.append(2 * left * right / (left + right) if left and right else left or right)
    return out


def _saving(points: Sequence[Point], at: int) -> float:
    """Loss that a bit saves on the way to the next point."""
    first, second = points[at], points[at + 1]
    return (first.loss - second.loss) / (second.bits - first.bits)


def _between(points: Sequence[Point], falls: Sequence[float], left: int, slope: float) -> Point | None:
    """Where the curve between two points has a slope; None if that is not inside.

    ln(loss) is the cubic through both points with both falls (Hermite), so that the slope has no jump at a point.
    """
    first, second = points[left], points[left + 1]
    if not _joined(first, second):
        return None
    span = second.bits - first.bits
    drop = math.log(first.loss / second.loss)
    a, b = falls[left] * span, falls[left + 1] * span
    low, high = 0.0, 1.0
    if not b * second.loss < slope * span < a * first.loss:
        return None
    for _ in range(SOLVE):
        t = (low + high) / 2
        fallen = t * (a + t * (3 * drop - 2 * a - b + t * (a + b - 2 * drop)))
        rate = a + t * (2 * (3 * drop - 2 * a - b) + t * 3 * (a + b - 2 * drop))
        if rate * first.loss * math.exp(-fallen) > slope * span:
            low = t
        else:
            high = t
    knob = between(first.knob, second.knob, t)
    return Point(first.bits + t * span, first.loss * math.exp(-fallen), first.codec, knob, smooth=True)


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


def sweep(
    source: Source,
    importance: Mapping[str, Stat] | None = None,
    *,
    codecs: Sequence[str] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> dict[str, Curve]:
    """Predict rate and loss of every tensor at the codecs' knobs, from a sample of its weights.

    Args:
        source: a path, a dictionary of tensors, a module, or an open checkpoint.
        importance: by tensor; without it squared error, and vectors by the energy of rows (`importance.prior`).
        codecs: ids to allow; all if None.
        executor: anything with `map`; tasks carry the checkpoint's path and a name, never a tensor.
        progress: called with ("sweep", done, total).

    Returns:
        The curve of each tensor that has data of its own, in the order of the checkpoint. What no allowed codec takes
        (integers, NaN) has the one point of `exact`.

    Raises:
        UsageError: a codec is unknown, or the source cannot be opened.
        FormatError: the source is damaged.

    >>> curves = sweep({"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)})
    >>> 2.0 < curves["w"].choose(1e-2).bits / 4096 < 5.0
    True
    """
    checkpoint = open_checkpoint(source)
    choose(codecs)
    stats = prior(checkpoint) if importance is None else importance
    names = list(checkpoint.infos)
    task = partial(_curve, checkpoint, None if codecs is None else tuple(codecs))
    order = sorted(names, key=lambda name: -checkpoint.infos[name].size)
    found: dict[str, Curve] = {}
    for done, curve in enumerate(run(executor, task, [(name, stats.get(name, Stat())) for name in order])):
        found[curve.name] = curve
        if progress:
            progress("sweep", done + 1, len(names))
    return {name: found[name] for name in names}


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run(executor: Executor | None, task: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Map over the items by the executor, or here."""
    yield from map(task, items) if executor is None else executor.map(task, items)


def _curve(checkpoint: Checkpoint, codecs: tuple[str, ...] | None, item: tuple[str, Stat]) -> Curve:
    name, stat = item
    info = checkpoint.infos[name]
    lossy, exact = choose(codecs)
    raw = checkpoint.read(name)
    points: list[Point] = []
    if lossy and is_float(info.dtype) and info.size:
        w = to_float32(raw, info.dtype).reshape(info.shape)
        if takes(w):
            for codec in lossy:
                points += codec.sweep(w, stat)
    if exact or not points:
        points += Exact().sweep(raw, info.dtype)
    chains = [hull(p for p in points if p.codec == codec) for codec in dict.fromkeys(p.codec for p in points)]
    return Curve(name, info.size, tuple(itertools.chain.from_iterable(chains)))


def takes(w: Float32) -> bool:
    """Whether lossy codecs take a tensor: finite, not all of it zero or subnormal, and its squares do not overflow."""
    largest = float(np.max(np.abs(w), initial=0.0))
    return bool(1e-30 < largest < 1e18)
