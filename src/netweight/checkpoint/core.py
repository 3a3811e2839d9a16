"""A checkpoint, whatever it is stored in: names, types and shapes at once, tensors when their turn comes."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from netweight.checkpoint.folder import Layout, layout_of_folder, layout_of_index
from netweight.checkpoint.header import damaged, short
from netweight.checkpoint.infos import TensorInfo
from netweight.checkpoint.memory import HeldTensors
from netweight.checkpoint.weights import INDEX_SUFFIX, open_weights
from netweight.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from netweight.checkpoint.infos import TensorSource
    from netweight.dtypes import Array

__all__ = ["Checkpoint", "open_checkpoint"]


class Group(NamedTuple):
    """One weight file in a checkpoint: its path, what precedes its tensors' names, and its tensors."""

    file: str
    prefix: str
    tensors: TensorSource


@final
class Checkpoint:
    """Named tensors with their types and shapes; data is read tensor by tensor.

    Made by `open_checkpoint`. One made from a path can be pickled: only the path travels, and the files are opened
    again where it arrives.

    Attributes:
        infos: info of each tensor that has data of its own, in the order of the files.
        names: all names, ties included, in the order of the files.
        ties: alias to owner, for names that share one tensor.
        metadata: string to string; of several files, what all of them agree on.
        source: for messages and reports.
        path: where it was opened, absolute; None if it was in memory.
        root: the folder that `groups` and `files` are relative to; None if it was in memory.
        files: other files of a folder, absolute.
        groups: weight file, relative to `root` with forward slashes, to its tensors' names in order; together
            they are `names`. Empty if it was in memory.
        prefixes: weight file to what precedes the names its tensors have in that file, mostly "".
        group_metadata: weight file to its own metadata.

    >>> import numpy as np
    >>> with open_checkpoint({"w": np.ones((2, 3), np.float32)}) as checkpoint:
    ...     print(checkpoint.infos["w"].shape, checkpoint.read("w").sum(), checkpoint.nbytes)
    (2, 3) 6.0 24
    """

    def __init__(
        self, parts: Sequence[Group], source: str, path: Path | None, layout: Layout | None, stamp: tuple[int, ...]
    ) -> None:
        self.source = source
        self.path = path
        self.root = layout.root if layout else None
        self.files = layout.others if layout else ()
        self.infos: dict[str, TensorInfo] = {}
        self.ties: dict[str, str] = {}
        self._home: dict[str, tuple[TensorSource, str]] = {}
        names: dict[str, None] = {}
        groups: dict[str, tuple[str, ...]] = {}
        for file, prefix, tensors in parts:
            groups[file] = tuple([prefix + name for name in tensors.names]) if prefix else tensors.names
            twice = next((name for name in groups[file] if name in names), None)
            if twice is not None:
                raise FormatError(
                    f"Two files of {source} hold a tensor {short(twice)}, the second is {file}.",
                    "Keep one of them, or compress the files one by one.",
                )
            names.update(dict.fromkeys(groups[file]))
            for name, info in tensors.infos.items():
                full = prefix + name
                self._home[full] = (tensors, name)
                self.infos[full] = TensorInfo(full, info.dtype, info.shape) if prefix else info
            self.ties.update({prefix + alias: prefix + owner for alias, owner in tensors.ties.items()})
        self.names = tuple(names)
        self.groups = groups if path else {}
        self.prefixes = {file: prefix for file, prefix, _ in parts} if path else {}
        self.group_metadata = {file: dict(tensors.metadata) for file, _, tensors in parts} if path else {}
        self.metadata = _agreed([tensors.metadata for _, _, tensors in parts])
        self._parts = tuple(parts)
        self._stamp = stamp
        self._closed = False

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, each counted once."""
        return sum(info.nbytes for info in self.infos.values())

    def read(self, name: str) -> Array:
        """Storage of a tensor (see `netweight.dtypes`): C order, read-only, a view of the memory map where possible.

        Args:
            name: an owner or an alias.

        Returns:
            Array of the info's `storage_shape`: its shape, or flat bytes for types below 8 bits.

        Raises:
            UsageError: there is no such tensor, or the checkpoint is closed.
        """
        if self._closed:
            raise UsageError(f"The checkpoint {self.source} is closed.", "Open it again to read from it.")
        try:
            tensors, own_name = self._home[self.ties.get(name, name)]
        except KeyError:
            raise UsageError(
                f"{self.source} has no tensor {short(name)}.", f"It has {len(self.names)}; see .names."
            ) from None
        return tensors.read(own_name)

    def sha256(self) -> str:
        """Hash of all tensors, in order.

        For each owner one line of JSON, [name, dtype, shape], and its bytes; then the sorted ties, if there are any.
        The layout in files, their metadata and padding do not enter.
        """
        digest = hashlib.sha256()
        for name, info in self.infos.items():
            digest.update(json.dumps([name, info.dtype, info.shape]).encode() + b"\n")
            digest.update(self.read(name).reshape(-1).view("u1").data)
            self.forget()
        if self.ties:
            digest.update(json.dumps(sorted(self.ties.items())).encode())
        return digest.hexdigest()

    def replaced(self, tensors: Mapping[str, Any]) -> Checkpoint:
        """Give the same checkpoint with some tensors of other values; it is not sent to other processes.

        Args:
            tensors: by the names of owners, as for `open_checkpoint`, of the same types and shapes.

        Raises:
            UsageError: a tensor has no counterpart of its type and shape.

        >>> import numpy as np
        >>> other = open_checkpoint({"a": np.zeros(2), "b": np.zeros(2)}).replaced({"b": np.ones(2)})
        >>> other.read("a").tolist(), other.read("b").tolist()
        ([0.0, 0.0], [1.0, 1.0])
        """
        held = HeldTensors(tensors, self.source)
        wrong = [name for name in held.names if held.infos.get(name) != self.infos.get(name)]
        if wrong:
            raise UsageError(
                f"{self.source} has no tensor {short(wrong[0])} of that type and shape.", "Replace tensors that it has."
            )
        other = object.__new__(Checkpoint)
        other.__dict__.update(self.__dict__, path=None)  # only by `__reduce__` could it be copied
        other._home = {**self._home, **{name: (held, name) for name in held.infos}}
        return other

    def forget(self) -> None:
        """Give back the memory of what was read so far; what is still in use is read again when it is looked at."""
        for part in self._parts:
            part.tensors.forget()

    def close(self) -> None:
        """Let go of the files; arrays read before stay valid."""
        for part in self._parts:
            part.tensors.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({self.source!r}: {len(self.infos)} tensors, {self.nbytes} bytes)"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is None:
            raise UsageError(
                f"Tensors of {self.source} are in memory and are not sent to another process.",
                "Save them as safetensors and open that, or use threads.",
            )
        return _reopen, (self.path, self._stamp)


def open_checkpoint(source: str | os.PathLike[str] | Mapping[str, Any] | Any) -> Checkpoint:
    """Open tensors for reading, wherever they are; nothing but names, types and shapes is read yet.

    Args:
        source: a `.safetensors` file; a `model.safetensors.index.json` with its shards beside it; a `.pt`, `.pth`,
            `.bin` or `.ckpt` file by torch.save; a folder with any of them; a mapping from names to NumPy arrays
            or torch tensors; an nn.Module; or a Checkpoint, returned as it is.

    Raises:
        UsageError: there is nothing at that path, no weights in that folder, or the object is none of the above.
        FormatError: a file is damaged, unsafe or unreadable.

    >>> import numpy as np
    >>> open_checkpoint({"bias": np.zeros(8, np.float16)}).infos["bias"]
    TensorInfo(name='bias', dtype='F16', shape=(8,))
    """
    if isinstance(source, Checkpoint):
        return source
    with _collector_paused():
        if isinstance(source, str | os.PathLike):
            if not os.fspath(source):
                raise UsageError("The path of the checkpoint is empty.", "Name a file or a folder.")
            return _open_path(Path(source).absolute())
        if isinstance(source, Mapping):
            return _open_memory(source, "the dictionary of tensors")
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(source, torch.nn.Module):
            return _open_memory(source.state_dict(), f"the module {type(source).__name__}")
    raise UsageError(
        f"A checkpoint cannot be opened from an object of type {type(source).__name__}.",
        "Pass a path, a dictionary of tensors, or an nn.Module.",
    )


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection while a great many small objects are made, none of them garbage: 3 times faster."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _open_memory(tensors: Mapping[str, Any], source: str) -> Checkpoint:
    return Checkpoint((Group("", "", HeldTensors(tensors, source)),), source, None, None, ())


def _open_path(path: Path) -> Checkpoint:
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        layout = layout_of_folder(path)
    elif not stat.S_ISREG(mode):
        raise UsageError(f"{path} is neither a file nor a folder.", "Name a checkpoint file or a folder with one.")
    elif path.name.endswith(INDEX_SUFFIX):
        layout = layout_of_index(path)
    else:
        tensors, source = open_weights(path, path.name)
        alone = Layout(path.parent, (), ())
        return Checkpoint((Group(path.name, "", tensors),), source, path, alone, _stamp([path]))
    several = len(layout.units) > 1
    groups = []
    for unit in layout.units:
        opened = {file: open_weights(layout.root / file, file)[0] for file in unit.files}
        for name, file in unit.shard_of.items():
            if name not in opened[file].infos and name not in opened[file].ties:
                raise damaged(f"The index {unit.label} expects tensor {short(name)} in {file}, which lacks it.")
        groups += [Group(file, f"{unit.label}:" if several else "", tensors) for file, tensors in opened.items()]
    stamp = _stamp([layout.root / group.file for group in groups])
    return Checkpoint(groups, path.name or str(path), path, layout, stamp)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"There is no file or folder {path}.", "Check the name.") from None
    except ValueError:
        raise UsageError(f"{str(path)!r} cannot be a path.", "Check the name.") from None
    except OSError as error:  # a loop of links, no permission
        raise UsageError(
            f"{path} cannot be opened: {error.strerror}.", "Check the path and its permissions."
        ) from error


def _agreed(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first = metadata[0]
    return {key: text for key, text in first.items() if all(other.get(key) == text for other in metadata[1:])}


def _stamp(files: Sequence[Path]) -> tuple[int, ...]:
    """Sizes and times of the weight files, by which another process knows that it opened the same."""
    statuses = [file.stat() for file in files]
    return tuple(number for status in statuses for number in (status.st_size, status.st_mtime_ns))


_REOPENED: dict[tuple[Path, tuple[int, ...]], Checkpoint] = {}


def _reopen(path: Path, stamp: tuple[int, ...]) -> Checkpoint:
    """Open a checkpoint that was pickled; a worker that gets many tasks of one checkpoint opens it once."""
    checkpoint = _REOPENED.get((path, stamp))
    if checkpoint is None or checkpoint._closed:
        checkpoint = open_checkpoint(path)
        if checkpoint._stamp != stamp:
            raise FormatError(f"{path} changed while it was in use.", "Leave it alone and start again.")
        _REOPENED.clear()
        _REOPENED[path, stamp] = checkpoint
    return checkpoint
