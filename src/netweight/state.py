"""What `secant` knows of a network after some rounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from netweight.allocate import Plan
from netweight.archive import Archive
from netweight.checkpoint import Checkpoint
from netweight.codecs.base import Point
from netweight.codecs.registry import codecs as codecs_by_id
from netweight.curve import Curve
from netweight.importance.core import Importance
from netweight.working import Found, bent, on_new_inputs

__all__ = ["State", "scaled"]


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


@dataclass(frozen=True, slots=True)
class State:
    """What is known after some rounds.

    Attributes:
        predicted: curves by the sweep.
        same: whether `measure` had these inputs.
        times: what the last plan's errors cost on new inputs, in what they cost on these, by tensor.
        found: measured divergence by predicted loss.
        tried: points of the plans, in predicted losses.
        whole: what all tensors do together, over the sum of what each does alone.
        best: the plan of least divergence that met the target, in predicted losses; its file, and the divergence.
    """

    predicted: Mapping[str, Curve]
    same: bool
    times: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Found] = field(default_factory=dict)
    tried: Mapping[str, list[Point]] = field(default_factory=dict)
    whole: float = 1.0
    best: tuple[Plan, Archive, float] | None = None

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

    def after(self, checkpoint: Checkpoint, importance: Importance, archive: Archive, plan: Plan) -> State:
        """Count what a plan's errors hide from these inputs."""
        points = {name: plan.choices[name] for name in _shaped(plan)} if self.same else {}
        return replace(self, times=on_new_inputs(checkpoint, importance, archive, points))

    def loss(self, name: str, nats: float) -> float:
        """Predicted loss behind a point of those curves."""
        return self.found.get(name, Found()).loss(nats / self.whole)

    def also(self, plan: Plan, archive: Archive, nats: float) -> State:
        """Keep a plan of `curves` if none that was tried does less to the network: at a rate single files scatter."""
        if self.best is not None and self.best[2] <= nats:
            return self
        return replace(self, best=(_with(plan, self.loss), archive, nats))

    def nats(self, plan: Plan) -> Plan:
        """Give a plan of predicted losses those of `curves`."""
        return _with(plan, lambda name, loss: self.whole * self.found.get(name, Found()).nats(loss))


def _with(plan: Plan, loss: Callable[[str, float], float]) -> Plan:
    return replace(plan, choices={n: replace(p, loss=loss(n, p.loss)) for n, p in plan.choices.items()})


def _shaped(plan: Plan) -> set[str]:
    """Tensors whose codec shapes its errors to the importance."""
    shaping = {name for name, codec in codecs_by_id().items() if codec.structured}
    return {name for name, point in plan.choices.items() if point.codec in shaping}
