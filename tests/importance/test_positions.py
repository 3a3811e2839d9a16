"""Moments of positions: what a mean was taken of, that it is counted right, and that few samples say more with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

torch = pytest.importorskip("torch")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import netweight as nw  # noqa: E402
from netweight.cli import main  # noqa: E402
from netweight.errors import FormatError, UsageError  # noqa: E402
from netweight.importance.core import Importance, Record  # noqa: E402
from netweight.importance.pooling import Pooling  # noqa: E402
from netweight.importance.samples import batch_of  # noqa: E402
from netweight.importance.shrink import choose, shrink, toward  # noqa: E402
from netweight.importance.sums import Counts, Shrinkage, Sums, stat  # noqa: E402

BEHIND = {
    "mean": lambda x: x.mean((2, 3)),
    "mean, axes kept": lambda x: torch.mean(x, dim=(2, 3), keepdim=True),
    "adaptive": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "whole window": lambda x: F.avg_pool2d(x, x.shape[2:]).reshape(len(x), -1),
    "dropout in use": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout()).eval(),
    "of vectors": lambda x: x.flatten(2).transpose(1, 2).mean(1),
}
NOT_BEHIND = {
    "parts": lambda x: F.avg_pool2d(x, 2),
    "the largest": lambda x: x.amax((2, 3)),
    "all": lambda x: x.mean(),
    "changed since": lambda x: x.mean((2, 3)).mul_(2.0),
    "made anew": lambda x: x.mean((2, 3)) + 1.0,
    "half of the channels": lambda x: x.mean((2, 3))[:, :2].contiguous(),
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_a_mean_was_taken_of(name):
    x = torch.randn(3, 4, 6, 5)
    with Pooling({4}) as pooling:
        pooled = BEHIND[name](x)
    assert torch.equal(pooling.behind(pooled), x.flatten(2).transpose(1, 2))
    assert torch.equal(pooling.behind(pooled.reshape(3, 4)), x.flatten(2).transpose(1, 2))
    pooling.forget()
    assert pooling.behind(pooled) is None
    with Pooling({5, 6}) as other:
        kept = BEHIND[name](x)
    assert other.behind(kept) is None  # no layer is as wide


@pytest.mark.parametrize("name", NOT_BEHIND)
def test_what_is_no_mean_of_positions(name):
    x = torch.randn(3, 4, 6, 6)
    with Pooling({4}) as pooling:
        found = NOT_BEHIND[name](x)
    assert pooling.behind(found) is None


@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 99), st.booleans())
def test_positions_have_the_mean_that_was_met(shape, seed, last):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    with Pooling(range(6)) as pooling:
        pooled = x.mean(1 if last else 2)
    found = pooling.behind(pooled)
    if shape[1 if last else 2] == 1:  # the mean of one position is the position
        assert found is None
    else:
        assert torch.allclose(found.mean(1), pooled, atol=1e-5)
        assert found.shape[1] == shape[1 if last else 2]


def test_tensors_without_memory_are_passed_by():
    x = torch.randn(2, 3, 4, 5)
    with Pooling({4}) as pooling:
        found = torch.vmap(lambda each: each.mean((2,)))(x)
        unknown = torch.empty(3, 4, 5, device="meta").mean(2)
    assert torch.allclose(found, x.mean(3))
    assert pooling.behind(found) is None
    assert pooling.behind(unknown) is None


class Net(nn.Module):
    """A layer that meets every position, and a head that sees their mean."""

    def __init__(self, layer, channels):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(channels, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x)).mean((2, 3)))


LAYERS = {
    "convolution": (nn.Conv2d(3, 6, 3, padding=1), lambda m, x, g: F.unfold(x, 3, padding=1)),
    "depth-wise": (nn.Conv2d(3, 6, 3, groups=3), lambda m, x, g: F.unfold(x, 3)),
    "input meets the rows": (nn.ConvTranspose2d(3, 6, 2), None),
}


@pytest.mark.parametrize("structure", ["gradient", "kronecker"])
@pytest.mark.parametrize("name", LAYERS)
def test_positions_by_brute_force(name, structure):
    """Sums over the samples of each half, of every position's patch for a layer, and of what the head's mean is of."""
    torch.manual_seed(3)
    layer, patches = LAYERS[name]
    model, x = Net(layer, 6), torch.randn(9, 3, 5, 5)
    found = nw.measure(model, [x[:4], x[4:]], structure=structure)
    halves = torch.cat([batch_of(part, None).halves for part in (x[:4], x[4:])])
    (own,), (head,) = found.sums("layer.weight"), found.sums("head.weight")
    assert (own.positions is not None) == (structure == "gradient")
    with torch.no_grad():
        before = torch.tanh(layer(x)).flatten(2).transpose(1, 2).double()
    for half in (0, 1):
        mine = before[halves == half].reshape(-1, 6)
        np.testing.assert_allclose(head.positions[half, 0], (mine.T @ mine).numpy(), rtol=1e-5, atol=1e-5)
        if own.positions is not None and patches is not None:
            cut = (
                patches(layer, x[halves == half], None).transpose(1, 2).reshape(-1, layer.groups, own.inputs.shape[-1])
            )
            expected = torch.einsum("tgi,tgj->gij", cut.double(), cut.double())
            np.testing.assert_allclose(own.positions[half], expected.numpy(), rtol=1e-5, atol=1e-5)
    assert sum(head.tokens) == 9  # the head's own moment is that of the means
    assert found.nbytes("head.weight") == sum(a.nbytes for a in (head.inputs, head.outputs, head.positions))


def correlated(n, root):
    return root ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))


def drawn(random, count, places, truth, apart):
    """Moments of the means over places, and of the places: [2, n, n] each; places have more of other directions."""
    own, other = (np.linalg.cholesky(c) for c in (truth, apart))
    means, spread = [], []
    for _ in range(2):
        x = random.normal(size=(count // 2, 1, len(truth))) @ own.T
        p = x + random.normal(size=(count // 2, places, len(truth))) @ other.T
        p += x - p.mean(1, keepdims=True)
        means.append(x[:, 0].T @ x[:, 0])
        p = p.reshape(-1, len(truth))
        spread.append(p.T @ p)
    return np.array(means), np.array(spread)


def bits_lost(b, truth, rate_bits=3.0):
    """What errors shaped to b lose on the truth, in bits a weight."""
    values = np.linalg.eigvalsh(b).clip(0)
    mu = np.exp(optimize.brentq(lambda v: np.mean(np.log2(1 + values / np.exp(v))) / 2 - rate_bits, -40, 20))
    return 0.5 * np.log2(mu * np.trace(np.linalg.solve(b + mu * np.eye(len(b)), truth)) / len(b))


def believed(sums, spread, by):
    return shrink(toward(sums.sum(0)[None].copy(), spread.sum(0)[None], by.tau), by.rho)[0]


@pytest.mark.parametrize("m", [20, 60, 200])
def test_few_samples_say_more_with_their_positions(m):
    """The share is near the best there is for new data, and wins bits where samples are fewer than columns."""
    random = np.random.default_rng(m)
    n = 60
    truth = correlated(n, 0.95)
    sums, spread = drawn(random, m, 25, truth, correlated(n, 0.9))
    with_them, without = choose(sums, spread), choose(sums)
    assert without.tau == 0
    lost = bits_lost(believed(sums, spread, with_them), truth)
    best = min(
        bits_lost(believed(sums, spread, with_them._replace(rho=rho, tau=tau)), truth)
        for rho in np.linspace(0, 1, 21)
        for tau in np.linspace(0, 1, 21)
    )
    assert lost < best + 0.03
    gain = bits_lost(believed(sums, spread, without), truth) - lost
    assert gain > (0.15 if m < n else -0.01)


def test_positions_that_say_nothing_are_not_believed():
    random = np.random.default_rng(1)
    n = 40
    sums, _ = drawn(random, 400, 2, correlated(n, 0.95), np.eye(n))
    turned = np.linalg.qr(random.normal(size=(n, n)))[0]
    other = turned @ np.diag(np.geomspace(1, 1e-3, n)) @ turned.T
    found = choose(sums, np.array([other, other]))
    assert found.tau < 0.05
    assert choose(sums, np.zeros((2, n, n))).tau < 0.05


@pytest.mark.parametrize("rate_bits", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("m", [20, 60, 200])
def test_optimism_holds_with_positions(m, rate_bits):
    """Errors that positions shaped, judged by the true moments: what is foretold, more or less than the matrix says."""
    random = np.random.default_rng(m)
    n = 60
    truth = correlated(n, 0.95)
    sums, spread = drawn(random, m, 25, truth, correlated(n, 0.9))
    found = choose(sums, spread)
    b = believed(sums, spread, found) / m
    values = np.linalg.eigvalsh(b).clip(0)
    mu = np.exp(optimize.brentq(lambda v: np.mean(np.log2(1 + values / np.exp(v))) / 2 - rate_bits, -40, 20))
    shaped = np.linalg.inv(b + mu * np.eye(n))
    assert found.optimism.at(rate_bits) * np.trace(b @ shaped) == pytest.approx(np.trace(truth @ shaped), rel=0.35)


def test_a_matrix_of_positions_keeps_its_diagonal():
    random = np.random.default_rng(0)
    sums, spread = (s[:, None] for s in drawn(random, 40, 9, correlated(8, 0.9), np.eye(8)))
    use = Sums((5, 8), sums, np.full((2, 5), 0.5), (20.0, 20.0), positions=spread)
    found, plain = (stat(use, Counts(40, 40.0), Shrinkage(0.0, 0.0, positions=p)).inputs[0] for p in (1.0, 0.0))
    np.testing.assert_allclose(np.diagonal(found), np.diagonal(plain), rtol=1e-12)
    total = spread.sum((0, 1))
    root = np.sqrt(np.diagonal(total))
    own = np.sqrt(np.diagonal(sums.sum((0, 1))))
    expected = total / np.outer(root, root) * np.outer(own, own) / 40 / 40
    off = ~np.eye(8, dtype=bool)
    np.testing.assert_allclose(found[off], expected[off], rtol=1e-9)


def test_files_keep_positions_and_their_share(tmp_path):
    random = np.random.default_rng(0)
    sums, spread = (s[:, None] for s in drawn(random, 20, 9, correlated(12, 0.95), correlated(12, 0.9)))
    use = Sums((5, 12), sums, np.ones((2, 5)), (10.0, 10.0), positions=spread)
    importance = Importance({"w": (use,)}, Record(samples=20, predictions=20.0))
    assert importance.shrinkage("w")[0].positions > 0
    importance.save(tmp_path / "w.imp")
    again = Importance.open(tmp_path / "w.imp")
    assert again.shrinkage("w") == importance.shrinkage("w")
    np.testing.assert_array_equal(again["w"].inputs, importance["w"].inputs)
    assert again.nbytes("w") == sum(a.nbytes for a in (use.inputs, use.outputs, use.positions))
    (added,) = (again + importance).sums("w")
    np.testing.assert_array_equal(added.positions, 2 * spread)
    with pytest.raises(UsageError, match="different statistics"):
        importance + Importance({"w": (replace(use, positions=None),)}, importance.record)
    for text in ('"tokens":[10.0,10.0],', '"positions":"w.0.positions"'):
        assert text.encode() in (tmp_path / "w.imp").read_bytes().replace(b"\\", b"")


@pytest.mark.parametrize("share", [-0.1, 1.5, "1", None])
def test_a_share_that_makes_no_sense_is_refused(tmp_path, share):
    from netweight.importance.files import _shrinkage

    good = [0.1, 0.2, [], 0.5]
    assert _shrinkage(good) == Shrinkage(0.1, 0.2, positions=0.5)
    use = Sums((2, 2), np.ones((2, 1, 2, 2)), np.ones((2, 2)), (1.0, 1.0), positions=np.ones((2, 1, 2, 2)))
    given = (Shrinkage(0.1, 0.2, positions=share),)
    Importance({"w": (use,)}, Record(samples=2), shrinkages={"w": given}).save(tmp_path / "w.imp")
    with pytest.raises(FormatError):
        Importance.open(tmp_path / "w.imp")


def test_resnet20_from_few_images(real, tmp_path):
    """48 images, files of one size: with the positions' moments new images lose a tenth less at least."""
    tasks = pytest.importorskip("benchmarks.tasks")
    real("cifar10/resnet20.safetensors")
    found = tasks.task("resnet20", None)
    model, images = found.build(), torch.cat(list(found.calibration))
    known, fresh = [images[:48]], images[48:]
    importance = nw.measure(model, known, structure="gradient")
    assert sum(importance.shrinkage(name)[0].positions > 0 for name in importance) > 5
    entries = {name: importance.sums(name) for name in importance}
    bare = {n: tuple(replace(use, positions=None) for use in e) for n, e in entries.items()}
    with torch.no_grad():
        before = model(fresh)
    nats = []
    for kind, each in (("with", importance), ("without", Importance(bare, importance.record))):
        each.save(tmp_path / f"{kind}.imp")
        words = ["compress", found.file, "-o", tmp_path / f"{kind}.nwt", "--bits", "1.6"]
        assert main([str(word) for word in [*words, "--importance", tmp_path / f"{kind}.imp", "--quiet"]]) == 0
        other = found.build()
        other.load_state_dict(nw.load(tmp_path / f"{kind}.nwt"))
        with torch.no_grad():
            nats.append(float(found.nats(before, other(fresh)).mean()))
    assert nats[0] < 0.9 * nats[1]
    sizes = [Path(tmp_path / f"{kind}.nwt").stat().st_size for kind in ("with", "without")]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[1]
