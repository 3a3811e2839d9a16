"""Uniform grid with rate-distortion optimised rounding: the dead zone emerges, the reconstruction is refitted.

    w'_i = alpha k_i,   k = argmin sum (w_i / step - k_i)^2 + kappa bits(k_i)

The fastest decoder, and the codec of high rates: from some seven bits a weight on, low bits are written as they are.
It leaves 0.25 bit a weight to the rate-distortion function at high rate, less below one bit (Gish, Pierce 1968;
Sullivan 1996).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.base import STEPS_PER_OCTAVE, Codec, Parts, Point, step_of
from netweight.codecs.lattice import Grid, quantise, refit, run_of
from netweight.codecs.probe import LARGEST, SAMPLE, probe, stream_of
from netweight.codecs.scales import scales
from netweight.codecs.trellis import rebuild
from netweight.entropy.layout import UNIT_CLASS, Layout, Levels
from netweight.importance.stat import Stat
from netweight.kernels import Float32

KAPPA = 0.13  # price of a bit in steps squared; high-rate theory says 2 ln 2 / 12 = 0.116
WIDEST = UNIT_CLASS + 18  # class from which on low bits are split off


class Uniform(Codec):
    """Rate-distortion optimised scalar quantisation of a tensor at one step."""

    id: ClassVar[str] = "uniform"
    version: ClassVar[int] = 1
    reals: ClassVar[tuple[str, ...]] = ("scale",)
    linear: ClassVar[str] = "scale"
    grid = Grid(0, KAPPA)

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict steps of three quarters of an octave up to five bits a weight, and octaves up to fifteen."""
        points = list(probe(self.id, w, stat, self.grid, (0, 3, 5, 7, 9, 11, 14, 17, 20, 23, 26)))
        return points + _high_rate(points, w, stat)

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Round at the step of `knob`."""
        del stat
        layout = Layout.of(w.shape)
        step = step_of(knob)
        whole = scales(w, layout)
        levels = whole.levels(step)
        x = layout.scan(w)
        shift = _low_bits(levels)
        k: NDArray[np.signedinteger]
        if shift or float(np.max(np.abs(x), initial=0.0)) > 2 * LARGEST * step:
            k = np.rint(x / np.float32(step)).astype(np.int32)
            run = 17
        else:
            run = run_of(layout, levels)
            k = quantise(x, layout, levels, step, self.grid, run).k
        stream = stream_of(k, layout, whole, step, run, shift)
        return Parts({"k": stream}, {"scale": np.array([refit(x, k)], np.float32)})

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Multiply the integers by the scale."""
        return rebuild(fine["k"], parts.reals["scale"][0], shape)


def _low_bits(levels: Levels) -> int:
    """How many low bits of each integer are written as they are: the larger rows' classes shall fit the tables."""
    top = levels.base
    for level in (levels.row, levels.column):
        if level is not None and level.size:
            top += int(np.sort(level)[3 * level.size // 4])
    return max(0, -(-(top - WIDEST) // 4))


def _high_rate(points: Sequence[Point], w: Float32, stat: Stat) -> list[Point]:
    """Continue the curve: an octave of the step is one bit a weight, the loss is that of plain rounding."""
    out: list[Point] = []
    last = points[-1] if points else None
    largest = float(np.max(np.abs(w), initial=0.0))
    sample = w.reshape(-1)[:: max(1, w.size // SAMPLE)]
    while last is not None and last.loss > 0 and len(out) < 10:
        knob = last.knob - STEPS_PER_OCTAVE
        if largest / step_of(knob) > LARGEST * 256:
            break
        k = np.rint(sample / np.float32(step_of(knob))).astype(np.int32)
        loss = stat.loss(sample, sample - k * refit(sample, k)) * w.size / sample.size
        last = Point(last.bits + w.size, loss, last.codec, knob, smooth=True)
        out.append(last)
    return out
