"""What a mask costs: the closed form of its pattern, and real bytes."""

from math import comb, log2

import numpy as np

from netweight.codecs.exact import Exact
from netweight.prune.patterns import Pattern
from netweight.prune.select import Bools
from netweight.prune.slope import positions_bits


def mask_bits(mask: Bools, pattern: Pattern | None = None) -> float:
    """Bits of the index of a mask among all masks of its pattern and density.

        unstructured      log2 C(n, k), about n H(k / n)
        n:m               sum of log2 C(size, kept) over the groups: n and m are known
        block, channel    log2 C(groups, kept groups)

    Args:
        mask: kept, in the tensor's shape.
        pattern: what the mask keeps to; None where every weight is free.

    >>> mask_bits(np.array([True, True, False, False]))
    2.584962500721156
    >>> mask_bits(np.array([[True, False, False, True]]), Pattern.parse("2:4"))
    2.584962500721156
    """
    if pattern is None:
        return float(positions_bits(mask.size, np.array([float(mask.sum())]))[0])
    group = pattern.groups(mask.shape).reshape(-1)
    sizes, kept = np.bincount(group), np.bincount(group, mask.reshape(-1)).astype(int)
    if pattern.kind != "nm":
        return float(positions_bits(sizes.size, np.array([float(np.count_nonzero(kept))]))[0])
    kinds, counts = np.unique(np.stack([sizes, kept]), axis=1, return_counts=True)
    return float(sum(c * log2(comb(int(n), int(k))) for n, k, c in zip(*kinds, counts, strict=True)))


def mask_bytes(mask: Bools, pattern: Pattern | None = None) -> int:
    """Bytes of a mask as `exact` codes it: a bool for each weight or group, for n:m which of its choices each group is.

    Args:
        mask: kept, in the tensor's shape.
        pattern: as for `mask_bits`.
    """
    symbols: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = mask
    dtype = "BOOL"
    if pattern is not None:
        group = pattern.groups(mask.shape).reshape(-1)
        if pattern.kind == "nm":
            order = np.argsort(group, kind="stable")
            sizes = np.bincount(group)
            within = np.empty(mask.size, np.int64)
            within[order] = np.arange(mask.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            symbols, dtype = np.bincount(group, mask.reshape(-1) * 2.0**within).astype(np.int64), "I64"
        else:
            symbols = np.bincount(group, mask.reshape(-1)) > 0
    head, chunks = Exact().encode([np.ascontiguousarray(symbols)], dtype)
    return len(head) + sum(map(len, chunks))
