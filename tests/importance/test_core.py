"""Importance: sums that add up, files that are checked, names and shrinkage."""

import json
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

import netweight as nw
from netweight.checkpoint import open_checkpoint
from netweight.errors import FormatError, NetweightError, UsageError
from netweight.importance.core import Importance, Record
from netweight.importance.optimism import NONE, optimism_of
from netweight.importance.shrink import choose, shrink
from netweight.importance.stat import Stat
from netweight.importance.sums import Shrinkage, Sums
from netweight.working import on_new_inputs


def random_sums(seed=0, shape=(6, 4), groups=1, full=True, samples=50):
    """Second moments of Gaussian inputs and gradients."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, samples, groups, shape[1])) * np.arange(1, shape[1] + 1)
    g = random.normal(size=(2, samples, shape[0]))
    return Sums(
        shape,
        inputs=np.einsum("htgi,htgj->hgij", x, x),
        outputs=np.einsum("hti,htj->hij", g, g) if full else np.einsum("hti,hti->hi", g, g),
        tokens=(float(samples), float(samples)),
    )


def some(seed=0):
    random = np.random.default_rng(seed)
    entries = {
        "w": (random_sums(seed),),
        "tied": (random_sums(seed + 1), random_sums(seed + 2, full=False)),
        "bias": (Sums((6,), diagonal=random.random(6)),),
        "fourth": (Sums((6,), diagonal=random.random(6), quartic=random.random(6)),),
    }
    return Importance(entries, Record(f"{seed + 1:064x}", 100, 100.0, "kl", "fisher", "kronecker", "exact"))


def same(a: Stat, b: Stat):
    assert (a.weight, a.relative, a.samples) == (b.weight, b.relative, b.samples)
    for part in ("diagonal", "inputs", "outputs", "quartic"):
        x, y = getattr(a, part), getattr(b, part)
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_array_equal(x, y)


def test_means_are_those_of_the_samples():
    random = np.random.default_rng(1)
    x, g, e = random.normal(size=(40, 4)), random.normal(size=(40, 6)), random.normal(size=(6, 4))
    halves = [np.arange(40) % 2 == h for h in (0, 1)]
    sums = Sums(
        (6, 4),
        inputs=np.array([[x[h].T @ x[h]] for h in halves]),
        outputs=np.array([g[h].T @ g[h] for h in halves]),
        tokens=(20.0, 20.0),
    )
    stat = Importance({"w": (sums,)}, Record(samples=40, predictions=40.0)).raw("w")
    assert np.mean(np.diag(stat.outputs)) == pytest.approx(1)
    expected = 0.5 * np.trace((g.T @ g / 40) @ e @ (x.T @ x / 40) @ e.T)
    assert stat.loss(np.zeros((6, 4), np.float32), e) == pytest.approx(expected, rel=1e-12)
    assert stat.samples == 40


def test_a_tensor_used_twice_keeps_the_trace():
    importance = some()
    parts = [Importance({"w": (use,)}, importance.record).raw("w").flat().weight for use in importance.sums("tied")]
    assert importance.raw("tied").flat().weight == pytest.approx(sum(parts), rel=1e-12)


def test_parts_add_to_the_whole():
    a, b = some(0), some(10)
    total = a + b
    assert total.record.samples == 200
    assert int(total.record.data, 16) == 1 + 11
    x = a.sums("w")[0].inputs.sum(0) + b.sums("w")[0].inputs.sum(0)
    diagonal = np.mean(np.diag(a.sums("w")[0].outputs.sum(0) + b.sums("w")[0].outputs.sum(0)))
    np.testing.assert_allclose(total.raw("w").inputs, x / 200 * diagonal / 200, rtol=1e-12)
    both = (b + a).raw("bias")
    np.testing.assert_array_equal(both.diagonal, total.raw("bias").diagonal)


def test_what_does_not_fit_is_not_added():
    a = some()
    with pytest.raises(UsageError, match="objective"):
        a + Importance(dict(a._entries), Record(loss="kl", objective="hessian"))
    with pytest.raises(UsageError, match="Only one importance"):
        a + Importance({}, a.record)
    with pytest.raises(UsageError, match="scaled"):
        a + a.scaled({"w": 2.0})
    with pytest.raises(UsageError, match="no tensor"):
        a.scaled({"v": 2.0})


def test_a_file_gives_the_same(tmp_path):
    importance = some().scaled({"w": 2.5})
    path = tmp_path / "x.importance"
    importance.save(path)
    opened = Importance.open(path)
    assert opened.record == importance.record
    assert list(opened) == list(importance)
    for name in importance:
        same(opened[name], importance[name])
        same(opened.raw(name), importance.raw(name))
        assert opened.shrinkage(name) == importance.shrinkage(name)
    with pytest.raises(UsageError, match="exists"):
        importance.save(path)
    opened.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_handmade_statistics_too(tmp_path):
    stats = {
        "a": Stat(3.0, relative=True, samples=4),
        "b": Stat(diagonal=np.ones((2, 3), np.float32), quartic=np.ones((2, 3), np.float32)),
        "c": Stat(2.0, inputs=np.eye(3)[None], outputs=np.ones(2)),
    }
    Importance.of(stats).save(tmp_path / "x")
    opened = Importance.open(tmp_path / "x")
    for name, stat in stats.items():
        same(opened[name], stat)


def test_equal_arrays_are_stored_once(tmp_path):
    one, sums = some(), random_sums(5)
    Importance({"q": (sums,)}, one.record).save(tmp_path / "one")
    Importance({"q": (sums,), "k": (random_sums(5),)}, one.record).save(tmp_path / "two")
    assert (tmp_path / "two").stat().st_size < 1.3 * (tmp_path / "one").stat().st_size


def test_an_opened_file_is_pickled_by_its_path(tmp_path):
    big = Importance({"w": (random_sums(shape=(200, 100)),)}, Record(samples=100, predictions=100.0))
    big.save(tmp_path / "x")
    opened = Importance.open(tmp_path / "x").scaled({"w": 3.0})
    text = pickle.dumps(opened)
    assert len(text) < 1000
    same(pickle.loads(text)["w"], opened["w"])
    same(pickle.loads(pickle.dumps(big))["w"], big["w"])
    with (tmp_path / "x").open("ab") as file:
        file.write(b"\0")
    text = pickle.dumps(opened)
    Importance({"w": (random_sums(3),)}, Record()).save(tmp_path / "x", force=True)
    import netweight.importance.core as core

    core._REOPENED.clear()
    with pytest.raises(FormatError, match="changed"):
        pickle.loads(text)


def test_no_torch_to_open_and_use(tmp_path):
    some().save(tmp_path / "x")
    code = f"import sys, netweight as nw; i = nw.Importance.open({str(tmp_path / 'x')!r}); i['w']; i['bias']"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' not in sys.modules"], check=True)


def everything(path):
    opened = Importance.open(path)
    return [(opened[name], opened.shrinkage(name)) for name in opened]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("importance") / "x"
    entries = {"w": (random_sums(shape=(2, 2)),), "b": (Sums((2,), diagonal=np.ones(2)),)}
    Importance(entries, Record("0" * 64, 9, 9.0)).save(path)
    return path.read_bytes()


def test_a_file_of_an_earlier_version(small, tmp_path):
    """Where optimism was a number, beside one by the halves' own moments, or was not known at all."""
    size = struct.unpack("<Q", small[:8])[0]
    header = json.loads(small[8 : 8 + size])
    metadata = header["__metadata__"]
    value = json.loads(metadata["netweight.importance"])
    for version, shrinkage, optimism in (
        (1, [0.1, 0.2, 1.4, 1.25], 1.25),
        (2, [0.1, 0.2, 1.4], 1.0),
        (1, [0.1, 0.2], 1.0),
    ):
        value["version"], value["tensors"]["w"]["shrinkage"] = version, [shrinkage]
        metadata["netweight.importance"] = json.dumps(value)
        metadata["netweight.importance.crc32"] = f"{zlib.crc32(metadata['netweight.importance'].encode()):08x}"
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + small[8 + size :])
        found = Importance.open(tmp_path / "x")
        assert found.shrinkage("w")[0][:2] == (0.1, 0.2)
        assert [found["w"].optimism.at(rate) for rate in (0.1, 3.0)] == [optimism] * 2


def test_every_truncation_is_refused(small, tmp_path):
    for size in {*range(0, len(small), 7), *range(16), *range(len(small) - 16, len(small))}:
        (tmp_path / "x").write_bytes(small[:size])
        with pytest.raises(FormatError):
            everything(tmp_path / "x")


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(small, tmp_path_factory, data):
    at = data.draw(st.integers(0, len(small) * 8 - 1))
    damaged = bytearray(small)
    damaged[at // 8] ^= 1 << at % 8
    path = tmp_path_factory.getbasetemp() / "flipped"
    path.write_bytes(bytes(damaged))
    try:
        found = everything(path)
    except FormatError:
        return
    path.write_bytes(small)  # a bit of no meaning, such as padding
    for (a, rho), (b, sigma) in zip(found, everything(path), strict=True):
        same(a, b)
        assert rho == sigma


def test_strangers_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(FormatError, match="no importance"):
        Importance.open(tmp_path / "x")
    with pytest.raises(UsageError, match="no file"):
        Importance.open(tmp_path / "y")
    from safetensors.numpy import save_file

    save_file({"w": np.ones(3, np.float32)}, tmp_path / "z")
    with pytest.raises(FormatError, match="without importance"):
        Importance.open(tmp_path / "z")
    save_file({"w": np.ones(3)}, tmp_path / "v", {"netweight.importance": '{"version":7}'})
    with pytest.raises(FormatError, match="version 7"):
        Importance.open(tmp_path / "v")


def test_matched_renames_and_completes():
    random = np.random.default_rng(0)
    weights = {
        "bert.w": random.normal(size=(6, 4)).astype(np.float32),
        "bert.bias": random.normal(size=6).astype(np.float32),
        "bert.fourth": random.normal(size=6).astype(np.float32),
        "bert.tied": random.normal(size=(6, 4)).astype(np.float32),
        "head": random.normal(size=(3, 6)).astype(np.float32),
        "var": np.array([1e-3, 1.0, 7.0], np.float32),
        "steps": np.arange(3),
    }
    weights["alias"] = weights["bert.w"]
    importance = some().scaled({"w": 2.0})
    found = importance.matched(weights)
    assert set(found) == {"bert.w", "bert.bias", "bert.fourth", "bert.tied", "head", "var"}
    same(found["bert.w"], importance["w"])
    same(found["bert.bias"], importance["bias"])
    r = np.median(
        [importance.raw(n).flat().weight * np.mean(np.square(weights[f"bert.{n}"].astype(float))) for n in ("tied",)]
        + [importance.raw("w").flat().weight * np.mean(np.square(weights["bert.w"].astype(float)))]
    )
    assert found["head"].weight == pytest.approx(r / np.mean(np.square(weights["head"].astype(float))))
    assert found["var"].relative
    assert found["var"].weight == pytest.approx(r)
    with pytest.raises(NetweightError, match="None of"):
        importance.matched({"x": np.ones((3, 3), np.float32)})
    with pytest.raises(UsageError, match="shape"):
        importance.matched(weights | {"bert.w": np.ones((4, 6), np.float32)})


def test_matched_removes_a_prefix_too():
    importance = Importance.of({"model.a": Stat(2.0), "model.b": Stat(3.0)})
    assert importance.matched({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)})["b"].weight == 3.0


def halves(random, n, m, root):
    x = random.normal(size=(2, m // 2, n)) @ root
    return np.einsum("hti,htj->hij", x, x)


def ridged(b, rate_bits=3.0):
    """B + mu, with the mu at which so many bits a weight go to its eigenvalues."""
    values = np.linalg.eigvalsh(b)
    mu = optimize.brentq(lambda ln: np.mean(np.log2(1 + values.clip(0) / np.exp(ln))) / 2 - rate_bits, -40, 20)
    return b + np.exp(mu) * np.eye(len(b)), np.exp(mu)


def test_few_samples_are_shrunk_more():
    random = np.random.default_rng(0)
    root = np.linalg.cholesky(0.9 ** np.abs(np.subtract.outer(np.arange(40), np.arange(40)))).T
    rhos = [choose(halves(random, 40, m, root)).rho for m in (20, 80, 400, 8000)]
    assert rhos == sorted(rhos, reverse=True)
    assert rhos[0] > 0.1
    assert rhos[-1] < 0.02


@pytest.mark.parametrize("m", [12, 60, 300])
def test_the_chosen_shrinkage_is_near_the_best_for_new_data(m):
    """The trap of the rivals: 150 samples in 1280 dimensions, here 12 in 100."""
    random = np.random.default_rng(m)
    n = 100
    truth = 0.95 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    sums = halves(random, n, m, np.linalg.cholesky(truth).T)

    def bits(rho):
        m_, mu = ridged(shrink(sums.sum(0)[None] / m, rho)[0])
        return 0.5 * np.log2(mu * np.trace(np.linalg.solve(m_, truth)) / n)

    best = min(bits(rho) for rho in np.linspace(0, 1, 101))
    assert bits(choose(sums).rho) < best + 0.03
    if m < n:
        assert bits(0.0) > best + 0.1  # the measured matrix alone costs more bits than a trellis wins


def test_no_correlation_no_matrix():
    random = np.random.default_rng(0)
    assert choose(halves(random, 30, 40, np.eye(30))).rho > 0.6
    assert choose(np.zeros((2, 3, 3))) == (1.0, NONE, 0.0)


@pytest.mark.parametrize("rate_bits", [1 / 16, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("m", [60, 150, 400, 4000])
def test_optimism_is_what_shaped_errors_cost_on_new_inputs(m, rate_bits):
    """Errors as a quantiser hides them from all samples, judged by the true moments: more, by about that factor."""
    random = np.random.default_rng(m)
    n = 60
    truth = 0.9 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    sums = halves(random, n, m, np.linalg.cholesky(truth).T)
    rho, optimism, _ = choose(sums)
    measured = sums.sum(0) / m
    believed = shrink(measured[None], rho)[0]
    shaped = np.linalg.inv(ridged(believed, rate_bits)[0])
    here, said, really = (np.trace(a @ shaped) for a in (measured, believed, truth))
    assert optimism.at(rate_bits) * said / really == pytest.approx(1.0, abs=0.15)
    assert really / here < 1.0 + 1.5 * n / m


def test_a_few_bits_hide_little():
    """One half's moments, in the place of the shrunk ones, foretold 1.6 here for all rates."""
    random = np.random.default_rng(5)
    w = (random.standard_normal((800, 60)) * 0.1).astype(np.float32)
    truth = 0.9 ** np.abs(np.subtract.outer(np.arange(60), np.arange(60)))
    x = random.normal(size=(2, 75, 60)) @ np.linalg.cholesky(truth).T
    sums = Sums(w.shape, np.einsum("hti,htj->hij", x, x)[:, None], np.full((2, 800), 75.0), (75.0, 75.0))
    importance = Importance({"w": (sums,)}, Record(samples=150, predictions=150.0))
    checkpoint = open_checkpoint({"w": w})
    found = []
    for bits in (0.3, 1.0, 3.0):
        plan = nw.allocate(nw.sweep(checkpoint, importance, codecs=["feedback"]), bits=bits)
        archive = nw.encode(checkpoint, plan, importance)
        error = archive["w"].astype(np.float64) - w
        really = np.trace(error @ truth @ error.T) / np.trace(error @ sums.inputs.sum((0, 1)) @ error.T) * 150
        found.append(on_new_inputs(checkpoint, importance, archive, plan.choices).get("w", 1.0))
        assert found[-1] == pytest.approx(really, rel=0.15)
    assert found == sorted(found)
    assert found[0] < 1.1 < 1.2 < found[-1]


@pytest.mark.parametrize("given", [1.5, [1.0] * 7 + [0.0], ["1"], [1.0, 2.0], None, True, {}])
def test_an_optimism_that_makes_no_sense_is_refused(given):
    if given == 1.5:
        assert optimism_of(given).at(0.1) == optimism_of(given).at(9.0) == 1.5
        return
    with pytest.raises(ValueError):
        optimism_of(given)


def test_shaped_errors_cost_on_new_inputs_what_the_curve_says():
    """40 samples of 96 inputs: what the shrunk matrix says is not counted a second time by the optimism."""
    random = np.random.default_rng(3)
    n, rows, m = 96, 256, 40
    truth = 0.8 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    x = random.normal(size=(2, m // 2, n)) @ np.linalg.cholesky(truth).T
    sums = Sums((rows, n), np.einsum("hti,htj->hij", x, x)[:, None], np.full((2, rows), 0.5), (m / 2, m / 2))
    importance = Importance({"w": (sums,)}, Record(samples=m, predictions=1.0))
    assert importance.shrinkage("w")[0].optimism == importance["w"].optimism
    w = random.standard_normal((rows, n)).astype(np.float32)
    plan = nw.allocate(nw.sweep({"w": w}, importance, codecs=["feedback"]), bits=3.0)
    error = nw.encode({"w": w}, plan, importance)["w"].astype(np.float64) - w
    assert 0.5 * np.trace(error @ truth @ error.T) == pytest.approx(plan.loss, rel=0.3)


def test_a_token_that_was_not_seen_may_come_yet():
    seen = np.zeros((2, 100))
    seen[:, :10] = 50.0
    x = np.random.default_rng(0).normal(size=(2, 50, 4))
    sums = Sums((100, 4), inputs=np.einsum("hti,htj->hij", x, x)[:, None], outputs=seen, tokens=(50.0, 50.0))
    found = Importance({"w": (sums,)}, Record(samples=96, predictions=96.0))
    assert found["w"].outputs.min() == pytest.approx(4 / 100)
    assert found.raw("w").outputs.min() == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to ask for the memory of files")
def test_a_file_larger_than_memory_is_read_layer_by_layer(tmp_path):
    """Of 16 layers of 4 MB each no more than one is held after it was read; what is asked for again is the same."""
    one = random_sums(1, (8, 512), full=False)
    layers = {str(j): (Sums(one.shape, one.inputs + j, one.outputs, one.tokens),) for j in range(16)}
    Importance(layers, Record(samples=50), shrinkages=dict.fromkeys(layers, (Shrinkage(0.1, 0.1),))).save(
        tmp_path / "x"
    )
    opened = Importance.open(tmp_path / "x")
    before = file_bytes()
    first = opened["3"]
    for name in opened:
        assert opened[name].samples == first.samples
    assert file_bytes() - before < 8 << 20 < one.inputs.nbytes * 16
    assert "3" in opened
    same(opened["3"], first)


def file_bytes():
    """Memory of this process that is a file's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssFile:")[2].split(maxsplit=1)[0])
