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

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from netweight.codecs.registry import EXACT
from netweight.pipeline import Coder
from netweight.trial import Tensors, Trial, evaluating, mean

if TYPE_CHECKING:
    import torch

    from netweight.allocate import Plan
    from netweight.archive import Archive

__all__ = ["STAY", "Way", "corrected", "moved", "norms_of", "recoded", "seen"]

EQUAL: Final = ("signal", "variance")  # what of a norm's inputs is made what it was
STEPS: Final = (0.5, 1.0)  # shares of the way that are tried
MOST_GAIN: Final = 2.0  # a channel that is further off is noise
LEAST: Final = 1e-9
POSITIONS: Final = 64  # of an image that are looked at
FOLDS: Final = 3
MOST_CHANGE: Final = 0.9  # of a vector, by its length: a file promises an error below the signal

T = TypeVar("T", bound="Tensors")


class Way(NamedTuple):
    """How moments are moved.

    Attributes:
        equal: "signal" or "variance".
        step: share of the way; 0 changes nothing.
    """

    equal: str = EQUAL[0]
    step: float = 1.0


STAY: Final = Way(step=0.0)


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch norm that stores moments.

    Attributes:
        module: of torch.
        mean: the checkpoint's name of its mean.
        variance: of its variance.
    """

    module: Any
    mean: str
    variance: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Sums over the inputs of a norm, before and after, by channel, float64.

    Attributes:
        count: positions.
        sums: of x_0, x_1, x_0^2, x_1^2 and x_0 x_1, [5, channels].
    """

    count: int
    sums: torch.Tensor

    @classmethod
    def of(cls, before: torch.Tensor, after: torch.Tensor) -> Seen:
        """Of [positions, channels], both."""
        import torch

        x, y = before.double(), after.double()
        return cls(len(x), torch.stack([part.sum(0) for part in (x, y, x * x, y * y, x * y)]))

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.count + other.count, self.sums + other.sums)

    def line(self, eps: float, way: Way) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean before, mean after, and gain, so that before = mean + gain (after - mean after), by channel.

        Args:
            eps: of the norm.
            way: what is made equal, and how far.
        """
        x, y, xx, yy, xy = self.sums / max(self.count, 1)
        before = (xx - x * x).clamp_min(0) + eps
        if way.equal == "signal":
            gain = before / (xy - x * y + eps).clamp_min(LEAST * eps)  # of channels with nothing in common: beyond all
        else:
            gain = (before / ((yy - y * y).clamp_min(0) + eps)).sqrt()
        return x, x + way.step * (y - x), gain.clamp(1 / MOST_GAIN, MOST_GAIN) ** way.step


def norms_of(trial: Trial, names: Collection[str]) -> list[Norm]:
    """Batch norms of a network both of whose moments are among these tensors."""
    import torch

    known = {id(tensor): name for name, tensor in trial.own.items() if name in names}
    found = []
    for module in trial.model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            pair = [known.get(id(moment), "") for moment in (module.running_mean, module.running_var)]
            if all(pair):
                found.append(Norm(module, *pair))
    return found


def seen(
    trial: Trial,
    norms: Sequence[Norm],
    batches: Sequence[Any],
    coded: Tensors,
    names: Collection[str],
    equals: Sequence[str] = EQUAL,
) -> dict[str, list[dict[str, Seen]]]:
    """What the norms get, by what is made equal in those before, batch by batch, under the names of their means.

    Args:
        trial: of the network.
        norms: to look at.
        batches: inputs.
        coded: the network's tensors.
        names: of those that differ from the original.
        equals: each of these is made equal in norms before the one looked at, in a pass of its own.
    """
    import torch

    found: dict[str, list[dict[str, Seen]]] = {equal: [] for equal in equals}
    with torch.no_grad(), evaluating(trial.model):
        for batch in batches:
            before: dict[str, list[torch.Tensor]] = {norm.mean: [] for norm in norms}
            with _hooked(norms, _keeping(before)):
                trial.output(batch)
            for equal in equals:
                sums: dict[str, Seen] = {}
                left = {name: [*kept] for name, kept in before.items()}
                with trial.changed(coded, names), _hooked(norms, _correcting(left, sums, Way(equal))):
                    trial.output(batch)
                found[equal].append(sums)
    return found


def _keeping(before: Mapping[str, list[torch.Tensor]]) -> Callable[[Norm, torch.Tensor], Any]:
    """Note a norm's inputs."""
    return lambda norm, x: before[norm.mean].append(_sample(x))


def _correcting(
    before: Mapping[str, list[torch.Tensor]], sums: dict[str, Seen], way: Way
) -> Callable[[Norm, torch.Tensor], Any]:
    """Compare a norm's inputs with those it had, and give it inputs that are mended."""

    def hook(norm: Norm, x: torch.Tensor) -> torch.Tensor:
        kept, sample = before[norm.mean], _sample(x)
        if not kept or kept[0].shape != sample.shape:
            return x  # a network that runs otherwise than it did
        now = Seen.of(kept.pop(0), sample)
        sums[norm.mean] = sums[norm.mean] + now if norm.mean in sums else now
        old, new, gain = (part.to(x).reshape(1, -1, *[1] * (x.ndim - 2)) for part in now.line(norm.module.eps, way))
        return old + gain * (x - new)

    return hook


def _sample(x: torch.Tensor) -> torch.Tensor:
    """Some positions of each sample: [positions, channels]."""
    flat = x.detach().reshape(*x.shape[:2], -1)
    apart = max(1, flat.shape[2] // POSITIONS) | 1  # odd: not one column of an image again and again
    return flat[:, :, ::apart].transpose(1, 2).reshape(-1, flat.shape[1])


@contextmanager
def _hooked(norms: Sequence[Norm], hook: Callable[[Norm, torch.Tensor], Any]) -> Iterator[None]:
    """Let a function see the inputs of the norms, and change them where it gives some."""

    def by(norm: Norm) -> Callable[..., Any]:
        return lambda _, inputs: hook(norm, *inputs) if inputs else None

    handles = [norm.module.register_forward_pre_hook(by(norm)) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
    trial: Trial, batches: Sequence[Any], coder: Coder, plan: Plan, archive: Archive, most_bytes: float
) -> tuple[Way, Archive]:
    """A file with moments that are moved as far as is good, if it is of the size asked for; the file given if not.

    Args:
        trial: of the network.
        batches: inputs, as for `corrected`.
        coder: of the network.
        plan: by which it was coded; the moments are coded by it again.
        archive: the file.
        most_bytes: of the other.

    Returns:
        The way, `STAY` if nothing is moved, and the file.
    """

    def code(moments: Mapping[str, Any]) -> Archive | None:
        other = coder.replaced(moments).encode(plan)
        return other if other.nbytes <= most_bytes else None

    changed = [name for name, point in plan.choices.items() if point.codec != EXACT]
    return corrected(trial, batches, archive, changed, code)


@dataclass(frozen=True, slots=True)
class _Amended:
    """Tensors, some of which are others."""

    all: Tensors
    some: Mapping[str, torch.Tensor]

    def tensor(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.some[name] if name in self.some else self.all.tensor(name)
        return found
