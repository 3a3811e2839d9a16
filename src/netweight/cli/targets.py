"""What the options mean: the target of a compression, the files a verb reads and writes, the threads it uses."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from netweight.atomic import check_target
from netweight.errors import FormatError, OutputError, UsageError
from netweight.importance.core import Importance

__all__ = [
    "ARCHIVE_NAME",
    "archive_in",
    "beside",
    "existing",
    "is_folder",
    "measured",
    "new_folder",
    "target",
    "threads",
]

ARCHIVE_NAME: Final = "model.nwt"
_TARGETS: Final = ("size", "bits", "loss", "slope")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, as malloc.h numbers them
_LARGE_BYTES: Final = 8 << 20


def target(options: Namespace) -> dict[str, Any]:
    """The one target among the options; empty where nothing may be lost, and so nothing is to choose.

    >>> target(Namespace(size=None, bits=2.5, loss=None, slope=None, codec=None))
    {'bits': 2.5}
    """
    named = {name: getattr(options, name) for name in _TARGETS if getattr(options, name) is not None}
    if not named and set(options.codec or ()) != {"exact"}:
        raise UsageError("No target is given.", "Add one of --size 4MB, --bits 2.5, --loss 0.01, --slope 1e-9.")
    return named


def existing(name: str) -> Path:
    """The path of an input, which must be there.

    >>> existing("no/such.nwt")
    Traceback (most recent call last):
        ...
    netweight.errors.UsageError: There is no no/such.nwt.
    Check the name.
    """
    path = Path(name)
    if not path.exists():
        raise UsageError(f"There is no {name}.", "Check the name.")
    return path


def measured(options: Namespace) -> Importance | None:
    """The importance that was measured, if one is named."""
    return None if options.importance is None else Importance.open(existing(options.importance))


def archive_in(name: str) -> Path:
    """The compressed file meant by an input: itself, or the only one in a folder."""
    path = existing(name)
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.nwt"))
    if len(found) == 1:
        return found[0]
    many = f"{len(found)} files" if found else "no file"
    raise FormatError(f"The folder {name} holds {many} with the suffix .nwt.", "Name the file.")


def is_folder(name: str, suffix: str) -> bool:
    """Whether an output is a folder: it is one already, ends with a slash, or has no suffix.

    >>> is_folder("out/", ".nwt"), is_folder("model.nwt", ".nwt"), is_folder("small", ".nwt")
    (True, False, True)
    """
    path = Path(name)
    if path.is_dir() or name.endswith(("/", os.sep)):
        return True
    if path.suffix and path.suffix != suffix:
        raise UsageError(f"{name} ends neither with {suffix} nor with a slash.", f"Name a {suffix} file or a folder/.")
    return not path.suffix


def beside(output: Path, inputs: Path) -> None:
    """Refuse an output that is the input itself."""
    if output.exists() and output.samefile(inputs):
        raise UsageError(f"{output} is the input itself.", "Choose another name.")


@contextlib.contextmanager
def new_folder(output: Path, force: bool) -> Iterator[Path]:
    """Give a hidden folder to fill; its files move to `output` when all are complete, and vanish otherwise.

    Args:
        output: the folder to make or to add to; its parent must exist.
        force: replace files of the same names in it.

    Raises:
        UsageError: a file of that name exists, and `force` is not given.
        OutputError: the folder cannot be written.
    """
    check_target(output.resolve() / "x" if output.is_dir() else output, force=True)
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.resolve().parent))
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}.", "Choose another folder.") from error
    try:
        yield hidden
        _move(hidden, output, force)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _move(hidden: Path, output: Path, force: bool) -> None:
    files = sorted(path.relative_to(hidden) for path in hidden.rglob("*") if not path.is_dir())
    if not force:
        for name in files:
            check_target(output / name) if (output / name).parent.is_dir() else None
    try:
        if not output.exists():
            hidden.chmod(0o777 & ~_umask())
            hidden.rename(output)
            return
        for name in files:
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            (hidden / name).replace(output / name)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}.", "Choose another folder.") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def threads(workers: int | None) -> Iterator[Executor]:
    """A pool of threads; an interrupt or an error drops the work that has not begun.

    The work goes through a pool even for one worker: the main thread then only waits, and Ctrl-C reaches it at once.
    """
    _give_back()
    pool = ThreadPoolExecutor(workers or _cores())
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _give_back() -> None:
    """Have large arrays returned to the system when they are freed.

    The C library of Linux keeps what a thread has freed for that thread alone, once it has seen large arrays come and
    go; this holds the size from which it does not. Other libraries have no such switch.
    """
    try:
        switch = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    switch(_MMAP_THRESHOLD, _LARGE_BYTES)
    switch(_TRIM_THRESHOLD, _LARGE_BYTES)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
