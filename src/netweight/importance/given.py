"""Importance as a verb was given it, made complete for one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from netweight.checkpoint import Checkpoint
from netweight.dtypes import is_float
from netweight.errors import UsageError
from netweight.freed import give_back_freed
from netweight.importance.core import Importance
from netweight.importance.prior import prior
from netweight.importance.stat import PLAIN, Stat
from netweight.single import single

__all__ = ["held_bytes", "record_of", "spent", "stats_of"]


def stats_of(checkpoint: Checkpoint, importance: Mapping[str, Stat] | None) -> Mapping[str, Stat]:
    """Importance of every tensor of a checkpoint: the prior, or what was measured under the checkpoint's names.

    Raises:
        UsageError: it is no importance, or one of another network.
    """
    if importance is None:
        return prior(checkpoint)
    if not isinstance(importance, Mapping):
        raise UsageError(
            f"The importance is a {type(importance).__name__}.", "Give what `measure` or `Importance.open` gave."
        )
    if not isinstance(importance, Importance):
        return importance
    floats = (info for info in checkpoint.infos.values() if is_float(info.dtype) and info.size)
    matched: Importance = importance if all(i.name in importance for i in floats) else importance.matched(checkpoint)
    return matched


def record_of(importance: Mapping[str, Stat] | None) -> dict[str, Any] | None:
    """What a file says of the importance behind it: data, counts, estimator, version; None without measured importance.

    >>> record_of(Importance.of({"w": Stat(2.0)}))["objective"]
    'given'
    """
    return importance.record.to_json() if isinstance(importance, Importance) else None


def held_bytes(importance: Mapping[str, Stat] | None, name: str) -> int:
    """Bytes of what was measured of a tensor; 0 where that is not known, or nothing was."""
    return importance.nbytes(name) if isinstance(importance, Importance) and name in importance else 0


def spent(importance: Mapping[str, Stat], name: str) -> Stat:
    """Give the importance of a tensor to a codec that may overwrite it; sums over samples give a new one each time.

    Large moments are in single precision where nothing is lost by it: they are the largest thing in memory.

    >>> spent({"w": Stat(2.0)}, "w").spent, spent({}, "w").weight
    (False, 1.0)
    """
    stat = importance.get(name, PLAIN)
    summed = isinstance(importance, Importance) and name in importance and importance.is_summed(name)
    if not summed:
        return stat
    if stat.inputs is not None:
        moments = single(stat.inputs, stat.flat().weight)
        freed_bytes = 0 if moments is stat.inputs else stat.inputs.nbytes
        stat = replace(stat, inputs=moments)
        give_back_freed(freed_bytes)
    return replace(stat, spent=True)
