"""Lengths of codes: Shannon, Huffman, entropy, Golomb, and the compression ratios of Gao et al.

A ratio here is compressed / original, the way the paper's plots use it (the printed formula is its inverse).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from math import ceil, log, log2

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, nonnegative, positive, refuse, vector


def _counts(counts: ArrayLike) -> Array:
    c = nonnegative("counts", vector("counts", counts))
    if not c.any():
        raise refuse("All counts are zero.", "Count at least one symbol.")
    return c[c > 0]


def entropy_bits(counts: ArrayLike) -> float:
    """Total bits of an ideal code: sum_j m_j log2(m / m_j).

    Args:
        counts: m_j >= 0, shape (k,), at least one positive.

    Raises:
        ValueError: negative counts or none at all.

    Example:
        >>> print(f"{entropy_bits([700, 200, 100]):.3f}")
        1156.780
    """
    c = _counts(counts)
    return float((c * np.log2(c.sum() / c)).sum())


def shannon_code_bits(counts: ArrayLike) -> float:
    """Total bits of the code with lengths ceil(log2(m / m_j)), which Gao et al. call Huffman.

    Example:
        >>> shannon_code_bits([700, 200, 100])
        1700.0

    Source: Gao et al., section 5 (the printed ratio).
    """
    c = _counts(counts)
    # m / m_j an exact power of two must not be rounded up by the logarithm.
    lengths = np.ceil(np.round(np.log2(c.sum() / c), 12))
    return float((c * lengths).sum())


def huffman_lengths(counts: ArrayLike) -> tuple[int, ...]:
    """Code word lengths of a Huffman code; symbols with count zero get length 0, a lone symbol length 1.

    Example:
        >>> huffman_lengths([700, 200, 100])
        (1, 2, 2)

    Source: Huffman 1952.
    """
    _counts(counts)
    weights = np.asarray(counts, dtype=np.float64)
    heap: list[tuple[float, int, tuple[int, ...]]] = [(float(w), j, (j,)) for j, w in enumerate(weights) if w > 0]
    lengths = [0] * weights.size
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i, left), (b, j, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, min(i, j), left + right))
    return tuple(lengths)


@dataclass(frozen=True, slots=True)
class PaperRatio:
    """Compressed over original size of one quantised layer, by three ideal codes; 32-bit centroids included.

    Biases, norms, shapes and code tables are not counted: a file is larger.
    """

    shannon: float
    huffman: float
    entropy: float


def paper_ratio(counts: ArrayLike, bits: int = 32) -> PaperRatio:
    """Ratio of Gao et al. for one layer: (code length + k b) / (m b).

    Args:
        counts: weights assigned to each of the k centroids, shape (k,); empty clusters still pay their centroid.
        bits: b of an original weight and of a centroid.

    Raises:
        ValueError: negative counts or none at all.

    Example:
        >>> r = paper_ratio([700, 200, 100])
        >>> r.shannon, r.huffman, f"{r.entropy:.6f}"
        (0.056125, 0.043625, '0.039149')

    Source: Gao et al., section 5 (printed as original / compressed) and their code (entropy form).
    """
    c = _counts(counts)
    size, table = float(c.sum()) * bits, np.size(counts) * bits
    huffman = float(np.dot(np.asarray(counts, dtype=np.float64), huffman_lengths(counts)))
    return PaperRatio(*((n + table) / size for n in (shannon_code_bits(counts), huffman, entropy_bits(counts))))


def geometric_entropy_bits(p: float) -> float:
    """Entropy of a waiting time with success probability p: H(p) / p bits.

    Raises:
        ValueError: p outside (0, 1].

    Example:
        >>> print(f"{geometric_entropy_bits(0.5):.4f} {geometric_entropy_bits(0.01):.4f}")
        2.0000 8.0793
    """
    if not 0 < p <= 1:
        raise refuse(f"p is {p}.", "Give a probability in (0, 1].")
    return 0.0 if p == 1 else (-p * log2(p) - (1 - p) * log2(1 - p)) / p


def golomb_parameter(p: float) -> int:
    """Best Golomb parameter of a geometric law: the smallest M with (1-p)^M + (1-p)^(M+1) <= 1.

    Example:
        >>> [golomb_parameter(p) for p in (0.5, 0.1, 0.01)]
        [1, 7, 69]

    Source: Gallager and van Voorhis 1975.
    """
    geometric_entropy_bits(p)
    if p == 1:
        return 1
    m = max(1, ceil(-log(2 - p) / log(1 - p)))
    q = 1 - p
    while m > 1 and q ** (m - 1) + q**m <= 1:
        m -= 1
    return m if q**m + q ** (m + 1) <= 1 else m + 1


def golomb_mean_bits(p: float, parameter: int | None = None) -> float:
    """Mean length of the Golomb code of a waiting time k = 0, 1, ... with success probability p.

    Quotient in unary, remainder in truncated binary: with b = ceil(log2 M) and c = 2^b - M short remainders, a word has
    floor(k / M) + 1 + b bits, one fewer when k mod M < c.

    Args:
        p: success probability in (0, 1).
        parameter: M >= 1; the best one if absent.

    Raises:
        ValueError: p outside (0, 1), M below 1.

    Example:
        >>> print(f"{golomb_mean_bits(0.1):.4f} {golomb_mean_bits(0.01):.4f}")
        4.7251 8.1050

    Source: Golomb 1966.
    """
    m = golomb_parameter(p) if parameter is None else parameter
    if m < 1 or positive("p", p) >= 1:
        raise refuse(f"p is {p}, M is {m}.", "Give 0 < p < 1 and M >= 1.")
    q = 1 - float(p)
    b = ceil(log2(m)) if m > 1 else 0
    short = 2**b - m
    return float(q**m / (1 - q**m) + 1 + b - (1 - q**short) / (1 - q**m))
