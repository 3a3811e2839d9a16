"""Networks for images whose trained weights are read from files: layers under the names those files use."""

import torch
from torch import Tensor, nn

__all__ = ["MobileNetV2", "ResNet", "lenet5"]


def lenet5() -> nn.Module:
    """LeNet-5 as in Caffe: 20 and 50 kernels of 5x5, 500 hidden units; 430,500 weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10)),
    )


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.more = stride, outside - inside

    def forward(self, x: Tensor) -> Tensor:
        """Channels that the shortcut lacks are zeros on both sides."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + nn.functional.pad(short, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)))


class ResNet(nn.Module):
    """He et al.'s network for 32x32 images: stages of 16, 32 and 64 channels."""

    def __init__(self, depth: int = 20) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(a if j == 0 else b, b, s if j == 0 else 1) for j in range(blocks)))
            for a, b, s in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = torch.relu(self.bn1(self.conv1(x)))
        y: Tensor = self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
        return y


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


class MobileNetV2(nn.Module):
    """Inverted residuals with depth-wise convolutions (Sandler et al. 2018), 1000 classes."""

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
        """Logits."""
        y: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return y
