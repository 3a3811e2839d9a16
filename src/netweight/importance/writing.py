"""Importance files, written: `files` says what they hold. One tensor's arrays are in memory at a time."""

from __future__ import annotations

import json
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from netweight.checkpoint.infos import TensorInfo
from netweight.checkpoint.safetensors_io import write_safetensors
from netweight.importance.files import CRC_KEY, KEY, STAT_ARRAYS
from netweight.importance.optimism import NONE
from netweight.importance.stat import Stat
from netweight.importance.sums import ARRAYS, Shrinkage, Sums, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from netweight.dtypes import Array

__all__ = ["write_entries"]

CODES: Final = {"float64": "F64", "float32": "F32"}

Entry = Stat | tuple[Sums, ...]


def write_entries(
    path: Path,
    version: int,
    entries: Mapping[str, Entry],
    record: Mapping[str, Any],
    shrinkages: Mapping[str, tuple[Shrinkage, ...]],
    factors: Mapping[str, float],
    *,
    force: bool,
) -> None:
    """Write entries; see the docstring of `files` for the form.

    Raises:
        UsageError: the file exists and `force` is not given.
        OutputError: it cannot be written.
    """
    arrays = _Arrays(entries)
    tensors: dict[str, Any] = {}
    for name in entries:
        tensors[name] = arrays.describe(name)
        if "uses" in tensors[name]:
            tensors[name]["shrinkage"] = [
                [by.inputs, by.outputs, list(by.optimism.times), by.positions] for by in shrinkages[name]
            ]
        if name in factors:
            tensors[name]["factor"] = float(factors[name])
    value = {"version": version, "record": dict(record), "crc": arrays.crc, "tensors": tensors}
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    write_safetensors(path, arrays.kept, {KEY: text, CRC_KEY: f"{zlib.crc32(text.encode()):08x}"}, force=force)


class _Arrays:
    """Arrays of a file to write: equal ones are written once."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.kept: list[tuple[TensorInfo, Callable[[], Array]]] = []
        self.crc: dict[str, int] = {}
        self._keys: dict[bytes, str] = {}
        self._entries = entries
        self._latest: tuple[str, Entry] | None = None

    def describe(self, name: str) -> dict[str, Any]:
        """Keep the arrays of one entry; say what it is."""
        entry = self._entry(name)
        if not isinstance(entry, Stat):
            return {
                "uses": [
                    {"shape": list(use.shape), "tokens": list(use.tokens)} | self._add(name, j, use, ARRAYS)
                    for j, use in enumerate(entry)
                ]
            }
        plain: dict[str, Any] = {"weight": float(entry.weight), "relative": entry.relative, "samples": entry.samples}
        if entry.optimism != NONE:
            plain["optimism"] = list(entry.optimism.times)
        return {"stat": plain | self._add(name, None, entry, STAT_ARRAYS)}

    def _entry(self, name: str) -> Entry:
        if self._latest is None or self._latest[0] != name:
            self._latest = None  # first of all: two may not fit
            self._latest = name, self._entries[name]
        return self._latest[1]

    def _add(self, name: str, use: int | None, owner: Stat | Sums, parts: tuple[str, ...]) -> dict[str, str]:
        """Keep the arrays of one use, or of a Stat; give their keys."""
        keys = {}
        for part in parts:
            array = getattr(owner, part)
            if array is None:
                continue
            key = f"{name}.{part}" if use is None else f"{name}.{use}.{part}"
            keys[part] = self._keys.setdefault(digest(array), key)
            if keys[part] == key:
                self.crc[key] = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                info = TensorInfo(key, CODES[array.dtype.name], tuple(array.shape))
                self.kept.append((info, partial(self._read, name, use, part)))
        return keys

    def _read(self, name: str, use: int | None, part: str) -> Array:
        entry: Any = self._entry(name)
        return np.ascontiguousarray(getattr(entry if use is None else entry[use], part))
