"""`netweight restore`: the network back, as safetensors."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from netweight.archive import Archive, Group
from netweight.atomic import check_target
from netweight.checkpoint import TensorInfo, write_safetensors
from netweight.units import format_bytes, format_seconds

from .account import refinement_of
from .console import Console, Progress
from .targets import archive_in, beside, is_folder, new_folder

__all__ = ["restore"]

Entry = tuple[TensorInfo, Callable[[], np.ndarray[Any, np.dtype[Any]]]]

_WEIGHTS: Final = ".safetensors"
_SHARD: Final = re.compile(r"(?P<stem>.+)-\d+-of-\d+\.safetensors")


def restore(options: Namespace, console: Console) -> int:
    """Decode every tensor into a .safetensors file, or into the files of the source."""
    source = archive_in(options.input)
    output = Path(options.output)
    folder = is_folder(options.output, _WEIGHTS)
    if not folder:
        beside(output, source)
        check_target(output, options.force)
    begin_s = time.perf_counter()
    with Archive.open(source, max_bytes=options.max_bytes) as archive, console.progress() as progress:
        counted = _counted(archive, progress)
        if folder:
            others = Path(options.input) if Path(options.input).is_dir() else None
            with new_folder(output, options.force) as hidden:
                _write_folder(archive, counted, hidden, others)
        else:
            write_safetensors(output, counted(archive.infos.values()), archive.metadata, force=options.force)
        tensors, used_bytes = len(archive.infos), archive.nbytes
        if options.max_bytes is not None:
            console.story(refinement_of(archive))
    size_bytes = _size_bytes(output)
    took_s = time.perf_counter() - begin_s
    console.story(f"restored in {format_seconds(took_s)}")
    data = {
        "input": str(source),
        "used_bytes": used_bytes,
        "output": str(output),
        "tensors": tensors,
        "bytes": size_bytes,
        "seconds": took_s,
    }
    console.result("restore", data, [f"{output}  {format_bytes(size_bytes)}, {tensors} tensors"])
    return 0


def _counted(archive: Archive, progress: Progress) -> Callable[[Iterable[TensorInfo]], Iterator[Entry]]:
    """Entries for the writer, each of which tells the progress when it is decoded."""
    total, done = len(archive.infos), 0

    def entries(infos: Iterable[TensorInfo], prefix: str = "") -> Iterator[Entry]:
        for info in infos:
            own = TensorInfo(info.name.removeprefix(prefix), info.dtype, info.shape)
            yield own, lambda name=info.name: decode(name)  # type: ignore[misc]

    def decode(name: str) -> np.ndarray[Any, np.dtype[Any]]:
        nonlocal done
        storage: np.ndarray[Any, np.dtype[Any]] = archive[name]
        done += 1
        progress("restore", done, total)
        return storage

    return entries


def _write_folder(archive: Archive, entries: Callable[..., Iterator[Entry]], folder: Path, others: Path | None) -> None:
    """The weight files of the source with their own metadata, their indexes, and the other files."""
    if others is not None:
        shutil.copytree(others, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.nwt"))
    layout = archive.layout or (Group("model.safetensors", "", len(archive.infos), archive.metadata),)
    infos = iter(archive.infos.values())
    shards: dict[Path, dict[str, TensorInfo]] = {}
    for group in layout:
        path = folder / PurePosixPath(group.file).with_suffix(_WEIGHTS)
        path.parent.mkdir(parents=True, exist_ok=True)
        members = list(itertools.islice(infos, group.tensors))
        write_safetensors(path, entries(members, group.prefix), group.metadata, force=True)
        shards[path] = {info.name.removeprefix(group.prefix): info for info in members}
    _write_indexes(shards)


def _write_indexes(shards: dict[Path, dict[str, TensorInfo]]) -> None:
    """`model.safetensors.index.json` beside shards that have none."""
    families: dict[Path, dict[Path, dict[str, TensorInfo]]] = {}
    for path, members in shards.items():
        if match := _SHARD.fullmatch(path.name):
            families.setdefault(path.with_name(f"{match['stem']}{_WEIGHTS}.index.json"), {})[path] = members
    for index, family in families.items():
        if index.exists():
            continue
        total_bytes = sum(info.nbytes for members in family.values() for info in members.values())
        weight_map = {name: path.name for path, members in family.items() for name in members}
        text = json.dumps({"metadata": {"total_size": total_bytes}, "weight_map": weight_map}, indent=2)
        index.write_text(text + "\n", encoding="utf-8")


def _size_bytes(output: Path) -> int:
    if output.is_dir():
        return sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return output.stat().st_size
