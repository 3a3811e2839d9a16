"""Codebooks: k values that a tensor's weights may take, wherever on the line they are best.

    w'_i = c_{j_i},   sum I_i (w_i - w'_i)^2 + Q_i (w_i - w'_i)^4 + price bits(j_i) at its least

With a number of codewords and no price this is the weighted k-means of Gao et al. 2019, here exact on a fine
histogram; with a price it is the best entropy-constrained scalar quantiser (Chou, Lookabaugh, Gray 1989), which beats
a uniform grid at low rates only, and by little, but takes each weight's own importance into account. Codewords are
weighted means of their weights, so golden rule 1 of Gao et al. holds, with I, codeword by codeword.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.codecs.base import Codec, Parts, Point, index_of, step_of
from netweight.codecs.intervals import Float64, Indices, Priced, Sums, Weights, bins_of, cuts_for
from netweight.codecs.lattice import code_bits, pieces, run_of
from netweight.codecs.probe import ALIVE, overhead_bits, sampled, stream_of
from netweight.codecs.scales import Scales, scales
from netweight.codecs.words import Book, weights_of
from netweight.entropy.layout import UNIT_CLASS, Layout
from netweight.entropy.stream import LONGEST_RUN, model_of, table_count
from netweight.entropy.tables import CENTRE, ESCAPE_BITS
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.kernels import Float32, Int16

MOST = 256  # codewords
SWEPT = 192  # likewise, in a sweep: a tensor much like this one can do with the knob as well
BINS, SWEPT_BINS, PRICED_BINS = 4096, 1024, 512
FREE = 1 << 17  # knob 0 of steps that set a price: 256 octaves
ROUNDS = 3  # of assignment and means over all weights, after the histogram
WORDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
CLASSES = range(-1, 130, 3)  # of prices, as scales in steps: from half a bit on
PARAM_BITS = 8 * 3.0


def price_of(knob: int, mean: float) -> float:
    """Price of a bit at a negative knob: what a fine uniform grid of the knob's step pays for its last one.

    D = step^2 / 12 and R = h - log2(step), so -dD/dR = ln 2 / 6 step^2.

    Args:
        knob: q - 2^17 for the step of q.
        mean: importance of a weight.
    """
    return math.log(2) / 6 * step_of(knob + FREE) ** 2 * mean


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Which integer stands for which codeword: rising with them, so that the coder's classes and neighbours help.

    Attributes:
        integers: int16 [k].
        zero: codewords below the integer 0.
        gap: whether no codeword has the integer 0.
    """

    integers: Int16
    zero: int
    gap: bool

    @classmethod
    def of(cls, words: Float64, counts: Float64) -> "Order":
        """Choose the zero: tables have f(v) = f(-v), so what costs least is a codebook that is symmetric about it."""
        candidates = []
        near = {int(counts.argmax()), int(np.abs(words).argmin()), words.size // 2}
        for zero in sorted({z + shift for z in near for shift in range(-3, 4)} & set(range(words.size))):
            for gap in (False, True)[: 1 + (zero > 0)]:
                j = np.arange(words.size) - zero
                candidates.append(cls((j + (gap & (j >= 0))).astype(np.int16), zero, gap))
        return min(candidates, key=lambda order: order.bits(counts))

    def bits(self, counts: Float64) -> float:
        """Entropy of the integers if signs cannot be told apart, plus the signs."""
        away = np.abs(self.integers.astype(np.intp))
        mass = np.bincount(away, counts)
        bits = float(np.sum(mass * np.log2(mass.sum() / np.maximum(mass, 1e-9)))) + float(counts[away > 0].sum())
        out = (self.integers <= -CENTRE) | (self.integers >= CENTRE - 1)
        return bits + ESCAPE_BITS * float(counts[out].sum())

    def table(self, words: Float64) -> Float32:
        """The codewords as a decoder looks them up, one nobody uses in the gap."""
        table = np.insert(words, self.zero, words[self.zero - 1 : self.zero + 1].mean()) if self.gap else words
        return table.astype(np.float32)


class Codebook(Codec):
    """A tensor by the codewords of its own that are best for it."""

    id: ClassVar[str] = "codebook"
    version: ClassVar[int] = 1
    reals: ClassVar[tuple[str, ...]] = ("codewords",)
    params: ClassVar[tuple[str, ...]] = ("zero",)
    structured: ClassVar[bool] = True
    default: ClassVar[bool] = False

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict some numbers of codewords up to 64, and prices of three quarters of an octave up to eight bits.

        None where relative errors count: the codewords would have to span all octaves, see `relative`.
        """
        if stat.relative or not w.size:
            return []
        weights = weights_of(w, stat)
        trial = Trial.of(w, weights, stat.weight)
        found = bins_of(weights, SWEPT_BINS)
        fixed = enumerate(cuts_for(found[0], WORDS[-1]), start=1)
        points = [trial.point(knob, *found, cuts, 0.0) for knob, cuts in fixed if knob in WORDS]
        found = bins_of(weights, PRICED_BINS)
        spread, mean = spread_of(found[0])
        priced, last = Priced.of(found[0]), 1
        for c in CLASSES if spread > 0 else ():
            knob = index_of(spread * 2.0 ** ((UNIT_CLASS - c) / 4)) - FREE
            price = price_of(knob, mean)
            cuts = priced.cuts(price)
            if cuts.size > SWEPT:
                break
            if cuts.size > last:  # else nothing has changed, or little
                points.append(trial.point(knob, *found, cuts, price))
            last = cuts.size
        return points

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Take the best codewords, and the best of them for each weight.

        Raises:
            UsageError: the knob is neither a number of codewords nor a price, or needs too many codewords.
        """
        if not (1 <= knob <= MOST or -2 * FREE < knob < 0):
            raise UsageError(
                f"The codec codebook has no knob {knob}.", f"Take 1 .. {MOST} codewords, or a price below 0."
            )
        layout = Layout.of(w.shape)
        weights = weights_of(w, replace(stat, relative=False))
        bins, _ = bins_of(weights, BINS if knob > 0 else PRICED_BINS)
        price, cuts = 0.0, np.zeros(0, np.intp)
        if knob > 0:
            *_, cuts = cuts_for(bins, knob)
        else:
            price = price_of(knob, spread_of(bins)[1])
            cuts = Priced.of(bins).cuts(price)
        if cuts.size - 1 > MOST:
            raise UsageError(
                f"The codebook of knob {knob} would have {cuts.size - 1} codewords.", f"Take a larger knob: {MOST} fit."
            )
        book = Book.of(bins.running().between(cuts[:-1], cuts[1:]), price)
        book, groups = book.refined(weights, ROUNDS)
        order = Order.of(book.words, np.bincount(groups, minlength=book.words.size).astype(np.float64))
        k = layout.scan(order.integers[groups])
        whole = scales(w, layout)
        step = _step(weights.w, k)
        stream = stream_of(k, layout, whole, step, run_of(whole.levels(step)))
        return Parts({"k": stream}, {"codewords": order.table(book.words)}, {"zero": order.zero})

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Look the codewords up."""
        table = parts.reals["codewords"]
        index = fine["k"].astype(np.int64) + parts.params["zero"]
        if index.size and not (int(index.min()) >= 0 and int(index.max()) < table.size):
            raise ValueError(f"an integer without a codeword among {table.size}")
        return Layout.of(shape).unscan(table[index], shape)


def spread_of(bins: Sums) -> tuple[float, float]:
    """Weighted standard deviation, and mean importance."""
    s0, s1, s2 = bins.square.sum(axis=1)
    return math.sqrt(max(s2 / s0 - (s1 / s0) ** 2, 0.0)), float(s0 / bins.count.sum())


def _step(x: Float32, k: Int16) -> float:
    """How much of a weight an integer stands for, on average: what makes classes of scales."""
    energy, squares = (float(np.sum(np.square(v, dtype=np.float64))) for v in (x, k))
    return math.sqrt(energy / squares) if energy and squares else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What a sweep knows of a tensor besides its bins: a sample of it for what depends on places.

    Attributes:
        sample: some 32,768 weights in scan order.
        layout: of the tensor.
        whole: its scales.
        part: layout of the sample.
        of_part: its scales.
        weight: half of what multiplies losses.
    """

    sample: Weights
    layout: Layout
    whole: Scales
    part: Layout
    of_part: Scales
    weight: float

    @classmethod
    def of(cls, w: Float32, weights: Weights, weight: float) -> "Trial":
        """Sample a tensor."""
        layout = Layout.of(w.shape)
        whole = scales(w, layout)
        x, part, of_part = sampled(w, layout, whole)
        extra = [None if v is None else sampled(v, layout, whole)[0] for v in (weights.importance, weights.quartic)]
        return cls(Weights(x, *extra), layout, whole, part, of_part, 0.5 * weight)

    def point(self, knob: int, bins: Sums, starts: Float32, cuts: Indices, price: float) -> Point:
        """Predict bits from the sample, and the loss from the bins and what refinement wins on the sample."""
        cells = bins.running().between(cuts[:-1], cuts[1:])
        first = Book.of(cells, price)
        grown = self.layout.size / self.part.size
        apart = np.searchsorted(starts[cuts[1:-1]], self.sample.w, "right")
        # Codewords that were fitted to a sample would promise too much: only a whole tensor's are refined here.
        rounds = ROUNDS if grown == 1 else 0
        book, groups = first.refined(self.sample, rounds)
        loss = float(cells.costs().sum())
        before = first.loss(self.sample, apart) if price or rounds else 0.0
        if before > 0:
            loss *= book.loss(self.sample, groups) / before
        counts = np.bincount(groups, minlength=book.words.size).astype(np.float64)
        order = Order.of(book.words, counts)
        k = order.integers[groups]
        levels = self.of_part.levels(_step(self.sample.w, k))
        model = model_of(0, self.part.plane > 0)
        table = np.zeros((table_count(model), 256), np.int64)
        for where, piece in pieces(self.part, levels, LONGEST_RUN):
            symbol, index, _ = kernels.contexts(k[where], model, piece)
            table += kernels.histogram(symbol, index, table_count(model))
        entropy, numbers = code_bits(table, model)
        bits = entropy * grown + 32.0 * (first.words.size + order.gap) + PARAM_BITS
        known = self.whole if k.any() else Scales(0.0, None, None)
        bits += overhead_bits(self.layout, known, numbers, entropy * grown)
        alive = counts.max() < (1 - ALIVE) * counts.sum()
        return Point(bits, self.weight * loss, Codebook.id, knob, smooth=bool(price and alive))
