"""Masks that stay: the weights they leave out are zero after every step of the optimiser."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from netweight.errors import UsageError
from netweight.train.tensors import chosen


class Masks:
    """Which weights of a model are kept.

    Weights that are left out are zero and stay zero: `attach` masks gradients as they are accumulated, so that
    clipping and norms see only what is left, and weights after each step, since momentum and weight decay move weights
    without a gradient. Without `attach`, call `apply` after each step.

    Args:
        model: its parameters are masked in place.
        kept: booleans by parameter name; tensors that are not named are left alone.

    Raises:
        UsageError: a name or a shape is not the model's.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> masks = Masks(layer, {"weight": np.array([[True, False]])})
    >>> masks.apply()
    >>> layer.weight[0, 1].item(), masks.density
    (0.0, 0.5)
    """

    __slots__ = ("_kept", "_parameters")

    def __init__(self, model: nn.Module, kept: Mapping[str, NDArray[np.bool_]]) -> None:
        self._parameters: dict[str, nn.Parameter] = chosen(model, kept)
        self._kept: dict[str, torch.Tensor] = {}
        self.set(kept)

    def set(self, kept: Mapping[str, NDArray[np.bool_]]) -> None:
        """Replace the masks of the same tensors; attached hooks use the new ones from now on."""
        if set(kept) != set(self._parameters):
            raise UsageError(
                f"Masks of {len(kept)} tensors cannot replace those of {len(self._parameters)} others.",
                "Give a mask for each of the same tensors.",
            )
        for name, mask in kept.items():
            parameter = self._parameters[name]
            if mask.shape != tuple(parameter.shape):
                raise UsageError(
                    f"The mask of {name!r} has the shape {mask.shape}, the parameter {tuple(parameter.shape)}.",
                    "Make the mask from the parameter.",
                )
            self._kept[name] = torch.from_numpy(np.array(mask, bool)).to(parameter.device)

    @property
    def kept(self) -> dict[str, NDArray[np.bool_]]:
        """The masks as arrays."""
        return {name: mask.cpu().numpy() for name, mask in self._kept.items()}

    @property
    def density(self) -> float:
        """Share of the weights of the named tensors that is kept."""
        total = sum(mask.numel() for mask in self._kept.values())
        return sum(int(mask.sum()) for mask in self._kept.values()) / total if total else 1.0

    def apply(self) -> None:
        """Set what is left out to zero."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.masked_fill_(~self._on(parameter, name), 0.0)

    def attach(self, *optimizers: torch.optim.Optimizer) -> "Attached":
        """Keep the masks from now on until the result is removed, or left as a context.

        Args:
            optimizers: after each step of these the weights are masked.
        """
        self.apply()
        handles: list[RemovableHandle] = []
        for name, parameter in self._parameters.items():
            hook = self._mask_gradient(name)
            handles.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            handles.append(optimizer.register_step_post_hook(lambda *_: self.apply()))
        return Attached(handles)

    def _mask_gradient(self, name: str) -> Any:
        def hook(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~self._on(parameter, name), 0.0)

        return hook

    def _on(self, parameter: torch.Tensor, name: str) -> torch.Tensor:
        """The mask on the device where the parameter is now: models move after masks are made."""
        mask = self._kept[name]
        if mask.device != parameter.device:
            self._kept[name] = mask = mask.to(parameter.device)
        return mask

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The masks, eight to a byte."""
        return {name: torch.from_numpy(np.packbits(mask)) for name, mask in self.kept.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take masks from `state_dict` and apply them."""
        found = {}
        for name, packed in state.items():
            shape = tuple(self._parameters[name].shape) if name in self._parameters else (8 * packed.numel(),)
            count = int(np.prod(shape))
            if packed.numel() != -(-count // 8):
                raise UsageError(f"The saved mask of {name!r} is of another shape.", "Resume with the same model.")
            found[name] = np.unpackbits(packed.numpy(), count=count).astype(bool).reshape(shape)
        self.set(found)
        self.apply()


class Attached:
    """Hooks that keep masks; `remove` them, or use it as a context."""

    __slots__ = ("_handles",)

    def __init__(self, handles: list[RemovableHandle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Let the weights go; a second time does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "Attached":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
