"""Feedback on a device of torch beside the C library: the same decisions, up to what sums round to."""

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from feedback_layers import drawn, layer, middling
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import netweight as nw
from netweight.cli import main
from netweight.codecs.base import index_of
from netweight.codecs.feedback import Feedback, FeedbackScalar
from netweight.codecs.machine import HOST, machine_of
from netweight.codecs.uniform import Uniform
from netweight.entropy.trellis import TAPS
from netweight.errors import UsageError
from netweight.kernels_feedback import Successive

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.networks import NETWORKS  # noqa: E402
from benchmarks.rivals import cache_folder  # noqa: E402
from benchmarks.tasks import task  # noqa: E402

from netweight import kernels_torch  # noqa: E402

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device: not tried on one")
DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=NO_CUDA)]
CODECS = [pytest.param(Feedback(), id="trellis"), pytest.param(FeedbackScalar(), id="scalar")]


def there_from(rows: int):
    """Let the device round columns of so many rows."""
    patch = pytest.MonkeyPatch()
    stack = ExitStack()
    stack.callback(patch.undo)
    patch.setattr(kernels_torch, "MANY", rows)
    return stack


# ---- blocks of columns


@pytest.mark.parametrize("device", DEVICES)
@given(
    seed=st.integers(0, 10**6), bits=st.sampled_from([0, 0, 3, 8]), groups=st.sampled_from([1, 2, 8]),
    per_plane=st.integers(1, 5), planes=st.integers(1, 3), scale=st.sampled_from([0.4, 3.0, 200.0, 20_000.0]),
    survivors=st.sampled_from([0, 0, 5]), rows=st.sampled_from([32, 128]), many=st.sampled_from([1, 1, 8192]),
)  # fmt: skip
@settings(max_examples=30)
def test_on_the_same_targets_all_integers_are_the_same(
    device, seed, bits, groups, per_plane, planes, scale, survivors, rows, many
):
    """Block by block both choose from the same targets, and leave the same but for the rounding of sums."""
    random = np.random.default_rng(seed)
    n = per_plane * planes
    x, m, paid, rate = drawn(random, rows, n, groups, bits, scale)
    rate = rate.astype(np.int32)
    taps, span = (TAPS[bits], per_plane * rows // 32) if bits else ((0, 0), 0)
    how = Successive(rows, n, groups, per_plane, span, 4 * rows, bits, *taps, max(1, survivors))
    down = np.triu(random.standard_normal((rows, rows)) * 0.2, 1).astype(np.float32) if survivors else None
    given_x, height = x.copy(), rows // groups
    here, there = (
        HOST.columns(x.copy(), m, down, paid, how, rate),
        machine_of(device).columns(x, m, down, paid, how, rate),
    )
    expected = x.astype(np.float64)
    for plane in range(planes):
        for at in range(plane * per_plane, (plane + 1) * per_plane, 2):
            part = range(at, min(at + 2, (plane + 1) * per_plane))
            context = random.integers(0, 6, (len(part), rows)), random.integers(0, 2, (len(part), rows))
            context = context[0].astype(np.uint16), context[1].astype(np.uint8)
            fed = targets_of(there)[part.start : part.stop].copy()
            with there_from(many):
                ours, theirs = here.quantise(part, context, fed), there.quantise(part, context)
            assert ours.dtype == theirs.dtype == np.int16
            assert np.array_equal(ours, theirs)
            for g in range(groups):
                some = slice(g * height, (g + 1) * height)
                left = theirs[:, some] - x[part.start : part.stop, some]
                expected[part.stop :, some] -= m[g, part.start : part.stop, part.stop :].T.astype(np.float64) @ left
            assert np.allclose(targets_of(there)[part.stop :], expected[part.stop :], rtol=1e-5, atol=2e-5 * scale)
            assert np.array_equal(here.x[part.start : part.stop], theirs - x[part.start : part.stop])
    assert np.array_equal(here.state, there.host.state)
    assert np.array_equal(x, given_x)


def targets_of(work) -> np.ndarray:
    """Targets of all columns, [n, O]."""
    return work.x.transpose(0, 1).reshape(work.host.how.columns, -1).cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
def test_of_integers_that_cost_the_same_both_take_the_same(device):
    x = np.array([[0.5, -0.5, 1.5, -1.5, 0.0, -0.0, 2.5, 126.5, -127.5, 30_001.0]], np.float32)
    rows = x.size
    how, rate = Successive(rows, 1, 1, 1), np.zeros((1, 1, 256), np.int32)
    paid, m = (np.zeros((1, 1), np.float32), np.ones(rows, np.float32)), np.zeros((1, 1, 1), np.float32)
    context = np.zeros((1, rows), np.uint16), np.zeros((1, rows), np.uint8)
    works = [one.columns(x.copy(), m, None, paid, how, rate) for one in (HOST, machine_of(device))]
    with there_from(1):
        found = [work.quantise(range(1), context) for work in works]
    assert found[0].tolist() == found[1].tolist()
    assert found[0][0, :6].tolist() == [1, -1, 2, -2, 0, 0]


# ---- linear algebra


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stack", [(), (3,)])
def test_linear_algebra_is_that_of_numpy(device, stack):
    random, there = np.random.default_rng(1), machine_of(device)
    x, b = random.standard_normal((*stack, 40, 20)), random.standard_normal((*stack, 20, 7))
    a = np.swapaxes(x, -1, -2) @ x
    factor = there.cholesky(a[..., ::-1, ::-1])[..., ::-1, ::-1]
    assert np.allclose(factor @ np.swapaxes(factor, -1, -2), a)
    assert not np.tril(factor, -1).any()
    values, basis = there.eigh(a)
    assert np.allclose(values, np.linalg.eigvalsh(a))
    assert np.allclose((basis * values[..., None, :]) @ np.swapaxes(basis, -1, -2), a)
    assert np.allclose(there.product(a, b), a @ b)


# ---- tensors


@pytest.mark.parametrize("device", DEVICES)
def test_few_rows_are_rounded_here_and_many_there(device, monkeypatch):
    """By the number of rows alone; what comes out is the same."""
    asked = []
    rounded = kernels_torch.OnDevice.rounded
    monkeypatch.setattr(kernels_torch.OnDevice, "rounded", lambda *a: asked.append(1) or rounded(*a))
    for rows in (kernels_torch.MANY - 32, kernels_torch.MANY):
        w, stat = layer((rows, 6), 1, 4)
        knob = index_of(middling(w, stat))
        parts = [one.encode(w, stat, knob).streams["k"].k for one in (FeedbackScalar(), FeedbackScalar().on(device))]
        assert bool(asked) == (rows == kernels_torch.MANY)
        assert np.count_nonzero(parts[0] != parts[1]) <= 2


def compared(codec, w, stat, knob, device) -> tuple[int, float]:
    """Symbols that differ, and by how much the losses do."""
    with there_from(1):
        ours, theirs = (one.encode(w, stat, knob) for one in (codec, codec.on(device)))
    k = [parts.streams["k"] for parts in (ours, theirs)]
    for levels in ("row", "column", "row_step", "column_step"):
        assert np.array_equal(getattr(k[0].levels, levels), getattr(k[1].levels, levels))
    lost = [stat.loss(w, w - codec.decode(parts, {"k": _fine(codec, parts)}, w.shape)) for parts in (ours, theirs)]
    return int(np.count_nonzero(k[0].k != k[1].k)), abs(lost[1] / lost[0] - 1)


def _fine(codec, parts):
    """Fine indices by way of bytes."""
    from netweight.entropy.decode import decode_chunk, decode_head
    from netweight.entropy.stream import encode_section

    stream = parts.streams["k"]
    head, chunks = encode_section([stream], parts.bits)
    read = decode_head(head, [stream.layout])
    return np.concatenate([decode_chunk(read, p, c)[0].full() for p, c in zip(read.chunks(), chunks, strict=True)])


def correlated(rows: int, seed: int = 2) -> np.ndarray:
    """G of outputs that mostly move together."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, 3 * rows)) + 2 * random.standard_normal((1, 3 * rows))
    return x @ x.T / (3 * rows)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("codec", CODECS)
@given(
    shape=st.sampled_from([((96, 70), 1), ((64, 8, 3, 3), 1), ((64, 1, 3, 3), 64), ((64, 4, 5), 2)]),
    outputs=st.sampled_from(["none", "diagonal", "full"]), seed=st.integers(0, 50),
)  # fmt: skip
@settings(max_examples=8)
def test_random_layers(device, codec, shape, outputs, seed):
    """The same symbols, or a tie and what followed from it: as good, and of the same size."""
    (shape, groups), rows = shape, shape[0][0]
    w, stat = layer(shape, groups, seed)
    if outputs != "none":
        g = correlated(rows, seed)
        stat = replace(stat, outputs=g if outputs == "full" and groups == 1 else np.diagonal(g).copy())
    count, apart = compared(codec, w, stat, index_of(middling(w, stat)), device)
    assert apart < 1e-6 if count == 0 else apart < 0.03


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("outputs", ["none", "full"])
def test_sweeps_foretell_the_same(device, codec, outputs):
    w, stat = layer((96, 70), 1, 9)
    if outputs == "full":
        stat = replace(stat, outputs=correlated(96))
    points = [one.sweep(w, stat) for one in (codec, codec.on(device))]
    assert len(points[0]) == len(points[1]) > 5
    for ours, theirs in zip(*points, strict=True):
        assert ours.knob == theirs.knob
        assert (ours.bits, ours.loss) == (pytest.approx(theirs.bits, rel=0.03), pytest.approx(theirs.loss, rel=0.03))


@pytest.mark.parametrize("device", DEVICES)
def test_twice_the_same(device):
    w, stat = layer((160, 200), 1, 5)
    with there_from(1):
        first, again = (FeedbackScalar().on(device).encode(w, stat, index_of(middling(w, stat))) for _ in range(2))
    assert np.array_equal(first.streams["k"].k, again.streams["k"].k)


@cache
def measured(key: str):
    """A real network's weights by name, and their importance by a few calibration inputs."""
    if key == "minilm":
        name = Path(NETWORKS[key].file).name
        places = [cache_folder() / "networks", cache_folder().parent / "models"]
        folder = next((place for place in places if (place / name).exists()), None)
        if folder is None:
            pytest.skip(f"the real network {name} is in none of {', '.join(map(str, places))}")
    else:
        folder = None
    found = task(key, folder)
    if found is None:
        pytest.skip(f"the real network {key} or its data are missing")
    batches, loss = list(found.calibration)[:2], "squared"
    if key == "resnet20":
        batches, loss = torch.cat(batches)[:32].split(16), "kl"
    with nw.checkpoint.open_checkpoint(found.file) as checkpoint:
        importance = nw.measure(found.build(), batches, loss=loss).matched(checkpoint)
    return found.file, load_file(found.file), importance


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("key", "count"), [("resnet20", 5), ("minilm", 2)]
)  # of layers whose inputs are known, spread over all
def test_real_layers(device, codec, key, count):
    _, weights, importance = measured(key)
    names = [n for n, w in weights.items() if w.ndim > 1 and n in importance and importance[n].inputs is not None]
    names = [n for n in names if codec._matrix(weights[n], importance[n]) is not None and "embed" not in n]
    chosen = [names[j] for j in np.linspace(1, len(names) - 1, count).astype(int)]
    differ = size = 0
    for name in chosen:
        w, stat = weights[name], importance[name]
        some, apart = compared(codec, w, stat, index_of(middling(w, stat)), device)
        print(f"{name} {list(w.shape)}: {some} of {w.size} symbols differ, losses by {apart:.1e}")
        assert apart < 1e-6 if some == 0 else apart < 1e-3
        differ, size = differ + some, size + w.size
    assert differ <= 1e-3 * size


# ---- names of devices


def test_no_device_is_the_processor_and_others_stay():
    assert machine_of(None) is HOST
    codec = Uniform()
    assert codec.on("cpu") is codec
    assert Feedback().machine is HOST
    assert Feedback().on("cpu").machine is not HOST
    assert type(FeedbackScalar().on("cpu")) is FeedbackScalar


@pytest.mark.parametrize("verb", ["sweep", "compress", "encode", "command"])
@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta"])
def test_a_device_that_cannot_be_used_is_refused_before_any_work(verb, device, tmp_path, capsys):
    weights = {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}
    if verb == "command":
        from safetensors.numpy import save_file

        save_file(weights, tmp_path / "m.safetensors")
        words = ["compress", tmp_path / "m.safetensors", "-o", tmp_path / "m.nwt", "--bits", "3", "--device", device]
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr().err
        assert f"The device '{device}' cannot be used: " in said
        assert "Traceback" not in said
        assert not (tmp_path / "m.nwt").exists()
        return
    plan = nw.Plan.from_json(nw.allocate(nw.sweep(weights), slope=1e-3).to_json())
    run = {
        "sweep": lambda: nw.sweep(weights, device=device),
        "compress": lambda: nw.compress(weights, bits=3, device=device),
        "encode": lambda: nw.encode(weights, plan, device=device),
    }[verb]
    with pytest.raises(UsageError) as refusal:
        run()
    assert refusal.value.fact.startswith(f"The device '{device}' cannot be used: ")
    assert len(refusal.value.fact) < 250


def test_without_torch_a_device_is_refused_in_words(monkeypatch):
    monkeypatch.delitem(sys.modules, "netweight.kernels_torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="The device 'cpu' needs torch, which is not installed"):
        machine_of("cpu")
    assert machine_of(None) is HOST


# ---- end to end


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_a_real_network_through_the_command_line(device, tmp_path, capsys):
    """The file is as small, predicts the same, holds the same knobs, and every reader reads it."""
    source, weights, importance = measured("resnet20")
    importance.save(tmp_path / "m.imp")
    for out, more in (("c.nwt", []), ("d.nwt", ["--device", device])):
        words = ["compress", source, "-o", tmp_path / out, "--slope", "2e-6", "--importance", tmp_path / "m.imp"]
        words += ["--codec", "feedback", "--codec", "feedback-scalar", "--codec", "uniform", "--json", *more]
        assert main([str(word) for word in words]) == 0
    ours, theirs = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert {entry["codec"] for entry in theirs["codecs"]} >= {"feedback"}
    assert theirs["bytes"] == pytest.approx(ours["bytes"], rel=0.005)
    assert theirs["plan"]["loss"] == pytest.approx(ours["plan"]["loss"], rel=0.01)
    assert main(["verify", str(tmp_path / "d.nwt"), "-q"]) == 0
    lost = []
    for out in ("c.nwt", "d.nwt"):
        with nw.Archive.open(tmp_path / out) as archive:
            lost.append(
                sum(importance[n].loss(w, w - archive[n].reshape(w.shape)) for n, w in weights.items() if w.ndim > 1)
            )
    assert lost[1] == pytest.approx(lost[0], rel=0.01)
