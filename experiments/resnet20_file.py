"""ResNet-20 in the smallest file that loses at most a point, with retraining on the images there are.

The network is trained straight through the projection of a plan, step by step to fewer bits. It came trained on 50,000
images, of which 7,728 are here; so the trained network teaches, on moved and mixed images, and labels are not used.
7,000 images are learnt from, 728 choose, the test images judge.
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
from experiments.networks import Images, Network, Score, Weights, judge, load, paired, put, renormalise, state
from experiments.retraining import Budget, device, lesson, optimizer_of, retrain
from netweight import train
from netweight.importance.stat import Stat

LOST = 0.01  # of the test images, at most
LEAST = np.float32(1e-6)  # variance
VECTORS = 4.0  # times finer: norms and biases are few and act on all weights


@dataclass(frozen=True, slots=True)
class Setting:
    """Budgets.

    Attributes:
        learn: training images.
        choose: training images kept back.
        copies: of each image, moved and mixed.
        bits: of the file for each weight, one leg after the other.
        leg: retraining in each leg, epochs over the images without copies.
    """

    learn: int
    choose: int
    copies: int
    bits: tuple[float, ...]
    leg: Budget


REDUCED = Setting(200, 100, 1, (2.0,), Budget(0.5, 0.005, teacher=1.0, batch=50))
FULL = Setting(7000, 728, 3, (1.8, 1.5, 1.3, 1.15), Budget(2.0, 0.01, teacher=1.0, batch=64, half=True))
_MOVES = Budget(0, 0, shift=4, flip=True)


@dataclass(frozen=True, slots=True)
class File:
    """One file, and how good it is.

    Attributes:
        bits: asked for.
        nbytes: of the file.
        zeros: share of the weights in matrices.
        kept_back: on the training images that choose.
        test: on the test images.
    """

    bits: float
    nbytes: int
    zeros: float
    kept_back: Score
    test: Score


def run(seed: int, data: Path, full: bool) -> Result | None:
    """Make the files, and take the smallest that loses at most a point."""
    network = load("resnet20", data)
    if network is None:
        return None
    setting = FULL if full else REDUCED
    place = device()
    kept_back = network.train.last(setting.choose).to(place)
    model = network.model.to(place)
    before = judge(model, kept_back), judge(model, network.test.to(place))
    files = list(make(network, setting, seed, kept_back))
    lost = [points(file.test, before[1]) for file in files]
    weights = sum(w.size for w in network.weights.values())
    dense_bytes = network.dense_bytes
    columns: dict[str, Sequence[object]] = {
        "bits_asked": [file.bits for file in files],
        "bytes": [file.nbytes for file in files],
        "bits": [8 * file.nbytes / weights for file in files],
        "times_smaller": [dense_bytes / file.nbytes for file in files],
        "zeros": [file.zeros for file in files],
        "points_lost_kept_back": [points(file.kept_back, before[0])[0] for file in files],
        "accuracy_test": [file.test.accuracy for file in files],
        "points_lost_test": [mean for mean, _ in lost],
        "se_points": [error for _, error in lost],
        "cross_entropy_nats": [file.test.loss_nats for file in files],
    }

    def draw(axes: Sequence[Axes]) -> None:
        axes[0].errorbar(
            columns["bits"],  # type: ignore[arg-type]
            [mean for mean, _ in lost],
            [error for _, error in lost],
            fmt="o-",
            markersize=3,
            capsize=2,
        )
        axes[0].axhline(100 * LOST, color="0.4", linewidth=0.8)
        axes[0].set(xlabel="bits of the file for each weight", ylabel="points lost on the test images")

    good = [(f.nbytes, mean, error) for f, (mean, error) in zip(files, lost, strict=True) if mean <= 100 * LOST]
    text = f"{100 * before[1].accuracy:.2f} % and {dense_bytes:,} bytes before; "
    if good:
        nbytes, mean, error = min(good)
        text += (
            f"smallest that loses at most a point: {nbytes:,} bytes, {8 * nbytes / weights:.2f} bits a weight, "
            f"{dense_bytes / nbytes:.1f} times smaller, {mean:+.2f} +- {error:.2f} points lost"
        )
    else:
        text += f"no file loses at most a point; the best loses {min(mean for mean, _ in lost):.2f}"
    return Result(columns, draw, holds(bool(good) or not full, text))


def points(after: Score, before: Score) -> tuple[float, float]:
    """Points of accuracy that are lost on the same images, and their standard error."""
    mean, error = paired(before.hits.astype(float), after.hits.astype(float))
    return 100 * mean, 100 * error


def make(network: Network, setting: Setting, seed: int, kept_back: Images) -> Iterator[File]:
    """Plan for fewer and fewer bits; train through each plan's projection; write."""
    place = kept_back.y.device
    random = torch.Generator().manual_seed(seed)
    model = network.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learn, test = network.train.first(setting.learn).to(place), network.test.to(place)
    images, outputs = lesson(copy.deepcopy(model), learn, setting.copies, _MOVES, random)
    images = Images(images.x.contiguous(memory_format=torch.channels_last), images.y)
    budget = replace(setting.leg, epochs=setting.leg.epochs / setting.copies)
    for bits in setting.bits:
        plan = planned(state(model), bits)
        straight = train.StraightThrough(model, train.CodecProjection(plan), every=4)
        optimizer = optimizer_of(model, budget)
        retrain(model, images, budget, optimizer, random, teacher=outputs, around=straight.projected)
        behind = state(model)
        archive = written(model, plan, learn)
        put(model, {name: archive[name] for name in behind})
        zeros = [np.asarray(archive[name]).reshape(-1) == 0 for name in network.matrices]
        yield File(
            bits, archive.nbytes, float(np.concatenate(zeros).mean()), judge(model, kept_back), judge(model, test)
        )
        put(model, behind)
    model.cpu()
    put(network.model, network.weights)


def planned(weights: Weights, bits: float) -> nw.Plan:
    """One slope for all tensors, each weighing as much as its energy: errors count relative to the layer."""
    stats = {
        name: Stat((1.0 if w.ndim > 1 else VECTORS) / max(float(np.sum(np.square(w, dtype=np.float64))), 1e-300))
        for name, w in weights.items()
        if w.dtype == np.float32
    }
    return nw.allocate(nw.sweep(weights, stats), bits=bits)


def written(model: nn.Module, plan: nw.Plan, learn: Images) -> nw.Archive:
    """Encode with norms' statistics for images as they are: those of training are for mixtures."""
    weights = state(model)
    archive = nw.encode(weights, plan)
    put(model, {name: archive[name] for name in weights})
    renormalise(model, learn.first(2000))
    # Channels of zeros alone have no variance, which the codec of positive numbers would not take.
    norms = {name: np.maximum(w, LEAST) for name, w in state(model).items() if "running_var" in name}
    norms |= {name: w for name, w in state(model).items() if "running_mean" in name}
    return nw.encode({**weights, **norms}, plan)


if __name__ == "__main__":
    network_command("resnet20_file", run)
