"""A network of which only the end runs: modules before the first changed weight give what they gave before.

A trial changes one layer of many. What runs before it gives the same outputs again, so these are kept from a pass of
the unchanged network, module by module, and handed out: the same numbers for less work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

__all__ = ["Prefix"]

SHARE: Final = 8  # a module that holds more than such a part of the tensors is taken apart


@dataclass(slots=True)
class _Seen:
    """A module in a pass: its place in the order of calls, and what came out."""

    module: Any
    began: int = -1
    ended: int = -1
    calls: int = 0
    output: Any = None
    versions: tuple[int, ...] = ()  # of the output's tensors: one that is changed in place is of no use any more

    @property
    def can_give(self) -> bool:
        return self.calls == 1 and self.versions == _versions(self.output)


@dataclass(slots=True)
class Prefix:
    """Outputs of the parts of a network on one batch.

    Attributes:
        parts: modules that hold all weights between them, none inside another; the network itself if it has no parts.
        clock: events so far.

    >>> import torch
    >>> model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    >>> prefix, x = Prefix.of(model), torch.ones(1, 2)
    >>> with torch.no_grad(), prefix.recording():
    ...     y = model(x)
    >>> with torch.no_grad(), prefix.skipping([model[1].weight]):
    ...     bool((model(torch.zeros(1, 2)) == y).all())
    True
    """

    parts: list[_Seen]
    clock: int = field(default=0)

    @classmethod
    def of(cls, model: torch.nn.Module) -> Prefix:
        """Take a network apart."""
        most = max(1, _count(model) // SHARE)
        return cls([_Seen(module) for module in _apart(model, most)])

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the outputs of the one pass that is made within."""
        handles = []
        for part in self.parts:
            part.calls, part.output = 0, None
            handles.append(part.module.register_forward_pre_hook(self._began(part)))
            handles.append(part.module.register_forward_hook(self._ended(part)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _began(self, part: _Seen) -> Any:
        def hook(*_: Any) -> None:
            self.clock += 1
            part.began, part.calls = self.clock, part.calls + 1

        return hook

    def _ended(self, part: _Seen) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            self.clock += 1
            part.ended, part.output, part.versions = self.clock, output, _versions(output)

        return hook

    @contextmanager
    def skipping(self, changed: Collection[torch.Tensor]) -> Iterator[None]:
        """Let the parts that ended before any with a changed tensor began give what they gave.

        Nothing is skipped where a changed tensor is in no part that was called once.

        Args:
            changed: parameters and buffers of the network.
        """
        wanted = {id(tensor) for tensor in changed}
        holders = [part for part in self.parts if wanted & _held(part.module)]
        found = {i for part in holders for i in _held(part.module) & wanted}
        first = min((part.began for part in holders), default=0)
        skipped = []
        if found == wanted and all(part.calls == 1 for part in holders):
            skipped = [part for part in self.parts if part.can_give and part.ended < first]
        own = [part.module.__dict__.get("forward") for part in skipped]
        try:
            for part in skipped:
                part.module.forward = _giving(part.output)
            yield
        finally:
            for part, forward in zip(skipped, own, strict=True):
                del part.module.forward
                if forward is not None:
                    part.module.forward = forward


def _giving(output: Any) -> Any:
    return lambda *_, **__: output


def _versions(output: Any) -> tuple[int, ...]:
    from netweight.importance.samples import tensors_of

    return tuple(tensor._version for tensor in tensors_of(output))


def _held(module: Any) -> set[int]:
    return {id(t) for t in (*module.parameters(), *module.buffers())}


def _count(module: Any) -> int:
    return len(_held(module))


def _apart(module: Any, most: int) -> list[Any]:
    """Cut a module into children until each holds few enough; one with tensors of its own stays whole."""
    children = list(module.children())
    own = any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    if _count(module) <= most or not children or own:
        return [module]
    return [part for child in children for part in _apart(child, most)]
