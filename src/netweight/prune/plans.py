"""A pruned network as a plan of the codec `sparse`, or as masks in a file."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight.allocate import Plan
from netweight.checkpoint import Checkpoint, TensorInfo, open_checkpoint, write_safetensors
from netweight.codecs.base import Point
from netweight.codecs.pruned import Pruned, costs_of
from netweight.codecs.registry import EXACT
from netweight.codecs.sparse import FINEST, Sparse, knob_of
from netweight.codecs.words import weights_of
from netweight.dtypes import is_float, to_float32
from netweight.errors import UsageError
from netweight.importance.stat import PLAIN, Stat
from netweight.kernels import Float32
from netweight.prune.rates import mask_bits
from netweight.prune.select import Bools, masks


def prunable(checkpoint: Checkpoint) -> dict[str, Float32]:
    """Read the float tensors of two axes or more that are finite: biases and norms are few and matter much.

    Args:
        checkpoint: all of these are read; a network must fit the memory.
    """
    out = {}
    for name, info in checkpoint.infos.items():
        if is_float(info.dtype) and len(info.shape) > 1 and info.size:
            w = to_float32(checkpoint.read(name), info.dtype).reshape(info.shape)
            if np.isfinite(w).all():
                out[name] = w
    return out


def plan(
    source: object,
    density: float,
    method: str = "lamp",
    importance: Mapping[str, Stat] | None = None,
    *,
    fineness: int = 6,
    names: Sequence[str] | None = None,
) -> Plan:
    """Give the plan that keeps what `masks` keeps, by the codec `sparse`; what is not pruned goes to `exact`.

    Within a tensor every rule keeps the largest |w|, or the largest I w^2, so counts say all, and the codec finds the
    weights again. `encode` therefore needs the importance for the methods importance and slope, and must not have it
    for the others. Predicted bits are those of masks without structure, signs and magnitudes; rows and columns of
    different density make a file smaller.

    Args:
        source: a path, a dictionary of tensors, a module, or an open checkpoint.
        density: share of the prunable weights to keep.
        method: of `METHODS`.
        importance: by tensor.
        fineness: half bits a magnitude, 0 .. 12.
        names: tensors to prune; all of `prunable` if None.

    Raises:
        UsageError: see `masks`; a fineness out of range; a name that is not there or cannot be pruned.

    >>> found = plan({"w": np.arange(12.0, dtype=np.float32).reshape(3, 4), "b": np.ones(3, np.float32)}, 0.25)
    >>> found.choices["w"].codec, found.choices["w"].knob, found.choices["b"].codec
    ('sparse', 6250000000, 'exact')
    """
    if not 0 <= fineness <= FINEST:
        raise UsageError(f"The fineness is {fineness}.", f"Take 0 .. {FINEST} half bits for each magnitude.")
    checkpoint = open_checkpoint(source)
    weights = prunable(checkpoint)
    missing = [name for name in names or () if name not in weights]
    if missing:
        raise UsageError(
            f"The tensor {missing[0]!r} cannot be pruned, or is not there.", "Name float tensors of two axes or more."
        )
    chosen = {name: w for name, w in weights.items() if names is None or name in names}
    kept = masks(chosen, density, method, importance)
    choices = {}
    for name, info in checkpoint.infos.items():
        if name in kept and not kept[name].all():
            choices[name] = _point(chosen[name], kept[name], (importance or {}).get(name, PLAIN), fineness)
        else:
            choices[name] = Point(8.0 * info.nbytes, 0.0, EXACT)
    return Plan(choices, 0.0, f"{method}, {density:g} kept", {n: i.size for n, i in checkpoint.infos.items()})


def _point(w: Float32, kept: Bools, stat: Stat, fineness: int) -> Point:
    count = int(kept.sum())
    known = weights_of(w, stat)
    costs = costs_of(known)
    found = Pruned.of(known, costs, count, fineness)
    often = np.bincount(found.level)
    values_bits = float(np.sum(often * np.log2(max(count, 1) / np.maximum(often, 1))))
    loss = 0.5 * stat.weight * (float(costs[~found.kept].sum()) + found.loss)
    return Point(mask_bits(kept) + count + values_bits, loss, Sparse.id, knob_of(count / kept.size, fineness))


def write_masks(path: str | os.PathLike[str], kept: Mapping[str, Bools], *, force: bool = False) -> None:
    """Write masks as a safetensors file of BOOL tensors: true is kept.

    Raises:
        UsageError: the file exists, and `force` is not given.
        OutputError: it cannot be written.
    """
    entries = [(TensorInfo(name, "BOOL", mask.shape), lambda mask=mask: mask) for name, mask in kept.items()]
    write_safetensors(path, entries, {"format": "netweight masks"}, force=force)


def write_pruned(
    path: str | os.PathLike[str], source: object, kept: Mapping[str, Bools], *, force: bool = False
) -> None:
    """Write a checkpoint with zeros where masks say so and all else bit for bit: values for `exact` to store.

    Zeros are written as such: a product with a mask leaves a negative zero for each negative weight, and a lossless
    file pays a bit for each zero's sign.

    Args:
        path: a safetensors file.
        source: a path, a dictionary of tensors, a module, or an open checkpoint.
        kept: by tensor; a tensor without a mask stays as it is.
        force: replace an existing file.

    Raises:
        UsageError: the file exists, or a mask has another shape than its tensor.
        OutputError: it cannot be written.
    """
    checkpoint = open_checkpoint(source)
    for name, mask in kept.items():
        if name not in checkpoint.infos or checkpoint.infos[name].shape != mask.shape:
            raise UsageError(f"The mask of {name!r} fits no tensor.", "Make the masks for this checkpoint.")

    def read(owner: str) -> NDArray[Any]:
        raw = checkpoint.read(owner)
        return np.where(kept[owner], raw, np.zeros((), raw.dtype)) if owner in kept else raw

    entries = []
    for name in checkpoint.names:
        owner = checkpoint.ties.get(name, name)
        info = checkpoint.infos[owner]
        entries.append((TensorInfo(name, info.dtype, info.shape), lambda owner=owner: read(owner)))
    write_safetensors(path, entries, checkpoint.metadata, force=force)
