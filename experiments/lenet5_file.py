"""LeNet-5 in the smallest file: prune and retrain in rounds, then train with quantised weights (straight through).

The training images are split: 55,000 to learn from, 5,000 to choose by. The test images judge.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

import netweight as nw
from experiments.figures import Result, holds, network_command
from experiments.networks import Images, Network, Weights, judge, load, put, state
from experiments.retraining import Budget, device, optimizer_of, retrain
from netweight import train
from netweight.importance.stat import Stat

DEEP_COMPRESSION = 39  # times smaller, Han, Mao, Dally 2016, table 1, as published


@dataclass(frozen=True, slots=True)
class Setting:
    """Budgets.

    Attributes:
        learn: training images.
        choose: training images kept back.
        round: retraining after each round.
        last: retraining with quantised weights.
        keep: share of the weights that are left after each round.
        rounds: of pruning.
        first: the round from which on files are made.
        shares: of the weights' energy that quantisation may lose.
    """

    learn: int
    choose: int
    round: Budget
    last: Budget
    keep: float
    rounds: int
    first: int
    shares: tuple[float, ...]


_SOFT = Budget(0.35, 0.02, shift=1, teacher=0.5)
REDUCED = Setting(
    learn=2000,
    choose=1000,
    round=Budget(0.3, 0.01),
    last=Budget(0.3, 0.003),
    keep=0.5,
    rounds=3,
    first=3,
    shares=(0.02,),
)
# Some two and a half epochs in all: minutes on one core. More would make it smaller.
FULL = Setting(
    learn=55_000, choose=5000, round=_SOFT, last=replace(_SOFT, rate=0.005), keep=0.5, rounds=5, first=4, shares=(0.04,)
)


@dataclass(frozen=True, slots=True)
class File:
    """One file, and how good it is."""

    density: float
    share: float
    nbytes: int
    chosen_by: float
    test: float


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Make a file at every density and step, and take the smallest that is good enough."""
    network = load("lenet5", data)
    if network is None:
        return None
    setting = FULL if full else REDUCED
    dense_bytes = network.dense_bytes
    before = judge(network.model, network.test).accuracy
    files = list(make(network, setting, seed))
    columns: dict[str, Sequence[object]] = {
        "density": [f.density for f in files],
        "share": [f.share for f in files],
        "bytes": [f.nbytes for f in files],
        "times_smaller": [dense_bytes / f.nbytes for f in files],
        "accuracy_kept_back": [f.chosen_by for f in files],
        "accuracy_test": [f.test for f in files],
    }

    def draw(axes: Sequence[Axes]) -> None:
        for share in setting.shares:
            mine = sorted((f.nbytes, 100 * f.test) for f in files if f.share == share)
            axes[0].plot([b for b, _ in mine], [a for _, a in mine], "o-", label=f"loses {share:g}", markersize=3)
        axes[0].axhline(99, color="0.4", linewidth=0.8)
        axes[0].axhline(100 * before - 0.1, color="0.4", linewidth=0.8, linestyle=":")
        axes[0].set(xlabel="bytes of the file", ylabel="test accuracy, %", xscale="log")
        axes[0].legend()

    texts = [described(files, 0.99, dense_bytes), described(files, before - 0.001, dense_bytes)]
    ok = any(f.test >= before - 0.001 and dense_bytes / f.nbytes > DEEP_COMPRESSION for f in files)
    return Result(
        columns,
        draw,
        holds(
            ok or not full,
            f"{100 * before:.2f} % and {dense_bytes:,} bytes before; {'; '.join(texts)}; Deep Compression published "
            f"{DEEP_COMPRESSION} times smaller",
        ),
    )


def described(files: Sequence[File], wanted: float, dense_bytes: int) -> str:
    """The smallest file of an accuracy, and the one that the images kept back would have chosen."""
    good = [f for f in files if f.test >= wanted]
    if not good:
        return f"no file has {100 * wanted:.2f} %"
    best = min(good, key=lambda f: f.nbytes)
    text = f"smallest with {100 * wanted:.2f} %: {best.nbytes:,} bytes, {dense_bytes / best.nbytes:.0f} times smaller"
    safe = [f for f in files if f.chosen_by >= wanted]
    if not safe:
        return text
    chosen = min(safe, key=lambda f: f.nbytes)
    return f"{text} (chosen by the images kept back: {chosen.nbytes:,} bytes, {100 * chosen.test:.2f} %)"


def make(network: Network, setting: Setting, seed: int) -> Iterator[File]:
    """Rounds, then files; the dense network teaches."""
    place = device()
    random = torch.Generator().manual_seed(seed)
    model = network.model.to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learn = network.train.first(setting.learn).to(place)
    kept_back = network.train.last(setting.choose).to(place)
    test = network.test.to(place)
    teacher = copy.deepcopy(model)
    pruner = train.Pruner(model, train.chooser("lamp"), keep=setting.keep, names=network.matrices)
    optimizer = optimizer_of(model, setting.round)
    with pruner.masks.attach(optimizer):
        for number in range(1, setting.rounds + 1):
            pruner.step()
            retrain(model, learn, setting.round, optimizer, random, teacher=teacher)
            if number < setting.first:
                continue
            before = state(model)
            for share in setting.shares:
                archive = quantised(model, pruner, share, setting, learn, teacher, random)
                put(model, {name: archive[name] for name in before})
                scores = judge(model, kept_back), judge(model, test)
                yield File(pruner.masks.density, share, archive.nbytes, scores[0].accuracy, scores[1].accuracy)
                put(model, before)
    model.cpu()
    put(network.model, network.weights)


def quantised(
    model: nn.Module,
    pruner: train.Pruner,
    share: float,
    setting: Setting,
    learn: Images,
    teacher: nn.Module,
    random: torch.Generator,
) -> nw.Archive:
    """Plan steps for the weights as they are, train through them, and encode."""
    plan = planned(state(model), share)
    straight = train.StraightThrough(model, train.CodecProjection(plan), every=10)
    optimizer = optimizer_of(model, setting.last)
    with pruner.masks.attach(optimizer):
        retrain(model, learn, setting.last, optimizer, random, teacher=teacher, around=straight.projected)
    return nw.encode(state(model), plan)


def planned(weights: Weights, share: float) -> nw.Plan:
    """One slope for all tensors, each weighing as much as its energy: errors count relative to the layer."""
    stats = {
        name: Stat(1.0 / max(float(np.sum(np.square(w, dtype=np.float64))), 1e-300)) for name, w in weights.items()
    }
    return nw.allocate(nw.sweep(weights, stats), loss=0.5 * share * len(weights))


if __name__ == "__main__":
    network_command("lenet5_file", run)
