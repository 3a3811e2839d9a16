"""A network with some of its tensors changed for a moment: what that does to its outputs, in nats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from netweight.archive import Archive
from netweight.checkpoint import Checkpoint
from netweight.errors import UsageError
from netweight.importance.naming import pair_names
from netweight.prefix import Prefix

if TYPE_CHECKING:
    import torch

__all__ = ["Tensors", "Trial", "evaluating", "mean"]


class Tensors(Protocol):
    """A network's tensors, such as an archive's."""

    def tensor(self, name: str) -> Any:
        """One of them, as torch's."""


Nats = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def softmax_nats(original: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """KL(p || p') of each prediction, float64: logits along the last axis."""
    import torch

    p, q = (torch.log_softmax(output.double(), -1) for output in (original, changed))
    return (p.exp() * (p - q)).sum(-1)


def squared_nats(original: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """Half the squared distance along the last axis, float64: nats of a Gaussian of unit variance about it."""
    return 0.5 * (original.double() - changed.double()).square().sum(-1)


DIVERGENCES: Final[Mapping[str, Nats]] = {"kl": softmax_nats, "squared": squared_nats}


def mean(nats: torch.Tensor) -> tuple[float, float]:
    """Mean of samples, and its standard error (0 for one sample)."""
    spread = float(nats.std()) / math.sqrt(len(nats)) if len(nats) > 1 else 0.0
    return float(nats.mean()), spread


class Trial:
    """Runs a network as it is and changed; outside of a run its weights and modes are its own.

    Args:
        model: a torch module.
        checkpoint: whose names the changes have: the module's, or the same behind one prefix.
        divergence: "kl", "squared", or a function of original and changed outputs that gives nats for each prediction.
        forward: calls the model on a batch; see `measure`.

    Raises:
        UsageError: there is no such divergence.
    """

    def __init__(
        self, model: torch.nn.Module, checkpoint: Checkpoint, divergence: str | Nats,
        forward: Callable[[torch.nn.Module, Any], Any] | None,
    ) -> None:  # fmt: skip
        if not callable(divergence) and divergence not in DIVERGENCES:
            raise UsageError(f"There is no divergence {divergence!r}.", f"Known are: {', '.join(DIVERGENCES)}.")
        self.model = model
        self.divergence = divergence if callable(divergence) else DIVERGENCES[divergence]
        self.forward = forward
        state = model.state_dict(keep_vars=True)
        pairs = pair_names(state, checkpoint.infos)
        self.own = {name: state[own] for own, name in pairs.items()}
        if not self.own:
            raise UsageError(
                f"None of the {len(checkpoint.infos)} tensors of {checkpoint.source} is in the model.",
                "Give the checkpoint of this model.",
            )
        self.matrices = [name for name in self.own if len(checkpoint.infos[name].shape) > 1]
        self._before: dict[int, torch.Tensor] = {}  # outputs of batches, by identity

    def groups(self, names: Collection[str]) -> list[list[str]]:
        """Share tensors out over passes: each matrix alone, vectors of one kind (bias, running_var) together."""
        alone = [[name] for name in self.matrices if name in names]
        kinds: dict[str, list[str]] = {}
        for name in self.own:
            if name in names and name not in self.matrices:
                kinds.setdefault(name.rpartition(".")[2], []).append(name)
        return [*alone, *kinds.values()]

    def nats(self, batches: Sequence[Any], coded: Tensors, names: Collection[str]) -> torch.Tensor:
        """Divergence of each sample when some tensors are those of an archive, and all others the model's.

        Args:
            batches: inputs; outputs of the unchanged model are kept, so give the same objects again.
            coded: where changed tensors come from, such as an archive.
            names: of the tensors to change.
        """
        import torch

        with torch.no_grad(), evaluating(self.model):
            before = [self._original(batch) for batch in batches]
            with self.changed(coded, names):
                found = [self._samples(b, batch) for b, batch in zip(before, batches, strict=True)]
        return torch.cat(found)

    def alone(
        self, batches: Sequence[Any], archive: Archive, groups: Sequence[Collection[str]],
        stop: Callable[[], bool] = lambda: False,
    ) -> list[float | None]:  # fmt: skip
        """Mean divergence when only the tensors of one group are those of an archive, for each group; None: not tried.

        What runs before the first changed tensor is computed once for each batch (`prefix`).

        Args:
            batches: as for `nats`.
            archive: likewise.
            groups: names.
            stop: asked before every pass; if true, what was measured so far is given.
        """
        import torch

        found: list[list[torch.Tensor]] = [[] for _ in groups]
        prefix = Prefix.of(self.model)
        with torch.no_grad(), evaluating(self.model):
            for batch, (names, parts) in itertools.product(batches, zip(groups, found, strict=True)):
                if stop():
                    break
                if parts is found[0]:
                    with prefix.recording():
                        self._before[id(batch)] = self.output(batch)
                changed = [self.own[name] for name in names if name in self.own]
                with self.changed(archive, names), prefix.skipping(changed):
                    parts.append(self._samples(self._before[id(batch)], batch))
        return [mean(torch.cat(parts))[0] if parts else None for parts in found]

    def _samples(self, before: torch.Tensor, batch: Any) -> torch.Tensor:
        """Nats of each sample: the mean over its predictions, without those that a mask hides."""
        from netweight.importance.samples import batch_of

        nats = self.divergence(before, self.output(batch))
        mask = batch_of(batch, None).mask
        if mask is None or nats.shape != mask.shape:
            return nats.reshape(len(before), -1).mean(1)
        kept = mask.to(nats)
        return (nats * kept).sum(1) / kept.sum(1).clamp_min(1.0)

    def _original(self, batch: Any) -> torch.Tensor:
        if id(batch) not in self._before:
            self._before[id(batch)] = self.output(batch)
        return self._before[id(batch)]

    def output(self, batch: Any) -> torch.Tensor:
        """Run the network as it is now."""
        from netweight.importance.samples import model_inputs, output_of

        return output_of(model_inputs(self.model, batch) if self.forward is None else self.forward(self.model, batch))

    @contextmanager
    def changed(self, coded: Tensors, names: Collection[str]) -> Iterator[None]:
        """Let some tensors be others, as far as the model has them.

        Args:
            coded: where they come from.
            names: of them.
        """
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        try:
            for name in names:
                own = self.own.get(name)
                if own is not None:
                    kept.append((own, own.detach().clone()))
                    own.copy_(coded.tensor(name).reshape(own.shape))
            yield
        finally:
            for own, before in reversed(kept):  # a tie may be there twice: the first copy is the original
                own.copy_(before)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each module back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
