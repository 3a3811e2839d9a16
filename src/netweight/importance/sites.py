"""A model while it is watched: put back as it was, and which tensors of a module the formulas know."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netweight.importance.blocks import can_replay
from netweight.importance.maps import map_of
from netweight.importance.norms import is_norm, norm_names

__all__ = ["axis_of", "covered", "flat", "join", "listen", "send", "shapes_of", "untouched", "version_of"]


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode with frozen parameters, and back as it was."""
    training = [(module, module.training) for module in model.modules()]
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in required:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        for parameter, flag in required:
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag


def listen(y: Any, function: Callable[[Tensor], None]) -> None:
    """Call a function with the gradient at a tensor."""
    y.register_hook(function)


def send(y: Tensor, u: Tensor, targets: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Send u back from y: the gradients of <y, u>; the graph stays for others.

    Given u as it is, autograd would load a computer algebra system to compare two shapes: half a second and 20 MB.
    """
    return torch.autograd.grad((y * u).sum(), targets, retain_graph=True, allow_unused=True)


def flat(t: Tensor) -> Tensor:
    """Vectors of a block: [S, .., n] to [S, T, 1, n]."""
    return t.reshape(len(t), -1, 1, t.shape[-1])


def version_of(t: Tensor) -> int:
    """How often a tensor was changed; one made in inference mode may not be changed outside of it, nor counts."""
    return 0 if t.is_inference() else t._version


def join(path: str, name: str) -> str:
    """Name of a module's tensor in the model."""
    return f"{path}.{name}" if path else name


def covered(path: str, module: nn.Module) -> list[str]:
    """Names of the tensors of a module that the formulas know."""
    if is_norm(module):
        names: Sequence[str] = norm_names(module)
    elif can_replay(module):
        names = [name for name, _ in module.named_parameters()]
    elif map_of(module) is not None:
        names = [name for name in ("weight", "bias") if module._parameters.get(name) is not None]
    else:
        names = []
    return [join(path, name) for name in names]


def shapes_of(
    model: nn.Module, sites: Mapping[str, nn.Module], forward: Callable[[nn.Module, Any], Any], batch: Any
) -> tuple[dict[str, list[tuple[int, ...]]], Any]:
    """Shapes of each module's outputs, call by call, and what the model returned; nothing else happens."""
    calls: dict[str, list[tuple[int, ...]]] = {}

    def watch(path: str) -> Callable[..., None]:
        def look(_module: nn.Module, _args: Any, output: Any) -> None:
            y = output[0] if isinstance(output, tuple) else output
            calls.setdefault(path, []).append(tuple(getattr(y, "shape", ())))

        return look

    handles = [module.register_forward_hook(watch(path)) for path, module in sites.items()]
    try:
        with torch.no_grad():
            found = forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls, found


def axis_of(whole: tuple[int, ...], first: tuple[int, ...]) -> int | None:
    """The axis that grows with the number of samples.

    >>> axis_of((4, 6, 5), (4, 1, 5))
    1
    """
    if len(whole) != len(first):
        return None
    return next((j for j, (a, b) in enumerate(zip(whole, first, strict=True)) if a != b), None)
