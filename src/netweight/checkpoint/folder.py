"""Which files of a folder hold weights, and how their tensors are named.

A *unit* is an index with its shards, a family of shards without one (`x-00001-of-00003.safetensors`), or a single
file. In each folder safetensors count; torch's own files count where a folder has none. With one unit tensors keep
their names; with several (a diffusers repository) each name is preceded by the unit's path and a colon:
`vae/diffusion_pytorch_model.safetensors:conv_in.weight`. Folders whose names begin with a dot are left out.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from netweight.checkpoint.header import MAX_HEADER_BYTES, damaged, short, strict_json
from netweight.checkpoint.torch_io import LEGACY_MAGIC, ZIP_MAGIC
from netweight.checkpoint.weights import INDEX_SUFFIX, SAFETENSORS_SUFFIX, TORCH_SUFFIXES
from netweight.errors import FormatError, UsageError

__all__ = ["Layout", "Unit", "layout_of_folder", "layout_of_index"]

_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{3,6})-of-(?P<count>\d{3,6})(?P<suffix>\.\w+)")
_TRAINING_STATE: Final = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*|random_states.*)\.\w+")


@dataclass(frozen=True, slots=True)
class Unit:
    """Weight files that together hold one set of names.

    Args:
        label: path of the index, the family or the file, relative to the root, with forward slashes.
        files: weight files relative to the root, with forward slashes, in order.
        shard_of: file of each tensor by the index, relative to the root; empty without an index.
    """

    label: str
    files: tuple[str, ...]
    shard_of: dict[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """A folder sorted into weights and the rest.

    Args:
        root: the folder, absolute.
        units: what holds weights.
        others: all other regular files, absolute, sorted.
    """

    root: Path
    units: tuple[Unit, ...]
    others: tuple[Path, ...]


def layout_of_index(index: Path) -> Layout:
    """The shards named by an index file such as `model.safetensors.index.json`.

    Raises:
        FormatError: the index is damaged, names files outside its folder, or files that are missing.
    """
    root = index.parent
    return Layout(root, (_read_index(root, PurePosixPath(index.name)),), (index,))


def layout_of_folder(root: Path) -> Layout:
    """All units below a folder, and all other files.

    Raises:
        UsageError: there are no weights.
        FormatError: a link loops or dangles, shards are missing, or an index is damaged.
    """
    files = _walk(root, PurePosixPath(), ())
    by_folder: dict[PurePosixPath, list[str]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file.name)
    found = {folder: _weights_of(root / folder, names) for folder, names in by_folder.items()}
    indexed = {folder: [_read_index(root, folder / name) for name in indexes] for folder, (_, indexes) in found.items()}
    taken = {file for units in indexed.values() for unit in units for file in unit.files}
    units: list[Unit] = []
    for folder, (weights, _) in found.items():
        units += indexed[folder]
        units += _families(folder, [name for name in weights if str(folder / name) not in taken])
    if not units:
        raise UsageError(
            f"{root} has {len(files)} files, but none with weights.",
            f"Weights are files named {', '.join('*' + s for s in (SAFETENSORS_SUFFIX, *TORCH_SUFFIXES))}.",
        )
    taken |= {file for unit in units for file in unit.files}
    others = tuple(root / file for file in files if str(file) not in taken)
    return Layout(root, tuple(units), others)


def _walk(root: Path, folder: PurePosixPath, above: tuple[tuple[int, int], ...]) -> list[PurePosixPath]:
    """Regular files below a folder, by name, links followed."""
    here = root / folder
    try:
        status = here.stat()
        entries = sorted(os.scandir(here), key=lambda entry: entry.name)
    except OSError as error:
        raise FormatError(f"The folder {here} cannot be read: {error.strerror}.", "Check its permissions.") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise FormatError(f"The folder {here} is a link to a folder above it, a loop.", "Remove the link.")
    found: list[PurePosixPath] = []
    for entry in entries:
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            raise FormatError(
                f"{entry.path} is a link that leads nowhere: {error.strerror}.", "Remove it, or restore its target."
            ) from error
        if stat.S_ISREG(mode):
            found.append(folder / entry.name)
        elif stat.S_ISDIR(mode) and not entry.name.startswith(".") and entry.name != "__pycache__":
            found += _walk(root, folder / entry.name, (*above, identity))
    return found


def _weights_of(folder: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Weight files and indexes of one folder: those of safetensors, or else those of torch."""
    weights = [name for name in names if name.endswith(SAFETENSORS_SUFFIX)]
    indexes = [name for name in names if name.endswith(SAFETENSORS_SUFFIX + INDEX_SUFFIX)]
    if not weights and not indexes:
        weights = [name for name in names if _is_torch_weights(folder / name)]
        indexes = [name for name in names if name.endswith(tuple(suffix + INDEX_SUFFIX for suffix in TORCH_SUFFIXES))]
    for name in weights + indexes:
        if not name.isprintable():  # not UTF-8, or made to mislead
            raise FormatError(f"The folder {folder} has weights in a file named {name!r}.", "Rename it to plain text.")
    return weights, indexes


def _is_torch_weights(path: Path) -> bool:
    """Whether a file by its suffix and first bytes is by torch.save, and not the state of a trainer."""
    if path.suffix not in TORCH_SUFFIXES or _TRAINING_STATE.fullmatch(path.name):
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(LEGACY_MAGIC)).startswith((ZIP_MAGIC, LEGACY_MAGIC))
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error


def _families(folder: PurePosixPath, names: list[str]) -> list[Unit]:
    """Single files, and shards of one family (equal stem, count and suffix) together."""
    families: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for name in names:
        match = _SHARD.fullmatch(name)
        label = f"{match['stem']}{match['suffix']}" if match else name
        if match and label in names:  # x.safetensors beside its own shards: keep the two apart
            label = f"{match['stem']}-of-{match['count']}{match['suffix']}"
        families.setdefault(label, []).append(name)
        counts[label] = int(match["count"]) if match else 1
    for label, members in families.items():
        if len(members) != counts[label]:
            raise damaged(f"{folder / label} has {len(members)} of {counts[label]} shards.")
    return [
        Unit(str(folder / label), tuple(str(folder / name) for name in members), {})
        for label, members in families.items()
    ]


def _read_index(root: Path, index: PurePosixPath) -> Unit:
    path = root / index
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_HEADER_BYTES:
            raise damaged(f"The index {path} has {size_bytes:,} bytes; at most {MAX_HEADER_BYTES:,} are read.")
        text = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    value = strict_json(text, str(path))
    weight_map = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise damaged(f"The index {path} has no weight_map from tensor to file.")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _is_inside(file):
            raise FormatError(
                f"The index {path} puts tensor {short(name)} into {short(file)}, which is no file beside it.",
                "Do not trust this index; take the checkpoint from its source again.",
            )
    files = sorted(set(weight_map.values()))
    missing = [file for file in files if not (path.parent / file).is_file()]
    if missing:
        raise FormatError(
            f"{len(missing)} of the {len(files)} shards in {path} are missing, such as {missing[0]}.",
            "Download them into the same folder.",
        )
    shard_of = {name: str(index.parent / file) for name, file in weight_map.items()}
    return Unit(str(index), tuple(str(index.parent / file) for file in files), shard_of)


def _is_inside(file: str) -> bool:
    """Whether a path of an index stays in the folder of the index."""
    parts = file.split("/")
    return not {"", ".", ".."}.intersection(parts) and not any(mark in file for mark in "\\:\0")
