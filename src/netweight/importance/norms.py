"""Normalisations: what an error of their scale, shift and stored statistics does to the output.

With y = w xh + b, xh = (x - m) / s, s = sqrt(v + eps), the gradients of one sample, summed over its positions, are

    b: g        w: g xh        m: -g w / s        v: -g w xh / (2 s^2)

where m and v are parameters of the file only for batch norms in use (evaluation mode).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netweight.importance.maps import by_sample

__all__ = ["is_norm", "norm_gradients", "norm_names"]

BATCH: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_norm(module: nn.Module) -> bool:
    """Whether the formulas know this module."""
    if type(module) in BATCH:
        return bool(module.track_running_stats) and module.running_mean is not None
    return type(module) in (nn.LayerNorm, nn.GroupNorm) or type(module) is getattr(nn, "RMSNorm", None)


def norm_names(module: nn.Module) -> tuple[str, ...]:
    """Names of its tensors that matter."""
    own = [name for name in ("weight", "bias") if getattr(module, name, None) is not None]
    return (*own, "running_mean", "running_var") if type(module) in BATCH else tuple(own)


def norm_gradients(module: Any, x: Tensor, g: Tensor, count: int, axis: int | None) -> Iterator[tuple[str, Tensor]]:
    """Give each tensor's gradients by sample, [samples, *shape]; [1, *shape] where no axis is that of samples."""
    x, g = x.detach().float(), g.detach().float()
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        shape = tuple(module.normalized_shape)
        if isinstance(module, nn.LayerNorm):
            normal = F.layer_norm(x, shape, eps=module.eps)
        else:
            normal = F.rms_norm(x, shape, eps=module.eps)
        yield from _affine(module, (g * normal, g), shape, count, axis)
        return
    if isinstance(module, nn.GroupNorm):
        normal = F.group_norm(x, module.num_groups, eps=module.eps)
        yield from _affine(module, (_channels_last(g * normal), _channels_last(g)), (module.num_channels,), count, axis)
        return
    shape = (1, -1, *([1] * (x.ndim - 2)))
    mean, scale = module.running_mean.float(), torch.sqrt(module.running_var.float() + module.eps)
    normal = (x - mean.reshape(shape)) / scale.reshape(shape)
    own = (module.num_features,)
    by_scale, by_shift = (_summed(_channels_last(t), own, count, axis) for t in (g * normal, g))
    w = torch.ones_like(scale) if module.weight is None else module.weight.detach().float()
    if module.weight is not None:
        yield "weight", by_scale
    if module.bias is not None:
        yield "bias", by_shift
    yield "running_mean", -by_shift * w / scale
    yield "running_var", -by_scale * w / (2 * scale**2)


def _affine(
    module: Any, parts: tuple[Tensor, Tensor], shape: tuple[int, ...], count: int, axis: int | None
) -> Iterator[tuple[str, Tensor]]:
    for name, part in zip(("weight", "bias"), parts, strict=True):
        if getattr(module, name, None) is not None:
            yield name, _summed(part, shape, count, axis)


def _channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1)


def _summed(t: Tensor, shape: tuple[int, ...], count: int, axis: int | None) -> Tensor:
    return by_sample(t, count, len(shape), axis).sum(1)
