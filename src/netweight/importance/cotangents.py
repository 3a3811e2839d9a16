"""What is sent backwards: vectors u at the network's output whose second moment is the loss's curvature there.

    "kl"        diag p - p p^T, p = softmax(z / T): the Fisher information of the network's own outputs, no labels
    "squared"   the identity: 1/2 |f - f'|^2
    function    u = dL/dz of each sample's own loss; or columns of a root of d^2 L / dz^2 (Gauss-Newton)

Summed over the vectors sent, E[(J^T u)(J^T u)^T] is J^T (curvature) J. "exact" sends a vector for each class or output
(times a random sign for each position, where a sample has several);
"gaussian" u = (diag sqrt p - p sqrt p^T) e with e ~ N(0, 1), whose second moment is that of all classes; "labels" u =
onehot(y) - p with y drawn from p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from netweight.errors import UsageError
from netweight.importance.samples import Batch

__all__ = ["ESTIMATORS", "Head", "class_last"]

ESTIMATORS: Final = ("auto", "exact", "gaussian", "labels", "hutchinson")
FEW: Final = 16  # classes or outputs that are summed exactly
FEW_SECOND: Final = 64  # outputs whose second derivatives are computed one by one

Loss = str | Callable[[torch.Tensor, Any], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Head:
    """The loss seen from the output.

    Attributes:
        loss: "kl", "squared" or a function of (outputs, batch) that gives the loss of each sample.
        curved: of a function, take second derivatives instead of the gradient.
        estimator: one of ESTIMATORS.
        draws: random vectors for each sample.
        temperature: of the softmax.
        seed: of the draws.
    """

    loss: Loss
    curved: bool
    estimator: str
    draws: int
    temperature: float
    seed: int

    def random(self, z: torch.Tensor) -> bool:
        """Whether vectors of different samples are independent and of mean zero, so that they may be summed."""
        if callable(self.loss):
            return False
        if self.loss == "squared":
            return not self._exact(z[0].numel())
        z = class_last(z)
        return z.ndim > 2 or not self._exact(z.shape[-1])  # positions have random signs

    def predictions(self, z: torch.Tensor, batch: Batch) -> float:
        """Count what the loss is a mean over."""
        if self.loss != "kl":
            return float(batch.count)
        z = class_last(z)
        mask = _fitting(batch.mask, z)
        return float(z[..., 0].numel() if mask is None else mask.sum())

    def vectors(self, z: torch.Tensor, batch: Batch) -> Iterator[torch.Tensor]:
        """Give the vectors to send back, each of the shape of the output; one backward pass each.

        Raises:
            UsageError: a function's losses are not one for each sample, or depend on no output.
        """
        if callable(self.loss):
            yield from self._supervised(z, batch)
        elif self.loss == "kl":
            moved = class_last(z.detach())
            for u in self._softmax(moved.float(), batch):
                yield (u if moved.shape == z.shape else u.movedim(-1, 1)).to(z.dtype)
        else:
            for u in self._squared(z.detach().float(), batch):
                yield u.to(z.dtype)

    def _softmax(self, z: torch.Tensor, batch: Batch) -> Iterator[torch.Tensor]:
        p = torch.softmax(z / self.temperature, dim=-1)
        mask = _fitting(batch.mask, z)
        keep = torch.ones(()).to(z) if mask is None else mask.to(z)[..., None]
        classes = z.shape[-1]
        if self._exact(classes):
            if z.ndim > 2:  # positions of one sample are predictions of their own: signs keep them apart
                keep = keep * next(self._noise(z[..., :1], batch, mask)).sign()
            for c in range(classes):
                u = -p * p[..., c : c + 1].sqrt()
                u[..., c] += p[..., c].sqrt()
                yield u * keep / self.temperature
            return
        for e in self._noise(z, batch, mask):
            if self.estimator == "labels":
                drawn = (torch.cumsum(p, -1) < torch.special.ndtr(e[..., :1])).sum(-1).clamp_max(classes - 1)
                u = torch.nn.functional.one_hot(drawn, classes) - p
            else:
                u = p.sqrt() * e - p * (p.sqrt() * e).sum(-1, keepdim=True)
            yield u * keep / (self.temperature * self.draws**0.5)

    def _squared(self, z: torch.Tensor, batch: Batch) -> Iterator[torch.Tensor]:
        mask = _fitting(batch.mask, z) if z.ndim > 2 else None
        keep = 1.0 if mask is None else mask.to(z)[..., None]
        outputs = z[0].numel()
        if self._exact(outputs):
            for k in range(outputs):
                u = torch.zeros_like(z).reshape(len(z), -1)
                u[:, k] = 1
                yield u.reshape(z.shape) * keep
            return
        for e in self._noise(z, batch, mask):
            yield e * keep / self.draws**0.5

    def _exact(self, count: int) -> bool:
        return self.estimator == "exact" or (self.estimator == "auto" and count <= FEW)

    def _noise(self, z: torch.Tensor, batch: Batch, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
        """Standard normal numbers of the output's shape; each sample's are its own, whatever it is padded to."""
        generators = [batch.random(self.seed, j) for j in range(batch.count)]
        for _ in range(self.draws):
            e = torch.zeros(z.shape)
            for j, generator in enumerate(generators):
                if mask is None:
                    e[j] = torch.from_numpy(generator.standard_normal(z.shape[1:], "float32"))
                else:
                    valid = mask[j].cpu()
                    e[j][valid] = torch.from_numpy(
                        generator.standard_normal((int(valid.sum()), *z.shape[2:]), "float32")
                    )
            yield e.to(z.device)

    def _supervised(self, z: torch.Tensor, batch: Batch) -> Iterator[torch.Tensor]:
        assert callable(self.loss)
        with torch.enable_grad():
            free = z.detach().requires_grad_()
            losses: Any = self.loss(free, batch.value)
            if not isinstance(losses, torch.Tensor) or losses.shape != (batch.count,):
                shape = list(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
                raise UsageError(
                    f"The loss gave {shape} for {batch.count} samples.",
                    'Return one loss for each sample, such as cross_entropy(z, y, reduction="none").',
                )
            if not losses.requires_grad:
                raise UsageError("The loss does not depend on the outputs.", "Compute it from its first argument.")
            (first,) = torch.autograd.grad(losses.sum(), free, create_graph=self.curved)
            if not self.curved:
                yield first
                return
            yield from _root_vectors(first, free)


def _root_vectors(first: torch.Tensor, z: torch.Tensor) -> Iterator[torch.Tensor]:
    """Columns of a square root of each sample's second derivatives; what is negative counts for nothing."""
    flat = first.reshape(len(z), -1)
    outputs = flat.shape[1]
    if outputs > FEW_SECOND:
        raise UsageError(
            f"The loss has {outputs} outputs a sample, too many for its exact second derivatives.",
            'Choose cotangents="hutchinson".',
        )
    rows = []
    for k in range(outputs):
        found = (
            torch.autograd.grad(flat[:, k].sum(), z, retain_graph=True, allow_unused=True)[0]
            if flat.requires_grad
            else None
        )
        rows.append((torch.zeros_like(z) if found is None else found).reshape(len(z), -1))
    values, axes = torch.linalg.eigh(torch.stack(rows, dim=1).detach().double())
    scaled = axes * values.clamp_min(0).sqrt()[:, None, :]
    for k in range(outputs):
        yield scaled[:, :, k].reshape(z.shape).to(z.dtype)


def class_last(z: torch.Tensor) -> torch.Tensor:
    """Move the classes to the last axis: they are there, but for images of [N, C, H, W..] at axis 1."""
    return z.movedim(1, -1) if z.ndim >= 4 else z


def _fitting(mask: torch.Tensor | None, z: torch.Tensor) -> torch.Tensor | None:
    """The mask, where the output has a value for each token."""
    return mask if mask is not None and z.ndim == 3 and z.shape[:2] == mask.shape else None
