"""Batch norms after quantisation: the moments they store, moved to those that the coded weights give.

A batch norm in use divides by what it stored of its inputs x: y = w (x - m) / s + b, s^2 = v + eps. The coded weights
before it make something else of the network's inputs. By channel, x_0 as it was and x_1 as it is coded are related by

    x_1 = mean x_1 + (x_0 - mean x_0) / g + noise,    g = (var x_0 + eps) / (cov(x_0, x_1) + eps),

and g is mostly above one: a quantiser that makes its error small gives up what is not worth its bits, and what it
writes is a little too small everywhere. Layer upon layer that adds up to a network less sure than it was, while the
noise, another in each channel, averages out. So the norm is to see g x_1 with the mean of x_0:

    m' = mean x_1 + (m - mean x_0) / g,    v' + eps = (v + eps) / g^2.

Where noise is as large as the signal, norms may rather see the variance that they saw, g^2 = var x_0 / var x_1, which
counts noise as signal. Which of the two, and all of the way or half of it, is decided by inputs that took no part.

The network runs once as it was and once as it is coded; there each norm gets inputs that are corrected by the very
batch, so that what follows sees what it will see once the norms before are right. Nothing is added to the file: other
values take the place of the moments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from netweight.codecs.registry import EXACT
from netweight.errors import TargetError
from netweight.fitting import fit, most_bytes
from netweight.norms import EQUAL, Norm, Seen, Way, norms_of, seen
from netweight.pipeline import Coder
from netweight.trial import Tensors, Trial, mean

if TYPE_CHECKING:
    import torch

    from netweight.allocate import Plan
    from netweight.archive import Archive
    from netweight.curve import Curve

__all__ = ["STAY", "corrected", "moved", "recoded"]

STEPS: Final = (0.5, 1.0)  # shares of the way that are tried
FOLDS: Final = 3
MOST_CHANGE: Final = 0.9  # of a vector, by its length: a file promises an error below the signal

STAY: Final = Way(step=0.0)

T = TypeVar("T", bound="Tensors")


def moved(norms: Sequence[Norm], found: Sequence[Mapping[str, Seen]], way: Way) -> dict[str, torch.Tensor]:
    """Moments that mend what the norms get; of norms that would be changed beyond recognition, none.

    Args:
        norms: of a network whose moments are the original ones.
        found: by `seen`.
        way: what is made equal, and how far.
    """
    out: dict[str, torch.Tensor] = {}
    for norm in norms:
        parts = [sums[norm.mean] for sums in found if norm.mean in sums]
        if not parts:
            continue
        m, v, eps = norm.module.running_mean, norm.module.running_var, norm.module.eps
        old, new, gain = sum(parts[1:], parts[0]).line(eps, way)
        mean, variance = new + (m.double() - old) / gain, ((v.double() + eps) / gain.square() - eps).clamp_min(0.0)
        if all(float((a - b).norm()) <= MOST_CHANGE * float(b.norm()) for a, b in ((mean, m), (variance, v))):
            out |= {norm.mean: mean.to(m), norm.variance: variance.to(v)}
    return out


def corrected(
    trial: Trial, batches: Sequence[Any], coded: T, names: Collection[str],
    code: Callable[[Mapping[str, torch.Tensor]], T | None],
) -> tuple[Way, T]:  # fmt: skip
    """Move the moments as is best for inputs that they were not moved by; not at all if that is best.

    Args:
        trial: of the network.
        batches: inputs; each third is judged with moments that were moved by the others.
        coded: the network's tensors.
        names: of those that differ from the original; moments among them may be moved.
        code: gives the network with other moments, as a file of them would; None if there is no such file.

    Returns:
        The way, `STAY` if nothing is moved, and the network.
    """
    norms = norms_of(trial, names)
    if not norms or len(batches) < 2:
        return STAY, coded
    found = seen(trial, norms, batches, coded, names)

    def lost(way: Way) -> float:
        """Nats of all batches, none of which has moved what it judges."""
        parts = []
        for fold in range(min(FOLDS, len(batches))):
            others = [sums for j, sums in enumerate(found[way.equal]) if j % FOLDS != fold]
            parts.append(trial.nats(batches[fold::FOLDS], _Amended(coded, moved(norms, others, way)), names))
        return sum(float(part.sum()) for part in parts) / sum(map(len, parts))

    before = mean(trial.nats(batches, coded, names))[0]
    ways = [Way(equal, step) for equal in EQUAL for step in STEPS]
    least, way = min([(before, STAY), *((lost(way), way) for way in ways)])
    other = code(moved(norms, found[way.equal], way)) if least < before else None
    if other is None or mean(trial.nats(batches, other, names))[0] >= before:
        return STAY, coded
    return way, other


def recoded(
    trial: Trial, batches: Sequence[Any], coder: Coder, curves: Mapping[str, Curve], plan: Plan, archive: Archive,
    spare_bytes: int, target: Mapping[str, Any],
) -> tuple[Way, Plan, Archive]:  # fmt: skip
    """A file with moments that are moved as far as is good, and which meets the target too.

    Args:
        trial: of the network.
        batches: inputs, as for `corrected`.
        coder: of the network.
        curves: of the tensors.
        plan: by which it was coded; the moments are coded by it again, and all tensors anew if they take more room.
        archive: the file.
        spare_bytes: of a size that is asked for, as for `fit`.
        target: size, bits, loss or slope.

    Returns:
        The way, `STAY` if nothing is moved, the plan and the file.
    """
    most, plans = most_bytes(curves, **target) - spare_bytes, [plan]

    def code(moments: Mapping[str, Any]) -> Archive | None:
        other = coder.replaced(moments)
        made = other.encode(plan)
        if made.nbytes > most:
            try:
                found, made = fit(other, curves, **target, spare_bytes=spare_bytes)
            except TargetError:
                return None
            plans.append(found)
        return made

    changed = [name for name, point in plan.choices.items() if point.codec != EXACT]
    way, coded = corrected(trial, batches, archive, changed, code)
    return way, plans[0] if coded is archive else plans[-1], coded


@dataclass(frozen=True, slots=True)
class _Amended:
    """Tensors, some of which are others."""

    all: Tensors
    some: Mapping[str, torch.Tensor]

    def tensor(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.some[name] if name in self.some else self.all.tensor(name)
        return found
