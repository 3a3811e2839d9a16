"""Weighted k-means by the same objectives, k codewords in every layer (Gao et al., figures 3 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

import netweight as nw
from experiments.figures import Result, holds, network_command
from experiments.networks import judge_weights
from experiments.paper1 import FULL, REDUCED, Curves, claims, columns, draw, networks, objectives
from netweight.codecs.base import Point

CODEWORDS = (2, 3, 4, 8, 16)


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Quantise every layer to k codewords by each objective; bytes are those of a file of these layers."""
    del seed
    setting = FULL if full else REDUCED
    found = networks(setting, data)
    if not found:
        return None
    curves, nbytes = [], []
    for network in found:
        each = Curves(network.name)
        layers = {name: network.weights[name] for name in network.matrices}
        sizes = {name: w.size for name, w in layers.items()}
        stats = objectives(network, setting.samples[network.name])
        for k in CODEWORDS:
            plan = nw.Plan({name: Point(0.0, 0.0, "codebook", k) for name in layers}, 0.0, f"{k} codewords", sizes)
            for objective in stats:
                archive = nw.encode(layers, plan, stats[objective])
                changed = {name: archive[name] for name in layers}
                each.scores[k, objective] = judge_weights(network, changed, network.test.first(setting.tests))
                nbytes.append(archive.nbytes)
        curves.append(each)

    def panels(axes: Sequence[Axes]) -> None:
        draw(axes, curves, "codewords in every layer")

    ok, text = claims(curves)
    return Result({**columns(curves, "codewords"), "bytes": nbytes}, panels, holds(ok, text), len(curves))


if __name__ == "__main__":
    network_command("importance_quantisation", run)
