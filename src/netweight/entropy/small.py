"""Side information: variable-length integers, and short streams of small integers with a table of their own.

A short stream costs some ten bytes of table and four bytes a lane above its entropy, which is what levels and table
parameters can afford; the long streams of weights are in `stream`.
"""

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.entropy.normalise import normalise
from netweight.errors import FormatError

Ints = NDArray[np.int64]
LOWEST, HIGHEST = -128, 127
_PLAIN = kernels.Model(1, 1, 0, 0, np.zeros((1, 4), np.int32))


class Reader:
    """A position in a block of bytes; every read checks the end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, count: int) -> memoryview:
        """Take `count` bytes.

        Raises:
            FormatError: fewer are left.
        """
        if count < 0 or self.at + count > len(self.data):
            raise damaged(f"{count} bytes are wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        """Take an unsigned integer: seven bits a byte, least significant first, the top bit says that more follow."""
        data, at = self.data, self.at
        value = shift = 0
        while True:
            if at >= len(data):
                raise damaged(f"1 bytes are wanted at {at} of {len(data)}")
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                self.at = at
                return value
            shift += 7
            if shift > 56:
                raise damaged(f"an integer at {at} is longer than 9 bytes")

    def signed(self) -> int:
        """Take a signed integer: 0, -1, 1, -2 .. as 0, 1, 2, 3 .."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)


def damaged(fact: str) -> FormatError:
    """Give the error of a section that contradicts itself."""
    return FormatError(f"A section is damaged: {fact}.", "Get the file again.")


def varint(value: int) -> bytes:
    """Write an unsigned integer as `Reader.varint` reads it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """Write a signed integer as `Reader.signed` reads it."""
    return varint(value << 1 if value >= 0 else ~value << 1 | 1)


def lanes_of(count: int) -> int:
    """Interleaved states of a short stream: few enough that their 4 bytes each stay below a percent or so."""
    return 1 if count < 2048 else 4 if count < 32768 else 32


def encode_small(values: Ints) -> bytes:
    """Code integers of -128 .. 127: range, a nibble for each frequency, then one rANS stream.

    The nibble is 0 for an absent value, else 1 + floor(log2) of its frequency in 4096ths, at least 1.
    """
    if values.size == 0:
        return b""
    low, high = int(values.min()), int(values.max())
    if low < LOWEST or high > HIGHEST:
        raise ValueError(f"side information of {low} .. {high} is outside {LOWEST} .. {HIGHEST}")
    head = bytes([low + 128, high + 128])
    if low == high:
        return head
    counts = np.bincount(values - low, minlength=high - low + 1)
    share = np.maximum(counts * 4096 / counts.sum(), 1.0)
    nibbles = np.where(counts > 0, 1 + np.rint(np.log2(share)).astype(np.int64), 0)
    tables = _tables(nibbles, low)
    padded = np.append(nibbles, 0) if nibbles.size % 2 else nibbles
    head += bytes((padded[0::2] | padded[1::2] << 4).astype(np.uint8))
    symbols = (values + 128).astype(np.uint8)
    return head + kernels.encode(
        symbols, np.zeros(values.size, np.uint16), [values.size], lanes_of(values.size), tables
    )


def decode_small(reader: Reader, count: int) -> Ints:
    """Decode `count` integers written by `encode_small`.

    Raises:
        FormatError: the stream contradicts itself.
    """
    if count == 0:
        return np.zeros(0, np.int64)
    found = kernels.short_stream(reader.data[reader.at :], count, lanes_of(count))
    if found is not None:
        reader.at += found[1]
        return found[0].astype(np.int64)
    low, high = (byte - 128 for byte in reader.take(2))
    if low > high:
        raise damaged(f"a range of {low} .. {high}")
    if low == high:
        return np.full(count, low, np.int64)
    size = high - low + 1
    packed = np.frombuffer(reader.take((size + 1) // 2), np.uint8).astype(np.int64)
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:size]
    if not nibbles.any() or nibbles.max() > 13:
        raise damaged("a table of side information without frequencies")
    used = kernels.decode(
        reader.data[reader.at :], lanes_of(count), _tables(nibbles, low), _PLAIN, [kernels.Segment(count)]
    )
    reader.at += used[1]
    return used[0].astype(np.int64)


def _tables(nibbles: Ints, low: int) -> kernels.Tables:
    weights = np.zeros((1, 256), np.int64)
    weights[0, low + 128 : low + 128 + nibbles.size] = np.where(nibbles > 0, 1 << np.maximum(nibbles - 1, 0), 0)
    return kernels.Tables(normalise(weights))
