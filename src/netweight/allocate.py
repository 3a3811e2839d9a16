"""Stage 4: one slope for all tensors, and the plan that follows from it."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from netweight.codecs.base import Point
from netweight.curve import FLATTEST, STEEPEST, Curve
from netweight.errors import TargetError, UsageError
from netweight.units import format_bytes, parse_size

SCHEMA = "netweight.plan/1"
LARGEST_KNOB = 1 << 40  # of what a header holds
HEADER_BITS = 8 * 400.0  # what every file has besides its tensors
PARTWAY = 16  # tensors at most that go part of the way to their next point, to fill a size
ROUNDS = 60  # plans at most on the way to a target
JUMP_BITS = 64.0  # a tensor's bits that change by less between two near slopes are smooth
CLOSE = 1e-5  # share of a target that may be missed, and
NARROW = 1e-7  # log2 of the slope, below which nothing but a jump can change


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done to each tensor, and what that should cost: configuration, log and record in one.

    Attributes:
        choices: point by tensor.
        slope: loss for each bit.
        target: what was asked for, as text.
        sizes: weights by tensor.

    >>> plan = Plan({"w": Point(80.0, 0.5, "trellis", -900)}, 1e-3, "10 B", {"w": 20})
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    choices: Mapping[str, Point]
    slope: float
    target: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """Predicted bits of the file."""
        return HEADER_BITS + sum(point.bits for point in self.choices.values())

    @property
    def loss(self) -> float:
        """Predicted loss."""
        return sum(point.loss for point in self.choices.values())

    @property
    def weights(self) -> int:
        """Weights of all tensors."""
        return sum(self.sizes.values())

    def to_json(self) -> str:
        """Write the plan as JSON, one line a tensor; `codec` and `knob` may be edited."""
        head = {
            "schema": SCHEMA,
            "target": self.target,
            "slope": self.slope,
            "predicted_bytes": math.ceil(self.bits / 8),
            "predicted_loss": self.loss,
        }
        lines = [
            f"  {json.dumps(name)}: "
            + json.dumps(
                {
                    "codec": p.codec,
                    "knob": p.knob,
                    "bits": round(p.bits, 1),
                    "loss": p.loss,
                    "weights": self.sizes.get(name, 0),
                }
            )
            for name, p in self.choices.items()
        ]
        opening = json.dumps(head, indent=1)[:-2]
        return opening + ',\n "tensors": {\n' + ",\n".join(lines) + "\n }\n}\n"

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan, edited or not.

        Raises:
            UsageError: it is no plan; the message names the first field that is wrong.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UsageError(f"The plan is no JSON: {error}.", "Write a new one with `netweight plan`.") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("tensors"), dict):
            raise UsageError(
                f"The plan lacks the schema {SCHEMA!r} or its tensors.", "Write a new one with `netweight plan`."
            )
        choices, sizes = {}, {}
        for name, entry in data["tensors"].items():
            choices[name], sizes[name] = _entry(name, entry)
        slope = data.get("slope", 0.0)
        if isinstance(slope, bool) or not isinstance(slope, int | float) or not math.isfinite(slope):
            raise UsageError(f"The plan's slope is {slope!r}.", "Make it a number.")
        return cls(choices, float(slope), str(data.get("target", "")), sizes)


def _entry(name: str, entry: object) -> tuple[Point, int]:
    remedy = 'Each tensor needs {"codec": name, "knob": integer}.'
    if not isinstance(entry, dict) or not isinstance(entry.get("codec"), str):
        raise UsageError(f"The plan names no codec for {name!r}.", remedy)
    knob, bits, loss, weights = (entry.get(key, 0) for key in ("knob", "bits", "loss", "weights"))
    if isinstance(knob, bool) or not isinstance(knob, int) or abs(knob) > LARGEST_KNOB:
        raise UsageError(f"The plan's knob for {name!r} is {knob!r}.", remedy)
    for value in (bits, loss, weights):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise UsageError(
                f"The plan's figures for {name!r} hold {value!r}.", "Remove them; they are only a prediction."
            )
    return Point(float(bits), float(loss), entry["codec"], knob), int(weights)


def allocate(
    curves: Mapping[str, Curve],
    *,
    size: str | int | None = None,
    bits: float | None = None,
    loss: float | None = None,
    slope: float | None = None,
) -> Plan:
    """Find the one slope at which all tensors together meet a target.

    At the optimum every tensor sits where one more bit lowers the loss by the same amount, d loss / d bits = -slope
    (reverse water-filling on lower convex hulls; Shoham, Gersho 1988). The slope is found by bisection: bits fall and
    loss rises with it.

    Args:
        curves: by `sweep`.
        size: bytes of the file, as a number or like "4MB"; met from below.
        bits: bits of the file for each weight.
        loss: total loss, in the unit of the importance.
        slope: loss for each bit; 0 is the least loss the codecs offer.

    Raises:
        UsageError: not exactly one target.
        TargetError: even the smallest plan is larger than asked for; the message says by how much and what dominates.

    >>> from netweight.curve import Curve
    >>> curve = Curve("w", 8, (Point(8, 1.0, "a", 1), Point(16, 0.2, "a", 2)))
    >>> allocate({"w": curve}, slope=0.05).choices["w"].knob
    2
    """
    given = [
        name for name, value in (("size", size), ("bits", bits), ("loss", loss), ("slope", slope)) if value is not None
    ]
    if len(given) != 1:
        raise UsageError(
            f"{len(given)} targets are given: {', '.join(given) or 'none'}.", "Give one of size, bits, loss and slope."
        )
    weights = sum(curve.size for curve in curves.values())
    if slope is not None:
        return _at(curves, positive("slope", slope) if slope else 0.0, f"slope {slope:g}")
    if loss is not None:
        return within_loss(curves, positive("loss", loss), f"loss {loss:g}")
    if bits is not None:
        return within_bits(curves, positive("bits", bits) * weights, f"{bits:g} bits/weight")
    budget_bytes = parse_size(size if size is not None else 0)
    return within_bits(curves, 8.0 * budget_bytes, format_bytes(budget_bytes))


def positive(name: str, value: object) -> float:
    """Check that a target is a positive number.

    Raises:
        UsageError: it is not.
    """
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise UsageError(f"The target {name} is {value!r}.", "Make it a positive number.")
    return float(value)


def within_bits(curves: Mapping[str, Curve], budget_bits: float, target: str) -> Plan:
    """Give the plan of least loss whose predicted bits do not exceed a budget."""
    least = steepest(curves, target)
    if least.bits > budget_bits:
        raise too_small(curves, least, budget_bits)
    plan, beyond = _edge(curves, lambda plan: plan.bits / budget_bits - 1, STEEPEST, FLATTEST, target)
    return _fill(curves, plan, beyond, budget_bits)


def _fill(curves: Mapping[str, Curve], plan: Plan, beyond: Plan, budget_bits: float) -> Plan:
    """Spend what a plan leaves of its budget on the tensors that jump at its slope, the longest jumps first.

    Between two codecs, or two points that are not smooth, a tensor's bits jump; where several tensors jump, some of
    them can, and one can go part of the way by a point that no slope chooses.
    """
    choices = dict(plan.choices)
    room, tries = budget_bits - plan.bits, PARTWAY
    jumps = {name: beyond.choices[name].bits - point.bits for name, point in choices.items()}
    for name in sorted((name for name, bits in jumps.items() if bits > 0), key=lambda name: -jumps[name]):
        if jumps[name] <= room:
            choices[name] = beyond.choices[name]
        elif tries:
            tries -= 1
            choices[name] = curves[name].within(choices[name].bits + room)
        room -= choices[name].bits - plan.choices[name].bits
    smooth = {name: curve for name, curve in curves.items() if jumps[name] < JUMP_BITS}
    if room > CLOSE * budget_bits and 0 < len(smooth) < len(curves):  # what jumps stays, the others go on
        share = HEADER_BITS + sum(choices[name].bits for name in smooth) + room
        ends = _edge(smooth, lambda plan: plan.bits / share - 1, math.log2(plan.slope), FLATTEST, plan.target)
        choices |= _fill(smooth, *ends, share).choices
    return replace(plan, choices=choices)


def steepest(curves: Mapping[str, Curve], target: str) -> Plan:
    """Give the smallest plan there is."""
    return _at(curves, math.inf, target)


def within_loss(curves: Mapping[str, Curve], budget: float, target: str) -> Plan:
    """Give the plan of fewest bits whose predicted loss does not exceed a budget."""
    best = _at(curves, 0.0, target)
    if best.loss > budget:
        fact = f"The least loss that the allowed codecs reach is {best.loss:.3g}, above {budget:.3g}."
        raise TargetError(fact, "Allow the codec exact, or a larger loss.")
    return _edge(curves, lambda plan: math.log(max(plan.loss / budget, 1e-300)), FLATTEST, STEEPEST, target)[0]


def _edge(
    curves: Mapping[str, Curve], miss: Callable[[Plan], float], inside: float, outside: float, target: str
) -> tuple[Plan, Plan]:
    """Find the log2 of the slope of the last plan, coming from `inside`, that misses by nothing, and the next plan.

    Regula falsi with the Illinois rule where the ends are near, bisection every third round: it takes a dozen rounds
    for a smooth sum, and still ends at a jump.
    """
    beyond, best = _at(curves, 2.0**outside, target), _at(curves, 2.0**inside, target)
    low, high = miss(best), miss(beyond)
    if high <= 0:
        return beyond, beyond
    close, last = False, 0
    for round_ in range(ROUNDS):
        share = low / (low - high) if round_ % 4 != 3 and low > -2 and high < 4 else 0.5
        middle = inside + min(max(share, 0.01), 0.99) * (outside - inside)
        plan = _at(curves, 2.0**middle, target)
        missed = miss(plan)
        if missed <= 0:
            close = missed >= -CLOSE
            inside, best, low, high = middle, plan, missed, high / 2 if last == -1 else high
            last = -1
        else:
            outside, beyond, high, low = middle, plan, missed, low / 2 if last == 1 else low
            last = 1
        if close or abs(outside - inside) < NARROW:
            break
    return best, beyond


def _at(curves: Mapping[str, Curve], slope: float, target: str) -> Plan:
    choices = {name: curve.choose(slope) for name, curve in curves.items()}
    return Plan(choices, float(slope), target, {name: curve.size for name, curve in curves.items()})


def too_small(
    curves: Mapping[str, Curve], least: Plan, budget_bits: float, least_bits: float | None = None
) -> TargetError:
    """Say by how much a budget misses the smallest plan, and what dominates that.

    Args:
        curves: of all tensors.
        least: the smallest plan.
        budget_bits: what was asked for.
        least_bits: of the smallest file, where it was made; else what the plan predicts.
    """
    least_bits = least.bits if least_bits is None else least_bits
    heaviest = max(least.choices, key=lambda name: least.choices[name].bits, default="")
    fixed_bits = sum(point.bits for point in least.choices.values() if point.codec == "exact")
    share = least.choices[heaviest].bits / least.bits if heaviest else 0.0
    asked, smallest, fixed = (format_bytes(math.ceil(bits / 8)) for bits in (budget_bits, least_bits, fixed_bits))
    short = format_bytes(math.ceil((least_bits - budget_bits) / 8))
    return TargetError(
        f"{asked} is {short} below the smallest plan for {len(curves)} tensors, "
        f"{smallest}, of which {fixed} are tensors kept exact.",
        f"Ask for more, or allow another codec for {heaviest!r}, which takes {share:.0%}.",
    )
