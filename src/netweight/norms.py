"""What batch norms get of the network as it was and as it is coded.

Sums over a norm's inputs say what of them is left of the original's (`Seen.line`, by the formulas of
`netweight.moments`). In the coded network each norm gets inputs that are mended by the very batch, so that what follows
is seen as it will be once the norms before are right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netweight.trial import Tensors, Trial, evaluating

if TYPE_CHECKING:
    import torch

__all__ = ["EQUAL", "Norm", "Seen", "Way", "norms_of", "seen"]

EQUAL: Final = ("signal", "variance")  # what of a norm's inputs is made what it was
MOST_GAIN: Final = 2.0  # a channel that is further off is noise
LEAST: Final = 1e-9
POSITIONS: Final = 64  # of an image that are looked at


class Way(NamedTuple):
    """How moments are moved.

    Attributes:
        equal: "signal" or "variance".
        step: share of the way; 0 changes nothing.
    """

    equal: str = EQUAL[0]
    step: float = 1.0


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
