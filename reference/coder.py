"""Section 5 of docs/format.md: integers by rANS, and the bytes they are read from."""

import numpy as np


class Damaged(Exception):
    """The file breaks a rule of docs/format.md."""


def need(rule, text):
    """Refuse the file unless a rule holds."""
    if not rule:
        raise Damaged(text)


class Reader:
    """A position in a block of bytes."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        """The next `count` bytes."""
        need(self.at + count <= len(self.data), "the data end early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        """The next byte."""
        return self.take(1)[0]

    def varint(self):
        """Seven bits a byte, least significant first; the top bit says that more follow."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            need(shift <= 63, "an integer is longer than 9 bytes")
            if byte < 128:
                return value

    def signed(self):
        """0, -1, 1, -2 .. as 0, 1, 2, 3 .."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)


EIGHTHS = np.array([1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878])


def normalise(weights):
    """Frequencies that sum to 4096, for each row that is not all zero."""
    total = weights.sum(axis=1, keepdims=True)
    freq = np.where(weights > 0, np.maximum(weights * 4096 // np.maximum(total, 1), 1), 0)
    for row in freq:
        while missing := (4096 - int(row.sum())) * bool(row.any()):
            largest = row.argmax()
            row[largest] += max(missing, -(int(row[largest]) // 2))
    return freq


class Coder:
    """Interleaved rANS states."""

    def __init__(self, reader, lanes, freq):
        self.reader = reader
        self.x = np.frombuffer(reader.take(4 * lanes), "<u4").astype(np.int64)
        self.freq, self.cum = freq, np.cumsum(freq, axis=1) - freq
        self.symbol = np.zeros((len(freq), 4096), np.int64)
        for row, f in zip(self.symbol, freq, strict=True):
            row[: f.sum()] = np.repeat(np.arange(256), f)

    def step(self, table):
        """One symbol for each of the first lanes, by these tables."""
        x = self.x[: len(table)]
        slot = x & 4095
        s = self.symbol[table, slot]
        x[:] = self.freq[table, s] * (x >> 12) + slot - self.cum[table, s]
        low = np.flatnonzero(x < 1 << 16)
        x[low] = x[low] << 16 | np.frombuffer(self.reader.take(2 * low.size), "<u2")
        return s

    def close(self):
        """Every lane ends where the encoder started."""
        need((self.x == 1 << 16).all(), "a coder does not end in its start state")


def read_symbols(reader, freq, table):
    """Symbols of a short stream or a field, one for each entry of `table`."""
    count = len(table)
    lanes = 1 if count < 2048 else 4 if count < 32768 else 32
    coder = Coder(reader, lanes, freq)
    out = [coder.step(table[i : i + lanes]) for i in range(0, count, lanes)]
    coder.close()
    return np.concatenate(out)


def read_short(reader, count):
    """Integers of -128 .. 127 with a table of their own."""
    if count == 0:
        return np.zeros(0, np.int64)
    low, high = reader.byte(), reader.byte()
    need(low <= high, "a range is empty")
    if low == high:
        return np.full(count, low - 128)
    size = high - low + 1
    packed = np.frombuffer(reader.take((size + 1) // 2), np.uint8)
    nibbles = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:size].astype(np.int64)
    need(0 < nibbles.max() <= 13, "a short table is out of range")
    weights = np.zeros((1, 256), np.int64)
    weights[0, low : high + 1] = np.where(nibbles > 0, 1 << np.maximum(nibbles - 1, 0), 0)
    return read_symbols(reader, normalise(weights), np.zeros(count, np.int64)) - 128
