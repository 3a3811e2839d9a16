"""Equal relative precision: floats rounded to m bits of mantissa, for vectors >= 0 that span octaves (variances).

    k_i = round(bits(w_i) / 2^(23 - m)) - centre,   w'_i = float((k_i + centre) 2^(23 - m))

The bit pattern of a float is a piecewise linear logarithm, so one step of k is a relative step of 2^-m to 2^-(m+1).
The decoder shifts. Zeros, the variances of channels that never fire, stay zeros: escapes of some four bytes. Subnormal
numbers, the same after a long training, have no relative precision to keep, and most of them become zeros.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.base import Codec, Parts, Point
from netweight.codecs.probe import ENTRY_BITS
from netweight.entropy.layout import UNIT_CLASS, Layout, Levels
from netweight.entropy.stream import LARGEST_ESCAPE, IntStream
from netweight.errors import UsageError
from netweight.importance.stat import TINY, Stat
from netweight.kernels import Float32, Int32

MANTISSA_BITS = 23
WIDEST = UNIT_CLASS + 14
LARGEST_TENSOR = 1 << 17


class Relative(Codec):
    """Rounding of floats >= 0 to a few bits of mantissa."""

    id: ClassVar[str] = "relative"
    version: ClassVar[int] = 1
    params: ClassVar[tuple[str, ...]] = ("mantissa", "centre")

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict every number of mantissa bits.

        None for tensors that are large, hold a negative number, or no normal one.
        """
        if not 0 < w.size <= LARGEST_TENSOR or not _takes(w):
            return []
        points = []
        alive = Layout.of(w.shape).scan(w) >= TINY
        for m in range(1, MANTISSA_BITS):
            k, centre = _integers(w, m)
            spread = max(0.3, _spread(k[alive]))
            shift = _shift(k, spread)
            each = shift + max(0.2, float(np.log2(spread)) + 2.0 - shift)
            bits = ENTRY_BITS + 8 * 6 + w.size * each + _escapes_bits(k[~alive] >> shift)
            points.append(Point(bits, stat.loss(w.reshape(-1), w.reshape(-1) - _floats(k + centre, m)), self.id, m))
        return points

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Round the bit patterns to `knob` bits of mantissa.

        Raises:
            UsageError: there is no such number of bits, or a weight is negative, or none is a normal number.
        """
        del stat
        if not 1 <= knob < MANTISSA_BITS:
            raise UsageError(f"The codec relative cannot keep {knob} bits of mantissa.", "Take a knob of 1 .. 22.")
        if not _takes(w):
            raise UsageError(
                f"The codec relative takes zeros beside positive numbers only, not {float(w.min()):.3g}.",
                "Take another codec.",
            )
        k, centre = _integers(w, knob)
        spread = max(0.1, _spread(k[Layout.of(w.shape).scan(w) >= TINY]))
        shift = _shift(k, spread)
        stream = IntStream(k, Layout.of(w.shape), Levels(max(-127, _base(spread) - 4 * shift)), shift)
        return Parts({"k": stream}, {}, {"mantissa": knob, "centre": centre})

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Shift the integers back into bit patterns."""
        mantissa = parts.params["mantissa"]
        if not 1 <= mantissa < MANTISSA_BITS:
            raise ValueError(f"{mantissa} bits of mantissa")
        patterns = fine["k"].astype(np.int64) + parts.params["centre"]
        return Layout.of(shape).unscan(_floats(patterns, mantissa), shape)


def _takes(w: Float32) -> bool:
    """Whether no entry is negative, and one is a normal number."""
    return bool((w >= TINY).any() and (w >= 0).all())


def _spread(k: Int32) -> float:
    return float(np.sqrt(np.mean(np.square(k, dtype=np.float64))))


def _base(spread: float) -> int:
    return UNIT_CLASS + round(4 * float(np.log2(spread)))


def _shift(k: Int32, spread: float) -> int:
    """Low bits that are written as they are: until the symbols fit, and the farthest, a zero, fits an escape."""
    escapes = (int(np.abs(k).max()) - 1).bit_length() - (LARGEST_ESCAPE.bit_length() - 1)
    return max(0, -(-(_base(spread) - WIDEST) // 4), escapes)


def _escapes_bits(k: Int32) -> float:
    """Bits of the zeros: of each its symbol, the rarest of 4096, and its value in bytes of seven bits."""
    if not k.size:
        return 0.0
    value_bytes = -(-(2 * int(np.abs(k).max())).bit_length() // 7)
    return k.size * (12.0 + 8 * value_bytes)


def _integers(w: Float32, mantissa: int) -> tuple[Int32, int]:
    """Rounded bit patterns in scan order less their middle, and that middle."""
    drop = MANTISSA_BITS - mantissa
    patterns = Layout.of(w.shape).scan(w).view(np.int32).astype(np.int64)
    rounded = patterns + (1 << drop >> 1) >> drop
    rounded = np.minimum(rounded, (0x7F7FFFFF >> drop))  # never up to infinity
    centre = int(np.median(rounded[rounded > 0]))
    return (rounded - centre).astype(np.int32), centre


def _floats(patterns: NDArray[np.signedinteger], mantissa: int) -> Float32:
    shifted = patterns.astype(np.int64) << (MANTISSA_BITS - mantissa)
    return (shifted & 0xFFFFFFFF).astype(np.uint32).view(np.float32)
