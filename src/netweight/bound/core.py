"""`bound`: what R(D) says about a checkpoint, beside what a file of it spends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight.archive import Archive
from netweight.bound import ignorant
from netweight.bound.account import Account, Spent, account
from netweight.bound.fit import Fit, fit
from netweight.bound.models import MODELS, Components, least_loss, rate_nats
from netweight.bound.spread import couples
from netweight.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from netweight.codecs.base import takes
from netweight.codecs.registry import EXACT
from netweight.dtypes import is_float, to_float32
from netweight.errors import UsageError
from netweight.importance.given import stats_of
from netweight.importance.stat import Stat

__all__ = ["STATEMENT", "UNKNOWN", "Bound", "Reached", "TensorBound", "bound"]

Progress = Callable[[str, int, int], None]
Storage = NDArray[Any]

STATEMENT = (
    "R(D) is the least expected rate of any code whose expected loss is at most D, for weights drawn from the stated "
    "law, by a decoder that knows the law, its means and spreads, and which errors matter, for nothing. The loss is a "
    "quadratic form, and stands for the network's own loss as far as it predicts it. It is no bound for the trained "
    "weights as they are: one network has no rate-distortion function, the law's parameters were fitted to these very "
    "weights, and a code may use structure that the law lacks and so fall below it."
)
UNKNOWN = (
    "the rate of the best Gaussian codebook for Gaussian rows whose decoder knows their variances, but not the input "
    "covariance. Random codes reach it, at most 0.11 bit a weight above R(D); it is no bound."
)


@dataclass(frozen=True, slots=True)
class Reached:
    """What a file spends on one tensor, and what that costs.

    Attributes:
        codec: id.
        bits: of the file, the tensor's share of its sections.
        ideal_bits, entropy_bits: see `account.Spent`.
        loss: measured, in the unit of the importance.
        signal: sum of w^2.
        error: sum of (w - w')^2.
    """

    codec: str
    bits: float
    ideal_bits: float
    entropy_bits: float
    loss: float
    signal: float
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class TensorBound:
    """One tensor.

    Attributes:
        name: of the tensor.
        dtype: code.
        shape: elements along each axis.
        weights: elements.
        outside: why no law is assumed for it; empty where one is.
        fit: what the laws were fitted to; None outside.
        reached: what the file does; None without a file.
        rate_bits: by model, R(D) at the loss reached.
        least_loss: by model, D(R) at the bits spent.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    weights: int
    outside: str
    fit: Fit | None
    reached: Reached | None
    rate_bits: Mapping[str, float] = field(default_factory=dict)
    least_loss: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """R(D) of a checkpoint under every model, and, with a file, how far the file is from it.

    Attributes:
        tensors: in the order of the checkpoint.
        nbytes: of the file, 0 without.
        account: where the file's bits are; None without.
    """

    tensors: tuple[TensorBound, ...]
    nbytes: int = 0
    account: Account | None = None
    _joined: dict[str, Components] = field(default_factory=dict, repr=False)

    @property
    def modelled(self) -> tuple[TensorBound, ...]:
        """Tensors for which a law is assumed."""
        return tuple(t for t in self.tensors if not t.outside)

    @property
    def weights(self) -> int:
        """Elements of all tensors."""
        return sum(t.weights for t in self.tensors)

    @property
    def loss(self) -> float:
        """Measured loss of the modelled tensors."""
        return sum(t.reached.loss for t in self.modelled if t.reached)

    @property
    def spent_bits(self) -> float:
        """What the file spends on the modelled tensors, without the header."""
        return sum(t.reached.bits for t in self.modelled if t.reached)

    def rate_bits(self, model: str, loss: float | None = None) -> float:
        """Least rate of all modelled tensors together, shared out over them by reverse water-filling.

        Args:
            model: id, see `netweight.bound.MODELS`.
            loss: total, > 0; the measured one if None.
        """
        wanted = self.loss if loss is None else loss
        return rate_nats(self._components(model), wanted) / log(2) if self.modelled else 0.0

    def least_loss(self, model: str, bits: float | None = None) -> float:
        """Least loss of all modelled tensors together at a total rate.

        Args:
            model: id.
            bits: total; what the file spends on them if None.
        """
        wanted = self.spent_bits if bits is None else bits
        return least_loss(self._components(model), wanted * log(2)) if self.modelled else 0.0

    @property
    def inputs(self) -> bool:
        """Whether an input covariance was measured for any tensor with a law."""
        return any(t.fit is not None and t.fit.hidden for t in self.modelled)

    def universal_bits(self, loss: float | None = None) -> float:
        """Rate that Gaussian rows need where the decoder knows no input covariance; reached, so no lower bound.

        Args:
            loss: total, > 0; the measured one if None.
        """
        fits = [t.fit for t in self.modelled if t.fit]
        known = [fit.components("gaussian-rows") for fit in fits if not fit.hidden]
        hidden = [part for fit in fits for part in fit.hidden]
        nothing = Components.gaussian(np.zeros(0), np.zeros(0))
        wanted = self.loss if loss is None else loss
        return ignorant.rate_nats(Components.join([nothing, *known]), hidden, wanted) / log(2)

    def _components(self, model: str) -> Components:
        if model not in self._joined:
            parts = [t.fit.components(model) for t in self.modelled if t.fit]
            self._joined[model] = Components.join(parts)
        return self._joined[model]


def bound(
    source: object,
    importance: Mapping[str, Stat] | None = None,
    archive: Archive | str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
) -> Bound:
    """Compute R(D) of a checkpoint's weights under stated laws, and what a file leaves of it.

    For each tensor and for all together: the least rate at the loss that the file has, and the least loss at the rate
    that it spends. The laws are in `netweight.bound.models`; `netweight.bound.STATEMENT` says what a bound is not.

    Args:
        source: a path, a dictionary of tensors, a module, or an open checkpoint: the original.
        importance: by tensor, as `measure` gives it, its matrices included; without it squared error, and vectors by
            the energy of rows, as in `sweep`.
        archive: a file made from the source, or an open one; without it there are curves only.
        progress: called with ("bound", done, total).

    Raises:
        UsageError: the archive does not hold the tensors of the source.
        FormatError: source or archive is damaged.

    >>> import netweight as nw
    >>> w = {"w": np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)}
    >>> found = bound(w, archive=nw.compress(w, bits=3))
    >>> 0.04 < (found.spent_bits - found.rate_bits("gaussian")) / 65536 < 0.15
    True

    Source: Shannon 1959; Gao et al. 2019, Theorem 2; docs/theory.md sections 2, 4 and 7.
    """
    checkpoint = open_checkpoint(source)
    stats = stats_of(checkpoint, importance)
    opened = Archive.open(archive) if isinstance(archive, str | os.PathLike) else archive
    if opened is not None:
        _require_match(checkpoint, opened)
    spent = account(opened) if opened is not None else None
    found = []
    for done, tensor in enumerate(_tensors(checkpoint, stats, opened, spent)):
        found.append(tensor)
        if progress:
            progress("bound", done + 1, len(checkpoint.infos))
    return Bound(tuple(found), opened.nbytes if opened is not None else 0, spent)


def _require_match(checkpoint: Checkpoint, archive: Archive) -> None:
    ours = {name: (info.dtype, info.shape) for name, info in checkpoint.infos.items()}
    theirs = {info.name: (info.dtype, info.shape) for info in archive.header.tensors}
    different = [name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name)]
    if different:
        raise UsageError(
            f"The file and {checkpoint.source} differ in {len(set(different))} tensors, first in {different[0]!r}.",
            "Name the checkpoint that the file was made from.",
        )


def _tensors(
    checkpoint: Checkpoint, stats: Mapping[str, Stat], archive: Archive | None, spent: Account | None
) -> Iterator[TensorBound]:
    for name, info in checkpoint.infos.items():
        stat = stats.get(name, Stat())
        storage = checkpoint.read(name)
        reached = None
        if archive is not None and spent is not None:
            reached = _reached(info, storage, archive, stat, spent.tensors[name])
        found = None
        outside = _outside(info, storage, stat, reached)
        if not outside:
            found = fit(storage, info.dtype, info.shape, stat)
            outside = "" if found.rows.variance > 0 else "constant"
        tensor = TensorBound(name, info.dtype, info.shape, info.size, outside, found, reached)
        yield _with_bounds(tensor)


def _reached(info: TensorInfo, storage: Storage, archive: Archive, stat: Stat, spent: Spent) -> Reached:
    signal = error = loss = 0.0
    if is_float(info.dtype) and info.size:
        w = to_float32(storage, info.dtype).astype(np.float64).reshape(-1)
        with np.errstate(invalid="ignore"):
            apart = w - to_float32(archive[info.name], info.dtype).reshape(-1)
        finite = np.isfinite(w)
        apart = np.where(finite, apart, 0.0)
        signal, error = float(np.sum(np.square(w, where=finite, out=np.zeros_like(w)))), float(apart @ apart)
        loss = stat.loss(w.astype(np.float32), apart)
    return Reached(spent.codec, spent.spent, spent.ideal, spent.entropy, loss, signal, error)


def _outside(info: TensorInfo, storage: Storage, stat: Stat, reached: Reached | None) -> str:
    """Why a continuous law with squared error says nothing about a tensor; empty where it does."""
    if not is_float(info.dtype):
        return f"of dtype {info.dtype}"
    if not info.size or not takes(to_float32(storage, info.dtype)):
        return "empty, zero or not finite"
    if stat.relative:
        return "judged by relative error"
    if couples(stat):
        return "of an importance that couples rows with different inputs"
    if reached is not None and reached.codec == EXACT:
        return "stored exactly"
    return "restored without loss" if reached is not None and reached.loss <= 0 else ""


def _with_bounds(tensor: TensorBound) -> TensorBound:
    if tensor.outside or tensor.fit is None or tensor.reached is None:
        return tensor
    rates, losses = {}, {}
    for model in MODELS:
        parts = tensor.fit.components(model)
        rates[model] = rate_nats(parts, tensor.reached.loss) / log(2)
        losses[model] = least_loss(parts, tensor.reached.bits * log(2))
    return replace(tensor, rate_bits=rates, least_loss=losses)
