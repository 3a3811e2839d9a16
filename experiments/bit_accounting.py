"""Bytes at equal absolute error: sparse formats, the pruner's messages, the ladder, entropy-coded quantisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

import netweight as nw
from experiments.figures import Result, holds, network_command
from experiments.networks import load
from netweight.codecs.base import Point, index_of
from netweight.codecs.messages import Rule, send, write

SHARES = (0.9, 0.7, 0.5)
WEIGHTS = {False: 40_000, True: 270_000}
METHODS = ("CSR", "index deltas", "messages", "surp", "uniform", "trellis")
BISECTIONS = 14
HEADER = ("source", "error_share", "method", "bytes", "bits_a_weight", "zeros")

Arrays = Mapping[str, NDArray[np.float32]]
Found = tuple[int, float]  # bytes, share of zeros


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Give each method the same mean absolute error, in shares of the mean magnitude, and count its bytes."""
    side = WEIGHTS[full] // 100
    sources = {"Laplacian": {"w": np.random.default_rng(seed).laplace(size=(side, 100)).astype(np.float32)}}
    for name in ("resnet20",) if full else ():
        if network := load(name, data):
            sources[name] = {key: normalised(network.weights[key]) for key in network.matrices}
    rows = []
    for source, tensors in sources.items():
        for share in SHARES:
            for method in METHODS:
                size, zeros = spent(tensors, share, method)
                n = sum(w.size for w in tensors.values())
                rows.append((source, share, method, size, 8 * size / n, zeros))
    of = {row[:3]: row[3] for row in rows}
    texts, good = [], True
    for source in sources:
        least = min(
            of[source, share, sparse] / of[source, share, "messages"] for share in SHARES for sparse in METHODS[:2]
        )
        ladder = [of[source, share, "surp"] / of[source, share, "messages"] for share in SHARES]
        ecsq = [
            min(of[source, share, "uniform"], of[source, share, "trellis"]) / of[source, share, "surp"]
            for share in SHARES
        ]
        good = good and least > 2.5 and max(ladder) < 1 and max(ecsq) < 1.01
        texts.append(
            f"{source}: 32-bit sparse formats take at least {least:.1f} times the messages' bytes, the ladder "
            f"{min(ladder):.2f} to {max(ladder):.2f} times, entropy-coded quantisers {min(ecsq):.2f} to "
            f"{max(ecsq):.2f} times the ladder's"
        )

    def draw(axes: Sequence[Axes]) -> None:
        for axis, source in zip(axes, sources, strict=True):
            for j, method in enumerate(METHODS):
                bits = [row[4] for row in rows if row[0] == source and row[2] == method]
                axis.bar(np.arange(len(SHARES)) + (j - 2.5) * 0.13, bits, 0.13, label=method)
            axis.set_xticks(range(len(SHARES)), [f"{share}" for share in SHARES])
            axis.set(xlabel="absolute error / mean magnitude", ylabel="bits a weight", yscale="log", title=source)
        axes[0].legend()

    return Result(
        dict(zip(HEADER, zip(*rows, strict=True), strict=True)), draw, holds(good, "; ".join(texts)), len(sources)
    )


def normalised(w: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix over the root of its mean square, so that layers are alike, as SuRP's norms make layers of one size."""
    scale = np.float32(1 / np.sqrt(np.mean(np.square(w, dtype=np.float64))))
    return np.multiply(w, scale, dtype=np.float32).reshape(len(w), -1)


def spent(tensors: Arrays, share: float, method: str) -> Found:
    """Bytes and zeros of a method at a share of the mean magnitude."""
    if method in ("CSR", "index deltas"):
        return pruned(tensors, share, method)
    if method == "messages":
        return messages(tensors, share)

    def coded(step: float) -> nw.Archive:
        return nw.encode(tensors, nw.Plan({name: Point(0, 0, method, index_of(step)) for name in tensors}, 1.0))

    archive = bisected(lambda step: (error(tensors, a := coded(step)), a), share)
    back = [archive[name] for name in tensors]
    return archive.nbytes, float(np.mean(np.concatenate([w.reshape(-1) for w in back]) == 0))


def error(tensors: Arrays, archive: nw.Archive) -> float:
    """Mean absolute error over mean magnitude."""
    apart = sum(float(np.abs(w - archive[name]).sum(dtype=np.float64)) for name, w in tensors.items())
    return apart / sum(float(np.abs(w).sum(dtype=np.float64)) for w in tensors.values())


def bisected(at: Callable[[float], tuple[float, nw.Archive]], share: float) -> nw.Archive:
    """The archive of the largest step whose error is at most the share."""
    low, high = 1e-2, 50.0
    best = at(low)[1]
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        found, archive = at(middle)
        if found <= share:
            low, best = middle, archive
        else:
            high = middle
    return best


def pruned(tensors: Arrays, share: float, method: str) -> Found:
    """The largest weights as they are, the others zero: 32-bit values, and positions by rows or by gaps.

    CSR has a column of 16 bits for each value and a pointer of 32 bits for each row; gaps have 8 bits, and a value of
    zero where one is longer (Han et al. 2016).
    """
    magnitude = np.sort(np.abs(np.concatenate([w.reshape(-1) for w in tensors.values()]).astype(np.float64)))
    zero = int(np.searchsorted(np.cumsum(magnitude), share * magnitude.sum(), side="right"))
    threshold, size = magnitude[max(zero - 1, 0)], 0
    for w in tensors.values():
        kept = np.flatnonzero(np.abs(w.astype(np.float64)) > threshold)
        if method == "CSR":
            size += kept.size * (4 + 2) + 4 * (len(w) + 1)
        else:
            gaps = np.diff(kept, prepend=-1) - 1
            size += int((gaps // 256 + 1).sum()) * (4 + 1)
    return size, zero / magnitude.size


def messages(tensors: Arrays, share: float) -> Found:
    """The authors' loop on all weights, its real bits, ended at the first message that reaches the error."""
    w = np.concatenate([w.reshape(-1) for w in tensors.values()]).astype(np.float64)
    sent = send(w, Rule(10.0, refreshed=True), error=share)
    return len(write(sent)), float(np.mean(sent.vector == 0))


if __name__ == "__main__":
    network_command("bit_accounting", run)
