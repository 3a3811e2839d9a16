"""What a page tells, gathered once: from the file alone, and with the original what was lost, and what was possible."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight.allocate import Plan, allocate
from netweight.archive import Archive
from netweight.bound import Bound, TensorBound, bound
from netweight.bound.account import Account, account
from netweight.bound.gap import Gap, split
from netweight.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from netweight.codecs.registry import EXACT
from netweight.curve import Curve, Progress, Source, sweep
from netweight.dtypes import is_float, to_float32
from netweight.importance.stat import Stat

__all__ = ["Against", "Facts", "Sample", "gather", "number_of"]

Floats = NDArray[np.float32]

SAMPLE = 1 << 18  # weights of a tensor that a histogram is made of
SHOWN = 3  # tensors with a histogram
SMALL = 256  # weights that a small one should have


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Weights of a tensor before and after, for its histogram.

    Attributes:
        name: of the tensor.
        codec: id.
        restored: float32, flat.
        original: the same places; None without the original.
    """

    name: str
    codec: str
    restored: Floats
    original: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class Against:
    """What only the original tells.

    Attributes:
        sha256: of the original.
        same: it is the file's source by that hash.
        measured: losses are those of a measured importance.
        comparable: they are of the kind that the file's plan predicted.
        bound: R(D) beside the file.
        gap: split of what is above.
        curves: predictions by tensor.
        plan: the prediction at the file's slope, or, where that is of another loss, at a slope that fits this one.
        sweeps: bits and loss of the modelled tensors at other slopes, predicted, bits rising.
    """

    sha256: str
    same: bool
    measured: bool
    comparable: bool
    bound: Bound
    gap: Gap
    curves: Mapping[str, Curve]
    plan: Plan
    sweeps: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """All of it.

    Attributes:
        title: name of the file.
        when: of the report, UTC.
        archive: the open file.
        account: where its bits are.
        samples: a chosen few tensors.
        against: with the original.
    """

    title: str
    when: str
    archive: Archive
    account: Account
    samples: Sequence[Sample]
    against: Against | None

    @property
    def infos(self) -> Sequence[TensorInfo]:
        """Tensors with data of their own."""
        return self.archive.header.tensors

    @property
    def weights(self) -> int:
        """Elements of all of them."""
        return sum(info.size for info in self.infos)


def gather(
    archive: Archive,
    original: Source | None = None,
    *,
    model: str,
    importance: Mapping[str, Stat] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Facts:
    """Measure what the page shows.

    Args:
        archive: the file.
        original: what it was made from, or another checkpoint of the same tensors.
        model: id of the law that the bound is drawn for.
        importance: what was measured; squared error without.
        executor: for the sweep.
        progress: called with (stage, done, total).

    Raises:
        UsageError: the original has other tensors.
        FormatError: file or original is damaged.
    """
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    title = os.path.basename(archive.source)
    if original is None:
        spent = account(archive)
        names = _chosen(archive, spent, ())
        return Facts(title, when, archive, spent, [_sample(archive, None, name, spent) for name in names], None)
    with open_checkpoint(original) as checkpoint:
        found = bound(checkpoint, importance, archive, progress=progress)
        assert found.account is not None
        names = _chosen(archive, found.account, found.modelled, model)
        samples = [_sample(archive, checkpoint, name, found.account) for name in names]
        curves = sweep(checkpoint, importance, executor=executor, progress=progress)
        sha256 = checkpoint.sha256()
    # A loss of another kind than the file's plan meant cannot be laid beside its prediction. The slope is then what
    # R(D) has at high rate at this loss, -dD/dR = 2 ln 2 D / n.
    comparable = (importance is not None) == ("importance" in archive.plan)
    weights = max(1, sum(t.weights for t in found.modelled))
    slope = number_of(archive.plan, "slope") if comparable else 2 * math.log(2) * found.loss / weights
    plan = allocate(curves, slope=slope)
    same = sha256 == archive.header.source.get("sha256")
    measured = importance is not None
    against = Against(
        sha256, same, measured, comparable, found, split(found, model), curves, plan, _sweeps(curves, found, slope)
    )
    return Facts(title, when, archive, found.account, samples, against)


def number_of(record: Mapping[str, Any], key: str) -> float:
    """A number of the header, finite and not negative, 0 where there is none: headers come from files."""
    value = record.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return max(0.0, float(value)) if good else 0.0  # type: ignore[arg-type]


def _sweeps(curves: Mapping[str, Curve], found: Bound, slope: float) -> list[tuple[float, float]]:
    """Rate and loss of the modelled tensors when one more bit saves from 64 times less to 64 times more."""
    names = [t.name for t in found.modelled]
    out: dict[float, float] = {}
    for eighth in range(-48, 49, 2) if slope > 0 else ():
        points = [curves[name].choose(slope * 2.0 ** (eighth / 8)) for name in names]
        out[sum(p.bits for p in points)] = sum(p.loss for p in points)
    return sorted(out.items())


def _chosen(archive: Archive, spent: Account, modelled: Sequence[TensorBound], model: str = "") -> list[str]:
    """The tensor with most bytes, the one furthest above the bound, and a small one."""
    lossy = [
        info for info in archive.header.tensors
        if info.size >= 32 and is_float(info.dtype) and spent.tensors[info.name].codec not in ("", EXACT)
    ]  # fmt: skip
    if not lossy:
        return []
    heaviest = max(lossy, key=lambda info: spent.tensors[info.name].spent).name
    above = {t.name: t.reached.bits - t.rate_bits[model] for t in modelled if t.reached and t.weights >= 32}
    worst = max(above, key=lambda name: above[name], default=heaviest)
    by_size = [info.name for info in sorted(lossy, key=lambda info: info.size)]
    small = next((info.name for info in sorted(lossy, key=lambda info: info.size) if info.size >= SMALL), by_size[0])
    return list(dict.fromkeys([heaviest, worst, small, by_size[len(by_size) // 2]]))[:SHOWN]


def _sample(archive: Archive, checkpoint: Checkpoint | None, name: str, spent: Account) -> Sample:
    dtype = archive.infos[name].dtype

    def part(storage: NDArray[Any]) -> Floats:
        flat = np.ascontiguousarray(storage).reshape(-1)
        stride = max(1, -(-flat.size // SAMPLE)) | 1  # odd, so that no column is taken alone
        return to_float32(np.ascontiguousarray(flat[::stride]), dtype)

    before = None if checkpoint is None else part(checkpoint.read(name))
    return Sample(name, spent.tensors[name].codec, part(archive[name]), before)
