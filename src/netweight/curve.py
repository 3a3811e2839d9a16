"""Stage 3: what each tensor would cost, and lose: points of all codecs, and their lower hull."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from netweight.chain import Chain, hull
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.codecs.base import Point, takes
from netweight.codecs.exact import Exact
from netweight.codecs.machine import machine_of
from netweight.codecs.registry import choose
from netweight.dtypes import is_float, to_float32
from netweight.freed import give_back_freed
from netweight.importance.given import held_bytes, spent, stats_of
from netweight.importance.prior import OCTAVES, spans
from netweight.importance.stat import Stat
from netweight.kernel_types import Float32
from netweight.room import need_of_sweep, run

# Log2 of the slopes there are: weights of 1e-30 and 1e18 have losses of 1e-70 and 1e46 a bit.
STEEPEST, FLATTEST = 200.0, -300.0
SHORT = 1 << 15  # entries of a vector that no codec samples
LARGE = 1 << 17  # weights; a small tensor may be better off with a codec whose rival wins elsewhere
LEAST = 2.0**-60  # of the loss of nothing at all: what a lossy codec loses at least

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
    chains: tuple[Chain, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare each codec's part for many questions."""
        parts = itertools.groupby(self.points, key=lambda point: point.codec)
        object.__setattr__(self, "chains", tuple(Chain.of(tuple(part)) for _, part in parts))

    def choose(self, slope: float) -> Point:
        """Give the point with the least loss + slope bits, steps between those of the points included.

        Args:
            slope: loss for each bit, >= 0; an infinite one asks for the fewest bits.
        """
        found = [chain.choose(slope) for chain in self.chains]
        if math.isinf(slope):
            return min(found, key=lambda point: (point.bits, point.loss))
        return min(found, key=lambda point: (point.loss + slope * point.bits, point.bits))

    def within(self, bits: float) -> Point:
        """Give the point with the least loss that takes at most so many bits, the one of fewest bits if none does.

        Args:
            bits: budget of this tensor.
        """
        found = [chain.within(bits) for chain in self.chains]
        return min(found, key=lambda point: (max(point.bits - bits, 0.0), point.loss, point.bits))


def sweep(
    source: Source,
    importance: Mapping[str, Stat] | None = None,
    *,
    codecs: Sequence[str] | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Curve]:
    """Predict rate and loss of every tensor at the codecs' knobs, from a sample of its weights.

    Args:
        source: a path, a dictionary of tensors, a module, or an open checkpoint.
        importance: by tensor, as `measure` gives it; without it squared error, and vectors by the energy of rows
            (`importance.prior`).
        codecs: ids to allow; those tried by default (`Codec.default`) if None.
        executor: anything with `map`; tasks carry the checkpoint's path and a name, never a tensor.
        device: of torch, such as "cuda", for codecs that have a form for it (docs/codecs.md); None for the processor.
        progress: called with ("sweep", done, total).

    Returns:
        The curve of each tensor that has data of its own, in the order of the checkpoint. What no allowed codec takes
        (integers, NaN) has the one point of `exact`.

    Raises:
        UsageError: a codec is unknown, the source cannot be opened, or torch has no such device.
        FormatError: the source is damaged.

    >>> import numpy as np
    >>> curves = sweep({"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)})
    >>> 2.0 < curves["w"].choose(1e-2).bits / 4096 < 5.0
    True
    """
    checkpoint = open_checkpoint(source)
    choose(codecs)
    machine_of(device)
    names = list(checkpoint.infos)
    # The task carries the whole mapping, which a measured importance pickles as its path: a matrix' importance can be
    # larger than the matrix, and only the task that needs it reads it.
    stats, ids = stats_of(checkpoint, importance), None if codecs is None else tuple(codecs)
    task = partial(_curve, checkpoint, stats, ids, device=device)
    needs = {name: need_of_sweep(checkpoint.infos[name].size, held_bytes(stats, name)) for name in names}
    order = sorted(names, key=lambda name: -needs[name].cost)
    found: dict[str, Curve] = {}
    for done, curve in enumerate(run(executor, task, order, [needs[name] for name in order])):
        found[curve.name] = curve
        if progress:
            progress("sweep", done + 1, len(names))
    return {name: found[name] for name in names}


def _lossy(points: Sequence[Point], rounding: float) -> list[Point]:
    """Count the rounding to float32, and never nothing: a sample without loss is no promise, as `exact` is."""
    least = LEAST * max((point.loss for point in points), default=0.0)
    return [replace(point, loss=max(point.loss + rounding, least)) for point in points]


def _on_new_inputs(points: Sequence[Point], own: Stat, size: int) -> list[Point]:
    """Count what errors that were shaped to the measured inputs cost on others."""
    return [replace(point, loss=point.loss * own.optimism.at(point.bits / size)) for point in points]


def _judged(stat: Stat, w: Float32) -> Stat:
    """Importance of a vector as its codecs see it; that of a matrix as it is.

    A vector >= 0 that spans octaves, as variances do, is judged by relative errors, each entry by its own size: the
    quadratic form knows nothing of what a variance rounded to zero does. Another vector is judged entry by entry, since
    no codec samples it.
    """
    if stat.diagonal is None or w.ndim != 1 or w.size > SHORT:
        return stat
    if spans(w, 2.0**OCTAVES):
        return Stat(stat.weight * float(np.mean(stat.diagonal * np.square(w, dtype=np.float64))), relative=True)
    return stat


def _along(points: Sequence[Point], nothing: float, flat: float) -> list[Point]:
    """Loss under the moments of inputs and gradients, of which a codec was given the mean only.

    An error is white only where steps are small. A reconstruction that is the mean of what it stands for leaves an
    error e with <e, w> = |e|^2, so that with d = |e|^2 / |w|^2

        e = d w + n,   |n|^2 = d (1 - d) |w|^2,   loss = d^2 loss(w) + (1 - d) flat loss(e)

    for n white beside w. Where inputs have a mean, and rows of weights lie along it, loss(w) can be ten times the flat
    one: a prediction without it gives up whole layers below half a bit.

    Args:
        points: with flat losses.
        nothing: loss of the whole tensor.
        flat: the same by the mean importance.
    """
    if not (0 < flat < math.inf and nothing < math.inf):
        return list(points)
    shares = [min(1.0, point.loss / flat) for point in points]
    return [
        replace(point, loss=d * d * nothing + (1 - d) * point.loss) for point, d in zip(points, shares, strict=True)
    ]


def _curve(
    checkpoint: Checkpoint,
    stats: Mapping[str, Stat],
    codecs: tuple[str, ...] | None,
    name: str,
    device: str | None = None,
) -> Curve:
    info, stat = checkpoint.infos[name], spent(stats, name)
    lossy, exact = choose(codecs)
    raw = checkpoint.read(name)
    points: list[Point] = []
    refines, large = False, info.size > LARGE
    if lossy and is_float(info.dtype) and info.size:
        w = to_float32(raw, info.dtype).reshape(info.shape)
        if takes(w):
            stat, vector = _judged(stat, w), w.ndim == 1 and w.size <= SHORT
            flat, given = stat.flat(), [stat]
            ends = None if stat.inputs is None else (stat.loss(w, w), flat.loss(w, w))
            for codec in sorted(lossy, key=lambda codec: (not codec.progressive, bool(codec.rival))):
                if (codec.progressive or not refines) and all(p.codec != codec.instead_of for p in points):
                    beside = large and any(point.codec == codec.rival for point in points)
                    on = codec.on(device)
                    ask = on.sweep_high if beside else on.sweep
                    if codec.structured:
                        own = given.pop() if given else _judged(spent(stats, name), w)
                        given += [] if own.spent else [own]
                        points += _on_new_inputs(ask(w, own), own, info.size)
                    else:
                        found = ask(w, stat if vector else flat)
                        points += found if ends is None else _along(found, *ends)
                    refines = codec.progressive and bool(points)
            points = _lossy(points, 0.0 if info.dtype != "F64" else flat.loss(w, raw.reshape(info.shape) - w))
    if (exact and not refines) or not points:
        points += Exact().sweep(raw, info.dtype)
    checkpoint.forget()
    give_back_freed(raw.nbytes + (0 if stat.inputs is None else stat.inputs.nbytes))
    chains = [hull(p for p in points if p.codec == codec) for codec in dict.fromkeys(p.codec for p in points)]
    return Curve(name, info.size, tuple(itertools.chain.from_iterable(chains)))
