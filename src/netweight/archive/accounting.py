"""Where the bytes of a file are: fixed part, header, sections, tensors; together they are the file."""

from collections.abc import Sequence
from dataclasses import dataclass

from netweight.archive.header import Header


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
        shared: it shares its section with others; its bytes are then a share by weights.
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
    nbytes: float
    bits_per_weight: float


def rows(header: Header) -> Sequence[Row]:
    """Share the bytes of every section out over its tensors, by their weights where they are several.

    The sum over the rows is the sum over the sections.
    """
    taken = [0.0] * len(header.tensors)
    codecs = [""] * len(header.tensors)
    first = [-1] * len(header.tensors)
    shared = [False] * len(header.tensors)
    for number, section in enumerate(header.sections):
        total = sum(header.tensors[member].size for member in section.members)
        for member in section.members:
            part = header.tensors[member].size / total if total else 1 / len(section.members)
            taken[member] += section.size * part
            codecs[member] = section.codec
            first[member] = number if first[member] < 0 else first[member]
            shared[member] |= len(section.members) > 1
    return [
        Row(
            info.name,
            info.dtype,
            info.shape,
            codecs[j],
            header.knobs[j],
            first[j],
            shared[j],
            taken[j],
            8 * taken[j] / info.size if info.size else 0.0,
        )
        for j, info in enumerate(header.tensors)
    ]
