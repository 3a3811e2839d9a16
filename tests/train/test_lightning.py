"""The callback under a stand-in that calls as Lightning calls, and under Lightning itself where it is installed."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from netweight import train
from netweight.errors import UsageError
from netweight.train.lightning import Compression


class StandIn:
    """The order of Lightning's calls in automatic optimisation: on_before_optimizer_step follows backward."""

    def __init__(self, task, callback, batches: int = 2):
        self.task, self.callback, self.batches = task, callback, batches
        self.optimizers = [torch.optim.SGD(task.model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)]
        self.current_epoch = 0
        self.seen: list[dict[str, np.ndarray]] = []

    def weights(self):
        return {name: p.detach().numpy().copy() for name, p in self.task.model.named_parameters()}

    def fit(self, epochs: int) -> None:
        module, callback = SimpleNamespace(), self.callback
        callback.on_fit_start(self, module)
        callback.on_validation_start(self, module)  # the sanity check before training
        callback.on_validation_end(self, module)
        for epoch in range(epochs):
            self.current_epoch = epoch
            callback.on_train_epoch_start(self, module)
            for index in range(self.batches):
                callback.on_train_batch_start(self, module, None, index)
                self.optimizers[0].zero_grad()
                self.seen.append(self.weights())
                self.task.loss().backward()
                callback.on_before_optimizer_step(self, module, self.optimizers[0])
                self.optimizers[0].step()
                callback.on_train_batch_end(self, module, None, None, index)
            callback.on_validation_start(self, module)
            self.seen.append(self.weights())
            callback.on_validation_end(self, module)
            callback.on_train_epoch_end(self, module)
        callback.on_fit_end(self, module)


def rounded(tensors):
    return {name: np.round(8 * w) / 8 for name, w in tensors.items()}


def test_rounds_of_pruning_keep_their_masks(task):
    pruner = train.Pruner(task.model, train.magnitude)
    StandIn(task, Compression(pruner=pruner, rounds=3, every_epochs=2)).fit(9)
    assert pruner.round == 3
    assert (task.model[0].weight == 0).sum() + (task.model[2].weight == 0).sum() == pytest.approx(
        (1 - 0.8**3) * 768, abs=2
    )


def test_the_model_is_projected_when_it_computes_and_real_when_it_moves(task):
    trainer = StandIn(task, Compression(straight=train.StraightThrough(task.model, rounded)))
    trainer.fit(3)
    for weights in trainer.seen:
        assert all(np.array_equal(8 * w, np.round(8 * w)) for w in weights.values())
    assert any((8 * w != np.round(8 * w)).any() for w in trainer.weights().values())


def test_admm_pulls_and_is_updated(task):
    admm = train.Admm(task.model, rounded, rho=0.5)
    begin = admm.gap
    trainer = StandIn(task, Compression(admm=admm), batches=30)
    trainer.fit(15)
    assert admm.gap < 0.3 * begin


def test_the_state_of_all_parts_travels(make):
    def callback(task):
        return Compression(
            pruner=train.Pruner(task.model, train.magnitude),
            rounds=5,
            straight=train.StraightThrough(task.model, rounded, every=3),
            admm=train.Admm(task.model, rounded, rho=0.1),
        )

    first, second = make(), make()
    one, two = callback(first), callback(second)
    StandIn(first, one).fit(2)
    second.model.load_state_dict(first.model.state_dict())
    two.load_state_dict(one.state_dict())
    assert two.pruner.round == 2
    assert all(np.array_equal(a, two.pruner.masks.kept[n]) for n, a in one.pruner.masks.kept.items())
    assert two.admm.gap == one.admm.gap > 0


def test_a_callback_with_nothing_to_do(task):
    with pytest.raises(UsageError, match="does nothing"):
        Compression()
    with pytest.raises(UsageError, match="every_epochs=1 or more"):
        Compression(pruner=train.Pruner(task.model, train.magnitude), every_epochs=0)


def test_under_lightning_itself(task, tmp_path):
    try:
        import lightning.pytorch as pl
    except ImportError:
        pl = pytest.importorskip("pytorch_lightning")

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = task.model
            self.seen: list[bool] = []

        def training_step(self, batch):
            x, y = batch
            weights = [p.detach().numpy() for p in self.model.parameters()]
            self.seen.append(all(np.array_equal(8 * w, np.round(8 * w)) for w in weights))
            return torch.nn.functional.cross_entropy(self.model(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, weight_decay=0.01)

    module = Module()
    pruner = train.Pruner(module.model, train.magnitude)
    callback = Compression(pruner=pruner, rounds=4, straight=train.StraightThrough(module.model, rounded))
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(task.x, task.y), batch_size=64)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(max_epochs=6, callbacks=[callback], default_root_dir=tmp_path, **quiet)
        trainer.fit(module, data)
    assert module.seen
    assert all(module.seen)
    assert pruner.round == 4
    zeros = sum(int((p == 0).sum()) for p in module.parameters() if p.ndim == 2)
    assert zeros == pytest.approx((1 - 0.8**4) * 768, abs=2)
    saved = torch.load(next(tmp_path.rglob("*.ckpt")), weights_only=False)
    state = next(value for key, value in saved["callbacks"].items() if "Compression" in key)
    assert state["pruner"]["round"] == 4
