"""Floats: exponent and top of the mantissa as one symbol whose table row and column choose, then the rest in planes.

A word's symbol names a special word (zero in a pruned tensor), an exponent together with its mantissa's first k bits
("fine"), an exponent alone ("coarse", for rare ones; the k bits follow packed), or an escape (exponent and k bits
follow in 16 bits). Exponents are relative to the class of the word. The rest is sign and low mantissa, less the low
bits that are zero in all of a row.

What did not help, on a sentence encoder of 22.7 M weights: a fourth bit of prefix (0.002 bit a weight, as much as its
tables cost), levels in eighths of an octave (0.004 bit, and four more tables), more of the mantissa in context of the
exponent (nothing that a table would not cost). Short tensors gain 0.1 % where they share a section, up to 2^15 weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.fields import CLASSED, Field, decode_field, encode_field, pack, unpack
from netweight.entropy.planes_levels import MARGIN, Format, Place, spread
from netweight.entropy.small import Reader, damaged
from netweight.entropy.stream import Piece
from netweight.kernels import Bytes

TABLES = 5  # four quarters of an octave, and rows of zeros

Words = NDArray[np.unsignedinteger]
Uint16 = NDArray[np.uint16]
Part = NDArray[np.intp] | slice

EVERYTHING = slice(None)


@dataclass(frozen=True, slots=True)
class Alphabet:
    """What each symbol stands for: 0 the escape, then the special words, then the slots from the lowest exponent up.

    Attributes:
        form: of the floats.
        specials: words, in the order of their symbols.
        first: relative exponent of the first slot, plus 64.
        below: coarse slots below the fine ones, one symbol each.
        fine: slots of 2^k symbols each.
        above: coarse slots above them.
    """

    form: Format
    specials: tuple[int, ...] = ()
    first: int = 0
    below: int = 0
    fine: int = 0
    above: int = 0

    @property
    def slots(self) -> int:
        """Exponents that have symbols."""
        return self.below + self.fine + self.above

    @property
    def first_slot(self) -> int:
        """Symbol of the first slot."""
        return 1 + len(self.specials)

    @property
    def first_fine(self) -> int:
        """Symbol of the first fine slot."""
        return self.first_slot + self.below

    @property
    def end_fine(self) -> int:
        """Symbol behind the last fine slot."""
        return self.first_fine + (self.fine << self.form.prefix)

    @property
    def size(self) -> int:
        """Symbols."""
        return self.end_fine + self.above

    @property
    def first_key(self) -> int:
        """Key of the first fine slot."""
        return (self.first + self.below) << self.form.prefix

    def keys(self) -> Uint16:
        """Key (relative exponent and prefix) of each symbol, uint16 [size]; of coarse ones with a prefix of 0."""
        k = self.form.prefix
        slots = (self.first + np.arange(self.slots)) << k
        fine = self.first_key + np.arange(self.fine << k)
        nothing = np.zeros(self.first_slot, np.int64)
        below, above = slots[: self.below], slots[self.below + self.fine :]
        return np.concatenate([nothing, below, fine, above]).astype(np.uint16)

    def slot_of_symbol(self) -> Bytes:
        """Class of the rest, uint8 [256]: 1 + slot, 0 for escapes."""
        k = self.form.prefix
        out = np.zeros(256, np.uint8)
        slot = np.arange(1, 1 + self.slots)
        sizes = np.ones(self.slots, np.int64)
        sizes[self.below : self.below + self.fine] = 1 << k
        out[self.first_slot : self.size] = np.repeat(slot, sizes)
        return out

    def symbol_of_key(self) -> Bytes:
        """Symbol of every key, uint8."""
        k = self.form.prefix
        out = np.zeros(self.form.keys, np.uint8)
        at = self.first << k
        for first, slots, each in (
            (self.first_slot, self.below, 1),
            (self.first_fine, self.fine, 1 << k),
            (self.end_fine, self.above, 1),
        ):
            symbols = np.arange(first, first + slots * each)
            out[at : at + (slots << k)] = np.repeat(symbols, (1 << k) // each)
            at += slots << k
        return out

    def coarse(self, symbol: Bytes) -> NDArray[np.intp]:
        """Where symbols are coarse."""
        if not self.form.prefix or not self.below + self.above:
            return np.zeros(0, np.intp)
        low = (symbol >= self.first_slot) & (symbol < self.first_fine)
        return np.flatnonzero(low | (symbol >= self.end_fine) if self.above else low)


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

    def parts(self, symbol: Bytes, pieces: Sequence[Piece]) -> Iterator[tuple[int, Part]]:
        """Words of each tail of a chunk that have a rest: index of the tail, and which words."""
        plain = None
        if self.alphabet.specials:
            plain = (symbol == 0) | (symbol >= self.alphabet.first_slot)
        if self.tails is None:
            yield 0, EVERYTHING if plain is None else np.flatnonzero(plain)
            return
        tail = np.concatenate([_tails(self.tails[p.tensor], self.places[p.tensor], p) for p in pieces])
        for j in range(len(self.zeros)):
            mask = tail == j
            yield j, np.flatnonzero(mask if plain is None else mask & plain)


def _tails(tail: NDArray[np.int16], place: Place, p: Piece) -> Bytes:
    return spread(tail, place.size // place.rows, p.start, p.size)


# ---- parts of words


def index_of(words: Words, form: Format) -> Uint16:
    """Exponent and mantissa prefix: uint16 below 2^(E + k)."""
    index = (words >> words.dtype.type(form.low) if form.low else words).astype(np.uint16)
    index &= np.uint16((1 << form.exponent + form.prefix) - 1)
    return index


def shift_of(classes: Bytes, form: Format) -> Uint16:
    """What a key is larger than its index, modulo 2^16: uint16 [n]."""
    shift = (classes >> np.uint8(2)).astype(np.uint16)
    shift <<= np.uint16(form.prefix)
    return np.subtract(np.uint16(MARGIN << form.prefix), shift, out=shift)


def table_of(classes: Bytes) -> Bytes:
    """Table of the symbols of a class: its last two bits, or 4 for class 0."""
    return np.asarray(classes & np.uint8(3) | (classes == 0).view(np.uint8) << np.uint8(2), np.uint8)


def rest_planes(words: Words, form: Format, zeros: int) -> list[Bytes]:
    """Planes of the rest, sign and low mantissa without its trailing zeros, the least significant first."""
    kind = words.dtype.type
    rest = words >> kind(form.bits - 1)
    rest <<= kind(form.low)
    rest |= words & kind((1 << form.low) - 1)
    if zeros:
        rest >>= kind(zeros)
    planes = np.ascontiguousarray(rest, rest.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, rest.itemsize)
    return [np.ascontiguousarray(planes[:, j]) for j in range(len(form.rest_widths(zeros)))]


def symbols_of(words: Words, key: Uint16, alphabet: Alphabet, lookup: Bytes) -> Bytes:
    """Symbol of each word; most are fine, and arithmetic is faster there than a table."""
    first, size = np.uint16(alphabet.first_key), np.uint16(alphabet.fine << alphabet.form.prefix)
    above = key - first
    symbol = above.astype(np.uint8)
    symbol += np.uint8(alphabet.first_fine)
    other = np.flatnonzero(above >= size)
    symbol[other] = lookup.take(key.take(other))
    for j, word in enumerate(alphabet.specials):
        symbol[words == words.dtype.type(word)] = 1 + j
    return symbol


# ---- chunks


def encode_chunk(words: Words, pieces: Sequence[Piece], head: Floats, lookup: Bytes) -> bytes:
    """Code a chunk: symbols, prefixes of the coarse, escapes, then the planes of the rest by tail."""
    alphabet = head.alphabet
    form = alphabet.form
    index = index_of(words, form)
    classes = head.classes(pieces)
    symbol = symbols_of(words, index + shift_of(classes, form), alphabet, lookup)
    out = [encode_field(head.symbols, symbol, table_of(classes))]
    prefix = index.take(alphabet.coarse(symbol)) & np.uint16((1 << form.prefix) - 1)
    out.append(pack(prefix.astype(np.uint8), form.prefix))
    out.append(index.take(np.flatnonzero(symbol == 0)).astype("<u2").tobytes())
    for tail, part in head.parts(symbol, pieces):
        fields = head.rest[tail]
        slots = _slots(fields, alphabet, symbol[part])
        planes = rest_planes(words[part], form, head.zeros[tail])
        out += [encode_field(field, plane, slots) for field, plane in zip(fields, planes, strict=True)]
    return b"".join(out)


def _slots(fields: Sequence[Field], alphabet: Alphabet, symbol: Bytes) -> Bytes | None:
    return alphabet.slot_of_symbol().take(symbol) if any(f.kind == CLASSED for f in fields) else None


def decode_chunk(head: Floats, pieces: Sequence[Piece], reader: Reader) -> Words:
    """Decode the words of a chunk.

    Raises:
        FormatError: the chunk contradicts its head.
    """
    alphabet = head.alphabet
    form = alphabet.form
    dtype = np.dtype(f"<u{form.bits // 8}")
    classes = head.classes(pieces)
    symbol = decode_field(head.symbols, reader, classes.size, table_of(classes))
    if symbol.size and int(symbol.max()) >= alphabet.size:
        raise damaged(f"symbol {symbol.max()} of {alphabet.size}")
    index = _indices(alphabet, symbol, shift_of(classes, form), reader)
    words = index.astype(dtype)
    if form.low:
        words <<= dtype.type(form.low)
    for tail, part in head.parts(symbol, pieces):
        slots = _slots(head.rest[tail], alphabet, symbol[part])
        rest = _decode_rest(head.rest[tail], reader, symbol[part].size, slots, dtype)
        rest <<= dtype.type(head.zeros[tail])
        words[part] |= rest & dtype.type((1 << form.low) - 1)
        rest >>= dtype.type(form.low)
        rest <<= dtype.type(form.bits - 1)
        words[part] |= rest
    for j, word in enumerate(alphabet.specials):
        words[symbol == 1 + j] = word
    return words


def _indices(alphabet: Alphabet, symbol: Bytes, shift: Uint16, reader: Reader) -> Uint16:
    """Exponent and prefix of each word; 0 for special ones."""
    k = alphabet.form.prefix
    index = symbol.astype(np.uint16)
    index += np.uint16((alphabet.first_key - alphabet.first_fine) % (1 << 16))
    coarse = alphabet.coarse(symbol)
    index[coarse] = alphabet.keys().take(symbol.take(coarse)) + unpack(reader, coarse.size, k)
    index -= shift
    escape = np.flatnonzero(symbol == 0)
    index[escape] = np.frombuffer(reader.take(2 * escape.size), "<u2")
    if alphabet.specials:
        index[(symbol > 0) & (symbol < alphabet.first_slot)] = 0
    index &= np.uint16((1 << alphabet.form.exponent + k) - 1)
    return index


def _decode_rest(
    fields: Sequence[Field], reader: Reader, count: int, slots: Bytes | None, dtype: np.dtype[np.unsignedinteger]
) -> Words:
    rest = np.zeros(count, dtype)
    planes = rest.view(np.uint8).reshape(count, dtype.itemsize)
    for j, field in enumerate(fields):
        planes[:, j] = decode_field(field, reader, count, slots)
    return rest
