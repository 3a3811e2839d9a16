"""Uniform grid with rate-distortion optimised rounding: the dead zone emerges, the reconstruction is refitted.

    w'_i = alpha k_i,   k = argmin sum (w_i / step - k_i)^2 + kappa bits(k_i)

The fastest decoder, and the codec of high rates: from some six bits a weight on, low bits are written as they are.
It leaves 0.25 bit a weight to the rate-distortion function at high rate, less below one bit (Gish, Pierce 1968;
Sullivan 1996).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.codecs.base import STEPS_PER_OCTAVE, Codec, Parts, Point, checked_step, step_of
from netweight.codecs.lattice import Grid, code_bits, quantise, run_of
from netweight.codecs.probe import LARGEST, SAMPLE, loss_of, probe, stream_of
from netweight.codecs.scales import Scales, scales
from netweight.codecs.trellis import rebuild
from netweight.entropy.layout import CLASSES, UNIT_CLASS, Layout
from netweight.entropy.stream import SHORTEST_RUN, model_of
from netweight.importance.stat import Stat, largest_of
from netweight.kernels import Bytes, Float32, Int16, Int32
from netweight.kernels_counts import split
from netweight.kernels_lattice import fit

KAPPA = 0.13  # price of a bit in steps squared; high-rate theory says 2 ln 2 / 12 = 0.116
# Class above which rounding is plain and low bits may be split off: searching wins nothing there, and with low bits the
# tables hold the larger rows too (3 % at 6.5 bits a weight where rows differ by octaves).
WIDEST = UNIT_CLASS + 14
LARGEST_SHIFT = 22
LARGEST_INTEGER = 2.0**22 - 1
# Classes to try; between eight of the ten the bits of a matrix were 5 % off at 1.4 bits a weight. All of a vector is a
# few hundred bytes, where half of them are as good.
CLASSES_TRIED, OF_VECTORS, HIGH = (0, 1, 3, 5, 7, 9, 11, 14, 17, 20), (0, 4, 9, 14, 20), (9, 11, 14, 17, 20)
SHORT = 1 << 11  # entries of a vector
OCTAVES = (1, 3, 6, 11)  # beyond the classes that are searched; the law in between is exact
_MODEL = model_of(0, neighbours=False)


class Uniform(Codec):
    """Rate-distortion optimised scalar quantisation of a tensor at one step."""

    id: ClassVar[str] = "uniform"
    version: ClassVar[int] = 1
    reals: ClassVar[tuple[str, ...]] = ("scale",)
    linear: ClassVar[str] = "scale"
    rival: ClassVar[str] = "trellis"
    grid = Grid(0, KAPPA)

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict steps of at most three quarters of an octave up to five bits a weight, and wider ones up to fifteen.

        None where relative errors count: one step cannot be right for entries of all sizes, see `relative`.
        """
        return self._sweep(w, stat, OF_VECTORS if w.ndim == 1 and w.size <= SHORT else CLASSES_TRIED)

    def sweep_high(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Leave out the steps where the trellis wins: 0.2 bit a weight, up to six bits."""
        return self._sweep(w, stat, HIGH)

    def _sweep(self, w: Float32, stat: Stat, classes: Sequence[int]) -> Sequence[Point]:
        if stat.relative:
            return []
        whole = scales(w, Layout.of(w.shape))
        points = probe(self.id, w, stat, self.grid, classes, whole)
        return points + _high_rate(points, w, stat, whole)

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Round at the step of `knob`.

        Raises:
            UsageError: the step is so fine that integers leave 22 bits, or far too coarse.
        """
        del stat
        layout = Layout.of(w.shape)
        largest = largest_of(w)
        step = checked_step(self.id, knob, largest, LARGEST_INTEGER)
        whole = scales(w, layout)
        levels = whole.levels(step)
        x = layout.scan(w)
        shift = 0
        k: Int16 | Int32
        if levels.base > WIDEST or largest > 2 * LARGEST * step:
            k = rounded = np.rint(x / np.float32(step)).astype(np.int32)
            shift, _ = _low_bits(rounded, lambda s: whole.levels(step * 2.0**s).classes(layout, 0, w.size))
            run = SHORTEST_RUN
        else:
            run = run_of(levels)
            k = quantise(x, layout, levels, step, self.grid, run).k
        stream = stream_of(k, layout, whole, step, run, shift)
        return Parts({"k": stream}, {"scale": np.array([fit(x, k)[0]], np.float32)})

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Multiply the integers by the scale."""
        return rebuild(fine["k"], parts.reals["scale"][0], shape)


def _low_bits(k: Int32, classes: Callable[[int], Bytes]) -> tuple[int, float]:
    """How many low bits to write as they are, and what all bits then are: entropy by class, escapes, low bits.

    Args:
        k: int32 [n].
        classes: class of each weight, uint8 [n], when so many low bits are dropped.
    """
    best, least_bits = 0, np.inf
    # Fewer low bits than leave half of the integers above 32 would only make escapes.
    first = max(0, int(np.partition(np.abs(k), k.size // 2)[k.size // 2]).bit_length() - 6)
    for shift in range(first, LARGEST_SHIFT + 1):
        counts, beyond, longer = split(k, classes(shift), shift, CLASSES)
        bits = code_bits(counts, _MODEL)[0] + 8 * longer + shift * k.size  # which has counted two bytes of each escape
        if bits < least_bits:
            best, least_bits = shift, bits
        elif not beyond:
            break
    return best, least_bits


def _deviations(layout: Layout, whole: Scales, every: int) -> Int16:
    """Row level + column level of every so many weights of a scan."""
    at = np.arange(0, layout.size, every)
    repeated = layout.columns * (layout.positions if layout.order == "oki" else 1)
    out = np.zeros(at.size, np.int16)
    if whole.row is not None:
        out += whole.row[at // repeated % layout.rows]
    if whole.column is not None:
        out += whole.column[at % layout.columns]
    return out


def _clamped(deviations: Int16, base: int) -> Bytes:
    return kernels.classes(np.array([base], np.int16), deviations, 0, deviations.size, CLASSES - 1)


def _high_rate(points: Sequence[Point], w: Float32, stat: Stat, whole: Scales) -> list[Point]:
    """Continue the curve octave by octave: loss and bits of plain rounding on a sample, above the last point's."""
    last = points[-1] if points else None
    if last is None:
        return []
    layout = Layout.of(w.shape)
    every = max(1, 2 * w.size // SAMPLE)
    sample = layout.scan(w)[::every]
    deviations = _deviations(layout, whole, every)
    largest = largest_of(w)

    def rounded(knob: int) -> tuple[Int32, float]:
        step = step_of(knob)
        k = np.rint(sample / np.float32(step)).astype(np.int32)
        bits = _low_bits(k, lambda shift: _clamped(deviations, whole.levels(step * 2.0**shift).base))[1]
        return k, bits * w.size / sample.size

    before = rounded(last.knob)[1]
    out: list[Point] = []
    for octave in OCTAVES:
        knob = last.knob - octave * STEPS_PER_OCTAVE
        if largest / step_of(knob) > LARGEST_INTEGER:
            break
        k, bits = rounded(knob)
        loss = loss_of(sample, k, stat) * w.size / sample.size
        out.append(Point(last.bits + bits - before, loss, last.codec, knob, smooth=True))
        if not loss:
            break
    return out
