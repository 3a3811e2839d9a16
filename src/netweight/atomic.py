"""Files that appear whole or not at all.

Where Linux offers it, the file has no name until it is complete (O_TMPFILE, then linkat), so that not even SIGKILL
leaves anything behind. Elsewhere a hidden temporary in the same folder is renamed at the end.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from netweight.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

__all__ = ["atomic_file", "check_target"]

_BUFFER_BYTES = 1 << 20


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], force: bool = False) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes its name only when all is written and on disk.

    The content goes to a temporary in the same folder; on success it is synced, named and the folder is synced. After
    any exception, KeyboardInterrupt included, nothing remains and an older file of that name is untouched. SIGKILL
    leaves nothing either on Linux, but for the two system calls in which an existing file is replaced.

    Args:
        path: the final name; its folder must exist.
        force: replace an existing regular file (or symbolic link) of that name.

    Raises:
        UsageError: the name is taken and `force` is not given, or it is taken by no regular file.
        OutputError: the folder is missing or read-only, or the disk is full.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with atomic_file(folder.name + "/x.bin") as file:
    ...     _ = file.write(b"all or nothing")
    >>> Path(folder.name, "x.bin").read_bytes()
    b'all or nothing'
    >>> folder.cleanup()
    """
    target = Path(path).absolute()
    check_target(target, force)
    temporary = _temporary(target)
    raw: _TargetFile | None = None
    try:
        raw = _TargetFile(_open(temporary, target), target)
        buffered = io.BufferedWriter(raw, _BUFFER_BYTES)
        yield buffered
        buffered.flush()
        try:
            os.fsync(raw.fileno())
            temporary.publish(raw, target, force)
            _sync_folder(target.parent)
        except OSError as error:
            raise _output_error(target, error) from error
    finally:
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.close()
        temporary.discard()


def check_target(path: str | os.PathLike[str], force: bool = False) -> None:
    """Refuse early what `atomic_file` would refuse after the work is done.

    Args:
        path: the final name.
        force: whether an existing regular file may be replaced.

    Raises:
        UsageError: the name is taken and `force` is not given, or it is taken by no regular file.
        OutputError: the folder does not exist or cannot be written to.

    >>> check_target("/dev/null", force=True)
    Traceback (most recent call last):
        ...
    netweight.errors.UsageError: /dev/null is not a regular file.
    Name a file to write; only regular files are replaced.
    """
    target = Path(path).absolute()
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise _output_error(target, error) from error
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder.", "Name a file to write.")
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path} is not a regular file.", "Name a file to write; only regular files are replaced.")
    if mode is not None and not force:
        raise _exists(target)
    if not target.parent.is_dir():
        raise OutputError(f"The folder {target.parent} does not exist.", "Create it first, or choose another one.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise _output_error(target, OSError(errno.EACCES, os.strerror(errno.EACCES)))


class _TargetFile(io.FileIO):
    """The file under the buffer; it turns the system's refusal into ours, so that errors of *reading* stay apart."""

    def __init__(self, descriptor: int, target: Path) -> None:
        super().__init__(descriptor, "wb")
        self._target = target
        self._written_bytes = 0

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            count = super().write(data)
        except OSError as error:
            raise _output_error(self._target, error, self._written_bytes) from error
        self._written_bytes += count or 0
        return count


class _Temporary(Protocol):
    """Where the content waits for its name; nothing exists before `open`, so that `discard` finds what there is."""

    def open(self) -> int: ...

    def publish(self, raw: io.FileIO, target: Path, force: bool) -> None: ...

    def discard(self) -> None: ...


class _Nameless:
    """O_TMPFILE: the kernel frees it when the descriptor closes, whatever ends the process."""

    def __init__(self, target: Path) -> None:
        self._folder = target.parent
        self._passing_name: Path | None = None

    def open(self) -> int:
        return os.open(self._folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def works(self) -> bool:
        """Whether this folder takes such files and /proc can name them; learned by trying."""
        try:
            descriptor = self.open()
        except OSError:  # where it is a lack of permission or space, the other way meets it too, and reports it
            return False
        try:
            return Path(f"/proc/self/fd/{descriptor}").exists()
        finally:
            os.close(descriptor)

    def publish(self, raw: io.FileIO, target: Path, force: bool) -> None:
        try:
            self._link(raw, target)
        except FileExistsError:
            if not force:
                raise _exists(target) from None
            self._passing_name = _hidden_name(target)  # two steps: linkat does not replace
            self._link(raw, self._passing_name)
            self._passing_name.replace(target)

    def _link(self, raw: io.FileIO, name: Path) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # a folder descriptor makes Python call linkat with AT_SYMLINK_FOLLOW, which /proc needs
            os.link(f"/proc/self/fd/{raw.fileno()}", name.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)

    def discard(self) -> None:
        if self._passing_name is not None:
            self._passing_name.unlink(missing_ok=True)


class _Named:
    """A hidden file beside the target, for systems without O_TMPFILE."""

    def __init__(self, target: Path) -> None:
        self._name = _hidden_name(target)

    def open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        return os.open(self._name, flags, 0o666)

    def publish(self, raw: io.FileIO, target: Path, force: bool) -> None:
        raw.close()  # Windows renames closed files only
        if force:
            self._name.replace(target)
            return
        try:
            os.link(self._name, target)  # refuses an existing name, which rename would not
        except FileExistsError:
            raise _exists(target) from None
        except OSError:  # no hard links here
            if os.path.lexists(target):
                raise _exists(target) from None
            self._name.replace(target)

    def discard(self) -> None:
        self._name.unlink(missing_ok=True)


def _temporary(target: Path) -> _Temporary:
    nameless = _Nameless(target)
    return nameless if hasattr(os, "O_TMPFILE") and nameless.works() else _Named(target)


def _open(temporary: _Temporary, target: Path) -> int:
    try:
        return temporary.open()
    except OSError as error:
        raise _output_error(target, error) from error


def _hidden_name(target: Path) -> Path:
    return target.with_name(f".netweight.{os.urandom(8).hex()}.tmp")


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders of some file systems cannot be synced
                raise
        finally:
            os.close(descriptor)


def _exists(target: Path) -> UsageError:
    return UsageError(
        f"{target} exists already.", "Choose another name, or allow replacing it with --force (force=True)."
    )


def _output_error(target: Path, error: OSError, written_bytes: int | None = None) -> OutputError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        after = f" after {written_bytes:,} bytes" if written_bytes is not None else ""
        return OutputError(
            f"{target} cannot be written: {reason}{after}.",
            "Free some space, or choose another folder; no part was left.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"{target.parent} cannot be written to: {reason}.", "Choose a folder you may write to.")
    return OutputError(f"{target} cannot be written: {reason}.", "Choose another name or folder.")
