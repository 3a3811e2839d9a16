"""VGG-16 for 32x32 images at a quarter of its width, trained here: an architecture that comes with no weights.

Few CIFAR-10 images are there, so ResNet-20 teaches it on moved copies of them, half of them mixed in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from experiments.networks import Images, Network, load, put, state
from experiments.parts import Arrays, kept, stamp
from experiments.retraining import Budget, device, lesson, optimizer_of, retrain

# Simonyan, Zisserman 2015, table 1, column D, in units of 64 channels there and 16 here; 0 halves the sides.
CHANNELS = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)
NAME = "vgg16-quarter"
_MOVES = Budget(0, 0, shift=4, flip=True)


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained, and what that may use.

    Attributes:
        budget: in epochs over the images.
        images: to learn from.
        copies: of each.
        width: channels of the first layers.
    """

    budget: Budget
    images: int
    copies: int
    width: int = 16

    @property
    def settings(self) -> tuple[object, ...]:
        """All that a `stamp` has to know."""
        return (self.budget, self.copies, self.width, self.images)


FULL = Training(Budget(20.0, 0.02, teacher=1.0, batch=64, half=True), 7728, 4)


def vgg16(width: int = 16) -> nn.Module:
    """Thirteen 3x3 convolutions with batch norms and one linear layer, usual for CIFAR-10; 921,008 weights at 16."""
    layers: list[nn.Module] = []
    inside = 3
    for units in CHANNELS:
        if units:
            outside = units * width
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inside, 10))


def found(name: str, data: Path, seed: int, folder: Path | None, training: Training | None) -> Network | None:
    """A network that is trained here, with the seed or in the folder of parts already, or one that has its weights."""
    return trained(data, seed, folder, training) if training else load(name, data)


def trained(data: Path, seed: int, folder: Path | None = None, training: Training = FULL) -> Network | None:
    """Train it; None where there is no ResNet-20 with its images. Test images only judge."""
    teacher = load("resnet20", data)
    if teacher is None:
        return None
    key = f"vgg16-{seed}-{stamp(*training.settings)}"
    weights = kept(folder, key, lambda _: _weights(teacher, seed, training))
    model = vgg16(training.width)
    put(model, weights)
    weights = {name: weights[name] for name in model.state_dict()}  # files are in the order of names
    return Network(NAME, model.eval(), weights, teacher.train, teacher.test)


def _weights(teacher: Network, seed: int, training: Training) -> Arrays:
    place, random = device(), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = vgg16(training.width).to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    guide = teacher.model.to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learn = teacher.train.first(training.images).to(place)
    images, outputs = lesson(guide, learn, training.copies, _MOVES, random)
    images = Images(images.x.contiguous(memory_format=torch.channels_last), images.y)
    budget = replace(training.budget, epochs=training.budget.epochs / training.copies)
    retrain(model, images, budget, optimizer_of(model, budget), random, teacher=outputs)
    return state(model)
