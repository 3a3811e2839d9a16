"""The small networks and data sets of the papers' experiments, and how they are judged.

They are read from a folder (`--data`, see its README): MNIST with LeNet-300-100 and LeNet-5, and byte-exact CIFAR-10
images with ResNet-20. Networks compress by their own state dictionaries; torch only computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.tasks.architectures import ResNet, lenet5
from benchmarks.tasks.images import digits, objects
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

BATCH = 500
Weights = dict[str, NDArray[np.float32]]
Floats = NDArray[np.float64]


def lenet300() -> nn.Module:
    """Perceptron 784-300-100-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


MODELS = {"lenet300": lenet300, "lenet5": lenet5, "resnet20": ResNet}
FOLDERS = {"lenet300": "mnist", "lenet5": "mnist", "resnet20": "cifar10"}


@dataclass(frozen=True, slots=True)
class Images:
    """Normalised images and labels, as torch tensors."""

    x: torch.Tensor
    y: torch.Tensor

    def first(self, count: int) -> Images:
        """The first so many, all if there are fewer."""
        return Images(self.x[:count], self.y[:count])

    def last(self, count: int) -> Images:
        """The last so many, all if there are fewer."""
        return Images(self.x[-count:], self.y[-count:])

    def to(self, device: torch.device) -> Images:
        """The same on a device."""
        return Images(self.x.to(device), self.y.to(device))

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network and its data.

    Attributes:
        name: of the network.
        model: in evaluation mode; `weights` are loaded into it.
        weights: its state dictionary as read.
        train: images to learn and to measure from.
        test: images to judge by, in the order of the data set.
    """

    name: str
    model: nn.Module
    weights: Weights
    train: Images
    test: Images

    @property
    def matrices(self) -> list[str]:
        """Names of the weights of convolutions and linear layers: what the papers compress."""
        return [name for name, w in self.weights.items() if w.ndim >= 2]

    @property
    def dense_bytes(self) -> int:
        """Of all its tensors as they were read."""
        return sum(w.nbytes for w in self.weights.values())


def load(name: str, data: Path) -> Network | None:
    """A network and its data; None where the folder does not have them."""
    folder = data / FOLDERS[name]
    path = folder / f"{name}.safetensors"
    if not path.exists():
        return None
    weights = {key: np.asarray(w) for key, w in load_file(path).items()}
    model = MODELS[name]()
    put(model, weights)
    read = digits if folder.name == "mnist" else objects
    train, test = (Images(x.contiguous(), y) for x, y in (read(data, part) for part in ("train", "test")))
    return Network(name, model.eval(), weights, train, test)


def put(model: nn.Module, weights: Mapping[str, NDArray[np.generic]]) -> None:
    """Load a state dictionary of arrays."""
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})


def state(model: nn.Module) -> Weights:
    """Give the state dictionary as arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


@dataclass(frozen=True, slots=True)
class Score:
    """A network on the test images, image by image.

    Attributes:
        losses_nats: cross-entropy of each image.
        hits: whether each image is recognised.
    """

    losses_nats: Floats
    hits: NDArray[np.bool_]

    @property
    def loss_nats(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses_nats.mean())

    @property
    def accuracy(self) -> float:
        """Share of the images that are recognised."""
        return float(self.hits.mean())


@torch.no_grad()
def judge(model: nn.Module, images: Images) -> Score:
    """Cross-entropy and hits of a model in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    losses, hits = [], []
    for at in range(0, len(images), BATCH):
        y = images.y[at : at + BATCH].to(device)
        logits = model(images.x[at : at + BATCH].to(device))
        losses.append(functional.cross_entropy(logits.double(), y, reduction="none").cpu().numpy())
        hits.append((logits.argmax(1) == y).cpu().numpy())
    return Score(np.concatenate(losses), np.concatenate(hits))


def judge_weights(network: Network, changed: Mapping[str, NDArray[np.float32]], images: Images | None = None) -> Score:
    """Judge the network with some of its tensors replaced, and put its own back."""
    put(network.model, {**network.weights, **changed})
    try:
        return judge(network.model, network.test if images is None else images)
    finally:
        put(network.model, network.weights)


def paired(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Mean of ours - theirs on the same images, and its standard error."""
    difference = ours - theirs
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


@torch.no_grad()
def renormalise(model: nn.Module, images: Images) -> None:
    """Set the statistics of batch norms to those of some images: a compressed network's means are others."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for at in range(0, len(images), BATCH):
        model(images.x[at : at + BATCH])
    model.eval()
