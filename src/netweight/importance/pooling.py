"""What a layer behind a mean over positions would have met at each of them.

A linear map of a mean is the mean of what the map makes of each position: W mean_t x_t = mean_t W x_t. The moment of
the means has one vector for each sample, which of a thousand channels and a few hundred samples says little; that of
the positions has as many as an image has places, and shows most directions of which new means will be made.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor
from torch.overrides import TorchFunctionMode

from netweight.importance.sites import version_of

__all__ = ["Pooling"]

MEANS: Final = frozenset({"mean", *(f"{kind}_pool{d}d" for kind in ("avg", "adaptive_avg") for d in (1, 2, 3))})
CLOSE: Final = 1e-3  # of the largest mean: sums in another order


class Pooling(TorchFunctionMode):
    """Knows what means were taken of while a network runs.

    Args:
        widths: channels that some layer has; of others nothing is kept.

    >>> import torch
    >>> x = torch.rand(2, 3, 4, 4)
    >>> with Pooling({3}) as pooling:
    ...     pooled = x.mean((2, 3)).flatten(1)
    >>> pooling.behind(pooled).shape
    torch.Size([2, 16, 3])
    """

    def __init__(self, widths: Container[int]) -> None:
        super().__init__()
        self._widths = widths
        self._known: dict[int, _Mean] = {}  # by address; kept, so that no other tensor gets it

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call what was called, and note a mean."""
        found = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in MEANS and isinstance(found, Tensor):
            x = args[0] if args else (kwargs or {}).get("input")
            axes = _axes(x, found) if isinstance(x, Tensor) else []
            place = _place(found)
            if isinstance(x, Tensor) and place and any(x.shape[axis] in self._widths for axis in axes):
                self._known[place] = _Mean(x.detach(), found.detach())
        return found

    def behind(self, x: Tensor) -> Tensor | None:
        """Give the positions [samples, positions, channels] whose mean a layer got, however it is shaped; or None."""
        known = self._known.get(_place(x))
        if known is None or known.mean.numel() != x.numel() or known.versions != known.now():
            return None
        for axis in _axes(known.x, known.mean):
            items = known.x.movedim(axis, -1).flatten(1, -2)
            own = items.mean(1).reshape(-1)
            apart = float((own - x.detach().reshape(-1)).abs().max())  # of a mean of a part, or over other axes
            if apart <= CLOSE * float(own.abs().max()):
                return items
        return None

    def forget(self) -> None:
        """Forget all: a batch is done."""
        self._known = {}


@dataclass(frozen=True, slots=True)
class _Mean:
    """A mean, what it is of, and how often either had been changed when it was taken."""

    x: Tensor
    mean: Tensor
    versions: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", self.now())

    def now(self) -> tuple[int, int]:
        return version_of(self.x), version_of(self.mean)


def _place(t: Tensor) -> int:
    """Where a tensor is; 0 where it has no memory of its own, as inside of `torch.vmap`."""
    try:
        return t.data_ptr()
    except RuntimeError:
        return 0


def _axes(x: Tensor, mean: Tensor) -> list[int]:
    """Axes that may be the channels in [S, C, ..] or [S, .., C], by how much a mean over the others leaves."""
    if x.ndim < 3 or not mean.numel() or not x.is_floating_point() or mean.numel() == x.numel():
        return []
    return [axis for axis in (1, x.ndim - 1) if mean.numel() == len(x) * x.shape[axis]]
