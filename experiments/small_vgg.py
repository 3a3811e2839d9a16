"""A small VGG for CIFAR-10, trained here on the images there are: an architecture that the folder of networks lacks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from experiments.networks import Network, load, state
from experiments.retraining import Budget, device, optimizer_of, retrain

CHANNELS = (16, 16, 0, 32, 32, 0, 64, 64, 0)  # 0 halves the sides
TRAINING = Budget(10, 0.1, shift=4, flip=True, batch=64, half=True)


def vgg(seed: int) -> nn.Module:
    """Six 3x3 convolutions with batch norms and two linear layers; 336,560 weights in matrices."""
    layers: list[nn.Module] = []
    inside = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for outside in CHANNELS:
            if not outside:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * inside, 256), nn.ReLU(), nn.Linear(256, 10))


def trained(data: Path, seed: int, budget: Budget = TRAINING) -> Network | None:
    """Train it; None where the folder has no CIFAR-10. As with the other networks, the test images only judge."""
    other = load("resnet20", data)
    if other is None:
        return None
    model = vgg(seed).to(device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = other.train.to(device())
    retrain(model, images, budget, optimizer_of(model, budget), torch.Generator().manual_seed(seed))
    return Network("vgg", model.cpu(), state(model), other.train, other.test)
