"""Stage 3: what each tensor would cost, and lose: points of all codecs, and their lower hull."""

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

Progress = Callable[[str, int, int], None]
Source = object


@dataclass(frozen=True, slots=True)
class Curve:
    """The best that the codecs offer for one tensor: the lower convex hull of loss against bits.

    Attributes:
        name: of the tensor.
        size: weights.
        points: hull, bits rising and loss falling.

    >>> Curve("w", 8, (Point(8, 1.0, "a", 1), Point(16, 0.2, "a", 2))).choose(0.2).knob
    1
    """

    name: str
    size: int
    points: tuple[Point, ...]

    def choose(self, slope: float) -> Point:
        """Give the point with the least loss + slope bits.

        Between two smooth points of one codec the loss falls by the same factor for each bit:

            loss = l0 exp(-a (bits - b0)),    whose slope is `slope` at bits = b0 + ln(a l0 / slope) / a;

        the logarithm of the step goes linearly with the bits.

        Args:
            slope: loss for each bit, >= 0.
        """
        points = self.points
        at = 0
        while at + 1 < len(points) and points[at].loss - points[at + 1].loss > slope * (
            points[at + 1].bits - points[at].bits
        ):
            at += 1
        best = points[at]
        if slope <= 0 or not best.smooth:
            return best
        cost = best.loss + slope * best.bits
        for first, second in zip(points[max(at - 1, 0) : at + 1], points[max(at, 1) : at + 2], strict=False):
            between = _between(first, second, slope)
            if between and between.loss + slope * between.bits < cost:
                cost, best = between.loss + slope * between.bits, between
        return best


def _between(first: Point, second: Point, slope: float) -> Point | None:
    """Where the smooth curve through two points has a slope; None if that is not between them."""
    if not (
        first.smooth and second.smooth and first.codec == second.codec and second.loss > 0 and math.isfinite(slope)
    ):
        return None
    span = second.bits - first.bits
    fall = math.log(first.loss / second.loss) / span
    share = math.log(fall * first.loss / slope) / fall / span
    if not 0 < share < 1:
        return None
    knob = between(first.knob, second.knob, share)
    return Point(first.bits + share * span, first.loss * math.exp(-fall * share * span), first.codec, knob, smooth=True)


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
    return Curve(name, info.size, hull(points))


def takes(w: Float32) -> bool:
    """Whether lossy codecs take a tensor: finite, not all of it zero or subnormal, and its squares do not overflow."""
    largest = float(np.max(np.abs(w), initial=0.0))
    return bool(1e-30 < largest < 1e18)
