"""Codewords: which one each weight takes, and where they lie best."""

from dataclasses import dataclass

import numpy as np

from netweight.codecs.intervals import Float64, Indices, Sums, Weights, sums_of
from netweight.importance.stat import Stat
from netweight.kernels import Float32


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """Codewords.

    Attributes:
        words: float64 [k], rising.
        bits: of each, or None where they have no price.
        price: of a bit.
    """

    words: Float64
    bits: Float64 | None = None
    price: float = 0.0

    @classmethod
    def of(cls, sums: Sums, price: float) -> "Book":
        """Best codewords for groups of weights; those of empty groups are dropped."""
        used = sums.count > 0
        words = (sums.words() + sums.centre)[used]
        bits = np.log2(sums.count.sum() / sums.count[used]) if price else None
        return cls(words, bits, price)

    def nearest(self, weights: Weights) -> list[Indices]:
        """Codeword of each weight, block by block: the one that costs least."""
        middles = (self.words[1:] + self.words[:-1]) / 2
        out = []
        for _, x, a, q in weights.blocks():
            best = np.searchsorted(middles, x)
            if self.bits is not None:
                best = self._cheapest(x, a, q, best, self.bits)
            out.append(best)
        return out

    def _cheapest(self, x: Float64, a: Float64, q: Float64 | None, near: Indices, bits: Float64) -> Indices:
        """Of the nearest codeword, its neighbours and the commonest one, the one with the least cost + price bits."""
        best, least = near, np.full(x.size, np.inf)
        for candidate in (near, near - 1, near + 1, np.full_like(near, int(bits.argmin()))):
            j = candidate.clip(0, self.words.size - 1)
            e = np.square(x - self.words[j])
            cost = a * e + self.price * bits[j] + (0.0 if q is None else q * e * e)
            best, least = np.where(cost < least, j, best), np.minimum(cost, least)
        return best

    def refined(self, weights: Weights, rounds: int) -> "tuple[Book, Indices]":
        """Assign and take means a few times; the last codewords are means of the last assignment, if there is one."""
        book, groups = self, self.nearest(weights)
        for left in reversed(range(rounds)):
            sums = sums_of(weights, iter(groups), book.words.size, float(book.words.mean()))
            book = Book.of(sums, self.price)
            names = np.cumsum(sums.count > 0) - 1
            groups = book.nearest(weights) if left else [names[group] for group in groups]
        return book, np.concatenate(groups)

    def loss(self, weights: Weights, groups: Indices) -> float:
        """Sum of I e^2 + Q e^4."""
        total = 0.0
        for where, x, a, q in weights.blocks():
            e = np.square(x - self.words[groups[where]])
            total += float(np.dot(a, e)) + (0.0 if q is None else float(np.dot(q, e * e)))
        return total


def weights_of(w: Float32, stat: Stat) -> Weights:
    """Weights as stored with the diagonal of their importance: G_ii A_jj where it has structure."""
    factors = stat.diagonal
    if stat.inputs is not None:
        groups, n, _ = stat.inputs.shape
        columns = np.diagonal(stat.inputs, axis1=1, axis2=2).astype(np.float32)
        factors = np.repeat(columns, w.size // n // groups, axis=0)
        if stat.outputs is not None:
            rows = stat.outputs if stat.outputs.ndim == 1 else np.diagonal(stat.outputs)
            factors *= rows[:, None].astype(np.float32)
    if factors is None or not factors.any():
        return Weights(w.reshape(-1))
    return Weights(w.reshape(-1), factors.reshape(-1), None if stat.quartic is None else stat.quartic.reshape(-1))
