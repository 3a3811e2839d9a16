"""Floats: exponent and top of the mantissa as one symbol whose table row and column choose, then the rest in planes.

A word's symbol names a special word (zero in a pruned tensor), an exponent together with its mantissa's first k bits
("fine"), an exponent alone ("coarse", for rare ones; the k bits follow packed), or an escape (exponent and k bits
follow in 16 bits). Exponents are relative to the class of the word. The rest is sign and low mantissa, less the low
bits that are zero in all of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.fields import Field, decode_field, encode_field, ideal_bits, pack, unpack
from netweight.entropy.planes_levels import Format, Place, spread
from netweight.entropy.small import Reader, damaged
from netweight.entropy.stream import Piece
from netweight.kernels import Bytes, histogram

TABLES = 5  # four quarters of an octave, and rows of zeros
SHIFT_MARGIN = 64  # octaves a class may shift exponents by
SLOTS = 64  # exponents that have symbols
ABSENT, COARSE, FINE = range(3)
LARGEST_SPECIALS = 7
SPECIAL_SHARE = 1 / 64
SAMPLE = 1 << 12
CLEARLY = 0.997  # a plane whose sample has this share of its width as entropy is packed

_CLASS = np.arange(256)
TABLE_OF_CLASS = np.where(_CLASS == 0, 4, _CLASS & 3).astype(np.uint8)

Words = NDArray[np.unsignedinteger]
Uint16 = NDArray[np.uint16]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What each symbol stands for: 0 the escape, then the special words, then the slots from the lowest exponent up.

    Attributes:
        form: of the floats.
        specials: words, in the order of their symbols.
        first: relative exponent of the first slot, plus 64.
        kinds: ABSENT, COARSE or FINE for each slot.
    """

    form: Format
    specials: tuple[int, ...]
    first: int
    kinds: tuple[int, ...]

    def keys(self) -> tuple[Counts, NDArray[np.bool_], Bytes]:
        """Of each symbol: key (relative exponent and prefix), whether it is coarse, and its class for the rest."""
        k = self.form.prefix
        keys, coarse, slot = [0], [False], [0]
        keys += [0] * len(self.specials)
        coarse += [False] * len(self.specials)
        slot += [0] * len(self.specials)
        for j, kind in enumerate(self.kinds):
            each = {ABSENT: 0, COARSE: 1, FINE: 1 << k}[kind]
            keys += [((self.first + j) << k) + m for m in range(each)]
            coarse += [kind == COARSE] * each
            slot += [j + 1] * each
        return np.array(keys, np.int64), np.array(coarse, np.bool_), np.array(slot, np.uint8)

    def symbol_of_key(self) -> Bytes:
        """Symbol of every key, uint8."""
        k = self.form.prefix
        keys, coarse, _ = self.keys()
        out = np.zeros(((1 << self.form.exponent) + SHIFT_MARGIN) << k, np.uint8)
        for s in range(1 + len(self.specials), keys.size):
            out[keys[s] : keys[s] + ((1 << k) if coarse[s] else 1)] = s
        return out


@dataclass(frozen=True, slots=True)
class Floats:
    """What the chunks of a section of floats need.

    Attributes:
        alphabet: of the symbols.
        places: rows, columns and levels of each array.
        zeros: numbers of trailing zeros that rows may have.
        tails: index into `zeros` of each row of each array, or None where there is one.
        symbols: field of the symbols, five classes.
        rest: fields of the rest by tail, least significant byte first; their class is the slot, 0 for an escape.
    """

    alphabet: Alphabet
    places: tuple[Place, ...]
    zeros: tuple[int, ...]
    tails: tuple[NDArray[np.int16], ...] | None
    symbols: Field
    rest: tuple[tuple[Field, ...], ...]

    def classes(self, pieces: Sequence[Piece]) -> Bytes:
        """Class of each word of a chunk."""
        return np.concatenate([self.places[p.tensor].classes(p.start, p.size) for p in pieces])

    def tails_of(self, pieces: Sequence[Piece]) -> Bytes | None:
        """Tail of each word of a chunk; None where there is one."""
        if self.tails is None:
            return None
        return np.concatenate([self._tails(self.tails[p.tensor], self.places[p.tensor], p) for p in pieces])

    @staticmethod
    def _tails(tail: NDArray[np.int16], place: Place, p: Piece) -> Bytes:
        return spread(tail, place.size // place.rows, p.start, p.size)


def rest_widths(form: Format, zeros: int) -> list[int]:
    """Bits of each plane of the rest, the least significant first."""
    bits = form.low + 1 - zeros
    return [min(8, bits - at) for at in range(0, bits, 8)]


# ---- parts of words


def index_of(words: Words, form: Format) -> Uint16:
    """Exponent and mantissa prefix: uint16 below 2^(E + k)."""
    shifted = words >> words.dtype.type(form.low) if form.low else words
    return shifted.astype(np.uint16) & np.uint16((1 << form.exponent + form.prefix) - 1)


def shift_of_class(form: Format) -> Uint16:
    """What makes a key of an index, by class, to be added modulo 2^16: uint16 [256]."""
    shift = (SHIFT_MARGIN << form.prefix) - ((_CLASS >> 2) << form.prefix)
    return shift.astype(np.uint16)


def rest_of(words: Words, form: Format, zeros: int) -> Words:
    """Sign and low mantissa without its trailing zeros."""
    kind = words.dtype.type
    sign = (words >> kind(form.bits - 1)) << kind(form.low)
    return (words & kind((1 << form.low) - 1) | sign) >> kind(zeros)


def rest_planes(words: Words, form: Format, zeros: int) -> list[Bytes]:
    """Planes of the rest, the least significant first."""
    rest = rest_of(words, form, zeros)
    return [(rest >> rest.dtype.type(8 * j)).astype(np.uint8) for j in range(len(rest_widths(form, zeros)))]


# ---- fitting


def find_specials(arrays: Sequence[Words]) -> tuple[int, ...]:
    """Words that a sixty-fourth of a sample consists of, at most seven, the most frequent first."""
    total = sum(x.size for x in arrays)
    step = max(1, total // SAMPLE)
    sample = np.concatenate([x[::step] for x in arrays])
    values, counts = np.unique(sample, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LARGEST_SPECIALS]
    least = max(4.0, SPECIAL_SHARE * sample.size)
    return tuple(int(values[j]) for j in order if counts[j] >= least)


def is_special(words: Words, specials: Sequence[int]) -> NDArray[np.bool_] | None:
    """Which words are special; None where there are no special words."""
    if not specials:
        return None
    out = words == words.dtype.type(specials[0])
    for word in specials[1:]:
        out |= words == words.dtype.type(word)
    return np.asarray(out, np.bool_)


def count_keys(index: Uint16, classes: Bytes, form: Format, width: int) -> Counts:
    """How often each table meets each key: int64 [5, 256 width]."""
    key = index + shift_of_class(form)[classes]
    table = TABLE_OF_CLASS.astype(np.uint16)[classes] * np.uint16(width) + (key >> np.uint16(8))
    return histogram(key.astype(np.uint8), table, TABLES * width).reshape(TABLES, -1)


def choose_slots(counts: Counts, form: Format, specials: tuple[int, ...]) -> Alphabet:
    """Give symbols to the exponents that pay for them.

    Args:
        counts: int64 [5, keys].
        form: of the floats.
        specials: special words.
    """
    k = form.prefix
    by_slot = counts.reshape(TABLES, -1, 1 << k)
    whole = by_slot.sum(axis=2)
    n = whole.sum(axis=0)
    total = np.maximum(counts.sum(axis=1), 1)
    # A symbol costs its levels (2 bits) in each table that has it, and what a frequency of 1/4096 wastes on rarer ones.
    share = total / 4096
    waste = 1.44 * np.clip(share[:, None] - whole, 0, None) * (whole > 0)
    present = n * 12 > 10 + 2 * (whole > 0).sum(axis=0) + waste.sum(axis=0)
    window = np.convolve(np.where(present, n, 0), np.ones(SLOTS, np.int64))[SLOTS - 1 :]
    first = int(window.argmax()) if n.size > SLOTS else 0
    slots = np.flatnonzero(present[first : first + SLOTS])
    last = int(slots[-1]) + 1 if slots.size else 0
    skip = int(slots[0]) if slots.size else 0
    first, last = first + skip, last - skip
    gain = _fine_gain(by_slot[:, first : first + last], share)
    kinds = np.where(present[first : first + last], np.where(gain > 0, FINE, COARSE), ABSENT)
    room = 256 - 1 - len(specials) - int((kinds > ABSENT).sum())
    for j in np.argsort(-gain, kind="stable"):
        if kinds[j] == FINE:
            room -= (1 << k) - 1
            if room < 0:
                kinds[j] = COARSE
    return Alphabet(form, specials, first, tuple(kinds.tolist()))


def _fine_gain(by_slot: Counts, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits that coding the prefix with the exponent saves, by slot."""
    each = by_slot.shape[2]
    gain = np.zeros(by_slot.shape[1])
    for t in range(TABLES):
        used = by_slot[t].any(axis=1)
        packed = by_slot[t].sum(axis=1) * np.log2(each)
        coded = np.array([ideal_bits(row[None]) for row in by_slot[t]])
        waste = 1.44 * np.clip(share[t] - by_slot[t], 0, None) * (by_slot[t] > 0)
        gain += used * (packed - coded - waste.sum(axis=1) - 2.0 * (each - 1))
    return gain


def symbols_of(words: Words, index: Uint16, classes: Bytes, alphabet: Alphabet, lookup: Bytes) -> Bytes:
    """Symbol of each word."""
    key = index + shift_of_class(alphabet.form)[classes]
    out: Bytes = lookup[key]
    for j, word in enumerate(alphabet.specials):
        out[words == words.dtype.type(word)] = 1 + j
    return out


# ---- chunks


def encode_chunk(words: Words, pieces: Sequence[Piece], head: Floats, lookup: Bytes) -> bytes:
    """Code a chunk: symbols, prefixes of the coarse, escapes, then the planes of the rest by tail."""
    alphabet = head.alphabet
    form = alphabet.form
    _, coarse, slot = alphabet.keys()
    index = index_of(words, form)
    classes = head.classes(pieces)
    symbol = symbols_of(words, index, classes, alphabet, lookup)
    out = [encode_field(head.symbols, symbol, TABLE_OF_CLASS[classes])]
    if form.prefix and coarse.any():
        prefix = index[coarse[symbol]] & np.uint16((1 << form.prefix) - 1)
        out.append(pack(prefix.astype(np.uint8), form.prefix))
    out.append(index[symbol == 0].astype("<u2").tobytes())
    for part, fields, zeros, _ in parts_by_tail(head, symbol, head.tails_of(pieces)):
        chosen = words if part is None else words[part]
        slots = slot[symbol if part is None else symbol[part]]
        planes = rest_planes(chosen, form, zeros)
        out += [encode_field(field, plane, slots) for field, plane in zip(fields, planes, strict=True)]
    return b"".join(out)


def parts_by_tail(
    head: Floats, symbol: Bytes, tails: Bytes | None
) -> list[tuple[NDArray[np.bool_] | None, tuple[Field, ...], int, int]]:
    """Select the words of each tail that have a rest; None selects all."""
    count = len(head.alphabet.specials)
    plain = (symbol == 0) | (symbol > count) if count else None
    if tails is None:
        return [(plain, head.rest[0], head.zeros[0], 0)]
    masks = [tails == j for j in range(len(head.zeros))]
    return [
        (mask if plain is None else mask & plain, fields, zeros, j)
        for j, (mask, fields, zeros) in enumerate(zip(masks, head.rest, head.zeros, strict=True))
    ]


def decode_chunk(head: Floats, pieces: Sequence[Piece], reader: Reader) -> Words:
    """Decode the words of a chunk.

    Raises:
        FormatError: the chunk contradicts its head.
    """
    alphabet = head.alphabet
    form = alphabet.form
    k = form.prefix
    dtype = np.dtype(f"u{form.bits // 8}")
    total = sum(p.size for p in pieces)
    classes = head.classes(pieces)
    symbol = decode_field(head.symbols, reader, total, TABLE_OF_CLASS[classes])
    keys, coarse, slot = alphabet.keys()
    if symbol.size and int(symbol.max()) >= keys.size:
        raise damaged(f"symbol {symbol.max()} of {keys.size}")
    limit = np.uint16((1 << form.exponent + k) - 1)
    index = keys.astype(np.uint16)[symbol] - shift_of_class(form)[classes]
    if k and coarse.any():
        at = np.flatnonzero(coarse[symbol])
        index[at] += unpack(reader, at.size, k)
    index &= limit
    at = np.flatnonzero(symbol == 0)
    index[at] = np.frombuffer(reader.take(2 * at.size), "<u2") & limit
    words = index.astype(dtype) << dtype.type(form.low) if form.low else index.astype(dtype)
    for part, fields, zeros, _ in parts_by_tail(head, symbol, head.tails_of(pieces)):
        slots = slot[symbol if part is None else symbol[part]]
        rest = _decode_rest(fields, reader, slots, dtype) << dtype.type(zeros)
        rest = (rest >> dtype.type(form.low)) << dtype.type(form.bits - 1) | rest & dtype.type((1 << form.low) - 1)
        if part is None:
            words |= rest
        else:
            words[part] |= rest
    for j, word in enumerate(alphabet.specials):
        words[symbol == 1 + j] = word
    return words


def _decode_rest(fields: Sequence[Field], reader: Reader, slots: Bytes, dtype: np.dtype[np.unsignedinteger]) -> Words:
    rest = np.zeros(slots.size, dtype)
    planes = rest.view(np.uint8).reshape(slots.size, dtype.itemsize)
    for j, field in enumerate(fields):
        planes[:, j] = decode_field(field, reader, slots.size, slots)
    return rest
