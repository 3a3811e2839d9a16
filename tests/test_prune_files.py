"""From a rule to a file and back, through the command line, on real networks; exact values by `exact`."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import netweight as nw
from netweight import prune
from netweight.cli import main
from netweight.errors import UsageError
from netweight.importance.core import Importance
from netweight.importance.stat import Stat
from netweight.prune.__main__ import main as prune_main
from netweight.prune.slope import positions_bits


@pytest.fixture
def lenet(real, tmp_path, monkeypatch):
    """LeNet-5 in a folder to work in, and its matrices."""
    source = real("mnist/lenet5.safetensors")
    monkeypatch.chdir(tmp_path)
    return source, {n: w for n, w in load_file(source).items() if w.ndim > 1}


def restored(source, *options: str) -> dict[str, np.ndarray]:
    """What a plan makes of a network."""
    assert main(["compress", str(source), "-o", "out.nwt", "--plan", "plan.json", "-q", "--force", *options]) == 0
    assert main(["verify", "out.nwt", "--against", str(source), "-q"]) == 0
    assert main(["restore", "out.nwt", "-o", "back.safetensors", "-q", "--force"]) == 0
    return load_file("back.safetensors")


@pytest.mark.parametrize("method", ["global", "lamp", "surp", "uniform", "uniform+", "erk"])
def test_every_rule_by_magnitude(lenet, method):
    """What comes back is not zero where the mask says so, and nowhere else."""
    source, weights = lenet
    arguments = [
        str(source),
        "--method",
        method,
        "--sparsity",
        "0.9",
        "-o",
        "plan.json",
        "--masks",
        "masks.safetensors",
    ]
    assert prune_main(arguments) == 0
    kept, back = load_file("masks.safetensors"), restored(source)
    assert sum(int(k.sum()) for k in kept.values()) == round(0.1 * sum(w.size for w in weights.values()))
    for name, w in load_file(source).items():
        if name in kept:
            assert kept[name].dtype == np.bool_
            assert np.array_equal(back[name] != 0, kept[name])
        else:
            assert np.array_equal(back[name], w)


@pytest.mark.parametrize("method", ["importance", "slope"])
def test_rules_by_importance(lenet, method):
    source, weights = lenet
    random = np.random.default_rng(0)
    known = {n: Stat(diagonal=random.exponential(size=w.shape).astype(np.float32)) for n, w in weights.items()}
    Importance.of(known).save("model.imp")
    extra = ["--importance", "model.imp"]
    assert prune_main([str(source), "--method", method, "--sparsity", "0.8", "-o", "plan.json", *extra]) == 0
    back = restored(source, *extra)
    kept = prune.masks(weights, 0.2, method, known)
    assert all(np.array_equal(back[name] != 0, mask) for name, mask in kept.items())
    assert any(not np.array_equal(kept[n], m) for n, m in prune.masks(weights, 0.2, "global").items())


def test_predictions(lenet):
    """The file's bytes of what is pruned are the plan's or, where rows differ, fewer; the loss is the measured one."""
    source, weights = lenet
    plan = prune.plan(source, 0.1, "global", fineness=6)
    archive = nw.encode(source, plan)
    predicted = sum(plan.choices[name].bits for name in weights) / 8
    taken = sum(row.nbytes for row in archive.rows() if row.name in weights)
    assert 0.85 * predicted < taken <= 1.02 * predicted
    loss = sum(Stat().loss(w, w - archive[name].astype(np.float64)) for name, w in weights.items())
    assert plan.loss == pytest.approx(loss, rel=1e-6)


def test_exact_values(lenet):
    """A pruned checkpoint by `exact`: within 2 % of positions, signs, mantissas and the entropy of exponents."""
    source, weights = lenet
    assert prune_main([str(source), "--sparsity", "0.9", "-o", "plan.json", "--pruned", "pruned.safetensors"]) == 0
    kept, pruned = prune.masks(weights, 0.1, "lamp"), load_file("pruned.safetensors")
    assert main(["compress", "pruned.safetensors", "-o", "out.nwt", "--codec", "exact", "-q"]) == 0
    bound_bits = 0.0
    with nw.Archive.open("out.nwt") as archive:
        for name, w in load_file(source).items():
            exact = np.where(kept[name], w, np.float32(0)) if name in kept else w
            assert archive[name].tobytes() == pruned[name].tobytes() == exact.tobytes()
        for name, mask in kept.items():
            counts = np.unique(weights[name][mask].view(np.uint32) >> 23 & 255, return_counts=True)[1]
            bound_bits += float(positions_bits(mask.size, np.array([mask.sum()]))[0]) + 24 * mask.sum()
            bound_bits += float(np.sum(counts * np.log2(counts.sum() / counts)))
        taken = sum(row.nbytes for row in archive.rows() if row.name in kept)
    assert 8 * taken <= 1.02 * bound_bits


def test_ties_and_other_types_stay(tmp_path):
    w = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float16)
    tensors = {"a": w, "n": np.arange(3), "b": w}
    mask = np.abs(w) > 1
    prune.write_pruned(tmp_path / "p.safetensors", tensors, {"a": mask})
    found = load_file(tmp_path / "p.safetensors")
    assert found["a"].tobytes() == found["b"].tobytes() == np.where(mask, w, np.float16(0)).tobytes()
    assert found["n"].tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="fits no tensor"):
        prune.write_pruned(tmp_path / "q.safetensors", tensors, {"a": mask.T})


@pytest.mark.parametrize("text", ["2:4", "5x5", "channel"])
def test_patterns(lenet, text):
    """A patterned network keeps to its pattern after a lossless file."""
    source, weights = lenet
    arguments = [str(source), "--pattern", text, "--sparsity", "0.5"]
    assert prune_main([*arguments, "--masks", "masks.safetensors", "--pruned", "pruned.safetensors"]) == 0
    assert main(["compress", "pruned.safetensors", "-o", "out.nwt", "--codec", "exact", "-q"]) == 0
    kept = prune.pattern_masks(weights, prune.Pattern.parse(text), 0.5)
    assert {n: m.tolist() for n, m in load_file("masks.safetensors").items()} == {
        n: m.tolist() for n, m in kept.items()
    }
    with nw.Archive.open("out.nwt") as archive:
        assert all(np.array_equal(archive[n] != 0, mask) for n, mask in kept.items())
    assert prune_main([*arguments, "-o", "plan.json"]) == 2


def test_as_a_program(lenet):
    source, _ = lenet
    command = [sys.executable, "-m", "netweight.prune", str(source), "--sparsity", "0.95"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {entry["codec"] for entry in json.loads(done.stdout)["tensors"].values()} == {"sparse", "exact"}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "1"], "The sparsity is 1."),
        (["--sparsity", "0.9", "--method", "slope"], "lacks the importance"),
        (["--sparsity", "0.9", "--importance", "x"], "takes no importance"),
        (["--sparsity", "0.9", "--fineness", "13"], "The fineness is 13."),
    ],
)
def test_messages(arguments, message, tmp_path, capsys):
    save_file({"w": np.ones((4, 5), np.float32)}, tmp_path / "a.safetensors")
    assert prune_main([str(tmp_path / "a.safetensors"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert len(err.splitlines()) == 2


def test_nothing_is_overwritten(tmp_path):
    save_file({"w": np.arange(20, dtype=np.float32).reshape(4, 5)}, tmp_path / "a.safetensors")
    arguments = [str(tmp_path / "a.safetensors"), "--sparsity", "0.5", "-o", str(tmp_path / "plan.json")]
    assert prune_main(arguments) == 0
    assert prune_main(arguments) == 2
    assert prune_main([*arguments, "--force"]) == 0


def test_only_some_tensors():
    tensors = {n: np.random.default_rng(0).standard_normal((9, 9)).astype(np.float32) for n in "ab"}
    plan = prune.plan(tensors, 0.5, "global", names=["b"])
    assert [plan.choices[n].codec for n in "ab"] == ["exact", "sparse"]
    with pytest.raises(UsageError, match="'c' cannot be pruned"):
        prune.plan(tensors, 0.5, names=["c"])


@pytest.mark.slow
def test_convolutions(real, tmp_path, monkeypatch):
    """ResNet-20 at 95 % by LAMP: the file holds exactly these weights."""
    source = real("cifar10/resnet20.safetensors")
    monkeypatch.chdir(tmp_path)
    assert prune_main([str(source), "--sparsity", "0.95", "-o", "plan.json", "--masks", "masks.safetensors"]) == 0
    back = restored(source)
    for name, mask in load_file("masks.safetensors").items():
        assert np.array_equal(back[name] != 0, mask)
