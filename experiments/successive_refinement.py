"""One stream of a network, cut at every level, beside files made for each size (Isik et al. 2022: rateless coding)."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

import netweight as nw
from experiments.figures import Result, floats, holds, network_command
from experiments.networks import Network, judge_weights, load

REDUCED, FULL = ("lenet300",), ("lenet300", "resnet20")
BITS = {"lenet300": 2.5, "resnet20": 4.0}  # of the whole stream, a weight
TESTS = {False: 1000, True: 10_000}
NEAR = 0.15  # share of the area that may be lost
HEADER = ("network", "way", "bytes", "absolute_error", "zeros", "accuracy", "cross_entropy_nats")

Row = tuple[str, str, int, float, float, float, float]
Arrays = Mapping[str, NDArray[np.generic]]


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Compress once, restore from every prefix; compress again to each of these sizes."""
    del seed  # nothing is random
    networks = [network for name in (FULL if full else REDUCED) if (network := load(name, data)) is not None]
    if not networks:
        return None
    rows: list[Row] = []
    texts, good = [], True
    for network in networks:
        mine, levels = prefixes(network, TESTS[full])
        falls = all(after[3] < before[3] for before, after in itertools.pairwise(mine))
        sizes = between(levels) if full else levels
        again = {codecs: separately(network, sizes, codecs, TESTS[full]) for codecs in ("surp", "all")}
        shares = {codecs: area(mine, found) for codecs, found in again.items()}
        stopped = area(stairs(mine), again["surp"])
        good = good and falls and min(shares["surp"], stopped) >= 1 - NEAR
        rows += mine + again["surp"] + again["all"]
        texts.append(
            f"{network.name}: {len(mine)} lengths ({len(levels)} levels) of {mine[0][2]:,} to {mine[-1][2]:,} bytes, "
            f"absolute error {'falls' if falls else 'DOES NOT FALL'} with each; area under accuracy against bytes "
            f"{100 * shares['surp']:.1f} % of separate surp files', {100 * shares['all']:.1f} % of the default codecs' "
            f"and {100 * stopped:.1f} % where the download stops at any byte"
        )

    def draw(axes: Sequence[Axes]) -> None:
        for axis, network in zip(axes, networks, strict=True):
            for way in ("prefix", "surp", "all"):
                points = [(row[2] / 1e3, row[5]) for row in rows if row[:2] == (network.name, way)]
                axis.plot(*zip(*points, strict=True), "o-", markersize=2, label=way)
            axis.set(xlabel="kB", ylabel="test accuracy", title=network.name)
            axis.legend()

    columns = dict(zip(HEADER, zip(*rows, strict=True), strict=True))
    return Result(columns, draw, holds(good, "; ".join(texts)), len(networks))


def prefixes(network: Network, tests: int) -> tuple[list[Row], list[int]]:
    """The network of every section at which the file may end, and the lengths that have whole levels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.nwt"
        whole = nw.compress(network.weights, path, bits=BITS[network.name], codecs=["surp"])
        sizes = [section.size for section in whole.header.sections]
        ends = [whole.header_bytes + end for end in itertools.accumulate(sizes)][whole.header.refine - 1 :]
        rows = [judged(network, "prefix", nw.Archive.open(path, max_bytes=end), tests) for end in ends]
        return rows, [point.nbytes for point in whole.refinements()]


def separately(network: Network, sizes: Sequence[int], codecs: str, tests: int) -> list[Row]:
    """Files made for these sizes; the smallest may be out of reach."""
    out = []
    curves = nw.sweep(network.weights, codecs=None if codecs == "all" else [codecs])
    for size in sizes:
        try:
            plan = nw.allocate(curves, size=size)
        except nw.NetweightError:
            continue
        out.append(judged(network, codecs, nw.encode(network.weights, plan), tests))
    return out


def judged(network: Network, way: str, archive: nw.Archive, tests: int) -> Row:
    """Bytes, error and zeros of the matrices, accuracy and cross-entropy."""
    changed = {
        name: np.asarray(archive[name], np.float32) for name in network.weights if archive.infos[name].dtype == "F32"
    }
    error = sum(float(np.abs(changed[name] - network.weights[name]).sum(dtype=np.float64)) for name in network.matrices)
    count = sum(network.weights[name].size for name in network.matrices)
    zeros = sum(int(np.count_nonzero(changed[name] == 0)) for name in network.matrices) / count
    score = judge_weights(network, changed, network.test.first(tests))
    return network.name, way, archive.nbytes, error / count, zeros, score.accuracy, score.loss_nats


def between(sizes: Sequence[int]) -> list[int]:
    """The sizes, and one in the middle of each step of more than a fifth."""
    middles = [round((a * b) ** 0.5) for a, b in itertools.pairwise(sizes) if b > 1.2 * a]
    return sorted({*sizes, *middles})


def stairs(rows: Sequence[Row]) -> list[Row]:
    """What a reader has who waits for the next length: the accuracy of the last one, up to it."""
    out = [rows[0]]
    for before, after in itertools.pairwise(rows):
        out += [(*before[:2], after[2] - 1, *before[3:]), after]
    return out


def area(mine: Sequence[Row], others: Sequence[Row]) -> float:
    """Area under accuracy against bytes, straight between points, over that of the others, where both have points."""
    low, high = max(mine[0][2], others[0][2]), min(mine[-1][2], others[-1][2])
    found = []
    for rows in (mine, others):
        x, y = floats([row[2] for row in rows]), floats([row[5] for row in rows])
        at = np.unique([low, high, *(v for v in x if low < v < high)])
        found.append(float(np.trapezoid(np.interp(at, x, y), at)))
    return found[0] / found[1]


if __name__ == "__main__":
    network_command("successive_refinement", run)
