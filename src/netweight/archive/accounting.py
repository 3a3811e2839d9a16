"""Where the bytes of a file are: fixed part, header, sections, tensors; together they are the file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netweight.archive.costs import costs
from netweight.archive.header import Header
from netweight.archive.opened import Opened
from netweight.errors import FormatError


@dataclass(frozen=True, slots=True)
class Row:
    """What one tensor takes.

    Attributes:
        name: of the tensor.
        dtype: code.
        shape: elements along each axis.
        codec: id.
        knob: of the codec.
        section: number of its first section.
        shared: it shares its section with others; its bytes are then a share, see `costs.Costs.share`.
        unread: that section is damaged, or of a codec that is not installed, and is shared out by weights instead.
        nbytes: of its sections.
        bits_per_weight: 8 nbytes / weights; 0 for a tensor without any.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    codec: str
    knob: int
    section: int
    shared: bool
    unread: bool
    nbytes: float
    bits_per_weight: float


def rows(header: Header, section_of: Callable[[int], Opened], here: int) -> Sequence[Row]:
    """Give what each tensor takes; the sum over the rows is the sum over the sections.

    Args:
        header: of the file.
        section_of: opens a section; asked for those with several members, which are decoded.
        here: how many sections there are; what a file lacks that ends early takes nothing.
    """
    taken = [0.0] * len(header.tensors)
    codecs = [""] * len(header.tensors)
    first = [-1] * len(header.tensors)
    shared, unread = [False] * len(header.tensors), [False] * len(header.tensors)
    for number, section in enumerate(header.sections):
        share, read = [1.0], True
        if number >= here:
            share = [0.0] * len(section.members)
        elif len(section.members) > 1:
            share, read = _shares(section_of, number, [header.tensors[member].size for member in section.members])
        for place, member in enumerate(section.members):
            taken[member] += share[place] * section.size
            codecs[member] = section.codec
            first[member] = number if first[member] < 0 else first[member]
            shared[member] |= len(section.members) > 1
            unread[member] |= not read
    return [
        Row(
            info.name,
            info.dtype,
            info.shape,
            codecs[j],
            header.knobs[j],
            first[j],
            shared[j],
            unread[j],
            taken[j],
            8 * taken[j] / info.size if info.size else 0.0,
        )
        for j, info in enumerate(header.tensors)
    ]


def _shares(section_of: Callable[[int], Opened], number: int, weights: Sequence[int]) -> tuple[list[float], bool]:
    """Share of each member of a section, and whether it could be read."""
    try:
        opened = section_of(number)
        return (costs(opened).share / (8 * opened.nbytes)).tolist(), True
    except FormatError:
        total = sum(weights)
        return [size / total if total else 1 / len(weights) for size in weights], False
