"""Importance files: a safetensors file of sums, with one JSON object in its metadata.

The metadata entry "netweight.importance" is

    {"version": 4, "record": {..}, "crc": {key: crc32}, "tensors": {name: {..}}}

where a tensor has either "uses", a list of {"shape", "tokens", "inputs": key, ..} with the "shrinkage" of each, or
"stat", {"weight", "relative", "samples", "diagonal": key, ..}; "factor" multiplies either. Keys name arrays of the
file; equal arrays are stored once. From version 2 on, arrays of uses without tokens are the moments of whole gradients
(`sums`); from version 3 on, optimism is a list, by rate; from version 4 on, uses may have the moment of "positions" and
their share as the fourth number of the shrinkage. "netweight.importance.crc32" is the checksum of that text.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from netweight.checkpoint.header import damaged, short, strict_json
from netweight.checkpoint.pages import give_back
from netweight.checkpoint.safetensors_io import SafetensorsFile
from netweight.errors import FormatError, UsageError
from netweight.importance.optimism import optimism_of
from netweight.importance.stat import BLOCK, Stat
from netweight.importance.sums import ARRAYS, HALVES, Shrinkage, Sums

if TYPE_CHECKING:
    from pathlib import Path

    from netweight.dtypes import Array

__all__ = ["CRC_KEY", "KEY", "STAT_ARRAYS", "Opened", "read_entries"]

KEY: Final = "netweight.importance"
CRC_KEY: Final = "netweight.importance.crc32"
STAT_ARRAYS: Final = ("diagonal", "inputs", "outputs", "quartic")

Entry = Stat | tuple[Sums, ...]


@dataclass(slots=True)
class Opened(Mapping[str, Entry]):
    """Entries of a file, read when asked for; each array's checksum is tested the first time."""

    path: Path
    stamp: tuple[int, int]
    file: SafetensorsFile
    value: dict[str, Any]
    checked: set[str] = field(default_factory=set)

    @property
    def record(self) -> dict[str, Any]:
        """The record as JSON."""
        return dict(self.value["record"])

    @property
    def shrinkages(self) -> dict[str, tuple[Shrinkage, ...]]:
        """Shrinkages that were chosen before the file was written."""
        return {
            name: tuple(_shrinkage(by) for by in entry["shrinkage"])
            for name, entry in self.value["tensors"].items()
            if "shrinkage" in entry
        }

    @property
    def factors(self) -> dict[str, float]:
        """Factors of tensors."""
        return {n: float(entry["factor"]) for n, entry in self.value["tensors"].items() if "factor" in entry}

    def __getitem__(self, name: str) -> Entry:
        """Read one tensor's entry.

        Raises:
            KeyError: there is none of that name.
            FormatError: its arrays are damaged.
        """
        entry = self.value["tensors"][name]
        if "stat" in entry:
            given = entry["stat"]
            arrays: dict[str, Any] = {part: self._array(given[part]) for part in STAT_ARRAYS if part in given}
            optimism = optimism_of(given.get("optimism", []))
            return Stat(given["weight"], given["relative"], samples=given["samples"], optimism=optimism, **arrays)
        return tuple(
            Sums(
                tuple(use["shape"]),
                tokens=(float(use["tokens"][0]), float(use["tokens"][1])),
                **{part: self._array(use[part]) for part in ARRAYS if part in use},
            )
            for use in entry["uses"]
        )

    def _array(self, key: str) -> Array:
        array = self.file.read(key)
        if key not in self.checked:
            crc, finite, flat = 0, True, array.reshape(-1)
            for at in range(0, flat.size, BLOCK):  # not all of it need be in memory
                part = flat[at : at + BLOCK]
                crc, finite = zlib.crc32(part.view(np.uint8).data, crc), finite and bool(np.isfinite(part).all())
                give_back(part)
            if crc != self.value["crc"][key]:
                raise damaged(f"The checksum of {short(key)} in {self.path.name} is {crc:08x}.")
            if not finite:
                raise damaged(f"{short(key)} in {self.path.name} holds a number that is not finite.")
            self.checked.add(key)
        return array

    def nbytes(self, name: str) -> int:
        """Bytes of one tensor's arrays; nothing is read."""
        entry = self.value["tensors"][name]
        parts = [entry["stat"]] if "stat" in entry else entry["uses"]
        known = {*STAT_ARRAYS, *ARRAYS}
        return sum(self.file.infos[part[key]].nbytes for part in parts for key in known if key in part)

    def forget(self) -> None:
        """Give back the memory of what was read."""
        self.file.forget()

    def __contains__(self, name: object) -> bool:
        return name in self.value["tensors"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.value["tensors"])

    def __len__(self) -> int:
        return len(self.value["tensors"])


def read_entries(path: Path, version: int) -> Opened:
    """Open a file and check all but the arrays themselves.

    Raises:
        UsageError: there is no such file.
        FormatError: it is damaged, no importance, or of a newer version.
    """
    path = path.absolute()
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Check the name.")
    status = path.stat()
    with path.open("rb") as stream:
        first = stream.read(9)
    if first[8:9] != b"{":
        raise FormatError(f"{path.name} is no importance file.", "Make one with `netweight measure`.")
    file = SafetensorsFile(path, path.name)
    if KEY not in file.metadata:
        raise FormatError(
            f"{path.name} is a safetensors file without importance.", "Make one with `netweight measure`."
        )
    text = file.metadata[KEY].encode()
    if file.metadata.get(CRC_KEY) not in (None, f"{zlib.crc32(text):08x}"):
        raise damaged(f"The checksum of the description of {path.name} is {zlib.crc32(text):08x}.")
    value = strict_json(text, f"the importance of {path.name}")
    try:
        found = value["version"]
        if type(found) is int and found > version:
            raise FormatError(
                f"{path.name} is an importance of version {found}, here is {version}.", "Upgrade netweight."
            )
        _require(found in range(1, version + 1) and type(value["record"]) is dict and CRC_KEY in file.metadata)
        _check(value, file)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise damaged(f"The description of {path.name} makes no sense ({type(error).__name__}).") from None
    return Opened(path, (status.st_size, status.st_mtime_ns), file, value)


def _require(truth: bool) -> None:
    if not truth:
        raise ValueError


def _check(value: Any, file: SafetensorsFile) -> None:
    """Every entry names arrays that are there, of shapes that belong together."""
    crc = value["crc"]
    _require(type(crc) is dict and set(crc) == set(file.infos) and all(type(c) is int for c in crc.values()))
    for entry in value["tensors"].values():
        _require(_number(entry.get("factor", 1.0)) >= 0)
        if "stat" in entry:
            given = entry["stat"]
            _require(
                _number(given["weight"]) >= 0 and type(given["relative"]) is bool and type(given["samples"]) is int
            )
            optimism_of(given.get("optimism", []))
            shapes = {part: file.infos[given[part]].shape for part in STAT_ARRAYS if part in given}
            if "inputs" in shapes:
                _check_factors(shapes["inputs"], shapes.get("outputs"))
            continue
        _require(type(entry["uses"]) is list and len(entry["uses"]) > 0)
        for use in entry["uses"]:
            _check_use(use, file)
        for by in entry.get("shrinkage", ()):
            _require(2 <= len(by) <= 4 and all(0 <= part <= 1 for part in _shrinkage(by)[::3]))
            _require(0 <= _number(by[1]) <= 1)
        _require(len(entry.get("shrinkage", entry["uses"])) == len(entry["uses"]))


def _check_use(use: Any, file: SafetensorsFile) -> None:
    shape = tuple(use["shape"])
    _require(all(type(axis) is int and axis >= 0 for axis in shape) and len(use["tokens"]) == HALVES)
    _require(all(_number(count) >= 0 for count in use["tokens"]))
    infos = {part: file.infos[use[part]] for part in ARRAYS if part in use}
    _require(all(info.dtype == "F64" for info in infos.values()))
    shapes = {part: info.shape for part, info in infos.items()}
    _require(("diagonal" in shapes) != ("inputs" in shapes) and ("inputs" in shapes) == ("outputs" in shapes))
    for part in ("diagonal", "quartic"):
        _require(shapes.get(part, shape) == shape)
    _require(shapes.get("positions", shapes.get("inputs")) == shapes.get("inputs"))
    if "inputs" in shapes:
        inputs, outputs = shapes["inputs"], shapes["outputs"]
        _require(inputs[0] == HALVES and outputs[0] == HALVES)
        _check_factors(inputs[1:], outputs[1:])
        _require(outputs[1] * inputs[2] == math.prod(shape))


def _check_factors(inputs: tuple[int, ...], outputs: tuple[int, ...] | None) -> None:
    groups, n, m = inputs
    _require(n == m)
    if outputs is not None:
        _require(len(outputs) in (1, 2) and outputs[0] == outputs[-1] and outputs[0] % groups == 0)


def _shrinkage(by: list[Any]) -> Shrinkage:
    """Read [inputs, outputs, optimism by rate, positions]; before version 3 the fourth was the optimism, a number."""
    inputs, outputs, *more = by
    listed = bool(more) and type(more[0]) is list
    optimism = more[0] if listed else more[1] if len(more) > 1 else []
    positions = more[1] if listed and len(more) > 1 else 0.0
    return Shrinkage(_number(inputs), _number(outputs), optimism_of(optimism), _number(positions))


def _number(value: Any) -> float:
    _require(type(value) in (int, float) and math.isfinite(value))
    return float(value)
