"""Importance under a checkpoint's names, complete: what was not measured gets a plain guess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.dtypes import is_float, to_float32
from netweight.errors import UsageError
from netweight.importance.naming import pair_names
from netweight.importance.prior import spans
from netweight.importance.stat import Stat, mean_square
from netweight.importance.sums import Sums

if TYPE_CHECKING:
    from netweight.importance.core import Importance

__all__ = ["Renamed", "complete"]

SPAN: Final = 16.0  # positive vectors over a larger range are judged by relative error, as variances are

Entry = Stat | tuple[Sums, ...]


class Renamed(Mapping[str, Entry]):
    """Entries under other names, with some more; none is read before it is asked for."""

    def __init__(self, importance: Importance, names: Mapping[str, str], more: Mapping[str, Stat]) -> None:
        self._importance, self._names, self._more = importance, names, more

    def __getitem__(self, name: str) -> Entry:
        return self._more[name] if name in self._more else self._importance.sums(self._names[name])

    def nbytes(self, name: str) -> int:
        """Bytes of one tensor's sums; nothing is read."""
        return 0 if name in self._more else self._importance.nbytes(self._names[name])

    def forget(self) -> None:
        """Give back the memory of what was read."""
        self._importance.forget()

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._more

    def __iter__(self) -> Iterator[str]:
        yield from self._names
        yield from self._more

    def __len__(self) -> int:
        return len(self._names) + len(self._more)

    def __reduce__(self) -> tuple[Any, ...]:
        return Renamed, (self._importance, self._names, self._more)


def complete(importance: Importance, source: Any) -> tuple[Mapping[str, Entry], dict[str, str]]:
    """Give entries by the checkpoint's owners, and the name of each measured one in the importance."""
    checkpoint = open_checkpoint(source)
    names = _names(importance, checkpoint)
    if not names:
        raise UsageError(
            f"None of the {len(importance)} measured tensors is in {checkpoint.source}.",
            "Measure the network that this checkpoint belongs to.",
        )
    for new, old in names.items():
        _require_shape(importance.sums(old), checkpoint.infos[new].shape, new)
        importance.forget()
    missing = [
        info for info in checkpoint.infos.values() if info.name not in names and is_float(info.dtype) and info.size
    ]
    r = _middle(importance, checkpoint, names) if missing else 0.0
    more = {
        info.name: _guess(to_float32(np.ascontiguousarray(checkpoint.read(info.name)), info.dtype), r)
        for info in missing
    }
    return Renamed(importance, names, more), names


def _names(importance: Importance, checkpoint: Checkpoint) -> dict[str, str]:
    """Checkpoint owner to measured name: as they are, or with one prefix more or less."""
    pairs = pair_names(checkpoint.names, importance)
    return {checkpoint.ties.get(new, new): old for new, old in pairs.items()}


def _require_shape(entry: Entry, shape: tuple[int, ...], name: str) -> None:
    for use in () if isinstance(entry, Stat) else entry:
        if use.shape != shape:
            raise UsageError(
                f"Tensor {name!r} has the shape {list(shape)}, it was measured as {list(use.shape)}.",
                "Measure the network that this checkpoint belongs to.",
            )


def _middle(importance: Importance, checkpoint: Checkpoint, names: Mapping[str, str]) -> float:
    """Median over the matrices of mean importance times mean squared weight: what a relative error costs a weight."""
    found = []
    for new, old in names.items():
        info = checkpoint.infos[new]
        if len(info.shape) >= 2 and is_float(info.dtype) and info.size:
            w = to_float32(np.ascontiguousarray(checkpoint.read(new)), info.dtype)
            found.append(importance.mean(old) * mean_square(w))
            checkpoint.forget()
    positive = [value for value in found if value > 0 and np.isfinite(value)]
    return float(np.median(positive)) if positive else 1.0


def _guess(w: np.ndarray[Any, np.dtype[np.float32]], r: float) -> Stat:
    v = w.astype(np.float64)
    if not np.isfinite(v).all() or not v.any():
        return Stat(r)
    if v.ndim < 2 and spans(v, SPAN):
        return Stat(r, relative=True)
    return Stat(r / float(np.mean(v * v)))
