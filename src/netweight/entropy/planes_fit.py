"""From floats to the head of their section: levels, tails, slots and fields, each decided by its measured cost."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.fields import PACKED, Field, fit_field, read_field
from netweight.entropy.planes_float import (
    TABLES,
    Alphabet,
    Floats,
    Uint16,
    Words,
    encode_chunk,
    index_of,
    rest_planes,
    shift_of,
    symbols_of,
    table_of,
)
from netweight.entropy.planes_levels import (
    MARGIN,
    QUARTERS,
    TOP_BASE,
    Format,
    Place,
    choose_tails,
    fit_levels,
    places_of,
    tail_of,
    trailing_zeros,
)
from netweight.entropy.planes_slots import LARGEST_SPECIALS, SLOTS, choose_slots, find_specials, is_special
from netweight.entropy.small import Reader, damaged, decode_small, encode_small, varint
from netweight.entropy.stream import Piece
from netweight.kernels import Bytes, histogram
from netweight.kernels_counts import entropy

SAMPLED = 1 << 17  # words of a section up to which every plane is counted in full
EACH = 1 << 12  # words that a longer section's chunks give to the sample
ENOUGH = 8  # of a sample's words a value must have on average
CLEARLY = 0.997  # a plane whose sample has this share of its width as entropy is packed

Counts = NDArray[np.int64]


def encode_floats(
    arrays: Sequence[Words], shapes: Sequence[tuple[int, ...]], form: Format, pieces: Sequence[Sequence[Piece]]
) -> tuple[bytes, list[bytes]]:
    """Code arrays of floats of one type.

    Args:
        arrays: flat words; those of complex numbers follow each other.
        shapes: of the arrays, in elements.
        form: of the floats.
        pieces: of each chunk, in words.

    Returns:
        Head and chunks.
    """
    places = _place(arrays, places_of(shapes, form.words), form)
    zeros, tails = _tails(arrays, places, form)
    # From here on everything is done chunk by chunk: it stays in the cache, and memory small.
    draft = Floats(Alphabet(form), places, zeros, tails, Field(8, PACKED), ())
    specials = find_specials(arrays)
    counts = _count(arrays, pieces, draft, specials)
    alphabet = choose_slots(counts, form, specials)
    lookup = alphabet.symbol_of_key()
    draft = replace(draft, alphabet=alphabet, rest=tuple(() for _ in zeros))
    description, symbols, _ = fit_field(_symbol_counts(arrays, pieces, draft, counts, lookup), 8)
    rest, rest_description = _fit_rest(arrays, pieces, draft, lookup)
    head = replace(draft, symbols=symbols, rest=rest)
    data = _write(head) + description + rest_description
    return data, [encode_chunk(_words(arrays, chunk), chunk, head, lookup) for chunk in pieces]


def _words(arrays: Sequence[Words], chunk: Sequence[Piece]) -> Words:
    if len(chunk) == 1:
        return arrays[chunk[0].tensor][chunk[0].start : chunk[0].start + chunk[0].size]
    return np.concatenate([arrays[p.tensor][p.start : p.start + p.size] for p in chunk])


def _place(arrays: Sequence[Words], places: Sequence[Place], form: Format) -> tuple[Place, ...]:
    """Levels of each array, relative to the largest."""
    fitted = [fit_levels(index_of(x, form), p, form) for x, p in zip(arrays, places, strict=True)]
    finite = [scale for scale, _ in fitted if scale > -np.inf]
    top = round(QUARTERS * max(finite, default=0.0))
    out = []
    for scale, place in fitted:
        base = TOP_BASE + round(QUARTERS * scale) - top if scale > -np.inf else 0
        out.append(replace(place, base=max(base, 0)))
    return tuple(out)


def _tails(
    arrays: Sequence[Words], places: Sequence[Place], form: Format
) -> tuple[tuple[int, ...], tuple[NDArray[np.int16], ...] | None]:
    each = [trailing_zeros(x, p, form.low) for x, p in zip(arrays, places, strict=True)]
    sizes = np.concatenate([np.full(p.rows, p.size // max(p.rows, 1)) for p in places])
    zeros = choose_tails(np.concatenate(each), sizes)
    if len(zeros) == 1:
        return zeros, None
    return zeros, tuple(np.maximum(tail_of(z, zeros), 0).astype(np.int16) for z in each)


def _count(
    arrays: Sequence[Words], pieces: Sequence[Sequence[Piece]], draft: Floats, specials: Sequence[int]
) -> Counts:
    """How often each table meets each key: int64 [5, keys]."""
    form = draft.alphabet.form
    keys = form.keys
    width = -(-keys // 256)
    counts = np.zeros((TABLES * width, 256), np.int64)
    for chunk in pieces:
        words, classes = _words(arrays, chunk), draft.classes(chunk)
        special = is_special(words, specials)
        if special is not None:
            words, classes = words[~special], classes[~special]
        key = index_of(words, form) + shift_of(classes, form)
        index = table_of(classes).astype(np.uint16)
        index *= np.uint16(width)
        index += key >> np.uint16(8)
        counts += histogram(key.astype(np.uint8), index, TABLES * width)
    return counts.reshape(TABLES, -1)[:, :keys]


def _symbol_counts(
    arrays: Sequence[Words],
    pieces: Sequence[Sequence[Piece]],
    draft: Floats,
    counts: Counts,
    lookup: Bytes,
) -> Counts:
    """How often each table meets each symbol: int64 [5, 256]; from the keys, where there are no special words."""
    out = np.zeros((TABLES, 256), np.int64)
    if draft.alphabet.specials:
        for symbol, table, _ in _symbols(arrays, pieces, draft, lookup):
            out += histogram(symbol, table, TABLES)
        return out
    for t in range(TABLES):
        used = np.flatnonzero(counts[t])
        np.add.at(out[t], lookup[used], counts[t, used])
    return out


def _symbols(
    arrays: Sequence[Words], pieces: Sequence[Sequence[Piece]], draft: Floats, lookup: Bytes
) -> Iterator[tuple[Bytes, Uint16, Sequence[Piece]]]:
    form = draft.alphabet.form
    for chunk in pieces:
        words, classes = _words(arrays, chunk), draft.classes(chunk)
        symbol = symbols_of(words, index_of(words, form) + shift_of(classes, form), draft.alphabet, lookup)
        yield symbol, table_of(classes).astype(np.uint16), chunk


# ---- rest


def _fit_rest(
    arrays: Sequence[Words], pieces: Sequence[Sequence[Piece]], draft: Floats, lookup: Bytes
) -> tuple[tuple[tuple[Field, ...], ...], bytes]:
    """Fields of the rest; a plane whose sample is as good as random is packed without being counted."""
    form = draft.alphabet.form
    total = sum(x.size for x in arrays)
    few = total <= SAMPLED
    sampled = pieces if few else [[replace(p, size=min(p.size, EACH)) for p in chunk[:1]] for chunk in pieces]
    widths = [form.rest_widths(zeros) for zeros in draft.zeros]
    counts = _count_rest(arrays, sampled, draft, lookup, [[True] * len(w) for w in widths])
    if not few:
        wanted = [
            [_promising(c, w) for c, w in zip(cs, ws, strict=True)] for cs, ws in zip(counts, widths, strict=True)
        ]
        counts = _count_rest(arrays, pieces, draft, lookup, wanted) if any(map(any, wanted)) else counts
    else:
        wanted = [[True] * len(w) for w in widths]
    rest, description = [], b""
    for cs, ws, wants in zip(counts, widths, wanted, strict=True):
        fields = []
        for c, w, want in zip(cs, ws, wants, strict=True):
            data, field, _ = fit_field(c, w) if want else (bytes([PACKED]), Field(w, PACKED), 0.0)
            description += data
            fields.append(field)
        rest.append(tuple(fields))
    return tuple(rest), description


def _promising(counts: Counts, width: int) -> bool:
    """Whether a sample's entropy is below the width, in all or in those classes that have enough of it to tell.

    The entropy is corrected for its bias of 0.72 bit a value seen, which holds from some values a cell on.
    """
    large = counts[counts.sum(axis=1) >= ENOUGH << width]
    for part in (counts.sum(axis=0, keepdims=True), large):
        bits = entropy(part) + 0.72 * int(np.count_nonzero(part))
        if bits < width * int(part.sum()) - (1 - CLEARLY) * width * int(counts.sum()):
            return True
    return not counts.any()


def _count_rest(
    arrays: Sequence[Words],
    pieces: Sequence[Sequence[Piece]],
    draft: Floats,
    lookup: Bytes,
    wanted: Sequence[Sequence[bool]],
) -> list[list[Counts]]:
    form = draft.alphabet.form
    slot = draft.alphabet.slot_of_symbol()
    counts = [[np.zeros((draft.alphabet.slots + 1, 256), np.int64) for _ in wants] for wants in wanted]
    for symbol, _, chunk in _symbols(arrays, pieces, draft, lookup):
        words = _words(arrays, chunk)
        for tail, part in draft.parts(symbol, chunk):
            index = slot.take(symbol[part]).astype(np.uint16)
            for j, plane in enumerate(rest_planes(words[part], form, draft.zeros[tail])):
                if wanted[tail][j]:
                    counts[tail][j] += histogram(plane, index, draft.alphabet.slots + 1)
    return counts


# ---- head


def _write(head: Floats) -> bytes:
    """Special words, slots, bases, deviations, tails."""
    alphabet = head.alphabet
    size = alphabet.form.bits // 8
    out = varint(len(alphabet.specials)) + b"".join(word.to_bytes(size, "little") for word in alphabet.specials)
    out += b"".join(map(varint, (alphabet.first, alphabet.below, alphabet.fine, alphabet.above)))
    out += encode_small(np.array([p.base - 128 for p in head.places], np.int64))
    out += encode_small(np.array([(p.row is not None) | (p.column is not None) << 1 for p in head.places], np.int64))
    deviations = [level.astype(np.int64) for p in head.places for level in (p.row, p.column) if level is not None]
    out += encode_small(np.concatenate([np.zeros(0, np.int64), *deviations]))
    out += bytes([len(head.zeros), *head.zeros])
    if head.tails is not None:
        out += encode_small(np.concatenate(head.tails).astype(np.int64))
    return out


def decode_floats_head(reader: Reader, form: Format, shapes: Sequence[tuple[int, ...]]) -> Floats:
    """Read the head of a section of floats.

    Raises:
        FormatError: the head contradicts itself or the shapes.
    """
    alphabet = _read_alphabet(reader, form)
    places = _read_places(reader, places_of(shapes, form.words))
    count = reader.take(1)[0]
    zeros = tuple(reader.take(count))
    if not 1 <= count <= 4 or max(zeros) > form.low or any(a >= b for a, b in pairwise(zeros)):
        raise damaged(f"trailing zeros {list(zeros)} of {form.low} bits")
    tails = None
    if count > 1:
        rows = [p.rows for p in places]
        flat = decode_small(reader, sum(rows)).astype(np.int16)
        if flat.size and (flat.min() < 0 or flat.max() >= count):
            raise damaged(f"tail {flat.min()} or {flat.max()} of {count}")
        tails = tuple(np.split(flat, np.cumsum(rows)[:-1]))
    symbols = read_field(reader, 8, TABLES)
    classes = alphabet.slots + 1
    rest = tuple(tuple(read_field(reader, width, classes) for width in form.rest_widths(z)) for z in zeros)
    return Floats(alphabet, places, zeros, tails, symbols, rest)


def _read_alphabet(reader: Reader, form: Format) -> Alphabet:
    count = reader.varint()
    if count > LARGEST_SPECIALS:
        raise damaged(f"{count} special words")
    specials = tuple(int.from_bytes(reader.take(form.bits // 8), "little") for _ in range(count))
    first, below, fine, above = (reader.varint() for _ in range(4))
    slots = below + fine + above
    if slots > SLOTS or first + slots > (1 << form.exponent) + MARGIN:
        raise damaged(f"{slots} exponents from {first} on")
    alphabet = Alphabet(form, specials, first, below, fine, above)
    if alphabet.size > 256:
        raise damaged(f"{alphabet.size} symbols")
    return alphabet


def _read_places(reader: Reader, places: Sequence[Place]) -> tuple[Place, ...]:
    bases = decode_small(reader, len(places)) + 128
    flags = decode_small(reader, len(places))
    if flags.size and (flags.min() < 0 or flags.max() > 3):
        raise damaged("levels of an unknown kind")
    if any(f and p.rows == 1 for f, p in zip(flags.tolist(), places, strict=True)):
        raise damaged("levels of a single row")
    total = sum((f & 1) * p.rows + (f >> 1) * p.columns for f, p in zip(flags.tolist(), places, strict=True))
    deviations = decode_small(reader, total).astype(np.int16)
    out, at = [], 0
    for place, base, flag in zip(places, bases.tolist(), flags.tolist(), strict=True):
        rows, columns = (flag & 1) * place.rows, (flag >> 1) * place.columns
        row = deviations[at : at + rows] if rows else None
        column = deviations[at + rows : at + rows + columns] if columns else None
        out.append(replace(place, base=base, row=row, column=column))
        at += rows + columns
    return tuple(out)
