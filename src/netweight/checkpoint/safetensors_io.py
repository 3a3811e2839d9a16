"""Safetensors files, read through a memory map and written one tensor at a time; NumPy only."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from netweight.atomic import atomic_file
from netweight.checkpoint.header import MAX_HEADER_BYTES, damaged, format_header, parse_header, short
from netweight.dtypes import ALIGNMENT_ORDER, bits_per_element, storage_dtype
from netweight.errors import FormatError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from netweight.checkpoint.infos import TensorInfo
    from netweight.dtypes import Array

__all__ = ["SafetensorsFile", "write_safetensors"]

_LENGTH_BYTES = 8


class SafetensorsFile:
    """A safetensors file whose header is checked and whose tensors are views of the memory map.

    Args:
        path: a regular file.
        source: its name in messages.

    Raises:
        FormatError: the file is damaged, or cannot be read.
    """

    def __init__(self, path: Path, source: str) -> None:
        try:
            with path.open("rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                header_bytes = _header_bytes(file.read(_LENGTH_BYTES), size_bytes, source)
                text = file.read(header_bytes)
                self._map: mmap.mmap | None = mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ)
        except OSError as error:
            raise FormatError(
                f"{source} cannot be read: {error.strerror or error}.", "Check the file and its disk."
            ) from error
        except ValueError:  # shorter than a moment ago
            raise damaged(f"{source} shrank below {size_bytes:,} bytes while it was opened.") from None
        self._data_at = _LENGTH_BYTES + header_bytes
        self.infos, self._begins, self.metadata = parse_header(text, size_bytes - self._data_at, source)
        self.ties: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Tensors in the order of their data."""
        return tuple(self.infos)

    def read(self, name: str) -> Array:
        """Storage of a tensor: a read-only view of the memory map, or a copy where the file does not align it."""
        assert self._map is not None, "closed"
        info = self.infos[name]
        dtype = storage_dtype(info.dtype)
        if not info.nbytes:
            array: Array = np.empty(info.storage_shape, dtype)
        else:
            count = info.nbytes // dtype.itemsize
            flat: Array = np.frombuffer(self._map, dtype, count, self._data_at + self._begins[name])
            array = flat.reshape(info.storage_shape)
            if not array.flags.aligned:
                array = array.copy()
        array.flags.writeable = False
        return array

    def forget(self) -> None:
        """Give back the memory of what was read so far; what is still in use is read again when it is looked at."""
        if self._map is not None and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Forget the map; the system unmaps it when the last tensor read from it is gone."""
        self._map = None


def _header_bytes(prefix: bytes, size_bytes: int, source: str) -> int:
    if len(prefix) < _LENGTH_BYTES:
        raise damaged(f"{source} has {size_bytes} bytes, too few for a safetensors file.")
    header_bytes = int.from_bytes(prefix, "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise damaged(
            f"{source} announces a header of {header_bytes:,} bytes; safetensors allows {MAX_HEADER_BYTES:,}."
        )
    if header_bytes > size_bytes - _LENGTH_BYTES:
        raise damaged(f"{source} has {size_bytes:,} bytes; its header alone should have {header_bytes:,}.")
    return header_bytes


def write_safetensors(
    path: str | os.PathLike[str],
    entries: Iterable[tuple[TensorInfo, Callable[[], Array]]],
    metadata: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> None:
    """Write a safetensors file, holding one tensor in memory at a time.

    The order given is kept if it aligns every tensor to its element size (files by the official library do), so that
    a file copied tensor by tensor is the same file; otherwise tensors are sorted as the official library sorts them.

    Args:
        path: the file to write; it appears only when complete.
        entries: info of a tensor, and a function that returns its storage (see `Checkpoint.read`).
        metadata: string to string, for the header.
        force: replace an existing file.

    Raises:
        UsageError: the file exists.
        OutputError: it cannot be written, or its header would be larger than safetensors allows.
        ValueError: a name occurs twice, or a function returns another dtype or size than announced.

    >>> import tempfile
    >>> from netweight.checkpoint import TensorInfo, open_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weight = np.ones((2, 3), np.float32)
    ...     write_safetensors(folder + "/x.safetensors", [(TensorInfo("w", "F32", (2, 3)), lambda: weight)])
    ...     open_checkpoint(folder + "/x.safetensors").read("w").sum()
    np.float32(6.0)
    """
    ordered = list(entries)
    if not _aligned(info for info, _ in ordered):
        ordered.sort(key=lambda entry: (-ALIGNMENT_ORDER[entry[0].dtype], entry[0].name.encode()))
    header = format_header((info for info, _ in ordered), metadata or {})
    if len(header) - _LENGTH_BYTES > MAX_HEADER_BYTES:
        raise OutputError(
            f"The header of {path} would have {len(header):,} bytes; safetensors allows {MAX_HEADER_BYTES:,}.",
            "Write several files of fewer tensors.",
        )
    with atomic_file(path, force) as file:
        file.write(header)
        for info, read in ordered:
            file.write(_bytes_of(info, read()))


def _aligned(infos: Iterable[TensorInfo]) -> bool:
    at = 0
    for info in infos:
        if at % max(1, bits_per_element(info.dtype) // 8):
            return False
        at += info.nbytes
    return True


def _bytes_of(info: TensorInfo, storage: Array) -> memoryview:
    expected = storage_dtype(info.dtype)
    if storage.dtype != expected or storage.shape != info.storage_shape:
        raise ValueError(
            f"tensor {short(info.name)} of dtype {info.dtype} should be {expected} of shape {info.storage_shape}, "
            f"not {storage.dtype} of shape {storage.shape}"
        )
    return np.ascontiguousarray(storage).reshape(-1).view(np.uint8).data
