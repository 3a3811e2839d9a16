"""LeNet-5 on digits, two residual networks on CIFAR-10, MobileNetV2 on ImageNet photographs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netweight.importance.samples import batch_of

from . import architectures
from .core import DATA, Scores, Task, batches, load, outputs, softmax_nats

__all__ = ["digits", "lenet5", "mobilenet_v2", "objects", "resnet"]

Array = np.ndarray[Any, np.dtype[Any]]
_PUBLISHED_ERROR = {20: 0.0827, 32: 0.0737}  # of these weights, on all 10,000 test images, by their author
_WITH_CROPS = 192  # photographs
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def digits(data: Path, part: str, spread: int | None = None) -> tuple[Tensor, Tensor]:
    """MNIST, pixels / 255, and labels; the part is "train" or "test", all of it or so many images spread over it."""
    stored = np.load(data / "mnist" / "mnist.npz")
    pixels, labels = (stored[f"{name}_{part}"] for name in "xy")
    if spread is not None:
        chosen = np.linspace(0, len(labels) - 1, spread).astype(int)
        pixels, labels = pixels[chosen], labels[chosen]
    return torch.from_numpy(pixels[:, None].astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


def objects(data: Path, part: str) -> tuple[Tensor, Tensor]:
    """What is there of CIFAR-10, normalised as the residual networks want it, and labels."""
    stored = np.load(data / "cifar10" / "cifar10_exact.npz")
    pixels = stored[f"x_{part}"]
    pixels = pixels if pixels.shape[1] == 3 else pixels.transpose(0, 3, 1, 2)
    return _normalised(pixels), torch.from_numpy(stored[f"y_{part}"].astype(np.int64))


def lenet5(data: Path = DATA, *, calibration: int = 512, heldout: int = 10_000) -> Task:
    """Two convolutions and two linear layers, pixels / 255."""
    known, _ = digits(data, "train", calibration)
    images, labels = digits(data, "test")
    file = data / "mnist" / "lenet5.safetensors"
    return Task(
        "lenet5",
        "LeNet-5",
        file,
        lambda: load(architectures.lenet5(), file),
        batches(known, 64),
        batches(images[:heldout], 500),
        softmax_nats,
        partial(_right, labels[:heldout].numpy()),
    )


def resnet(depth: int, data: Path = DATA, *, calibration: int = 512, heldout: int = 932) -> Task:
    """He et al.'s residual network for CIFAR-10, shortcuts of option A.

    The network knows its training images by heart: on them it is far surer than on others, and an error costs far less.
    So they are shifted and mirrored, as in He et al. (2016), and those on which that changes the network's answer are
    taken as often as it is known to err on new images: by its published error. Nothing looks at labels or test images.
    """
    images, labels = objects(data, "test")
    file = data / "cifar10" / f"resnet{depth}.safetensors"
    return Task(
        f"resnet{depth}",
        f"ResNet-{depth}",
        file,
        lambda: load(architectures.ResNet(depth), file),
        batches(_as_if_new(depth, data, calibration), 64),
        batches(images[:heldout], 128),
        softmax_nats,
        partial(_right, labels[:heldout].numpy()),
    )


@cache
def _as_if_new(depth: int, data: Path, count: int) -> Tensor:
    """So many transformed training images, of which a share is answered otherwise than before they were transformed."""
    images, _ = objects(data, "train")
    network = load(architectures.ResNet(depth), data / "cifar10" / f"resnet{depth}.safetensors")
    unsure = round(_PUBLISHED_ERROR[depth] * count)
    wanted = {True: unsure, False: count - unsure}
    found: dict[bool, list[Tensor]] = {True: [], False: []}
    random = np.random.default_rng(0)
    while any(len(found[changed]) < wanted[changed] for changed in wanted):
        before = images[torch.from_numpy(random.permutation(len(images))[:256])]
        after = _transformed(before, random)
        one, other = (torch.cat(outputs(network, [some])).argmax(1) for some in (before, after))
        for image, changed in zip(after, (one != other).tolist(), strict=True):
            if len(found[changed]) < wanted[changed]:
                found[changed].append(image)
    chosen = torch.stack([*found[True], *found[False]])
    return chosen[torch.from_numpy(random.permutation(count))]


def _transformed(images: Tensor, random: np.random.Generator) -> Tensor:
    """Each image with four pixels of the mean colour around it, cut out at a random place and mirrored at random."""
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    out = torch.empty_like(images)
    for j, (down, right, mirrored) in enumerate(random.integers(0, (9, 9, 2), (len(images), 3)).tolist()):
        cut = padded[j, :, down : down + 32, right : right + 32]
        out[j] = cut.flip(-1) if mirrored else cut
    return out


def mobilenet_v2(file: Path, data: Path = DATA, *, calibration: int = 256, heldout: int = 244) -> Task:
    """Inverted residuals with depth-wise convolutions; the 500 photographs are shared out at random, once.

    Of 192 of the calibration photographs there is a crop too, as the network was trained on; 64 at the end are whole.
    """
    stored = np.load(data / "imagenet" / "imagenet_sample_500.npz")
    order = np.random.default_rng(0).permutation(500)
    known, kept = order[:calibration], np.sort(order[500 - heldout :])  # the file is sorted by class, batches are not

    def images(chosen: Array) -> Tensor:
        return _normalised(np.stack([_photograph(stored, int(j)) for j in chosen]))

    cropped, fresh = known[:_WITH_CROPS], known[_WITH_CROPS:]
    whole = images(cropped)
    crops = torch.cat([_crop_beside(stored, int(j), photograph) for j, photograph in zip(cropped, whole, strict=True)])
    parts = (whole, crops, images(fresh)) if len(fresh) else (whole, crops)
    return Task(
        "mobilenet_v2",
        "MobileNetV2",
        file,
        lambda: load(architectures.MobileNetV2(), file),
        [batch for part in parts for batch in batches(part, 16)],
        batches(images(kept), 32),
        softmax_nats,
        partial(_right, stored["y"][kept]),
    )


def _photograph(stored: Any, j: int) -> Array:
    """Centre 224 x 224 of a photograph of 256 x 256, channels first."""
    return np.asarray(_opened(stored, j))[16:240, 16:240].transpose(2, 0, 1)


def _opened(stored: Any, j: int) -> Any:
    """A photograph as Pillow has it."""
    from PIL import Image

    with Image.open(io.BytesIO(stored["jpeg"][stored["offset"][j] : stored["offset"][j + 1]].tobytes())) as image:
        return image.convert("RGB")


def _crop_beside(stored: Any, j: int, photograph: Tensor) -> Tensor:
    """A random crop of a photograph, in the photograph's half of the samples: each half is to see other photographs.

    Which half a sample is in is decided by its content, so crops are drawn until one is in the right half.
    """
    random = np.random.default_rng([1, j])
    half = batch_of(photograph[None], None).halves
    image = _opened(stored, j)
    while True:
        crop = _normalised(_crop(image, random)[None])
        if torch.equal(batch_of(crop, None).halves, half):
            return crop


def _crop(image: Any, random: np.random.Generator) -> Array:
    """Szegedy et al.'s (2015): 35 to 100 % of the area, sides 3 to 4 at most, every second one mirrored."""
    from PIL import Image

    width, height = image.size
    w, h = 2 * width, 2 * height
    while w > width or h > height:
        area = width * height * random.uniform(0.35, 1.0)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
    x, y = int(random.integers(0, width - w + 1)), int(random.integers(0, height - h + 1))
    box = (x, y, x + w, y + h)
    found = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)
    return np.ascontiguousarray(found[:, :, ::-1] if random.random() < 0.5 else found)


def _normalised(pixels: Array) -> Tensor:
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (_MEAN, _STD))
    return torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)


def _right(labels: Array, found: Sequence[Tensor]) -> Scores:
    """1 where the largest logit is the label's."""
    return np.asarray(torch.cat(list(found)).argmax(1).numpy() == labels.reshape(-1), np.float64)
