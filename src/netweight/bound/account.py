"""What a file spends on each tensor, and for what: ideal cost of its integers, coder, side information, header."""

from __future__ import annotations

from dataclasses import dataclass

from netweight.archive import Archive
from netweight.archive.costs import costs

__all__ = ["Account", "Spent", "account"]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one tensor takes of a file, in bits; all but `spent` is 0 where its section holds no integers.

    Attributes:
        codec: id.
        spent: its share of its sections, as in `Archive.rows`.
        ideal: sum of -log2 of the probability of each of its integers in the file's own tables, low bits included.
        entropy: its share of the same with the frequencies that occur in the section, as if such tables were free.
    """

    codec: str
    spent: float
    ideal: float
    entropy: float


@dataclass(frozen=True, slots=True)
class Account:
    """All bits of a file.

    Attributes:
        tensors: by name, those with data of their own.
        header: fixed part and header.
        coder: by section, bits of its chunks above the ideal cost of their integers; 0 where it holds none.
        side: by section, bits of its prelude: chunk table, scales, levels, tables.
        sections: by section, all its bits.
        members: by section, names.
    """

    tensors: dict[str, Spent]
    header: float
    coder: tuple[float, ...]
    side: tuple[float, ...]
    sections: tuple[float, ...]
    members: tuple[tuple[str, ...], ...]


def account(archive: Archive) -> Account:
    """Decode every chunk and count what its integers cost under the tables of the file.

    Raises:
        FormatError: the file is damaged.
    """
    header = archive.header
    codecs = {member: section.codec for section in header.sections for member in section.members}
    spent = {info.name: Spent(codecs[j], 0.0, 0.0, 0.0) for j, info in enumerate(header.tensors)}
    sections = header.sections[: archive.sections_here]
    members = tuple(tuple(header.tensors[m].name for m in section.members) for section in sections)
    coder = []
    for number, (section, names) in enumerate(zip(sections, members, strict=True)):
        opened = archive.section(number)
        found = costs(opened)
        for name, share, ideal, entropy in zip(names, found.share, found.ideal, found.entropy, strict=True):
            before = spent[name]
            spent[name] = Spent(
                section.codec,
                before.spent + float(share),
                before.ideal + float(ideal),
                before.entropy + float(entropy),
            )
        integers = opened.head is not None
        coder.append(8 * (section.size - section.prelude) - float(found.ideal.sum()) if integers else 0.0)
    side = tuple(8.0 * section.prelude for section in sections)
    sizes = tuple(8.0 * section.size for section in sections)
    return Account(spent, 8.0 * archive.header_bytes, tuple(coder), side, sizes, members)
