"""Batches as samples: how many, which half each belongs to, and random numbers that belong to a sample alone.

Whatever is random comes from a generator seeded by the sample's own content, and so does its half. So the sums do not
depend on the order of the data or on how it is cut into batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from netweight.errors import UsageError

__all__ = ["Batch", "batch_of", "model_inputs", "output_of", "tensors_of"]

Mask = Callable[[Any], "torch.Tensor | None"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples.

    Attributes:
        value: what the user gave.
        count: samples.
        digests: SHA-256 of each.
        mask: [count, tokens], true where a token counts; None if all do.
    """

    value: Any
    count: int
    digests: tuple[bytes, ...]
    mask: torch.Tensor | None

    @property
    def halves(self) -> torch.Tensor:
        """0 or 1 for each sample."""
        return torch.tensor([digest[0] & 1 for digest in self.digests])

    @property
    def data(self) -> int:
        """Sum of the digests as integers."""
        return sum(int.from_bytes(digest, "big") for digest in self.digests)

    def random(self, seed: int, sample: int) -> np.random.Generator:
        """Give the generator of one sample."""
        return np.random.default_rng([seed, int.from_bytes(self.digests[sample], "big")])

    def singles(self) -> Iterator[Batch]:
        """Cut it into batches of one sample."""
        for j in range(self.count):
            mask = None if self.mask is None else self.mask[j : j + 1]
            yield Batch(_slice(self.value, j, self.count), 1, self.digests[j : j + 1], mask)


def batch_of(value: Any, mask: Mask | None) -> Batch:
    """Count and hash the samples of a batch.

    Args:
        value: a tensor, or any nest of lists, tuples and mappings of tensors; the first axis is that of the samples.
        mask: from the batch to its mask; by default the entry "attention_mask" of a mapping.

    Raises:
        UsageError: there is no tensor in it, or no sample.
    """
    tensors = list(tensors_of(value))
    if not tensors or tensors[0].ndim == 0 or not len(tensors[0]):
        raise UsageError(
            "A batch holds no tensor with samples.", "Give tensors, (inputs, labels) pairs or dicts of them."
        )
    count = len(tensors[0])
    found = mask(value) if mask is not None else _own_mask(value)
    if found is not None and (found.ndim != 2 or len(found) != count):
        raise UsageError(
            f"The mask has the shape {list(found.shape)} for {count} samples.", "Give a mask of [samples, tokens]."
        )
    valid = None if found is None else found.bool()
    own = [tensor.detach().cpu() for tensor in tensors if tensor.ndim and len(tensor) == count]
    digests = tuple(_digest(own, j, valid) for j in range(count))
    return Batch(value, count, digests, valid)


def _own_mask(value: Any) -> torch.Tensor | None:
    found = value.get("attention_mask") if isinstance(value, Mapping) else None
    return found if isinstance(found, torch.Tensor) and found.ndim == 2 else None


def _digest(tensors: list[torch.Tensor], j: int, mask: torch.Tensor | None) -> bytes:
    """Hash one sample; what the mask hides does not count, so padding does not."""
    digest = hashlib.sha256()
    for tensor in tensors:
        part = tensor[j]
        if mask is not None and tensor.shape[:2] == mask.shape:
            part = part[mask[j].cpu()]
        part = part.float() if part.dtype == torch.bfloat16 else part
        digest.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        digest.update(np.ascontiguousarray(part.numpy()).reshape(-1).view(np.uint8).data)
    return digest.digest()


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Give every tensor of a nest of lists, tuples and mappings."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_of(part)


def _slice(value: Any, j: int, count: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[j : j + 1] if value.ndim and len(value) == count else value
    if isinstance(value, Mapping):
        return {key: _slice(part, j, count) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_slice(part, j, count) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def model_inputs(model: torch.nn.Module, value: Any) -> Any:
    """Call a model on a batch: a mapping by keywords without "labels", a pair on its first part, else as it is."""
    if isinstance(value, Mapping):
        return model(**{key: part for key, part in value.items() if key != "labels"})
    if isinstance(value, list | tuple):
        return model(value[0])
    return model(value)


def output_of(value: Any) -> torch.Tensor:
    """Find the tensor in what a model returned: itself, its `logits` or `last_hidden_state`, or its first part.

    Raises:
        UsageError: there is none.
    """
    for name in ("logits", "last_hidden_state"):
        if isinstance(getattr(value, name, None), torch.Tensor):
            value = getattr(value, name)
    if isinstance(value, Mapping) and value:
        value = next(iter(value.values()))
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise UsageError(
            f"The model returned {type(value).__name__}, no tensor of floats.",
            "Pass forward=lambda model, batch: ..., which gives the output tensor.",
        )
    return value
