"""Compression in nats of a measured loss: one slope over layers that matter unequally, and files that say so."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import netweight as nw
from netweight.cli import main
from netweight.cli.account import shares_of
from netweight.importance.core import Importance, Record
from netweight.importance.stat import Stat

RECORD = Record(data="ab" * 32, samples=64, predictions=64.0, loss="kl", objective="fisher")


def two_layers(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(128, 256)).astype(np.float32) for name in ("first", "second")}


def reached(archive, weights, importance) -> dict[str, float]:
    return {name: importance[name].loss(w, w - archive[name]) for name, w in weights.items()}


def test_two_layers_get_the_rates_of_water_filling():
    # At high rate both layers have the same loss in nats, so rates differ by half the log of the sensitivities' ratio.
    weights = two_layers()
    importance = Importance.of({"first": Stat(64e-6), "second": Stat(1e-6)}, RECORD)
    archive = nw.compress(weights, loss=0.01, importance=importance)
    nats = reached(archive, weights, importance)
    assert sum(nats.values()) == pytest.approx(0.01, rel=0.02)
    assert nats["first"] == pytest.approx(nats["second"], rel=0.1)
    bits = {share.name: 8 * share.bytes / share.weights for share in shares_of(archive)}
    assert bits["first"] - bits["second"] == pytest.approx(0.5 * math.log2(64), abs=0.06)


@settings(max_examples=6)
@given(factor=st.floats(1e-3, 1e3), slope=st.floats(1e-7, 1e-5))
def test_the_unit_of_the_loss_changes_nothing_but_the_slope(factor, slope):
    weights = {name: w[:48, :64].copy() for name, w in two_layers(1).items()}
    base = Importance.of({"first": Stat(3e-5), "second": Stat(1e-6)}, RECORD)
    scaled = base.scaled(dict.fromkeys(base, factor))
    one = nw.compress(weights, slope=slope, importance=base)
    other = nw.compress(weights, slope=slope * factor, importance=scaled)
    assert other.plan["loss"] == pytest.approx(factor * one.plan["loss"], rel=1e-6)
    assert all(np.array_equal(one[name], other[name]) for name in weights)


def test_a_more_important_layer_never_gets_coarser():
    weights = two_layers(2)
    before = None
    for times in (1.0, 4.0, 16.0):
        importance = Importance.of({"first": Stat(times * 1e-5), "second": Stat(1e-5)}, RECORD)
        archive = nw.compress(weights, bits=3.0, importance=importance)
        error = float(np.mean((archive["first"] - weights["first"]) ** 2))
        assert before is None or error < 0.6 * before
        before = error


def test_the_file_keeps_where_its_nats_come_from(tmp_path, capsys):
    weights = two_layers(3)
    save_file(weights, tmp_path / "m.safetensors")
    Importance.of({name: Stat(1e-6) for name in weights}, RECORD).save(tmp_path / "m.imp")
    out = tmp_path / "m.nwt"
    words = ["compress", tmp_path / "m.safetensors", "-o", out, "--loss", "0.005", "--importance", tmp_path / "m.imp"]
    assert main([str(word) for word in words]) == 0
    nw.Archive.open(out).noted(heldout={"nats": 0.0062, "se": 0.0004, "samples": 100}).save(out, force=True)
    assert nw.Archive.open(out).plan["importance"]["data"] == RECORD.data
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "predicted 0.005 nats; importance: fisher of 64 samples, data abababababababab" in printed
    assert "held out 0.0062 nats ± 0.0004 nats, 100 samples" in printed
    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["importance"]["samples"] == 64
    assert main(["verify", str(out), "--against", str(tmp_path / "m.safetensors")]) == 0


def test_noting_changes_no_tensor():
    archive = nw.compress(two_layers(4), bits=2.0)
    noted = archive.noted(heldout={"nats": 1.0})
    assert "heldout" not in archive.plan
    assert all(np.array_equal(archive[name], noted[name]) for name in archive)
    noted.check()


def test_importance_of_another_network_is_refused(tmp_path, capsys):
    save_file(two_layers(), tmp_path / "m.safetensors")
    Importance.of({"third": Stat()}, RECORD).save(tmp_path / "m.imp")
    words = ["compress", "m.safetensors", "-o", "m.nwt", "--bits", "3", "--importance", "m.imp"]
    code = main([str(tmp_path / word) if "." in word else word for word in words])
    assert code == 2
    assert "None of the 1 measured tensors" in capsys.readouterr().err
    assert not (tmp_path / "m.nwt").exists()


@pytest.mark.parametrize("name", ["mnist/lenet5.safetensors", "cifar10/resnet20.safetensors"])
def test_a_real_network_with_an_importance_file(real, tmp_path, name):
    # Unequal sensitivities: the command line must spend the bits as Python does, and predict what it then loses.
    source = real(name)
    weights = load_file(source)
    random = np.random.default_rng(0)
    stats = {n: Stat(float(1e-3 / w.size * 4.0 ** random.integers(-2, 3))) for n, w in weights.items() if w.ndim > 1}
    Importance.of(stats, RECORD).save(tmp_path / "m.imp")
    out = tmp_path / "m.nwt"
    words = ["compress", source, "-o", out, "--loss", "2e-5", "--importance", tmp_path / "m.imp", "-q"]
    assert main([str(word) for word in words]) == 0
    archive = nw.Archive.open(out)
    known = Importance.open(tmp_path / "m.imp").matched(source)
    lost = sum(known[n].loss(w, w - archive[n].reshape(w.shape)) for n, w in weights.items() if w.dtype == np.float32)
    assert lost == pytest.approx(archive.plan["loss"], rel=0.05)
    assert archive.plan["loss"] == pytest.approx(2e-5, rel=0.01)


def test_small_variances_are_never_rounded_away():
    # Measured sensitivities say nothing of a variance that becomes 0: positive vectors are coded by relative errors.
    random = np.random.default_rng(5)
    weights = two_layers(5) | {"var": np.exp(random.normal(0, 3, 200)).astype(np.float32)}
    stats = {"first": Stat(1e-5), "second": Stat(1e-5), "var": Stat(diagonal=(weights["var"] ** 2).astype(np.float32))}
    archive = nw.compress(weights, bits=2.0, importance=Importance.of(stats, RECORD))
    assert np.max(np.abs(archive["var"] / weights["var"] - 1)) < 0.5


def test_a_vector_is_judged_by_its_own_importances():
    random = np.random.default_rng(6)
    diagonal = np.where(np.arange(512) < 8, 1.0, 1e-4).astype(np.float32)
    weights = {"w": random.normal(size=(64, 64)).astype(np.float32), "b": random.normal(size=512).astype(np.float32)}
    stats = {"w": Stat(1e-5), "b": Stat(diagonal=diagonal)}
    archive = nw.compress(weights, loss=1e-2, importance=Importance.of(stats, RECORD), codecs=["uniform"])
    lost = sum(stats[name].loss(w, w - archive[name]) for name, w in weights.items())
    assert lost == pytest.approx(archive.plan["loss"], rel=0.05)
