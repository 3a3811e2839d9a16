"""LeNet-5 on digits, two residual networks on CIFAR-10, MobileNetV2 on ImageNet photographs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .core import DATA, Scores, Task, batches, load, softmax_nats

__all__ = ["lenet5", "mobilenet_v2", "resnet"]

Array = np.ndarray[Any, np.dtype[Any]]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def lenet5(data: Path = DATA, *, calibration: int = 512, heldout: int = 10_000) -> Task:
    """Two convolutions and two linear layers, pixels / 255."""
    stored = np.load(data / "mnist" / "mnist.npz")

    def images(pixels: Array) -> Tensor:
        return torch.from_numpy(pixels[:, None].astype(np.float32) / 255)

    file = data / "mnist" / "lenet5.safetensors"
    chosen = np.linspace(0, len(stored["x_train"]) - 1, calibration).astype(int)
    return Task(
        "lenet5",
        "LeNet-5",
        file,
        lambda: load(_lenet5(), file),
        batches(images(stored["x_train"][chosen]), 64),
        batches(images(stored["x_test"][:heldout]), 500),
        softmax_nats,
        partial(_right, stored["y_test"][:heldout]),
    )


def _lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


def resnet(depth: int, data: Path = DATA, *, calibration: int = 512, heldout: int = 932) -> Task:
    """He et al.'s residual network for CIFAR-10, shortcuts of option A.

    The network knows its training images by heart: on them its outputs are far surer than its accuracy on others
    allows, and their Fisher information is four times too small. So every other one is enlarged, which training never
    did; the mean of 1 - p^2 over the outputs is then about what it is on new images. That choice was made by looking at
    this mean on the test images, without labels: of what is measured there, the predicted nats lean on it.
    """
    stored = np.load(data / "cifar10" / "cifar10_exact.npz")
    file = data / "cifar10" / f"resnet{depth}.safetensors"
    chosen = np.linspace(0, len(stored["x_train"]) - 1, calibration).astype(int)
    return Task(
        f"resnet{depth}",
        f"ResNet-{depth}",
        file,
        lambda: load(_CifarResNet(depth), file),
        batches(_as_if_new(_normalised(_channels_first(stored["x_train"][chosen]))), 64),
        batches(_normalised(_channels_first(stored["x_test"][:heldout])), 128),
        softmax_nats,
        partial(_right, stored["y_test"][:heldout]),
    )


def _as_if_new(images: Tensor) -> Tensor:
    """The central 28 x 28 pixels of every other image, enlarged to 32 x 32."""
    out = images.clone()
    inside = images[1::2, :, 2:-2, 2:-2]
    out[1::2] = nn.functional.interpolate(inside, size=32, mode="bilinear", antialias=True)
    return out


class _Block(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.more = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + nn.functional.pad(short, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)))


class _CifarResNet(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(_Block(a if j == 0 else b, b, s if j == 0 else 1) for j in range(blocks)))
            for a, b, s in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        y: Tensor = self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
        return y


def mobilenet_v2(file: Path, data: Path = DATA, *, calibration: int = 256, heldout: int = 244) -> Task:
    """Inverted residuals with depth-wise convolutions; the 500 photographs are shared out at random, once."""
    stored = np.load(data / "imagenet" / "imagenet_sample_500.npz")
    order = np.random.default_rng(0).permutation(500)
    known, kept = np.sort(order[:calibration]), np.sort(order[500 - heldout :])

    def images(chosen: Array) -> Tensor:
        return _normalised(np.stack([_photograph(stored, int(j)) for j in chosen]))

    return Task(
        "mobilenet_v2",
        "MobileNetV2",
        file,
        lambda: load(_MobileNetV2(), file),
        batches(images(known), 16),
        batches(images(kept), 32),
        softmax_nats,
        partial(_right, stored["y"][kept]),
    )


def _photograph(stored: Any, j: int) -> Array:
    """Centre 224 x 224 of a photograph of 256 x 256, channels first."""
    from PIL import Image

    with Image.open(io.BytesIO(stored["jpeg"][stored["offset"][j] : stored["offset"][j + 1]].tobytes())) as image:
        return np.asarray(image.convert("RGB"))[16:240, 16:240].transpose(2, 0, 1)


def _unit(inside: int, outside: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU6())


class _Inverted(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, grow: int) -> None:
        super().__init__()
        wide = inside * grow
        expand = [_unit(inside, wide, 1, 1, 1)] if grow > 1 else []
        narrow = [nn.Conv2d(wide, outside, 1, bias=False), nn.BatchNorm2d(outside)]
        self.conv = nn.Sequential(*expand, _unit(wide, wide, 3, stride, wide), *narrow)
        self.short = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.short else y


class _MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_unit(3, 32, 3, 2, 1)]
        inside = 32
        for grow, outside, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for j in range(count):
                layers.append(_Inverted(inside, outside, stride if j == 0 else 1, grow))
                inside = outside
        self.features = nn.Sequential(*layers, _unit(inside, 1280, 1, 1, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return y


def _channels_first(pixels: Array) -> Array:
    return pixels if pixels.shape[1] == 3 else pixels.transpose(0, 3, 1, 2)


def _normalised(pixels: Array) -> Tensor:
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (_MEAN, _STD))
    return torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)


def _right(labels: Array, found: Sequence[Tensor]) -> Scores:
    """1 where the largest logit is the label's."""
    return np.asarray(torch.cat(list(found)).argmax(1).numpy() == labels.reshape(-1), np.float64)
