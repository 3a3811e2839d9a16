"""Sensitivities at the working point: what a plan's errors really do to the outputs, layer by layer.

The Fisher information is the curvature of the loss at the trained weights. Below some 2.5 bits a weight errors are
large, and a layer's real divergence can be many times the prediction 1/2 e^T I e: an allocation that believes it
starves that layer. So every layer is quantised alone as the plan says, its divergence KL_l is measured by one forward
pass over a few inputs, and its curve is bent to go through what was measured,

    loss_l -> KL_l(loss_l),   a line through (ln loss_l, ln KL_l) of all plans tried (`working`),

the secant of the loss instead of its tangent; then the bits are allocated anew. At last all layers are quantised
together, and one factor for all makes the predicted sum the measured one; what the inputs say that took no part in the
rounds is noted beside it. Where the importance was measured on these very inputs, errors that were shaped to it cost
more on new ones, and what is measured counts that much more (`working.on_new_inputs`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from netweight.allocate import Plan, allocate
from netweight.archive import Archive
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.codecs.base import Point
from netweight.codecs.registry import EXACT
from netweight.codecs.registry import codecs as codecs_by_id
from netweight.curve import Curve, Progress, Source, sweep
from netweight.errors import UsageError
from netweight.importance.core import Importance
from netweight.importance.given import stats_of
from netweight.importance.record import MODULUS
from netweight.moments import recoded
from netweight.norms import Way
from netweight.pipeline import Coder, fit, most_bytes
from netweight.trial import Nats, Trial, mean
from netweight.working import Found, bent, on_new_inputs

if TYPE_CHECKING:
    import torch

__all__ = ["Secant", "scaled", "secant"]

ROUNDS: Final = 4  # two leave layers starved below 2 bits a weight, where the first plan is far off
CLOSE: Final = 0.1  # log of predicted over measured, at which the search for a loss ends
SEARCHES: Final = 6
LEAST_NATS: Final = 1e-9  # below it a measured divergence is rounding of float32


@dataclass(frozen=True, slots=True)
class Secant:
    """A plan that was tried.

    Attributes:
        importance: with the sensitivities of the working point; `compress` takes it, and `save` keeps it.
        curves: what the tensors would cost, in its nats.
        plan: meets the target; its loss is what was measured on all inputs, times the optimism if `measure` had them.
        archive: the network by this plan.
        nats: divergence on the inputs that were held out of the rounds.
        se: standard error of its mean over these inputs.
        samples: how many they are.
        factors: by which each tensor's importance was multiplied.
    """

    importance: Importance
    curves: Mapping[str, Curve]
    plan: Plan
    archive: Archive
    nats: float
    se: float
    samples: int
    factors: Mapping[str, float]


def scaled(curves: Mapping[str, Curve], factors: Mapping[str, float]) -> dict[str, Curve]:
    """Multiply the losses of some curves: a point's loss is proportional to the weight of the importance.

    Args:
        curves: by `sweep`.
        factors: positive, by name; others stay.

    >>> from netweight.codecs.base import Point
    >>> curve = Curve("w", 8, (Point(8, 1.0, "a", 1), Point(16, 0.2, "a", 2)))
    >>> [point.loss for point in scaled({"w": curve}, {"w": 3.0})["w"].points]
    [3.0, 0.6000000000000001]
    """
    return {
        name: Curve(name, c.size, tuple(replace(p, loss=p.loss * factors[name]) for p in c.points))
        if factors.get(name, 1.0) != 1.0
        else c
        for name, c in curves.items()
    }


def secant(
    model: torch.nn.Module,
    batches: Sequence[Any],
    importance: Importance,
    source: Source | None = None,
    *,
    divergence: str | Nats = "kl",
    forward: Callable[[torch.nn.Module, Any], Any] | None = None,
    curves: Mapping[str, Curve] | None = None,
    codecs: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    executor: Executor | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
    **target: Any,
) -> Secant:
    """Allocate bits by sensitivities that were measured at the working point, and check the sum on other inputs.

    Args:
        model: the network, left as it was.
        batches: calibration inputs without labels, in any number of batches above one: every third is held out of the
            rounds, the others measure layers; 60 to 200 inputs are enough for that, more foretell the sum better. Those
            that `measure` had, all of them, or others.
        importance: of the network, by `measure`.
        source: its checkpoint; the model's own weights without.
        divergence: "kl" of softmax outputs, "squared" for 1/2 |f - f'|^2, or a function of original and changed
            outputs that gives nats for each sample.
        forward: calls the model on a batch; see `measure`.
        curves: by `sweep` with this importance, if they are there already.
        codecs: ids to allow; those tried by default if None.
        rounds: of measuring and allocating; 0 only checks the sum.
        executor: anything with `map`.
        device: of torch, on which codecs compute; see `sweep`. The network stays where it is.
        progress: called with ("secant", done, total).
        cancel: asked before each pass; if true, what was found so far is used.
        target: exactly one of size, bits, loss (nats) and slope.

    Raises:
        UsageError: fewer than two batches, names of the model and its checkpoint that differ, or no target.
        TargetError: the target is out of reach.
    """
    checkpoint = open_checkpoint(model if source is None else source)
    if len(batches) < 2:
        raise UsageError(f"There are {len(batches)} batches.", "Give two or more: one is held out for the last check.")
    importance = _measured(checkpoint, importance)
    if curves is None:
        curves = sweep(checkpoint, importance, codecs=codecs, executor=executor, device=device, progress=progress)
    held = list(batches[2::3] or batches[1:])
    known = [batch for j, batch in enumerate(batches) if j % 3 != 2] if len(batches) > 2 else [batches[0]]
    coder = Coder(checkpoint, importance, executor, None, device)
    trial = Trial(model, checkpoint, divergence, forward)
    state = _State(curves, _are_measured(importance, batches))
    for done in range(rounds):
        plan = allocate(state.curves(), **target)
        archive = coder.encode(plan)
        state = state.after(checkpoint, importance, archive, plan)
        state = _round(trial, known, archive, plan, state, progress, (done, rounds), cancel)
    return _settled(trial, (known, held), coder, importance, state, target)


@dataclass(frozen=True, slots=True)
class _State:
    """What is known after some rounds.

    Attributes:
        predicted: curves by the sweep.
        same: whether `measure` had these inputs.
        times: what the last plan's errors cost on new inputs, in what they cost on these, by tensor.
        found: measured divergence by predicted loss.
        tried: points of the plans, in predicted losses.
        whole: what all tensors do together, over the sum of what each does alone.
    """

    predicted: Mapping[str, Curve]
    same: bool
    times: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Found] = field(default_factory=dict)
    tried: Mapping[str, list[Point]] = field(default_factory=dict)
    whole: float = 1.0

    def curves(self) -> dict[str, Curve]:
        """Curves in measured nats."""
        known = bent(self.predicted, self.found, self.tried)
        return scaled(known, dict.fromkeys(known, self.whole))

    def here(self, plan: Plan, names: Iterable[str]) -> float:
        """Sum of a plan's losses on these inputs: less than on new ones where a codec shapes its errors."""
        return sum(plan.choices[name].loss / self.times.get(name, 1.0) for name in names)

    def more(self, plan: Plan, names: Collection[str]) -> float:
        """What a plan's errors cost on new inputs, in what they cost on these."""
        here = self.here(plan, names)
        return sum(plan.choices[name].loss for name in names) / here if here > 0 else 1.0

    def after(self, checkpoint: Checkpoint, importance: Importance, archive: Archive, plan: Plan) -> _State:
        """Count what a plan's errors hide from these inputs."""
        points = {name: plan.choices[name] for name in _shaped(plan)} if self.same else {}
        return replace(self, times=on_new_inputs(checkpoint, importance, archive, points))

    def loss(self, name: str, nats: float) -> float:
        """Predicted loss behind a point of those curves."""
        return self.found.get(name, Found()).loss(nats / self.whole)


def _shaped(plan: Plan) -> set[str]:
    """Tensors whose codec shapes its errors to the importance."""
    shaping = {name for name, codec in codecs_by_id().items() if codec.structured}
    return {name for name, point in plan.choices.items() if point.codec in shaping}


def _are_measured(importance: Importance, batches: Sequence[Any]) -> bool:
    """Whether these are the inputs that the importance is of."""
    from netweight.importance.samples import batch_of

    return sum(batch_of(batch, None).data for batch in batches) % MODULUS == int(importance.record.data, 16)


def _measured(checkpoint: Checkpoint, importance: Importance) -> Importance:
    found = stats_of(checkpoint, importance)
    if not isinstance(found, Importance):
        raise UsageError(
            f"The importance is a {type(importance).__name__}.", "Give what `measure` or `Importance.open` gave."
        )
    return found


def _round(
    trial: Trial, batches: Sequence[Any], archive: Archive, plan: Plan, state: _State,
    progress: Progress | None, place: tuple[int, int], cancel: Callable[[], bool] | None,
) -> _State:  # fmt: skip
    """Quantise each layer alone, then all together; give what the next allocation should know."""
    everything = [name for name, point in plan.choices.items() if point.codec != EXACT]
    groups = trial.groups(everything)
    passes = itertools.count(1)

    def stop() -> bool:
        if cancel is not None and cancel():
            return True
        if progress is not None:
            whole = len(groups) * len(batches)
            progress("secant", place[0] * whole + next(passes), place[1] * whole)
        return False

    found, tried, alone = dict(state.found), dict(state.tried), 0.0
    for names, measured in zip(groups, trial.alone(batches, archive, groups, stop), strict=True):
        losses = {name: state.loss(name, plan.choices[name].loss) for name in names}
        predicted = sum(losses.values())
        if measured is None or predicted <= LEAST_NATS:
            alone += state.here(plan, names) / state.whole
            continue
        alone += measured
        ratio = max(state.more(plan, names) * measured, LEAST_NATS) / predicted
        for name in names:
            if losses[name] > 0:
                found[name] = found.get(name, Found()).also(losses[name], ratio * losses[name])
                tried[name] = [*tried.get(name, ()), replace(plan.choices[name], loss=losses[name])]
    together = mean(trial.nats(batches, archive, everything))[0]
    whole = together / alone if alone > 0 and together > LEAST_NATS else 1.0
    return replace(state, found=found, tried=tried, whole=whole)


def _settled(
    trial: Trial, batches: tuple[Sequence[Any], Sequence[Any]], coder: Coder, importance: Importance, state: _State,
    target: Mapping[str, Any],
) -> Secant:  # fmt: skip
    """Make the predicted sum the measured one; where a loss is the target, search the plan that has it.

    Measured on all inputs: what the held-out third says is noted beside it, but a few inputs at the border between two
    classes make most of a divergence, and a third of them are few. The rounds fit one number or two a layer.
    """
    wanted, known = target.get("loss"), state.curves()
    aim, tried = dict(target), []
    for _ in range(1 if wanted is None else SEARCHES):
        plan, archive = fit(coder, known, **aim)
        everything = [name for name, point in plan.choices.items() if point.codec != EXACT]
        way, archive = recoded(trial, batches[0], coder, plan, archive, most_bytes(known, **aim))
        state = state.after(coder.checkpoint, importance, archive, plan)
        seen, found = (trial.nats(part, archive, everything) for part in batches)
        nats = state.more(plan, everything) * (float(seen.sum()) + float(found.sum())) / (len(seen) + len(found))
        if wanted is None or nats < LEAST_NATS or abs(math.log(nats / wanted)) < CLOSE:
            break
        tried.append((math.log(aim["loss"]), math.log(nats)))
        aim["loss"] = math.exp(_next(tried, math.log(wanted)))
    heldout, se = mean(found)
    ratio = nats / plan.loss if plan.loss > 0 and nats > LEAST_NATS else 1.0
    factors = {name: ratio * _over(p.loss, state.loss(name, p.loss)) for name, p in plan.choices.items()}
    choices = {name: replace(point, loss=ratio * point.loss) for name, point in plan.choices.items()}
    plan = replace(plan, choices=choices, slope=ratio * plan.slope)
    noted = {"nats": heldout, "se": se, "samples": len(found)}
    archive = archive.noted(loss=plan.loss, slope=plan.slope, heldout=noted, **_moved(way))
    own = {name: factor for name, factor in factors.items() if name in importance}
    curves = scaled(known, dict.fromkeys(known, ratio))
    return Secant(importance.scaled(own), curves, plan, archive, heldout, se, len(found), factors)


def _moved(way: Way) -> dict[str, Any]:
    return {"moments": way._asdict()} if way.step else {}


def _over(nats: float, loss: float) -> float:
    return nats / loss if loss > 0 else 1.0


def _next(tried: Sequence[tuple[float, float]], wanted: float) -> float:
    """Where a line through the last two points, of a slope that a divergence can have, meets what is wanted.

    >>> round(_next([(0.0, 0.0), (1.0, 2.0)], 3.0), 9)
    1.5
    """
    x, y = tried[-1]
    steep = 1.5
    if len(tried) > 1 and x != tried[-2][0]:
        steep = min(max((y - tried[-2][1]) / (x - tried[-2][0]), 0.5), 6.0)
    return x + (wanted - y) / steep
