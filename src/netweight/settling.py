"""The end of `secant`: a file that meets the target, what it does on all inputs, and a note of that in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from netweight.allocate import Plan
from netweight.archive import Archive
from netweight.codecs.registry import EXACT
from netweight.curve import Curve
from netweight.fitting import fit, most_bytes
from netweight.importance.core import Importance
from netweight.moments import recoded
from netweight.norms import Way
from netweight.pipeline import Coder
from netweight.state import State, scaled
from netweight.trial import Trial, mean

__all__ = ["LEAST_NATS", "Secant", "settled"]

CLOSE: Final = 0.1  # log of predicted over measured, at which the search for a loss ends
SEARCHES: Final = 6
LEAST_NATS: Final = 1e-9  # below it a measured divergence is rounding of float32
NOTE_BYTES: Final = 24  # that a note takes in the file; 20 more where it names moments


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


def settled(
    trial: Trial, batches: tuple[Sequence[Any], Sequence[Any]], coder: Coder, importance: Importance, state: State,
    target: Mapping[str, Any],
) -> Secant:  # fmt: skip
    """Make the predicted sum the measured one; where a loss is the target, search the plan that has it.

    Measured on all inputs: what the held-out third says is noted beside it, but a few inputs at the border between two
    classes make most of a divergence, and a third of them are few. The rounds fit one number or two a layer.
    """
    wanted, known = target.get("loss"), state.curves()
    aim, tried, spare = dict(target), [], NOTE_BYTES
    most = most_bytes(known, **target)
    for _ in range(SEARCHES):
        plan, archive = _best(trial, batches[0], state, fit(coder, known, **aim, spare_bytes=spare), most - spare)
        way, plan, archive = recoded(trial, batches[0], coder, known, plan, archive, spare, aim)
        everything = [name for name, point in plan.choices.items() if point.codec != EXACT]
        state = state.after(coder.checkpoint, importance, archive, plan)
        seen, found = (trial.nats(part, archive, everything) for part in batches)
        nats = state.more(plan, everything) * (float(seen.sum()) + float(found.sum())) / (len(seen) + len(found))
        ratio = nats / plan.loss if plan.loss > 0 and nats > LEAST_NATS else 1.0
        heldout, se = mean(found)
        noted = {"nats": _short(heldout), "se": _short(se), "samples": len(found)}
        archive = archive.noted(
            loss=_short(ratio * plan.loss), slope=_short(ratio * plan.slope), heldout=noted, **_moved(way)
        )
        if wanted is None:
            if archive.nbytes <= most:
                break
            spare += archive.nbytes - int(most)
        elif nats < LEAST_NATS or abs(math.log(nats / wanted)) < CLOSE:
            break
        else:
            tried.append((math.log(aim["loss"]), math.log(nats)))
            aim["loss"] = math.exp(_next(tried, math.log(wanted)))
    factors = {name: ratio * _over(p.loss, state.loss(name, p.loss)) for name, p in plan.choices.items()}
    choices = {name: replace(point, loss=ratio * point.loss) for name, point in plan.choices.items()}
    plan = replace(plan, choices=choices, slope=ratio * plan.slope)
    own = {name: factor for name, factor in factors.items() if name in importance}
    curves = scaled(known, dict.fromkeys(known, ratio))
    return Secant(importance.scaled(own), curves, plan, archive, heldout, se, len(found), factors)


def _best(
    trial: Trial, batches: Sequence[Any], state: State, found: tuple[Plan, Archive], most_bytes: float
) -> tuple[Plan, Archive]:
    """The last plan, or one of the rounds that does less to the network.

    What files of one size do to a network differs by a tenth and more, as roundings happen to add up. Without rounds,
    four files for one size and a choice by 43 photographs were no help to MobileNetV2: on others they lost as much.
    """
    everything = [name for name, point in found[0].choices.items() if point.codec != EXACT]
    if state.best is None or state.best[1].nbytes > most_bytes:
        return found
    plan, archive, nats = state.best
    return found if mean(trial.nats(batches, found[1], everything))[0] < nats else (state.nats(plan), archive)


def _short(nats: float) -> float:
    """What a file says of a measured figure: six digits are more than are known."""
    return float(f"{nats:.6g}")


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
