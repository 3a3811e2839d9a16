"""Layers as linear maps: which vectors meet the rows and the columns of their weight.

For a weight W of R rows and n columns the gradient of one sample is sum_t r_t c_t^T over tokens or positions t. One
side is the layer's input x, the other the gradient g at its output:

    Linear, Conv           rows g      columns x: patches of the input for a convolution, by group
    transposed Conv        rows x      columns g: patches of the output's gradient, by group
    Conv1D of GPT-2        rows x      columns g
    Embedding              rows one-hot tokens, columns g

A block of inputs is [samples, items, *item]: an item is a token's vector, or an image [C, *space].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Map", "by_sample", "map_of", "patches"]

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, slots=True)
class Map:
    """A weight as a matrix.

    Attributes:
        rows: of the weight.
        columns: of the weight.
        groups: each with rows / groups consecutive rows and columns of its own.
        input_rows: the input meets the rows, the gradient the columns.
        tokens: the input is indices of rows.
        item: axes of one item, of the input and of the gradient alike.
        inputs: from items [S, R, *item] to vectors [S, T, groups, n]; groups of 1 for what meets the rows.
        gradients: likewise, of the output's gradient.
        growth: how much larger the vectors are than the items, for the memory they need.
    """

    rows: int
    columns: int
    groups: int
    input_rows: bool
    tokens: bool
    item: int
    inputs: Callable[[Tensor], Tensor]
    gradients: Callable[[Tensor], Tensor]
    growth: int = 1


def map_of(module: Any) -> Map | None:
    """Describe a module's `weight`; None where the formulas do not know it."""
    kind: Any = type(module)
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim < 2:
        return None
    rows, columns = len(weight), weight[0].numel()
    if kind is nn.Linear or (isinstance(module, nn.Linear) and kind.forward is nn.Linear.forward):
        return Map(rows, columns, 1, False, False, 1, _vectors, _vectors)
    if kind in CONVOLUTIONS:
        return _convolution(module, weight)
    if kind in TRANSPOSED:
        return _transposed(module, weight)
    if kind is nn.Embedding and module.max_norm is None:
        return Map(rows, columns, 1, True, True, 1, _vectors, _vectors)
    if kind.__name__ == "Conv1D" and weight.ndim == 2 and getattr(module, "nf", None) == columns:
        return Map(rows, columns, 1, True, False, 1, _vectors, _vectors)
    return None


def by_sample(t: Tensor, count: int, item: int, axis: int | None = 0) -> Tensor:
    """Sort a tensor of any leading axes by samples: [S, items, *item], with S = 1 where no axis is that of samples.

    Args:
        t: [.., *item].
        count: samples.
        item: axes of one item.
        axis: that of the samples, whose size is a multiple of their number (windows of an image); None for none.

    >>> import torch
    >>> by_sample(torch.zeros(5, 3, 8), 3, 1, 1).shape, by_sample(torch.zeros(6, 8), 3, 1).shape
    (torch.Size([3, 5, 8]), torch.Size([3, 2, 8]))
    """
    tail = t.shape[t.ndim - item :]
    if axis is None or axis >= t.ndim - item or t.shape[axis] % count:
        return t.reshape(1, -1, *tail)
    return t.movedim(axis, 0).reshape(count, -1, *tail)


def _vectors(t: Tensor) -> Tensor:
    return t.reshape(len(t), -1, 1, t.shape[-1])


def _images(t: Tensor) -> Tensor:
    """[S, R, C, *space] to [S, T, 1, C]."""
    return t.movedim(2, -1).reshape(len(t), -1, 1, t.shape[2])


def patches(t: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """Cut images into patches: [N, C, *space] to [N, *positions, C, *kernel], a view.

    >>> import torch
    >>> patches(torch.arange(5.0).reshape(1, 1, 5), (2,), (1,), (2,))[0, :, 0].tolist()
    [[0.0, 2.0], [1.0, 3.0], [2.0, 4.0]]
    """
    spatial = len(kernel)
    for axis in range(spatial):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        t = t.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    return t.movedim(1, 1 + spatial)


def _convolution(module: Any, weight: Tensor) -> Map:
    groups, kernel = module.groups, module.kernel_size

    def inputs(t: Tensor) -> Tensor:
        flat = t.reshape(-1, *t.shape[2:])
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padding = module._reversed_padding_repeated_twice
        if any(padding):
            flat = F.pad(flat, padding, mode=mode)
        cut = patches(flat, kernel, module.stride, module.dilation)
        return cut.reshape(len(t), -1, groups, weight[0].numel())

    columns = weight[0].numel()
    return Map(
        len(weight), columns, groups, False, False, 1 + len(kernel), inputs, _images, growth=math.prod(kernel)
    )  # fmt: skip


def _transposed(module: Any, weight: Tensor) -> Map:
    groups, kernel = module.groups, module.kernel_size
    columns = weight[0].numel()

    def gradients(t: Tensor) -> Tensor:
        flat = t.reshape(-1, *t.shape[2:])
        padding = [p for size in reversed(module.padding) for p in (size, size)]
        if any(padding):
            flat = F.pad(flat, padding)
        cut = patches(flat, kernel, module.stride, module.dilation)
        for axis, size in enumerate(t.shape[3:]):  # output_padding may leave room for more patches than inputs
            reach = (kernel[axis] - 1) * module.dilation[axis] + 1 + module.output_padding[axis]
            cut = cut.narrow(1 + axis, 0, (size + 2 * module.padding[axis] - reach) // module.stride[axis] + 1)
        return cut.reshape(len(t), -1, groups, columns)

    return Map(
        len(weight), columns, groups, True, False, 1 + len(kernel), _images, gradients, growth=math.prod(kernel)
    )  # fmt: skip
