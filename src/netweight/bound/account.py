"""What a file spends on each tensor, and for what: ideal cost of its integers, coder, side information, header."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.archive import Archive
from netweight.archive.opened import Opened
from netweight.entropy.decode import Fine
from netweight.entropy.layout import segment
from netweight.entropy.stream import Piece
from netweight.entropy.tables import CENTRE, ESCAPES

__all__ = ["Account", "Spent", "account"]

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one tensor takes of a file, in bits; all but `spent` is 0 where its section holds no integers.

    Attributes:
        codec: id.
        spent: its share of its sections: what its integers cost, and the rest of the section in that proportion.
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
    spent = {info.name: Spent("", 0.0, 0.0, 0.0) for info in header.tensors}
    coder, side = [], []
    for number, section in enumerate(header.sections):
        opened = archive._open(number)
        names = [header.tensors[member].name for member in section.members]
        if opened.codec is None:
            ideal = entropy = np.zeros(len(names))
            share = np.array([float(info.nbytes) for info in opened.members])
        else:
            ideal, entropy = _costs(opened)
            share = ideal
        share = share / share.sum() if share.sum() > 0 else np.full(len(names), 1 / max(1, len(names)))
        for place, name in enumerate(names):
            before = spent[name]
            spent[name] = Spent(
                section.codec,
                before.spent + 8 * section.size * float(share[place]),
                before.ideal + float(ideal[place]),
                before.entropy + float(entropy[place]),
            )
        coder.append(8 * (section.size - section.prelude) - float(ideal.sum()) if opened.codec is not None else 0.0)
        side.append(8.0 * section.prelude)
    names_of = tuple(tuple(header.tensors[m].name for m in section.members) for section in header.sections)
    sizes = tuple(8.0 * section.size for section in header.sections)
    return Account(spent, 8.0 * archive.header_bytes, tuple(coder), tuple(side), sizes, names_of)


def _costs(opened: Opened) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ideal cost of each member of a section of integers, and its share of their empirical entropy, in bits."""
    head = opened._head
    price = -np.log2(np.maximum(_probabilities(head.tables.freq), 2.0**-12))
    whole = np.zeros(price.shape, np.int64)
    ideal = np.zeros(len(opened.members))
    for chunk, pieces in enumerate(opened.plan):
        for piece, fine in zip(pieces, opened.decode(chunk), strict=True):
            assert isinstance(fine, Fine)
            counts = _histogram(opened, piece, fine.coded, len(price))
            ideal[piece.tensor] += float(np.sum(counts * price))
            whole += counts
    totals = whole.sum(axis=1, keepdims=True)
    least = float(np.sum(whole * np.log2(np.maximum(totals, 1) / np.maximum(whole, 1))))
    low = np.array([float(shift * info.size) for shift, info in zip(head.shifts, opened.members, strict=True)])
    share = least / ideal.sum() if ideal.sum() > 0 else 0.0
    return ideal + low, ideal * share + low


def _histogram(opened: Opened, piece: Piece, coded: NDArray[np.int16], tables: int) -> Counts:
    """How often each table codes each symbol in a piece."""
    head = opened._head
    place = segment(head.layouts[piece.tensor], head.levels[piece.tensor], piece.start, piece.size)
    k = np.sign(coded) * (np.abs(coded) + 1 >> 1) if head.bits else coded
    symbol, index, _ = kernels.contexts(k.astype(np.int16), head.model, place)
    return kernels.histogram(symbol, index, tables)


def _probabilities(frequencies: NDArray[np.integer]) -> NDArray[np.float64]:
    """Of each symbol in each table; one that a table lacks is coded as the escape of its parity, 0 or 255."""
    p = frequencies.astype(np.float64) / 4096
    even, odd = ESCAPES
    is_odd = (np.arange(256) - CENTRE) % 2 == 1
    return np.where(p > 0, p, np.where(is_odd, p[:, odd : odd + 1], p[:, even : even + 1]))
