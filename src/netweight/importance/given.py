"""Importance as a verb was given it, made complete for one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netweight.checkpoint import Checkpoint
from netweight.dtypes import is_float
from netweight.errors import UsageError
from netweight.importance.core import Importance
from netweight.importance.prior import prior
from netweight.importance.stat import Stat

__all__ = ["record_of", "stats_of"]


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
