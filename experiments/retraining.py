"""Plain retraining loops for the experiments: every method gets the same budget, images in the same order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from experiments.networks import BATCH, Images

Around = Callable[[], AbstractContextManager[object]]
Teacher = nn.Module | torch.Tensor


@dataclass(frozen=True, slots=True)
class Budget:
    """What a retraining may use.

    Attributes:
        epochs: passes over the images.
        rate: learning rate at the start; falls to zero along half a cosine.
        shift: largest shift of an image in either direction, pixels.
        flip: whether images are mirrored at random.
        teacher: weight of the divergence from a teacher's outputs at temperature 4; 0 for labels alone.
        half: whether convolutions compute in bfloat16; weights and steps stay in float32.
    """

    epochs: float
    rate: float
    shift: int = 0
    flip: bool = False
    teacher: float = 0.0
    batch: int = 128
    momentum: float = 0.9
    decay: float = 5e-4
    half: bool = False

    def steps(self, images: Images) -> int:
        """Steps of the optimiser."""
        return max(1, round(self.epochs * len(images) / self.batch))


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def optimizer_of(model: nn.Module, budget: Budget) -> torch.optim.SGD:
    """Stochastic gradient descent with momentum; what vectors there are do not decay."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": budget.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=budget.rate, momentum=budget.momentum, nesterov=True)


def retrain(
    model: nn.Module,
    images: Images,
    budget: Budget,
    optimizer: torch.optim.Optimizer,
    random: torch.Generator,
    *,
    teacher: Teacher | None = None,
    around: Around = nullcontext,
) -> None:
    """Train in place.

    Args:
        model: on the device of the images.
        images: to learn from.
        budget: of the retraining.
        optimizer: of the model.
        random: order of images, shifts and mirrors; on the CPU, so that every device sees the same.
        teacher: in evaluation mode, or its outputs for each image, where images are not moved.
        around: context of forward and backward, such as `StraightThrough.projected`.
    """
    steps = budget.steps(images)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < budget.batch:
            order = torch.cat([order, torch.randperm(len(images), generator=random)])
        chosen, order = order[: budget.batch], order[budget.batch :]
        x = moved(images.x[chosen.to(images.x.device)], budget, random)
        y = images.y[chosen.to(images.y.device)]
        optimizer.zero_grad()
        with around():
            taught = teacher[chosen] if isinstance(teacher, torch.Tensor) else teacher
            loss_of(model, x, y, budget, taught).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    model.eval()


def loss_of(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, budget: Budget, teacher: Teacher | None
) -> torch.Tensor:
    """Cross-entropy with the labels, and with a teacher's softened outputs (Hinton et al. 2015)."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=budget.half):
        logits = model(x)
    logits = logits.float()
    loss = functional.cross_entropy(logits, y)
    if teacher is None or not budget.teacher:
        return loss
    with torch.no_grad():
        logits_wanted = teacher if isinstance(teacher, torch.Tensor) else teacher(x)
        target = torch.log_softmax(logits_wanted / 4, 1)
    soft = functional.kl_div(torch.log_softmax(logits / 4, 1), target, log_target=True, reduction="batchmean") * 16
    return (1 - budget.teacher) * loss + budget.teacher * soft


def moved(x: torch.Tensor, budget: Budget, random: torch.Generator) -> torch.Tensor:
    """Shift every image by its own random number of pixels, zeros coming in, and mirror half of them."""
    count, _, height, width = x.shape
    if budget.flip:
        mirror = torch.rand(count, generator=random).to(x.device) < 0.5
        x = torch.where(mirror[:, None, None, None], x.flip(3), x)
    if not budget.shift:
        return x
    offsets = torch.randint(0, 2 * budget.shift + 1, (2, count), generator=random).to(x.device)
    padded = functional.pad(x, (budget.shift,) * 4)
    rows = offsets[0][:, None] + torch.arange(height, device=x.device)
    columns = offsets[1][:, None] + torch.arange(width, device=x.device)
    every = torch.arange(count, device=x.device)
    return padded.permute(0, 2, 3, 1)[every[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def lesson(
    teacher: nn.Module, images: Images, copies: int, budget: Budget, random: torch.Generator
) -> tuple[Images, torch.Tensor]:
    """Moved copies of the images, half of them mixed in pairs, and the teacher's outputs for each.

    A trained network knows its few images by heart, so its labels say little; what it makes of mixtures says more.

    Args:
        teacher: in evaluation mode.
        images: to make copies of.
        copies: of every image.
        budget: how images are moved.
        random: of moves and mixtures.
    """
    made, wanted = [], []
    for _ in range(copies):
        for chosen in torch.split(torch.randperm(len(images), generator=random), BATCH):
            x = moved(images.x[chosen], budget, random)
            half, share = len(x) // 2, torch.rand(len(x) // 2, 1, 1, 1, generator=random).to(x.device)
            x[:half] = share * x[:half] + (1 - share) * x[-half:]
            made.append(x)
            wanted.append(teacher(x))
    outputs = torch.cat(wanted)
    return Images(torch.cat(made), outputs.argmax(1)), outputs
