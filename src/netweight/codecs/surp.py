"""Successive refinement: whole levels of the pruner of Isik et al. (2022), each a stream of its own.

    T_j = step 2^j:  send v_i = sign(r_i) (ceil(|r_i| / T_j) - 1),   r_i -= v_i T_j + sign(v_i) T_j / 4

from the highest rung of this ladder down to j = 0, where r_i is what is still missing of w_i: the weight itself at
first. Everything above the threshold is sent at once, as often as it passes it, and no threshold is: the decoder knows
the ladder.

A weight is put a quarter of a rung above the threshold that it passed, near the median of what may be above it. So
residuals have both signs, as in the symmetric form of the pruner. Every level that a weight is sent in brings it
nearer: any prefix of the streams is a network, and the longer one is nearer in every weight. The stream allows rungs
of half octaves and other offsets too; with offset 0 no weight ever grows, |w'| <= |w|, and the same absolute error of
Laplacian weights takes 8 to 19 % more bits.

Source: Isik, Weissman, No 2022; the octave and the quarter by measurement, see experiments/ladder_rate.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.codecs.base import STEPS_PER_OCTAVE, Codec, Parts, Point, checked_step, index_of, step_of
from netweight.codecs.lattice import code_bits
from netweight.codecs.probe import ALIVE, ENTRY_BITS, overhead_bits, sampled, stream_of
from netweight.codecs.scales import Scales, scales
from netweight.entropy.layout import UNIT_CLASS, Layout, segment
from netweight.entropy.stream import model_of, table_count
from netweight.errors import UsageError
from netweight.importance.stat import Stat, largest_of
from netweight.kernels import Float32, Int16, Int32
from netweight.kernels_ladder import add_level, send_level

RUNGS = 16
UNIT = 32  # of what decoders add up, in a step
GRAIN = 16  # of the encoder's residuals, in such a unit
LARGEST = 400_000.0  # magnitude in steps: sums stay below 2^24, which float32 holds
FINEST, COARSEST = -120 * STEPS_PER_OCTAVE, 100 * STEPS_PER_OCTAVE  # knobs: no product is subnormal or overflows
WIDEST = 30_000  # multiples of a threshold that fit the integers of a level
STARTED = 1024  # the first rung is the highest that one weight in so many passes
BLOCK = 1 << 18
LEVEL_BITS = 8 * 20.0  # a level's share of the header and of its section's head
# A tensor's scale in classes of its last threshold: 8 is one threshold, four classes an octave.
_CLASSES = (-2, -1, 0, 1, 2, 3, 4, 6, 8, 11, 14, 18, 22, 26)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Thresholds and reconstruction points, in 32nds of a step.

    Attributes:
        rise: from one rung to the next, in half octaves: 1 or 2.
        offset: how far above its threshold a weight is put, in 16ths of it: 0 .. 8.
    """

    rise: int = 2
    offset: int = 4

    def threshold(self, rung: int) -> int:
        """M of a rung: 32 2^(e/2), e half octaves above the first; 45 stands for 32 sqrt 2.

        >>> [Ladder(1).threshold(j) for j in range(6)]
        [32, 45, 64, 90, 128, 180]
        """
        half_octaves = rung * self.rise
        return (UNIT, 45)[half_octaves % 2] << half_octaves // 2

    def above(self, rung: int) -> int:
        """How far above its threshold a weight is put."""
        return self.threshold(rung) * self.offset // 16


class Surp(Codec):
    """A ladder of thresholds, each level of which refines the network."""

    id: ClassVar[str] = "surp"
    version: ClassVar[int] = 1
    params: ClassVar[tuple[str, ...]] = ("step", "rise", "offset")
    streams: ClassVar[tuple[str, ...]] = tuple(str(rung) for rung in reversed(range(RUNGS)))
    default: ClassVar[bool] = False
    progressive: ClassVar[bool] = True

    def __init__(self, ladder: Ladder = Ladder()) -> None:
        self.ladder = ladder

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict last thresholds of a quarter of an octave to an octave, up to some five bits a weight.

        None for vectors, which are few and act on all weights, nor where relative errors count.
        """
        if w.ndim < 2 or stat.relative:
            return []
        layout = Layout.of(w.shape)
        whole = scales(w, layout)
        if whole.log2 < -900:
            return [Point(ENTRY_BITS, 0.0, self.id, 0)]
        largest = largest_of(w)
        x, part, of_part = sampled(w, layout, whole)
        grown = layout.size / x.size
        nothing = index_of(4 * largest)
        points = [Point(overhead_bits(layout, Scales(0.0, None, None), 0, 0.0), stat.loss(w, w), self.id, nothing)]
        for c in _CLASSES:
            q = index_of(2.0 ** (whole.log2 - (c - UNIT_CLASS) / 4))
            if largest / step_of(q) > LARGEST:
                continue
            levels = _climb_down(x, step_of(q), self.ladder)
            bits = ENTRY_BITS
            for rung, k in levels.items():
                top = step_of(q) * self.ladder.threshold(rung) / UNIT
                bits += _level_bits(k, top, (layout, whole), (part, of_part), grown)
            error = x - _climb_up(levels, x.size, self.ladder) * np.float32(step_of(q) / UNIT)
            alive = bool(np.count_nonzero(levels[0]) > ALIVE * x.size)
            points.append(Point(bits, stat.loss(x, error) * grown, self.id, q, smooth=alive))
        return points

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Go down the ladder to the threshold of `knob`.

        Raises:
            UsageError: the step is so fine that sums leave 24 bits, or far too coarse.
        """
        del stat
        layout = Layout.of(w.shape)
        if not FINEST <= knob <= COARSEST:
            raise UsageError(f"The codec surp has no knob {knob}.", f"Take one of {FINEST} .. {COARSEST}.")
        step = checked_step(self.id, knob, largest_of(w), LARGEST)
        whole = scales(w, layout)
        streams = {
            str(rung): stream_of(k, layout, whole, step * self.ladder.threshold(rung) / UNIT, _run(k))
            for rung, k in _climb_down(layout.scan(w), step, self.ladder).items()
        }
        return Parts(streams, {}, {"step": knob, "rise": self.ladder.rise, "offset": self.ladder.offset})

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Add up what the levels say, and multiply by the step."""
        layout = Layout.of(shape)
        step, rise, offset = (parts.params[name] for name in self.params)
        if not (FINEST <= step <= COARSEST and 1 <= rise <= 2 and 0 <= offset <= 8):
            raise ValueError(f"a ladder of step {step}, rise {rise}, offset {offset}")
        total = _climb_up({int(name): k for name, k in fine.items()}, layout.size, Ladder(rise, offset))
        flat = total.astype(np.float32)
        flat *= np.float32(step_of(step) / UNIT)
        return layout.unscan(flat, shape)


def _climb_down(x: Float32, step: float, ladder: Ladder) -> dict[int, Int16 | Int32]:
    """Integers of each rung, highest first."""
    missing = np.empty(x.size, np.int32)
    for at in range(0, x.size, BLOCK):
        missing[at : at + BLOCK] = np.rint(np.multiply(x[at : at + BLOCK], UNIT * GRAIN / step, dtype=np.float64))
    levels: dict[int, Int16 | Int32] = {}
    for rung in reversed(range(_first(missing, ladder) + 1)):
        levels[rung] = send_level(missing, GRAIN * ladder.threshold(rung), GRAIN * ladder.above(rung))
    return levels


def _climb_up(levels: Mapping[int, NDArray[np.signedinteger]], size: int, ladder: Ladder) -> Int32:
    """What rungs add up to, in 32nds of a step."""
    total = np.zeros(size, np.int32)
    for rung, k in levels.items():
        add_level(total, k, ladder.threshold(rung), ladder.above(rung))
    return total


def _first(missing: Int32, ladder: Ladder) -> int:
    """The highest rung that enough weights pass, 0 if none does."""
    magnitude = np.abs(missing)
    for rung in reversed(range(1, RUNGS)):
        if STARTED * int(np.count_nonzero(magnitude > GRAIN * ladder.threshold(rung))) >= missing.size:
            return rung
    return 0


def _run(k: Int16 | Int32) -> int:
    """Log2 of a chunk's symbols: as many as are likely to fill 50 kB."""
    share = np.count_nonzero(k) / k.size
    return 18 if share > 0.15 else 19 if share > 0.05 else 20


def _level_bits(
    k: Int16 | Int32, threshold: float, of_tensor: tuple[Layout, Scales], of_part: tuple[Layout, Scales], grown: float
) -> float:
    """Predict a level of a tensor from that of a sample."""
    layout, part = of_part
    model = model_of(0, layout.plane > 0)
    near = np.clip(k, -WIDEST, WIDEST).astype(np.int16)
    symbol, index, _ = kernels.contexts(near, model, segment(layout, part.levels(threshold), 0, k.size))
    entropy, numbers = code_bits(kernels.histogram(symbol, index, table_count(model)), model)
    return entropy * grown + overhead_bits(*of_tensor, numbers, entropy * grown) - ENTRY_BITS + LEVEL_BITS
