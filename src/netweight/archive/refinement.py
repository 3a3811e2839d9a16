"""Files that may end early: sections in the order in which they refine the network, and where such a file may end."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from netweight.archive.encoding import Block
from netweight.archive.header import AGAIN, Header
from netweight.codecs.registry import EXACT, by_id, codecs
from netweight.errors import FormatError, UsageError
from netweight.units import format_bytes


@dataclass(frozen=True, slots=True)
class Refinement:
    """A length at which a file may end.

    Attributes:
        stream: the last one that is whole for all tensors that have it.
        nbytes: of the file up to there.
        here: whether this file has them.
    """

    stream: str
    nbytes: int
    here: bool


def ordered(blocks: Sequence[Block]) -> tuple[list[Block], int]:
    """Put blocks in file order: what does not refine anything, then level by level; and count those never left out.

    Those are the ones that do not refine, and the first level. In a level the small sections come first: a reader who
    has to stop in it has refined as many tensors as he could, the first and the last layers among them.
    """
    known = codecs()

    def level(block: Block) -> int:
        progressive = block.codec != EXACT and known[block.codec].progressive
        return 1 + known[block.codec].streams.index(block.stream) if progressive else 0

    levels = sorted(level(block) for block in blocks)
    first = next((found for found in levels if found), 0)
    refine = sum(1 for found in levels if found <= first) if first else 0
    return sorted(blocks, key=lambda block: (level(block), block.size if level(block) else 0)), refine


def refinements(header: Header, header_bytes: int, sections: int) -> list[Refinement]:
    """Where a file may end, level by level; sections of one level may also be left out singly.

    Args:
        header: of the file.
        header_bytes: what precedes the sections.
        sections: how many are here.
    """
    out: list[Refinement] = []
    nbytes = header_bytes
    for number, section in enumerate(header.sections, 1):
        nbytes += section.size
        last = number == len(header.sections) or header.sections[number].stream != section.stream
        if header.refine and number >= header.refine and last:
            out.append(Refinement(section.stream, nbytes, number <= sections))
    return out


def sections_within(header: Header, header_bytes: int, file_bytes: int, max_bytes: int | None, name: str) -> int:
    """How many sections of a file to read.

    Args:
        header: of the file.
        header_bytes: what precedes the sections.
        file_bytes: length of the file, checked against the header.
        max_bytes: how much of it to use at most; all if None.
        name: for messages.

    Raises:
        UsageError: nothing of at most so many bytes is a network.
        FormatError: the file ends early, but what is missing refines nothing.
    """
    whole_bytes = header_bytes + sum(section.size for section in header.sections)
    if max_bytes is not None and max_bytes < whole_bytes:
        if not header.refine:
            fact = f"{name} has {whole_bytes} bytes and nothing in it can be left out."
            raise UsageError(fact, "Compress with --codec surp to make a file that can be cut.")
        least_bytes = header_bytes + sum(section.size for section in header.sections[: header.refine])
        if max_bytes < least_bytes:
            fact = f"{max_bytes} bytes of {name} are no network, its first refinement point is at {least_bytes}."
            raise UsageError(fact, f"Take at least {least_bytes}.")
    available = file_bytes if max_bytes is None else min(file_bytes, max_bytes)
    count = header.whole_sections(available - header_bytes)
    if count < len(header.sections):
        for section in header.sections[header.refine :]:
            if section.codec == EXACT or not by_id(section.codec, section.version).progressive:
                raise FormatError(f"{name} ends early, and its codec {section.codec!r} does not refine.", AGAIN)
    if file_bytes < whole_bytes:
        warnings.warn(
            _note(header, header_bytes, count, f"{name} has {file_bytes} of {whole_bytes} bytes"), stacklevel=5
        )
    return count


def _note(header: Header, header_bytes: int, count: int, fact: str) -> str:
    points = refinements(header, header_bytes, count)
    reached = sum(point.here for point in points)
    used = header_bytes + sum(section.size for section in header.sections[:count])
    return f"{fact}: the network is the one of the first {format_bytes(used)}, refinement {reached} of {len(points)}"
