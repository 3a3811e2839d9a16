"""The pruner of Isik et al. message by message, as real bits; for experiments and tests, files have `surp`.

A message names one weight whose residual exceeds a threshold; both sides lower it by the threshold, and both know the
next threshold, because all they need is the mean residual, mean - sum T / n. So they stay in step bit by bit: what is
computed from messages is scalar additions, multiplications and divisions of doubles.

    theory     T = c mean residual;                         ends when nothing exceeds T
    authors    T = alpha mean residual, times (n - 1) / n a message; when nothing exceeds it, refreshed from the mean
               residual, and alpha times 0.9 at every 20th refresh

Which weight: both sides walk through the same endless random sequence of indices, and the number of indices passed over
before the first one that exceeds the threshold is sent (Rice code). A refresh is an event that only the encoder sees;
the published code does not count it, here it costs bits. A sign is sent with a weight's first message. Bits are in the
order of the messages, so any prefix of them is a coarser vector.

Source: Isik, Weissman, No 2022 and its published code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.rice import BitReader, BitWriter, Mean
from netweight.errors import FormatError, UsageError

Array: TypeAlias = NDArray[np.float64]

SHRINK, PATIENCE = 0.9, 20  # of alpha, at every so many refreshes
HEADER = struct.Struct("<?QQdd")
NEAR = 0.9  # of a threshold: residuals above that may exceed the next ones; they only fall
AHEAD = 1 << 12  # indices of the random sequence that are made at once
GAP, BURST = 64, 20  # first guesses of messages between refreshes, and of refreshes on end


@dataclass(frozen=True, slots=True)
class Rule:
    """How thresholds follow from messages.

    Attributes:
        factor: c = ln(n / beta) of the theory, or the authors' alpha.
        refreshed: the authors' loop, else the theory's.
    """

    factor: float
    refreshed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A finished run.

    Attributes:
        rule: of the run.
        n: weights.
        mean: of the magnitudes at the start.
        waits: indices passed over before each message's, int64 [messages].
        refreshes: refreshes before each message, int64 [messages].
        thresholds: float64 [messages].
        first: whether a message is its weight's first, bool [messages].
        negative: sign of each message's weight, bool [messages].
        vector: what the decoder has, float64 [n].
    """

    rule: Rule
    n: int
    mean: float
    waits: NDArray[np.int64]
    refreshes: NDArray[np.int64]
    thresholds: Array
    first: NDArray[np.bool_]
    negative: NDArray[np.bool_]
    vector: Array


def normalised(tensors: Sequence[NDArray[np.floating]]) -> tuple[Array, Array]:
    """Divide each tensor by its Euclidean norm, as the authors' code does, and join them; give the norms as well.

    A tensor of zeros, of which that code makes NaN, keeps a norm of 1.

    >>> normalised([np.array([3.0, -4.0]), np.zeros(1)])
    (array([ 0.6, -0.8,  0. ]), array([5., 1.]))
    """
    flat = [np.asarray(t, np.float64).reshape(-1) for t in tensors]
    norms = np.array([float(np.sqrt(np.sum(t * t))) or 1.0 for t in flat])
    return np.concatenate([t / norm for t, norm in zip(flat, norms, strict=True)]), norms


class _Clock:
    """The threshold as both sides know it."""

    def __init__(self, rule: Rule, n: int, mean: float) -> None:
        self.rule, self.n, self.mean = rule, n, mean
        self.alpha, self.refreshes = rule.factor, 0
        self.threshold = self.alpha * mean

    def sent(self) -> None:
        """A message was sent."""
        self.mean -= self.threshold / self.n
        if self.rule.refreshed:
            self.threshold *= (self.n - 1) / self.n
        else:
            self.threshold = self.alpha * self.mean

    def refresh(self) -> None:
        """Nothing exceeds the threshold."""
        self.refreshes += 1
        if self.refreshes % PATIENCE == 0:
            self.alpha *= SHRINK
        self.threshold = self.alpha * self.mean


def _indices(n: int) -> Iterator[NDArray[np.int64]]:
    """The random sequence of indices, in blocks: SplitMix64 of the place, modulo n (Steele, Lea, Flood 2014)."""
    at = 0
    while True:
        z = np.arange(at + 1, at + AHEAD + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        yield ((z ^ z >> np.uint64(31)) % np.uint64(n)).astype(np.int64)
        at += AHEAD


class _Sequence:
    """A place in the random sequence."""

    def __init__(self, n: int) -> None:
        self._blocks = _indices(n)
        self._block, self._at = next(self._blocks), 0

    def until(self, candidate: NDArray[np.bool_]) -> tuple[int, int]:
        """Go to the first index that is a candidate; give how many were passed over, and it."""
        passed = 0
        while True:
            hits = np.flatnonzero(candidate[self._block[self._at :]])
            if hits.size:
                self._at += int(hits[0]) + 1
                return passed + int(hits[0]), int(self._block[self._at - 1])
            passed += self._block.size - self._at
            self._block, self._at = next(self._blocks), 0

    def after(self, count: int) -> int:
        """Pass over `count` indices and give the next."""
        while count >= self._block.size - self._at:
            count -= self._block.size - self._at
            self._block, self._at = next(self._blocks), 0
        self._at += count + 1
        return int(self._block[self._at - 1])


class _Candidates:
    """Which residuals exceed a threshold that falls little by little: only those near it are looked at each time."""

    def __init__(self, residual: Array) -> None:
        self.residual, self.mask = residual, np.zeros(residual.size, np.bool_)
        self.floor, self.near = np.inf, np.zeros(0, np.intp)

    def above(self, threshold: float) -> bool:
        """Bring the mask up to date, and tell whether there is any."""
        if threshold < self.floor:
            self.floor = NEAR * threshold
            self.mask[self.near] = False
            self.near = np.flatnonzero(self.residual > self.floor)
        found = self.residual[self.near] > threshold
        self.mask[self.near] = found
        return bool(found.any())


def send(
    weights: NDArray[np.floating], rule: Rule, *, zeros: float = 0.0, error: float = 0.0, steps: int = 1 << 40
) -> Sent:
    """Run the rule until so many messages are sent, so little is missing, or nothing exceeds the threshold.

    Args:
        weights: float [n].
        rule: of thresholds.
        zeros: share of weights that are still zero at the end.
        error: mean residual at the end, in mean magnitudes.
        steps: most messages.

    Raises:
        UsageError: all weights are zero, or some are not finite.

    >>> sent = send(np.array([5.0, -3.0, 1.0, 1.0]), Rule(1.2))
    >>> sent.thresholds.round(6), sent.vector.round(6)
    (array([3.  , 2.1 , 1.47]), array([ 4.47, -2.1 ,  0.  ,  0.  ]))
    """
    w = np.asarray(weights, np.float64).reshape(-1)
    residual = np.abs(w)
    mean = float(residual.mean()) if w.size else 0.0
    if not (0 < mean < np.inf and rule.factor > 0):
        raise UsageError(
            f"The mean magnitude is {mean:.3g}, the factor {rule.factor:.3g}.", "Give positive, finite ones."
        )
    clock, sequence, total = _Clock(rule, w.size, mean), _Sequence(w.size), np.zeros(w.size)
    candidates = _Candidates(residual)
    rows: list[tuple[int, int, float, bool, bool]] = []
    left = w.size
    while len(rows) < steps and left > zeros * w.size and clock.mean > error * mean:
        before = clock.refreshes
        while not (some := candidates.above(clock.threshold)) and rule.refreshed:
            clock.refresh()
        if not some:
            break
        wait, index = sequence.until(candidates.mask)
        rows.append((wait, clock.refreshes - before, clock.threshold, total[index] == 0, bool(w[index] < 0)))
        left -= total[index] == 0
        residual[index] -= clock.threshold
        total[index] += clock.threshold
        clock.sent()
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return Sent(
        rule, w.size, mean, np.array(columns[0], np.int64), np.array(columns[1], np.int64), np.array(columns[2], float),
        np.array(columns[3], bool), np.array(columns[4], bool), np.copysign(total, w),
    )  # fmt: skip


def write(sent: Sent) -> bytes:
    """Header and bits of a run: signs of first messages, waits, refreshes; nothing else."""
    out, waits, gaps, bursts = BitWriter(), Mean(sent.n // 8), Mean(GAP), Mean(BURST)
    at = [*np.flatnonzero(sent.refreshes).tolist(), sent.waits.size]
    gap = iter(np.diff([0, *at]).tolist())
    if sent.rule.refreshed:
        out.rice(next(gap), gaps)
    for wait, burst, first, negative in zip(
        sent.waits.tolist(), sent.refreshes.tolist(), sent.first.tolist(), sent.negative.tolist(), strict=True
    ):
        if burst:
            out.rice(burst - 1, bursts)
            out.rice(next(gap) - 1, gaps)
        out.rice(wait, waits)
        if first:
            out.bit(int(negative))
    return HEADER.pack(sent.rule.refreshed, sent.n, sent.waits.size, sent.mean, sent.rule.factor) + out.bytes()


def receive(data: bytes, messages: int | None = None) -> Array:
    """Rebuild the vector from the first messages, all if None.

    Raises:
        FormatError: the bits end early, or the header makes no sense.
    """
    if len(data) < HEADER.size:
        raise FormatError(f"{len(data)} bytes are no stream of messages.", "Get them again.")
    refreshed, n, count, mean, factor = HEADER.unpack_from(data)
    if not (0 < n < 1 << 32 and 0 < mean < np.inf and 0 < factor < np.inf):
        raise FormatError(f"A stream of {n} weights of mean {mean:.3g}, factor {factor:.3g}.", "Get it again.")
    reader, waits, gaps, bursts = BitReader(data[HEADER.size :]), Mean(n // 8), Mean(GAP), Mean(BURST)
    clock, sequence = _Clock(Rule(factor, refreshed), n, mean), _Sequence(n)
    total, sign = np.zeros(n), np.zeros(n)
    left = reader.rice(gaps) if refreshed else -1
    for _ in range(count if messages is None else min(messages, count)):
        if left == 0:
            for _ in range(reader.rice(bursts) + 1):
                clock.refresh()
            left = reader.rice(gaps) + 1
        left -= 1
        index = sequence.after(reader.rice(waits))
        if sign[index] == 0:
            sign[index] = -1.0 if reader.bit() else 1.0
        total[index] += clock.threshold
        clock.sent()
    return sign * total
