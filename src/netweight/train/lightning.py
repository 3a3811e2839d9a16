"""A Lightning callback that prunes, projects and keeps masks; Lightning itself is optional."""

from typing import TYPE_CHECKING, Any

from netweight.errors import UsageError
from netweight.train.admm import Admm
from netweight.train.masks import Attached
from netweight.train.pruner import Pruner
from netweight.train.straight import StraightThrough

if TYPE_CHECKING:
    Base = object
else:
    try:
        from lightning.pytorch.callbacks import Callback as Base
    except ImportError:
        try:
            from pytorch_lightning.callbacks import Callback as Base
        except ImportError:
            Base = object


class Compression(Base):
    """Compression during `Trainer.fit`; checkpoints of the trainer hold its state.

    Args:
        pruner: takes a step every `every_epochs` epochs, `rounds` times, from the first epoch on.
        rounds: of pruning.
        every_epochs: epochs of retraining a round.
        straight: training batches run with projected weights, validation and test too.
        admm: pulls at every step and is updated after each epoch.

    Raises:
        UsageError: there is nothing to do, or `every_epochs` is not positive.

    >>> import torch
    >>> from netweight.train.select import magnitude
    >>> callback = Compression(pruner=Pruner(torch.nn.Linear(4, 4), magnitude), rounds=10)
    """

    def __init__(
        self,
        *,
        pruner: Pruner | None = None,
        rounds: int = 0,
        every_epochs: int = 1,
        straight: StraightThrough | None = None,
        admm: Admm | None = None,
    ) -> None:
        super().__init__()
        if not (pruner or straight or admm) or every_epochs < 1:
            raise UsageError(
                f"A callback without pruner, straight and admm, or of {every_epochs} epochs a round, does nothing.",
                "Give it one of them, and every_epochs=1 or more.",
            )
        self.pruner, self.rounds, self.every_epochs = pruner, rounds, every_epochs
        self.straight, self.admm = straight, admm
        self._attached: Attached | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Keep the masks through the trainer's optimisers."""
        del pl_module
        if self.pruner is not None:
            self._attached = self.pruner.masks.attach(*trainer.optimizers)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Prune."""
        del pl_module
        due = trainer.current_epoch % self.every_epochs == 0
        if self.pruner is not None and due and self.pruner.round < self.rounds:
            self.pruner.step()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Compute with projected weights."""
        del trainer, pl_module, batch, batch_idx
        if self.straight is not None:
            self.straight.exchange()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Step on the real weights, pulled."""
        del trainer, pl_module, optimizer
        if self.straight is not None:
            self.straight.restore()
        if self.admm is not None:
            self.admm.penalise()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Have the real weights between batches, where gradients are accumulated over several too."""
        del trainer, pl_module, outputs, batch, batch_idx
        if self.straight is not None:
            self.straight.restore()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Move the multipliers."""
        del trainer, pl_module
        if self.admm is not None:
            self.admm.update()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Judge what a file would hold."""
        del trainer, pl_module
        if self.straight is not None:
            self.straight.exchange()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Go back to the real weights."""
        del trainer, pl_module
        if self.straight is not None:
            self.straight.restore()

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the hooks away."""
        del trainer, pl_module
        if self._attached is not None:
            self._attached.remove()

    def state_dict(self) -> dict[str, Any]:
        """State of the parts, for the trainer's checkpoints."""
        parts = {"pruner": self.pruner, "straight": self.straight, "admm": self.admm}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a trainer's checkpoint."""
        parts = {"pruner": self.pruner, "straight": self.straight, "admm": self.admm}
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(state_dict[name])
