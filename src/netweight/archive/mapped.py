"""A file to its header and views of its sections: only the header is read, the rest is mapped."""

import mmap
import os
from pathlib import Path

from netweight.archive.header import FIXED_BYTES, Header
from netweight.archive.reading import packed_size, unpack
from netweight.archive.refinement import sections_within
from netweight.errors import FormatError, UsageError


def map_file(path: str | os.PathLike[str], max_bytes: int | None) -> tuple[Header, bytes, list[list[memoryview]]]:
    """Read and check a header, and map the sections behind it.

    Args:
        path: of the file.
        max_bytes: how much of it to use at most; all if None.

    Returns:
        The header, the bytes before the first section, and the sections that are there.

    Raises:
        UsageError: there is no such file, or nothing of `max_bytes` is a network.
        FormatError: it is damaged, no `.nwt`, or of a newer format.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            fixed = file.read(FIXED_BYTES)
            packed = file.read(packed_size(fixed, size, name))
            header = unpack(fixed, packed, size)
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise UsageError(f"There is no file {name}.", "Check the name.") from None
    except OSError as error:
        raise FormatError(f"{name} cannot be read: {error.strerror}.", "Check the path and its permissions.") from None
    at = FIXED_BYTES + len(packed)
    sections = []
    for section in header.sections[: sections_within(header, at, size, max_bytes, name)]:
        sections.append([view[at : at + section.size]])
        at += section.size
    return header, fixed + packed, sections
