"""measure: against brute force, one sample and one class at a time."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from netweight.errors import UsageError  # noqa: E402
from netweight.importance.core import Importance  # noqa: E402
from netweight.importance.measure import measure  # noqa: E402
from netweight.importance.sums import Counts, Shrinkage, Sums, stat  # noqa: E402

_spec = importlib.util.spec_from_file_location("small_networks", Path(__file__).with_name("networks.py"))
small = importlib.util.module_from_spec(_spec)
sys.modules["small_networks"] = small
_spec.loader.exec_module(small)
NETWORKS = small.networks()


def close(found, expected, tolerance=2e-6):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_diagonal_is_that_of_brute_force(name):
    model, x = NETWORKS[name]
    expected = small.brute_fisher(model, x)
    found = measure(model, [x[:2], x[2:]], structure="diagonal", cotangents="exact")
    assert set(expected) <= set(found)
    for key, fisher in expected.items():
        close(found.raw(key).diagonal, fisher)


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_are_exact_in_the_structured_form_too(name):
    model, x = NETWORKS[name]
    expected = small.brute_fisher(model, x)
    found = measure(model, [x[:3], x[3:]], cotangents="exact")
    assert set(expected) <= set(found)
    for key, fisher in expected.items():
        if found.raw(key).inputs is None:
            close(found.raw(key).diagonal, fisher)
        else:
            assert fisher.ndim > 1


ALONE = {  # layers that see one position only: there the Kronecker form of one sample is exact
    "linear": (nn.Linear(6, 4), torch.randn(1, 6)),
    "convolution": (nn.Sequential(nn.Conv2d(3, 4, (3, 2)), nn.Flatten()), torch.randn(1, 3, 3, 2)),
    "groups": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten()), torch.randn(1, 4, 3, 3)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.Flatten()), torch.randn(1, 3, 1, 1)),
    "transposed groups": (nn.Sequential(nn.ConvTranspose1d(6, 4, 3, groups=2), nn.Flatten()), torch.randn(1, 6, 1)),
    "embedding": (nn.Sequential(nn.Embedding(5, 4), nn.Flatten()), torch.tensor([[2]])),
    "gpt": (small.Conv1D(4, 5), torch.randn(1, 5)),
}


@pytest.mark.parametrize("name", ALONE)
def test_structure_is_the_whole_matrix(name):
    """G (x) A against sum_c dW_c dW_c^T, every entry, group by group."""
    model, x = ALONE[name]
    stat = measure(model, [x], cotangents="exact").raw(next(n for n, p in model.named_parameters() if p.ndim > 1))
    (weight,) = [p for p in model.parameters() if p.ndim > 1]
    z = model(x)
    groups = len(stat.inputs)
    full = 0
    for u in small.roots(z):
        (g,) = torch.autograd.grad(z, weight, u, retain_graph=True)
        g = g.double().reshape(groups, -1).numpy()
        full = full + np.einsum("gi,gj->gij", g, g)
    rows = len(weight) // groups
    outputs = stat.outputs if stat.outputs.ndim == 2 else np.diag(stat.outputs)
    for k in range(groups):
        part = outputs[k * rows : (k + 1) * rows, k * rows : (k + 1) * rows]
        close(np.kron(part, stat.inputs[k]), full[k], 1e-5)
    if groups > 1:
        assert not outputs[:rows, rows:].any()


class Pooled(nn.Module):
    """A layer that meets every position, and a head that sees their mean."""

    def __init__(self, layer, channels, axes):
        super().__init__()
        self.layer, self.head, self.axes = layer, nn.Linear(channels, 3), axes

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x)).mean(self.axes))


POOLED = {
    "more positions than rows": (Pooled(nn.Conv2d(3, 4, 3, padding=1), 4, (2, 3)), torch.randn(5, 3, 4, 4)),
    "fewer positions than rows": (Pooled(nn.Linear(7, 6), 6, 1), torch.randn(5, 3, 7)),
    "groups": (Pooled(nn.Conv2d(4, 6, 3, groups=2), 6, (2, 3)), torch.randn(5, 4, 5, 5)),
    "depth-wise": (Pooled(nn.Conv2d(4, 4, 2, groups=4), 4, (2, 3)), torch.randn(5, 4, 4, 4)),
    "input meets the rows": (Pooled(nn.ConvTranspose2d(5, 2, 2), 2, (2, 3)), torch.randn(5, 5, 3, 3)),
}


@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize("full", [0, 1024])
def test_moments_of_whole_gradients(name, full):
    """E[D^T D] and E[D D^T] of each sample's gradient D, by brute force; with one row to a group that is all of I_w."""
    model, x = POOLED[name]
    found = measure(model, [x[:2], x[2:]], structure="gradient", cotangents="exact", full=full)
    stat, weight = found.raw("layer.weight"), model.layer.weight
    groups, n = stat.inputs.shape[:2]
    rows = len(weight) // groups
    columns, outputs = np.zeros((groups, n, n)), np.zeros((groups, rows, rows))
    for one in x:
        z = model(one[None])
        for u in small.roots(z):
            (g,) = torch.autograd.grad(z, weight, u, retain_graph=True)
            d = g.double().numpy().reshape(groups, rows, n)
            columns += np.einsum("gri,grj->gij", d, d) / len(x)
            outputs += np.einsum("gri,gsi->grs", d, d) / len(x)
    close(stat.inputs * rows, columns, 1e-5)
    own = outputs / np.trace(outputs, axis1=1, axis2=2)[:, None, None] * rows
    for k in range(groups):
        part = slice(k * rows, (k + 1) * rows)
        if stat.outputs.ndim == 2:
            close(stat.outputs[part, part], own[k], 1e-5)
        else:
            close(stat.outputs[part], np.diag(own[k]), 1e-5)
    # The head sees one position: its inputs' own moment is kept.
    close(found.raw("head.weight").inputs, measure(model, [x], cotangents="exact").raw("head.weight").inputs, 1e-5)


def test_positions_that_go_together_are_no_independent_ones():
    """Inputs that are one constant: through the mean over 16 positions all their errors add up."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.AvgPool2d(4), nn.Flatten())
    x = torch.randn(50, 2, 1, 1).expand(50, 2, 4, 4)
    w = next(model.parameters()).detach().numpy()
    e = 0.01 * np.random.default_rng(0).standard_normal(w.shape)
    true = 0.5 * float(np.mean(np.square(x[:, :, 0, 0].numpy() @ e[:, :, 0, 0].T).sum(1)))
    whole, apart = (measure(model, [x], "squared", structure=s, cotangents="exact") for s in ("gradient", "kronecker"))
    assert whole.raw("0.weight").loss(w, e) == pytest.approx(true, rel=1e-4)
    assert apart.raw("0.weight").loss(w, e) == pytest.approx(true / 16, rel=1e-4)


@pytest.mark.parametrize("tokens", [(9.0, 9.0), (0.0, 0.0)], ids=["inputs", "whole gradients"])
def test_a_class_that_no_sample_was_near_counts_as_others_do(tokens):
    """Rows that mattered in one half of the samples only say nothing of rows; those of both halves do."""
    chance, known = np.zeros((2, 40, 40)), np.zeros((2, 40, 40))
    for half in range(2):
        chance[half, range(half, 8, 2), range(half, 8, 2)] = 5.0
        known[half] = np.diag(np.linspace(1, 9, 40))
    by = Shrinkage(0.0, 1.0)
    inputs = np.broadcast_to(np.eye(3), (2, 1, 3, 3))
    rows = [np.diagonal(stat(Sums((40, 3), inputs, g, tokens), Counts(18, 18.0), by).outputs) for g in (chance, known)]
    assert rows[0].min() > 0.9 * rows[0].max()
    assert rows[1] == pytest.approx(np.linspace(1, 9, 40) / 5, rel=1e-9)


def test_moments_of_whole_gradients_in_a_file(tmp_path):
    model, x = POOLED["groups"]
    parts = [measure(model, [part], structure="gradient") for part in (x[:2], x[2:])]
    parts[0].save(tmp_path / "a")
    again = Importance.open(tmp_path / "a") + parts[1]
    same(again, measure(model, [x], structure="gradient"))
    with pytest.raises(UsageError, match="structure 'gradient' and 'kronecker'"):
        parts[0] + measure(model, [x[2:]])
    text = (tmp_path / "a").read_bytes()
    assert b'"version\\":4' in text[:3000]


@pytest.mark.parametrize("name", ["convolution", "linear", "groups"])
def test_inputs_made_in_inference_mode(name):
    model, x = ALONE[name]
    with torch.inference_mode():
        given = x.clone()
    for structure in ("kronecker", "gradient", "diagonal"):
        same(measure(model, [given], structure=structure), measure(model, [x], structure=structure))


def test_linear_softmax_in_closed_form():
    """C.2: diag I_w of w_cd = E[p_c (1 - p_c) x_d^2]; G = E[diag p - p p^T], A = E[x x^T]."""
    torch.manual_seed(1)
    model, x = nn.Linear(4, 3), torch.randn(200, 4) * torch.tensor([1.0, 2.0, 0.5, 1.0])
    p = torch.softmax(model(x), -1).detach().double()
    fisher = torch.einsum("nc,nd->cd", p * (1 - p), x.double() ** 2) / 200
    close(measure(model, [x], structure="diagonal").raw("weight").diagonal, fisher.numpy())
    stat = measure(model, [x]).raw("weight")
    g = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(0)
    a = (x.T @ x / 200).double()
    close(stat.outputs * stat.inputs[0, 0, 0], (g * a[0, 0]).numpy(), 1e-5)
    close(stat.inputs[0] / stat.inputs[0, 0, 0], (a / a[0, 0]).numpy(), 1e-5)
    assert np.mean(np.diag(stat.outputs)) == pytest.approx(1)


def test_temperature():
    model, x = NETWORKS["perceptron"]
    expected = small.brute_fisher(model, x, 3.0)
    found = measure(model, [x], structure="diagonal", temperature=3.0)
    for key, fisher in expected.items():
        close(found.raw(key).diagonal, fisher)


@pytest.mark.parametrize("estimator", ["gaussian", "labels"])
def test_random_vectors_have_the_right_mean(estimator):
    model, x = NETWORKS["perceptron"]
    exact = measure(model, [x], structure="diagonal").raw("0.weight").diagonal
    found = measure(model, [x], structure="diagonal", cotangents=estimator, draws=1500).raw("0.weight").diagonal
    assert np.abs(found - exact).max() < 0.12 * exact.max()


def test_regression_is_the_jacobian():
    """Paper 1: E[grad f grad f^T], summed over outputs."""
    model, x = NETWORKS["perceptron"]
    out = 0
    for one in x:
        z = model(one[None])
        for k in range(3):
            (g,) = torch.autograd.grad(z[0, k], model[0].weight, retain_graph=True)
            out = out + g.double().numpy() ** 2 / len(x)
    close(measure(model, [x], "squared", structure="diagonal").raw("0.weight").diagonal, out)


def losses(z, batch):
    return F.cross_entropy(z, batch[1], reduction="none")


def test_supervised_gradient_has_no_bias_of_batches():
    """E[(dL)^2] over samples whatever the batches; squares of batch means are something else."""
    model, x = NETWORKS["perceptron"]
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    out = 0
    for one, label in zip(x, y, strict=True):
        (g,) = torch.autograd.grad(F.cross_entropy(model(one[None]), label[None]), model[0].weight)
        out = out + g.double().numpy() ** 2 / len(x)
    for cut in (1, 3, 7):
        batches = list(zip(x.split(cut), y.split(cut), strict=True))
        found = measure(model, batches, losses, structure="diagonal")
        close(found.raw("0.weight").diagonal, out)
        assert found.record.objective == "gradient"
    (mean,) = torch.autograd.grad(F.cross_entropy(model(x), y), model[0].weight)
    alive = out > 0
    ratio = mean.double().numpy()[alive] ** 2 / out[alive]
    assert ratio.max() / ratio.min() > 5  # the official code's estimate: not even proportional


def hessian_diagonal(model, x, y, weight):
    rows = []
    for one, label in zip(x, y, strict=True):
        (g,) = torch.autograd.grad(F.cross_entropy(model(one[None]), label[None]), weight, create_graph=True)
        row = [torch.autograd.grad(e, weight, retain_graph=True)[0].reshape(-1)[j] for j, e in enumerate(g.reshape(-1))]
        rows.append(torch.stack(row).reshape(weight.shape).double().numpy())
    return np.array(rows)


def test_hessian_and_quartic_term():
    """A linear model's Gauss-Newton is its Hessian: E[h] and E[h^2] / 4 by differentiating twice."""
    torch.manual_seed(2)
    model, x, y = nn.Linear(4, 3), torch.randn(9, 4), torch.randint(0, 3, (9,))
    h = hessian_diagonal(model, x, y, model.weight)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    found = measure(model, batches, losses, objective="hessian", structure="diagonal", mu=0.25)
    close(found.raw("weight").diagonal, h.mean(0) + 0.25)
    both = measure(model, batches, losses, objective="gradient+hessian", structure="diagonal")
    close(both.raw("weight").quartic, (h**2).mean(0) / 4)
    close(both.raw("weight").diagonal, measure(model, batches, losses, structure="diagonal").raw("weight").diagonal)
    e = np.full((3, 4), 0.1)
    expected = 0.5 * (np.sum(both.raw("weight").diagonal * e**2) + np.sum((h**2).mean(0) / 4 * e**4))
    assert both.raw("weight").loss(np.zeros((3, 4), np.float32), e) == pytest.approx(expected, rel=1e-6)


def test_hutchinson():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(6, 3), torch.randint(0, 3, (6,))
    h = hessian_diagonal(model, x, y, model[0].weight).mean(0)
    options = {"objective": "hessian", "structure": "diagonal", "cotangents": "hutchinson", "draws": 600}
    found = measure(model, [(x, y)], losses, **options).sums("0.weight")[0].diagonal / 6
    assert np.abs(found - h).max() < 0.2 * np.abs(h).max()
    shrunk = measure(model, [(x, y)], losses, **options, mu=0.1).raw("0.weight").diagonal
    assert shrunk.min() >= 0  # what an estimate makes negative is nothing


def test_one_dimensional_oracle_of_the_quartic_objective():
    """L = (w x - y)^2 / 2, x ~ N(0, 1), noise s: E[(L_w - L_w')^2] = s^2 D^2 + 3/4 D^4."""
    random = np.random.default_rng(0)
    x = random.normal(size=200_000)
    noise = 0.5 * random.normal(size=len(x))
    d = 0.7
    gradient, second = np.mean((noise * x) ** 2), np.mean(x**4) / 4
    assert gradient * d**2 + second * d**4 == pytest.approx(0.302575, rel=0.02)
    assert np.mean(((noise - d * x) ** 2 / 2 - noise**2 / 2) ** 2) == pytest.approx(0.302575, rel=0.02)
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    few = slice(0, 300)
    t = torch.tensor(x[few, None], dtype=torch.float32)
    y = t + torch.tensor(noise[few, None], dtype=torch.float32)
    found = measure(
        model,
        [(t, y)],
        lambda z, b: 0.5 * (z - b[1]).square()[:, 0],
        objective="gradient+hessian",
        structure="diagonal",
    ).raw("weight")
    assert float(found.diagonal[0, 0]) == pytest.approx(np.mean((noise[few] * x[few]) ** 2), rel=1e-4)
    assert float(found.quartic[0, 0]) == pytest.approx(np.mean(x[few] ** 4) / 4, rel=1e-4)


def same(a, b, tolerance=1e-6):
    assert list(a) == list(b)
    for name in a:
        for part in ("inputs", "outputs", "diagonal"):
            x, y = getattr(a.raw(name), part), getattr(b.raw(name), part)
            assert (x is None) == (y is None)
            if x is not None:
                close(x, y, tolerance)


@pytest.mark.parametrize("estimator", ["exact", "gaussian", "labels"])
def test_neither_batches_nor_order_matter_and_parts_add_up(estimator):
    """Random vectors belong to a sample's content, so this holds for them too."""
    model, x = NETWORKS["attention"]
    whole = measure(model, [x], cotangents=estimator)
    same(measure(model, [x[3:], x[:1], x[1:3]], cotangents=estimator), whole)
    a, b = measure(model, [x[:2]], cotangents=estimator), measure(model, [x[2:]], cotangents=estimator)
    same(a + b, whole)
    assert (a + b).record == whole.record
    for name in whole:
        assert (a + b).shrinkage(name) == whole.shrinkage(name)
    assert measure(model, [x + 1e-3]).record.data != whole.record.data


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.h, self.o = nn.Embedding(9, 6, padding_idx=0), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, input_ids, attention_mask):
        m = attention_mask[..., None].float()
        return {"embedding": (self.o(torch.tanh(self.h(self.e(input_ids)))) * m).sum(1) / m.sum(1)}


def test_padding_does_not_count():
    torch.manual_seed(0)
    model = Masked()
    texts = [torch.randint(1, 9, (length,)) for length in (2, 5, 3, 4)]

    def batch(chosen, width):
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        for row, text in zip(ids, chosen, strict=True):
            row[: len(text)] = text
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.zeros(len(chosen))}

    one_by_one = measure(model, [batch([text], len(text)) for text in texts], "squared")
    padded = measure(model, [batch(texts[:3], 9), batch(texts[3:], 6)], "squared")
    same(padded, one_by_one)
    assert padded.sums("h.weight")[0].tokens == one_by_one.sums("h.weight")[0].tokens
    assert sum(padded.sums("h.weight")[0].tokens) == 14
    counts = np.bincount(torch.cat(texts), minlength=9)
    np.testing.assert_allclose(padded.sums("e.weight")[0].outputs.sum(0), counts)


def test_predictions_of_a_language_model_are_its_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 20))
    x = torch.randint(0, 9, (4, 5))
    found = measure(model, [x])
    assert found.record.predictions == 20
    p = torch.softmax(model(x), -1).detach()
    trace = float((p * (1 - p)).sum(-1).mean())
    for estimator in ("exact", "gaussian"):  # signs, or noise, keep the positions of a sample apart
        found = [measure(model, [x], names={"1.bias"}, cotangents=estimator, seed=j).raw("1.bias") for j in range(60)]
        assert np.mean([stat.diagonal.sum() for stat in found]) == pytest.approx(trace, rel=0.1)


def test_batch_norms_statistics_by_finite_differences():
    model, x = NETWORKS["convolutions"]
    model = model.double()
    try:
        found = measure(model, [x.double()], structure="diagonal")
        base = torch.log_softmax(model(x.double()), -1).detach()
        for name in ("running_mean", "running_var"):
            buffer = getattr(model[1], name)
            step = 1e-4
            for j in (0, 3):
                buffer[j] += step
                other = torch.log_softmax(model(x.double()), -1).detach()
                buffer[j] -= step
                kl = float((base.exp() * (base - other)).sum(-1).mean())
                assert kl == pytest.approx(0.5 * found.raw(f"1.{name}").diagonal[j] * step**2, rel=0.01)
    finally:
        model.float()


def test_the_model_is_left_as_it_was():
    model, x = NETWORKS["convolutions"]
    model.train()
    model[0].eval()
    model[3].weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    state = torch.random.get_rng_state()
    hooks = [len(m._forward_hooks) for m in model.modules()]

    class Stop(Exception):
        pass

    def stop(stage, done, total):
        raise Stop

    try:
        measure(model, [x, x])
        with pytest.raises(Stop):
            measure(model, [x, x], progress=stop)
        with pytest.raises(UsageError, match="one loss for each sample"):
            measure(model, [(x, 0)], lambda z, b: z.sum())
        assert [m.training for m in model] == [False] + [True] * 7
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(p.grad is None for p in model.parameters())
        assert [len(m._forward_hooks) for m in model.modules()] == hooks
        assert torch.equal(torch.random.get_rng_state(), state)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])
    finally:
        model.eval()
        model[3].weight.requires_grad_(True)


def test_progress_and_cancel():
    model, x = NETWORKS["perceptron"]
    told = []
    measure(model, [x[:3], x[3:]], progress=lambda *stage: told.append(stage))
    assert told[:2] == [("measure", 1, 2), ("measure", 2, 2)]
    assert told[-1] == ("shrink", 4, 4)
    rounds = iter([False, True])
    assert measure(model, [x[:3], x[3:]], cancel=lambda: next(rounds)).record.samples == 3
    with pytest.raises(UsageError, match="no samples"):
        measure(model, [x], cancel=lambda: True)


def test_some_tensors_only():
    model, x = NETWORKS["attention"]
    whole = measure(model, [x])
    part = measure(model, [x], names={"l.weight", "a.in_proj_weight"})
    assert set(part) == {"l.weight", "a.in_proj_weight"}
    close(part.raw("a.in_proj_weight").inputs, whole.raw("a.in_proj_weight").inputs)
    assert part["a.in_proj_weight"].inputs.shape == (3, 8, 8)


def test_wide_layers_get_squares_instead_of_a_matrix():
    model, x = NETWORKS["perceptron"]
    found = measure(model, [x], largest=5)
    close(found.raw("0.weight").diagonal, small.brute_fisher(model, x)["0.weight"])
    assert found.raw("2.weight").inputs is not None


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"loss": "mse"}, "no loss 'mse'"),
        ({"objective": "magic"}, "no objective"),
        ({"structure": "full"}, "no structure"),
        ({"cotangents": "none"}, "no cotangents"),
        ({"objective": "gradient"}, "needs labels"),
        ({"loss": losses, "objective": "fisher"}, "own outputs"),
        ({"loss": losses, "objective": "gradient+hessian"}, "single weights"),
        ({"draws": 0}, "draws=0"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"names": {"nothing"}}, "No layer"),
    ],
)
def test_wrong_requests_are_refused(options, fact):
    model, x = NETWORKS["perceptron"]
    with pytest.raises(UsageError, match=fact):
        measure(model, [x], **options)


def test_wrong_data_is_refused():
    model, x = NETWORKS["perceptron"]
    with pytest.raises(UsageError, match="no samples"):
        measure(model, [])
    with pytest.raises(UsageError, match="no tensor with samples"):
        measure(model, ["text"])
    with pytest.raises(UsageError, match="no tensor of floats"):
        measure(model, [x], forward=lambda model, batch: "text")
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        measure("model", [x])


def test_identity_measures_nothing():
    model, _ = NETWORKS["perceptron"]
    found = measure(model, [], objective="identity")
    assert {stat.weight for stat in found.values()} == {1.0}
