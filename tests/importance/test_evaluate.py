"""evaluate: divergence, agreement and the user's metric, with their paired errors."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import netweight as nw  # noqa: E402
from netweight.errors import FormatError, UsageError  # noqa: E402
from netweight.evaluate import evaluate  # noqa: E402


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 5)).eval()


def changed(model, size=0.1):
    random = np.random.default_rng(0)
    out = {}
    for name, tensor in model.state_dict().items():
        noise = torch.tensor(random.normal(size=tensor.shape), dtype=torch.float32)
        out[name] = tensor + size * noise if tensor.ndim == 2 else tensor.clone()
    return out


def correct(z, batch):
    return (z.argmax(-1) == batch[1]).float()


def test_every_figure_by_hand(model):
    x, y = torch.randn(200, 8), torch.randint(0, 5, (200,))
    other = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 5)).eval()
    other.load_state_dict(changed(model))
    with torch.no_grad():
        a, b = model(x).double(), other(x).double()
    p, q = torch.softmax(a, -1), torch.softmax(b, -1)
    nats = (p * (p / q).log()).sum(-1).numpy()
    same = (a.argmax(-1) == b.argmax(-1)).double().numpy()
    gain = ((b.argmax(-1) == y).double() - (a.argmax(-1) == y).double()).numpy()
    found = evaluate(model, changed(model), correct, batches=[(x[:70], y[:70]), (x[70:], y[70:])])
    for value, error, expected in (
        (found.nats, found.nats_error, nats),
        (found.agreement, found.agreement_error, same),
        (found.difference, found.difference_error, gain),
    ):
        assert value == pytest.approx(expected.mean(), rel=1e-5)
        assert error == pytest.approx(expected.std(ddof=1) / math.sqrt(200), rel=1e-5)
    assert found.original == pytest.approx(float((a.argmax(-1) == y).double().mean()))
    assert found.restored - found.original == pytest.approx(found.difference)
    assert (found.samples, found.predictions) == (200, 200)
    with pytest.raises(FrozenInstanceError):
        found.nats = 0.0


def test_the_same_network_is_no_way_off(model):
    found = evaluate(model, model.state_dict(), batches=[torch.randn(20, 8)])
    assert (found.nats, found.agreement, found.nats_error) == (0.0, 1.0, 0.0)
    assert math.isnan(found.original)
    assert found.to_json()["difference"] is None


def test_all_sources_agree(model, tmp_path):
    x = [torch.randn(50, 8)]
    archive = nw.compress(model, tmp_path / "m.nwt", slope=1e-5)
    found = evaluate(model, archive, batches=x)
    assert found.nats > 0
    assert evaluate(model, tmp_path / "m.nwt", batches=x) == found
    assert evaluate(model, nw.load(tmp_path / "m.nwt"), batches=x) == found
    prefixed = {f"net.{name}": tensor for name, tensor in nw.load(tmp_path / "m.nwt").items()}
    assert evaluate(model, prefixed, batches=x) == found


def test_tokens_weigh_the_same_and_padding_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 20))
    x, mask = torch.randint(0, 9, (3, 5)), torch.tensor([[1] * 5, [1] * 2 + [0] * 3, [1] * 4 + [0]])
    tokens = x[mask.bool()][None]
    state = {name: tensor + 0.2 for name, tensor in changed(model).items()}
    padded = evaluate(
        model,
        state,
        batches=[{"x": x, "attention_mask": mask}],
        forward=lambda m, b: m(b["x"] if isinstance(b, dict) else b),
    )
    flat = evaluate(model, state, batches=[tokens])
    assert padded.predictions == 11
    assert padded.nats == pytest.approx(flat.nats, rel=1e-6)
    assert padded.agreement == pytest.approx(flat.agreement)


def test_images_have_their_classes_at_the_second_axis():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3)
    found = evaluate(model, changed_all(model), batches=[torch.randn(6, 3, 5, 7)])
    assert found.predictions == 6 * 3 * 5
    assert found.nats > 0


def changed_all(model):
    return {name: tensor + 0.1 * torch.ones_like(tensor).cumsum(0) for name, tensor in model.state_dict().items()}


def test_embeddings(model):
    x = torch.randn(30, 8)
    found = evaluate(model, changed(model), lambda z, b: float(z.sum()), batches=[x, x], loss="squared")
    assert math.isnan(found.agreement)
    assert found.predictions == 60
    assert found.difference_error == 0.0  # two batches of the same


def test_the_model_is_left_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    told = []
    evaluate(model, changed(model), batches=[torch.randn(20, 8)] * 2, progress=lambda *stage: told.append(stage))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert told == [("evaluate", 1, 2), ("evaluate", 2, 2)]


def test_what_is_refused(model, tmp_path):
    x = [torch.randn(20, 8)]
    with pytest.raises(UsageError, match="lacks 1 parameters"):
        evaluate(model, {n: t for n, t in model.state_dict().items() if n != "3.bias"}, batches=x)
    with pytest.raises(UsageError, match="shape"):
        evaluate(model, model.state_dict() | {"3.bias": torch.zeros(4)}, batches=x)
    with pytest.raises(UsageError, match="no loss"):
        evaluate(model, model.state_dict(), batches=x, loss="mse")
    with pytest.raises(UsageError, match="no batches"):
        evaluate(model, model.state_dict(), batches=[])
    nw.compress(model, tmp_path / "m.nwt", slope=1e-5)
    data = bytearray((tmp_path / "m.nwt").read_bytes())
    data[-5] ^= 4
    (tmp_path / "m.nwt").write_bytes(data)
    with pytest.raises(FormatError):
        evaluate(model, tmp_path / "m.nwt", batches=x)


def test_predicted_and_measured_nats_meet_where_errors_are_small():
    """The quadratic form of `measure` against the divergence that `evaluate` finds: KL ~ 1/2 tr(G E A E^T)."""
    torch.manual_seed(0)
    model = nn.Linear(8, 5)
    x = torch.randn(4000, 8)
    importance = nw.measure(model, [x])
    e = 0.01 * np.random.default_rng(0).normal(size=(5, 8))
    predicted = importance["weight"].loss(model.weight.detach().numpy(), e)
    state = dict(model.state_dict())
    state["weight"] = state["weight"] + torch.tensor(e, dtype=torch.float32)
    assert evaluate(model, state, batches=[x]).nats == pytest.approx(predicted, rel=0.1)
