"""Best partitions of the line into cells, one codeword each: dynamic programmes over weights binned by value.

    cost of a cell = min over c of sum I_i (w_i - c)^2 + Q_i (w_i - c)^4

Every weight pays an increasing function of its distance to the codeword, so the best cells are intervals, and
cost(a, c) + cost(b, d) <= cost(a, d) + cost(b, c) for a <= b <= c <= d: the best last cut of a longer prefix is never
further left, and divide and conquer finds all of them in O(m log m) for each codeword. With a price of a bit a cell
also pays price N log2(n / N) for its N of n weights; that breaks the inequality, and all O(m^2) cells are looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.kernels import Float32

SAMPLE = 1 << 16  # weights that place the bins
BLOCK = 1 << 18
FLOOR = 1e-9  # of the mean importance: what a weight without importance weighs
ENDS = 256  # smallest and largest weights that place bins besides
NEWTON, CLOSE = 40, 1e-9  # steps at most, and the share of the largest codeword that the last one may move
WORD_BITS = 40.0  # what a codeword costs: 32 bits and its place in the tables

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A tensor's weights and how much they matter, flat.

    Attributes:
        w: float32 [n].
        importance: I, float32 [n]; ones if None.
        quartic: Q, float32 [n]; zeros if None.
    """

    w: Float32
    importance: Float32 | None = None
    quartic: Float32 | None = None

    @property
    def floor(self) -> float:
        """Importance that every weight has at least; 0 where all have the same."""
        if self.importance is None:
            return 0.0
        return FLOOR * float(np.mean(self.importance, dtype=np.float64))

    def blocks(self) -> Iterator[tuple[slice, Float64, Float64, Float64 | None]]:
        """Where, w, I and Q of blocks of weights in float64."""
        floor = self.floor
        for at in range(0, self.w.size, BLOCK):
            where = slice(at, min(at + BLOCK, self.w.size))
            x = self.w[where].astype(np.float64)
            a = np.ones(x.size) if self.importance is None else self.importance[where].astype(np.float64)
            q = None if self.quartic is None else self.quartic[where].astype(np.float64)
            yield where, x, np.maximum(a, floor), q


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Of groups of weights: how many, and sum I d^p and sum Q d^p, d = w - centre.

    Attributes:
        centre: subtracted from weights, so that differences of running sums keep their digits.
        count: [m].
        square: [3, m], p = 0 .. 2.
        fourth: [5, m], p = 0 .. 4, or None without quartic terms.
    """

    centre: float
    count: Float64
    square: Float64
    fourth: Float64 | None

    def running(self) -> "Sums":
        """Sums of the first 0, 1, .. m groups."""
        zero = np.zeros((5, 1))
        fourth = None if self.fourth is None else np.cumsum(np.hstack([zero, self.fourth]), axis=1)
        return Sums(
            self.centre,
            np.concatenate([[0.0], np.cumsum(self.count)]),
            np.cumsum(np.hstack([zero[:3], self.square]), axis=1),
            fourth,
        )

    def between(self, start: Indices, stop: Indices) -> "Sums":
        """Of running sums: those of the groups start .. stop - 1."""

        def part(values: Float64) -> Float64:
            return np.stack([row[stop] - row[start] for row in values])

        fourth = None if self.fourth is None else part(self.fourth)
        return Sums(self.centre, self.count[stop] - self.count[start], part(self.square), fourth)

    def words(self) -> Float64:
        """Best codeword of each group, less the centre; 0 for a group without weights."""
        s0, s1, _ = self.square
        c: Float64 = np.divide(s1, s0, out=np.zeros_like(s0), where=s0 > 0)
        if self.fourth is None:
            return c
        t0, t1, t2, t3, _ = self.fourth
        low, high = np.full_like(c, -np.inf), np.full_like(c, np.inf)
        for _ in range(NEWTON):
            slope = 2 * (s0 * c - s1) + 4 * (((t0 * c - 3 * t1) * c + 3 * t2) * c - t3)
            bend = 2 * s0 + 12 * ((t0 * c - 2 * t1) * c + t2)
            low, high = np.where(slope < 0, c, low), np.where(slope < 0, high, c)
            new = c - np.divide(slope, bend, out=np.zeros_like(c), where=bend > 0)
            middle = np.where(np.isfinite(low + high), (low + high) / 2, c)
            new = np.where((new >= low) & (new <= high), new, middle)
            moved, c = float(np.max(np.abs(new - c), initial=0.0)), new
            if moved <= CLOSE * float(np.max(np.abs(c), initial=0.0)):  # and the next step would move by its square
                break
        return c

    def costs(self) -> Float64:
        """What each group costs at its best codeword."""
        s0, s1, s2 = self.square
        if self.fourth is None:
            quadratic: Float64 = np.maximum(s2 - np.divide(s1 * s1, s0, out=np.zeros_like(s0), where=s0 > 0), 0.0)
            return quadratic
        c = self.words()
        t0, t1, t2, t3, t4 = self.fourth
        fourth = (((t0 * c - 4 * t1) * c + 6 * t2) * c - 4 * t3) * c + t4
        cost: Float64 = np.maximum((s0 * c - 2 * s1) * c + s2 + fourth, 0.0)
        return cost


def sums_of(weights: Weights, groups: Iterator[Indices], count: int, centre: float) -> Sums:
    """Add weights up by group, block by block.

    Args:
        weights: the weights.
        groups: for each block the group of each weight.
        count: m.
        centre: see `Sums`.
    """
    n, square = np.zeros(count), np.zeros((3, count))
    fourth = None if weights.quartic is None else np.zeros((5, count))
    for (_, x, a, q), group in zip(weights.blocks(), groups, strict=True):
        d = x - centre
        n += np.bincount(group, minlength=count)
        for p in range(3):
            square[p] += np.bincount(group, a, count)
            a *= d
        for p in range(5 if fourth is not None and q is not None else 0):
            fourth[p] += np.bincount(group, q, count)  # type: ignore[index]
            q *= d  # type: ignore[operator]
    return Sums(centre, n, square, fourth)


def bins_of(weights: Weights, most: int) -> tuple[Sums, Float32]:
    """Weights in at most so many bins by value, none of them empty; a bin for each value if there are no more.

    The second result is the least value of each bin. Bins lie as densely as the codewords of a good codebook do, by the
    cube root of the density (Panter, Dite 1951), so that each codeword has as many to choose from.
    """
    every = max(1, weights.w.size // SAMPLE)
    sample = weights.w[::every]
    if every > 1:
        sorted_ends = np.partition(weights.w, (ENDS, weights.w.size - ENDS))
        sample = np.concatenate([sample, sorted_ends[:ENDS], sorted_ends[-ENDS:]])
    values, counts = np.unique(sample, return_counts=True)
    centre = float(np.dot(values.astype(np.float64), counts) / counts.sum())
    if values.size > most:
        share = np.cbrt(np.square(np.diff(values.astype(np.float64))) * counts[1:])
        along = np.concatenate([[0.0], np.cumsum(np.minimum(share, _fair(share, most - 2)))])
        values = np.unique(values[np.searchsorted(along, np.linspace(0, along[-1], most))])
    groups = (np.searchsorted(values[1:], weights.w[where], "right") for where, *_ in weights.blocks())
    found = sums_of(weights, groups, values.size, centre)
    used = found.count > 0
    fourth = None if found.fourth is None else found.fourth[:, used]
    return Sums(found.centre, found.count[used], found.square[:, used], fourth), values[used]


def _fair(share: Float64, parts: int) -> float:
    """The most that one may count for if all together make so many parts: a wide gap takes one bin, not all of them."""
    falling = np.sort(share)[::-1][: parts - 1]
    rest = share.sum() - np.cumsum(falling) + falling
    most = rest / (parts - np.arange(falling.size))
    return float(most[np.argmax(falling <= most)]) if (falling <= most).any() else float(most[-1])


def cuts_for(bins: Sums, most: int) -> Iterator[Indices]:
    """Best cells for 1, 2, .. most codewords: for each number the first bin of every cell, and the end.

    Args:
        bins: m of them.
        most: codewords; fewer come back where there are fewer bins.
    """
    m = bins.count.size
    running = bins.running()
    ends = np.arange(m + 1)
    best = running.between(np.zeros_like(ends), ends).costs()
    lasts: list[Indices] = []
    for k in range(1, min(most, m) + 1):
        if k > 1:
            best, last = _one_more(best, running)
            lasts.append(last)
        edges = [m]
        for last in reversed(lasts):
            edges.append(int(last[edges[-1]]))
        yield np.unique([0, *edges])


def _one_more(best: Float64, running: Sums) -> tuple[Float64, Indices]:
    """Best cost of each prefix by one more cell, and where that cell begins: the leftmost of equals.

    Prefixes in the middle come first; they bound where the cells of the others begin.
    """
    m = best.size - 1
    last = np.zeros(m + 2, np.intp)
    last[m + 1] = m
    found = np.zeros(m + 1)
    step = 1 << m.bit_length()
    while step:
        stop = np.arange(step, m + 1, 2 * step)
        if stop.size:
            low, high = last[stop - step], np.minimum(last[np.minimum(stop + step, m + 1)], stop)
            sizes = np.maximum(high - low, 0) + 1
            first = np.cumsum(sizes) - sizes
            which = np.repeat(np.arange(stop.size), sizes)
            start = np.arange(int(sizes.sum())) - first[which] + low[which]
            total = best[start] + running.between(start, stop[which]).costs()
            least = np.minimum.reduceat(total, first)
            hit = np.flatnonzero(total == least[which])
            _, leftmost = np.unique(which[hit], return_index=True)
            last[stop], found[stop] = start[hit[leftmost]], least
        step >>= 1
    return found, last[: m + 1]


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """Costs and bits of all cells of some bins: entry [stop, start], infinite where there is no cell."""

    cost: Float64
    bits: Float64

    @classmethod
    def of(cls, bins: Sums) -> "Priced":
        """Prepare the bins for questions at any price."""
        m = bins.count.size
        running = bins.running()
        cost, bits = np.full((m + 1, m + 1), np.inf), np.full((m + 1, m + 1), np.inf)
        stop, start = np.tril_indices(m + 1, -1)
        cells = running.between(start, stop)
        cost[stop, start] = cells.costs()
        bits[stop, start] = cells.count * np.log2(running.count[-1] / cells.count) + WORD_BITS
        return cls(cost, bits)

    def cuts(self, price: float) -> Indices:
        """Give the best cells, any number of them, where a bit costs `price`: as `cuts_for` does."""
        m = len(self.cost) - 1
        best, last = np.zeros(m + 1), np.zeros(m + 1, np.intp)
        for stop in range(1, m + 1):
            total = best[:stop] + self.cost[stop, :stop] + price * self.bits[stop, :stop]
            last[stop] = total.argmin()
            best[stop] = total[last[stop]]
        edges = [m]
        while edges[-1]:
            edges.append(int(last[edges[-1]]))
        return np.array(edges[::-1])
