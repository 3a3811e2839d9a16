"""Bits one after the other, and Rice codes that adapt to the mean of what they have coded."""

from __future__ import annotations

from netweight.entropy.small import damaged

LONGEST = 40  # ones of a quotient from which on it is written as an integer of 64 bits
FORGETTING = 64  # numbers after which the past counts half


class Mean:
    """Adaptive parameter: the least k with 2^k at least ln 2 (45/64) times the mean of the numbers so far."""

    def __init__(self, first: int) -> None:
        self.total, self.count = max(first, 1), 1

    @property
    def bits(self) -> int:
        """Give k."""
        return max(0, (-(-45 * self.total // (64 * self.count)) - 1).bit_length())

    def add(self, value: int) -> None:
        """Count a number."""
        self.total += value
        self.count += 1
        if self.count >= FORGETTING:
            self.total, self.count = max(1, self.total // 2), self.count // 2


class BitWriter:
    """Bits packed with the first one in the lowest bit of the first byte."""

    def __init__(self) -> None:
        self._bits: list[int] = []

    def __len__(self) -> int:
        return len(self._bits)

    def bit(self, value: int) -> None:
        """One bit."""
        self._bits.append(value)

    def integer(self, value: int, width: int) -> None:
        """An unsigned integer, lowest bit first."""
        self._bits += [value >> j & 1 for j in range(width)]

    def rice(self, value: int, mean: Mean) -> None:
        """A number of 0 or more: quotient in ones and a zero, remainder of k bits."""
        k = mean.bits
        if value >> k < LONGEST:
            self._bits += [1] * (value >> k) + [0]
            self.integer(value & (1 << k) - 1, k)
        else:
            self._bits += [1] * LONGEST
            self.integer(value, 64)
        mean.add(value)

    def bytes(self) -> bytes:
        """All bits, zeros to the end of the last byte."""
        padded = [*self._bits, *[0] * (-len(self._bits) % 8)]
        octets = (padded[at : at + 8] for at in range(0, len(padded), 8))
        return bytes(sum(bit << j for j, bit in enumerate(octet)) for octet in octets)


class BitReader:
    """What `BitWriter` wrote."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def bit(self) -> int:
        """One bit.

        Raises:
            FormatError: there are no more.
        """
        if self.at >= 8 * len(self._data):
            raise damaged("its bits end early")
        self.at += 1
        return self._data[self.at - 1 >> 3] >> (self.at - 1 & 7) & 1

    def integer(self, width: int) -> int:
        """An unsigned integer."""
        return sum(self.bit() << j for j in range(width))

    def rice(self, mean: Mean) -> int:
        """A number of 0 or more."""
        k, quotient = mean.bits, 0
        while quotient < LONGEST and self.bit():
            quotient += 1
        value = quotient << k | self.integer(k) if quotient < LONGEST else self.integer(64)
        mean.add(value)
        return value
