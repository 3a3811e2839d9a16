"""The contract of a codec: a tensor becomes integers, and integers become the tensor.

A codec is one final class in one file, or in a package with the entry point group `netweight.codecs`. It makes
integers and a few real numbers; the coder makes bytes of them. A codec never sees a byte, and its decoder does exact
arithmetic only: integers, table look-ups, element-wise IEEE multiplication and addition in a stated order.

Two classes may share an id only if each can read what the other wrote; a changed stream is a new version.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.layout import Layout
from netweight.entropy.stream import IntStream
from netweight.errors import UsageError
from netweight.importance.stat import Stat, largest_of
from netweight.kernels import Float32

STEPS_PER_OCTAVE = 512
COARSEST = 2.0**-40  # the largest weight in steps
KNOBS = 500 * STEPS_PER_OCTAVE  # steps of 2^-500 .. 2^500


def step_of(q: int) -> float:
    """Step of a quantiser: (512 + q mod 512) 2^(q div 512 - 9), exact in binary.

    The step grows by 0.1 to 0.2 % from one q to the next, so one tensor alone can meet a size to 0.003 bit a weight.

    >>> step_of(0), step_of(256), step_of(-512)
    (1.0, 1.5, 0.5)
    """
    return math.ldexp(STEPS_PER_OCTAVE + q % STEPS_PER_OCTAVE, q // STEPS_PER_OCTAVE - 9)


def index_of(step: float) -> int:
    """The q whose step is the largest one not above `step`."""
    mantissa, exponent = math.frexp(step)
    return (exponent - 1) * STEPS_PER_OCTAVE + int(2 * STEPS_PER_OCTAVE * mantissa) - STEPS_PER_OCTAVE


def checked_step(codec: str, knob: int, largest: float, most: float) -> float:
    """Give the step of a knob that may have been edited.

    Args:
        codec: id, for messages.
        knob: q.
        largest: magnitude of the tensor.
        most: the largest magnitude in steps that the codec's integers hold.

    Raises:
        UsageError: integers would leave their range, or the step is so coarse that it leaves that of floats.
    """
    ratio = largest / step_of(max(-KNOBS, min(KNOBS, knob)))
    if ratio > most or (largest and ratio < COARSEST):
        which, way = ("fine", "larger") if ratio > most else ("coarse", "smaller")
        raise UsageError(
            f"The {codec} step of knob {knob} is too {which} for a largest weight of {largest:.3g}.",
            f"Take a {way} knob.",
        )
    return step_of(knob)


def takes(w: Float32) -> bool:
    """Whether lossy codecs take a tensor: finite, not all of it zero or subnormal, and its squares do not overflow."""
    largest = largest_of(w)
    return bool(1e-30 < largest < 1e18)


@dataclass(frozen=True, slots=True)
class Point:
    """One way to code a tensor, and what it costs.

    Attributes:
        bits: of the file, all of the tensor's share.
        loss: in the unit of the importance; nats with measured importance.
        codec: id.
        knob: the codec's integer.
        smooth: the knob is a step's q (`step_of`), and steps between two points' of the same codec cost what lies
            between.
    """

    bits: float
    loss: float
    codec: str = ""
    knob: int = 0
    smooth: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """A coded tensor, before the coder.

    Attributes:
        streams: integers by name; the coder's business.
        reals: small float32 arrays by name.
        params: JSON integers by name.
        bits: log2 of the states of the trellis the streams go through, 0 for none.
    """

    streams: Mapping[str, IntStream]
    reals: Mapping[str, Float32] = field(default_factory=dict)
    params: Mapping[str, int] = field(default_factory=dict)
    bits: int = 0


class Codec(ABC):
    """A family of approximations of a tensor, ordered by one integer knob.

    Attributes:
        id: name in files and plans; never reused for another stream.
        version: of the stream.
        reals: names of the real arrays of its parts, in the order in which they are written.
        params: names of the integers of its parts, likewise.
        streams: names of the streams of its parts, in the order in which they are written.
        linear: the real by which `decode` multiplies the integers of its one stream "k", if that is all it does.
        structured: whether it wants to know which weights matter; else `sweep` and `encode` are given `stat.flat()`,
            the mean importance of a weight.
        default: whether it is tried where no codecs are named; one that mostly costs time is asked for by its id.
        rival: id of a codec that needs fewer bits at low rates: where that one offers points for a large tensor, this
            one is asked by `sweep_high`.
        instead_of: id of a codec, of which this one is tried only where that one takes nothing.
        progressive: each stream refines what those before it give. A tensor has the last ones of `streams`, as many as
            `encode` gives, and `decode` takes the first of these, any number of them; without any the tensor is zero.
            It has no reals.
    """

    id: ClassVar[str]
    version: ClassVar[int]
    reals: ClassVar[tuple[str, ...]] = ()
    params: ClassVar[tuple[str, ...]] = ()
    streams: ClassVar[tuple[str, ...]] = ("k",)
    linear: ClassVar[str] = ""
    structured: ClassVar[bool] = False
    default: ClassVar[bool] = True
    rival: ClassVar[str] = ""
    instead_of: ClassVar[str] = ""
    progressive: ClassVar[bool] = False

    def on(self, device: str | None) -> "Codec":  # noqa: ARG002 - for those that have such a form
        """Give the one that computes on a device of torch, such as "cuda"; itself where it has no such form.

        Raises:
            UsageError: torch is not installed, or has no such device.
        """
        return self

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Give the scan of a shape; a codec that needs another than all others says so here."""
        return Layout.of(shape)

    @abstractmethod
    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict what the knobs worth trying would cost: bits within 2 % + 64 bytes, loss within 2 %.

        Args:
            w: float32, the tensor in its shape; finite.
            stat: its importance.
        """

    def sweep_high(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict the knobs worth trying beside the rival's: those of high rates."""
        return self.sweep(w, stat)

    @abstractmethod
    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Make the integers of the tensor at a knob; may use anything, but gives the same parts for the same input."""

    @abstractmethod
    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Rebuild the tensor.

        Args:
            parts: what `encode` gave, its streams without integers: their levels are there.
            fine: what the coder decoded for each stream, in scan order: the integers, or the fine indices behind a
                trellis.
            shape: of the tensor.
        """
