"""Where the bits between a file and R(D) go: parts that sum to the gap.

    file - R(D) = allocation + importance + quantiser + law + tables + coder + side + outside + header

The tensors for which a law is assumed are `modelled`; R(D) is theirs together, at their measured loss. Each part is one
difference of two lengths on the way from that to the file, so the sum telescopes:

    R(D), one slope  ->  R_t(D_t) of each tensor alone  ->  its R_t at the squared error, where the codec cannot shape
    errors  ->  + the quantiser's own loss  ->  entropy of the integers  ->  their cost in the file's tables  ->  chunks
    ->  + preludes  ->  + tensors outside  ->  + header
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from netweight.bound.core import Bound, TensorBound
from netweight.bound.models import rate_nats
from netweight.codecs.registry import codecs
from netweight.errors import UsageError
from netweight.theory import ecsq, scalar
from netweight.theory.scalar import GeneralizedGaussian

__all__ = ["Gap", "Part", "split"]

Array = NDArray[np.float64]

# (bits, bits above R(D)) of a Gaussian source: `theory.trellis.simulate`, 256 states, 262,144 samples, best of a few
# multipliers; a test computes one again. The last is the granular loss at high rate (`theory.trellis.gap_bits`).
TRELLIS: Final = (
    (0.0, 0.0), (0.145, 0.036), (0.893, 0.072), (1.087, 0.070), (1.288, 0.067), (1.680, 0.064), (2.240, 0.060),
    (3.145, 0.048), (4.154, 0.041), (5.129, 0.038), (8.0, 0.0345),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One cause.

    Attributes:
        id: in JSON.
        title: in tables.
        explains: one sentence.
        bits: of the file; may be negative where a code is better than the law lets expect.
    """

    id: str
    title: str
    explains: str
    bits: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A file beside its bound.

    Attributes:
        model: id of the law.
        file_bits: the whole file.
        bound_bits: R(D) of the modelled tensors at their loss.
        parts: what lies between, in order from the bound to the file.
    """

    model: str
    file_bits: float
    bound_bits: float
    parts: tuple[Part, ...]

    @property
    def total_bits(self) -> float:
        """File less bound."""
        return self.file_bits - self.bound_bits


def split(found: Bound, model: str) -> Gap:
    """Split what a file spends above R(D) by cause.

    Args:
        found: by `bound`, with an archive.
        model: id of the law.

    Raises:
        UsageError: there is no file to split.
    """
    spent = found.account
    if spent is None:
        raise UsageError("There is no file whose bits could be split.", "Give bound() an archive.")
    joint = found.rate_bits(model) if found.modelled else 0.0
    alone = sum(t.rate_bits[model] for t in found.modelled)
    unused = sum(_unused_bits(t, model) for t in found.modelled)
    filling = sum(_filling_bits(t) for t in found.modelled)
    entropy = sum(t.reached.entropy_bits for t in found.modelled if t.reached)
    ideal = sum(t.reached.ideal_bits for t in found.modelled if t.reached)
    inside = {t.name for t in found.modelled}
    sections = [j for j, names in enumerate(spent.members) if inside & set(names)]
    others = [t for t in found.tensors if t.outside and t.reached]
    mixed = sum(t.reached.ideal_bits for t in others if t.reached and _shares(t, spent.members, inside))
    apart = sum(size for j, size in enumerate(spent.sections) if j not in set(sections))
    bits = {
        "allocation": alone - joint,
        "importance": unused,
        "quantiser": filling,
        "law": entropy - alone - unused - filling,
        "tables": ideal - entropy,
        "coder": sum(spent.coder[j] for j in sections),
        "side": sum(spent.side[j] for j in sections),
        "outside": apart + mixed,
        "header": spent.header,
    }
    return Gap(model, 8.0 * found.nbytes, joint, tuple(Part(key, *_TEXTS[key], bits[key]) for key in _TEXTS))


def _shares(tensor: TensorBound, members: tuple[tuple[str, ...], ...], inside: set[str]) -> bool:
    """Whether a tensor without a law lies in a section with one that has a law."""
    return any(tensor.name in names and inside & set(names) for names in members)


def _unused_bits(tensor: TensorBound, model: str) -> float:
    """R(D) at the squared error above that at the loss, for a codec that makes errors of one size everywhere."""
    reached, fit = tensor.reached, tensor.fit
    if reached is None or fit is None or _shapes_errors(reached.codec) or fit.flat:
        return 0.0
    return rate_nats(fit.components(model, plain=True), reached.error / 2) / log(2) - tensor.rate_bits[model]


def _filling_bits(tensor: TensorBound) -> float:
    """What the best quantiser of the codec's family leaves on Gaussian rows at their rates; 0 if unknown."""
    reached, fit = tensor.reached, tensor.fit
    if reached is None or fit is None or reached.codec not in _REFERENCES:
        return 0.0
    plain = not _shapes_errors(reached.codec)
    parts, loss = fit.components("gaussian-rows", plain=plain), reached.error / 2 if plain else reached.loss
    if loss >= parts.largest_loss:
        return 0.0
    capacities = parts.capacities / 2
    level = _level(capacities, parts.counts, loss)
    rates = 0.5 * np.log2(np.maximum(capacities / level, 1.0))
    at, gap = _REFERENCES[reached.codec]()
    return float(parts.counts @ np.interp(rates, at, gap))


def _shapes_errors(codec: str) -> bool:
    """Whether a codec is told which weights matter."""
    known = codecs().get(codec)
    return known is not None and known.structured


def _level(capacities: Array, counts: Array, loss: float) -> float:
    """Water level: sum n min(level, c) = loss."""
    low, high = 0.0, float(capacities.max())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(np.sum(counts * np.minimum(middle, capacities))) < loss else (low, middle)
    return high


@lru_cache(maxsize=1)
def _scalar_reference() -> tuple[Array, Array]:
    """The best entropy-coded scalar quantiser of a Gaussian source: rates, and bits above R(D)."""
    law = GeneralizedGaussian.gaussian()
    rates = np.array([0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0])
    errors = np.array([ecsq.best_at_rate(law, rate * log(2)).distortion for rate in rates])
    exact = scalar.rate_nats(law, errors) / log(2)
    return np.append(0.0, exact), np.append(0.0, rates - exact)


def _trellis_reference() -> tuple[Array, Array]:
    at, gap = np.array(TRELLIS).T
    return at, gap


_REFERENCES: Final[Mapping[str, Callable[[], tuple[Array, Array]]]] = {
    "uniform": _scalar_reference,
    "trellis": _trellis_reference,
    "feedback": _trellis_reference,
    "feedback-scalar": _scalar_reference,
}

_TEXTS: Final = {
    "allocation": (
        "allocation",
        "how far the losses of the tensors are from those of reverse water-filling over all of them",
    ),
    "importance": (
        "importance not used",
        "R(D) at the squared error above that at the loss: codecs that cannot put errors where they matter less",
    ),
    "quantiser": (
        "quantiser",
        "what the best scalar quantiser, or trellis of 256 states, leaves to R(D) of Gaussian rows; of other codecs 0",
    ),
    "law": (
        "law and search",
        "entropy of the integers above both: weights unlike the law, or the search; below zero, structure it lacks",
    ),
    "tables": ("tables, fit", "cost of the integers in the file's tables above their empirical entropy"),
    "coder": ("coder", "bytes of the chunks above the ideal cost of their integers: lane states, words, escapes"),
    "side": ("side information", "chunk index, checksums, scales, levels and the tables themselves"),
    "outside": ("tensors without a law", "integers, exact tensors and those judged by relative error"),
    "header": ("header", "names, shapes, metadata, provenance"),
}
