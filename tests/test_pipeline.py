"""From a checkpoint to a file: sizes met, everything preserved, the same bytes wherever and however it runs."""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from safetensors.numpy import save_file

import netweight as nw
from netweight.checkpoint import open_checkpoint
from netweight.errors import FormatError, OutputError, TargetError, UsageError
from netweight.importance.prior import prior
from netweight.importance.stat import Stat

core = pytest.mark.core


def weights_of(network: dict) -> int:
    return sum(array.size for array in network.values())


def digest(archive: nw.Archive) -> str:
    return hashlib.sha256(
        b"".join([archive._prefix, *(bytes(part) for section in archive._sections for part in section)])
    ).hexdigest()


# ---- sizes


@pytest.mark.parametrize("bits", [1.2, 1.7, 2.5, 3, 4.5, 6, 8, 10, 12])
@pytest.mark.parametrize("name", ["dense", "convolutional", "alone"])
def test_bits_are_met_from_below_within_half_a_percent(name, bits, make_network):
    network = make_network(name)
    budget = int(bits * weights_of(network) // 8)
    archive = nw.compress(network, bits=bits)
    assert 0.995 * budget <= archive.nbytes <= budget


@core
@pytest.mark.parametrize("bits", [2, 5])
def test_bits_are_met_on_a_network_of_everything(bits, make_network):
    network = make_network("mixed")
    budget = bits * weights_of(network) // 8
    assert 0.995 * budget <= nw.compress(network, bits=bits).nbytes <= budget


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e12, 1e17])
@pytest.mark.parametrize("bits", [1.2, 3, 9])
def test_one_tensor_of_any_scale(scale, bits):
    w = (np.random.default_rng(1).normal(size=(128, 128)) * scale).astype(np.float32)
    archive = nw.compress({"w": w}, bits=bits)
    assert 0.995 * bits * 2048 <= archive.nbytes <= bits * 2048
    error = (w.astype(np.float64) - archive["w"]) / scale
    assert np.mean(error**2) < 1.3 * 4.0 ** -(bits - 0.45)


@pytest.mark.parametrize("shape", [(4096,), (1, 3000), (3000, 1), (60, 1, 7, 7), (16, 16, 3, 3, 3)])
def test_one_tensor_of_any_shape(shape):
    w = np.random.default_rng(1).laplace(size=shape).astype(np.float32)
    budget = 5 * w.size // 8
    assert 0.995 * budget <= nw.compress({"w": w}, bits=5).nbytes <= budget


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1.2, 3.3, 8])
@pytest.mark.parametrize("name", ["cifar10/resnet20.safetensors", "mnist/lenet300.safetensors"])
def test_bits_are_met_on_a_real_network(real, name, bits):
    checkpoint = open_checkpoint(real(name))
    budget = int(bits * sum(info.size for info in checkpoint.infos.values()) // 8)
    assert 0.995 * budget <= nw.compress(checkpoint, bits=bits).nbytes <= budget


@pytest.mark.parametrize("size", ["60 kB", 60_000, "58.59375 KiB"])
def test_a_size_in_any_unit(size, make_network):
    archive = nw.compress(make_network("dense"), size=size)
    assert 0.995 * 60_000 <= archive.nbytes <= 60_000


def test_a_size_that_lossless_fits_gives_every_bit_back(make_network):
    network = make_network("mixed")
    archive = nw.compress(network, size="1 GB")
    for name, array in network.items():
        assert archive[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [100, "2 kB"])
def test_an_impossible_size_is_refused_with_what_dominates(size, make_network, tmp_path):
    with pytest.raises(TargetError, match=r"below the smallest plan for 12 tensors, .* kept exact") as caught:
        nw.compress(make_network("mixed"), tmp_path / "out.nwt", size=size)
    assert "'broken'" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_size_that_only_the_file_misses_is_refused_with_the_file_that_was_made():
    """The prediction fits, no file does: the message counts what was made, not what was predicted."""
    w = np.random.default_rng(0).normal(size=777).astype(np.float32)
    smallest = nw.compress({"w": w}, slope=1e30).nbytes
    with pytest.raises(TargetError) as caught:
        nw.compress({"w": w}, size=smallest - 15)
    assert f"{smallest - 15} B is " in caught.value.fact
    assert " -" not in caught.value.fact


@pytest.mark.parametrize("loss", [0.3, 30.0])
def test_a_loss_is_met(loss, make_network):
    """With importance one everywhere the loss is half the squared error; predicted within 2 %, and sampling."""
    network = make_network("dense")
    importance = {name: Stat() for name in network}
    archive = nw.compress(network, loss=loss, importance=importance)
    measured = 0.5 * sum(
        float(np.sum(np.square(array.astype(np.float64) - archive[name]))) for name, array in network.items()
    )
    assert measured == pytest.approx(archive.plan["loss"], rel=0.03)
    assert 0.95 * loss <= archive.plan["loss"] <= loss


def test_the_predicted_loss_is_the_measured_one_under_the_prior(real):
    path = real("cifar10/resnet20.safetensors")
    archive = nw.compress(path, bits=3)
    checkpoint = open_checkpoint(path)
    stats = prior(checkpoint)
    measured = 0.0
    for name, info in checkpoint.infos.items():
        w = checkpoint.read(name)
        if info.dtype == "F32":
            measured += stats.get(name, Stat()).loss(w, w.astype(np.float64) - archive[name])
    assert measured == pytest.approx(archive.plan["loss"], rel=0.03)


def test_the_slope_is_the_slope(make_network):
    """Halving the slope's budget of loss for a bit: fewer nats, more bits, and the plan in the header says which."""
    network = make_network("dense")
    steep, flat = (nw.compress(network, slope=s) for s in (1e-2, 1e-4))
    assert steep.nbytes < flat.nbytes
    assert steep.plan["loss"] > flat.plan["loss"]
    assert (steep.plan["slope"], flat.plan["slope"]) == (1e-2, 1e-4)


@pytest.mark.parametrize(
    "targets", [{}, {"bits": 3, "size": 100}, {"loss": 1.0, "slope": 1.0}, {"plan": nw.Plan({}, 0.0), "bits": 1}]
)
def test_exactly_one_target(targets, make_network):
    with pytest.raises(UsageError, match="Give one of size, bits, loss, slope and plan"):
        nw.compress(make_network("alone"), **targets)


@pytest.mark.parametrize("targets", [{"bits": -3}, {"bits": 0}, {"bits": float("nan")}, {"size": "big"}, {"slope": -1}])
def test_a_target_makes_sense(targets, make_network):
    with pytest.raises(UsageError):
        nw.compress(make_network("alone"), **targets)


# ---- what is preserved


@core
def test_what_no_lossy_codec_takes_keeps_every_bit(make_network):
    network = make_network("mixed")
    archive = nw.compress(network, bits=4)
    for name in ("complex", "indices", "bytes", "mask", "broken", "empty", "zeros"):
        assert archive[name].tobytes() == network[name].tobytes(), name
        assert archive[name].dtype == network[name].dtype
    for name in ("half", "double", "weight", "ones", "scalar"):
        assert np.isfinite(archive[name]).all()
        assert archive[name].dtype == network[name].dtype


@core
def test_exact_alone_keeps_every_bit_of_everything(network):
    archive = nw.compress(network, slope=1.0, codecs=["exact"])
    assert {row.codec for row in archive.rows()} == {"exact"}
    for name, array in network.items():
        assert archive[name].tobytes() == array.tobytes()
    assert archive.plan["loss"] == 0


def test_slope_zero_is_lossless(make_network):
    network = make_network("convolutional")
    archive = nw.compress(network, slope=0.0)
    for name, array in network.items():
        assert archive[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("targets", [{"slope": 0.0}, {"size": "1 GB"}])
def test_lossless_is_lossless_where_a_lossy_codec_seems_to_be(targets):
    """Doubles that float32 rounds; and a few odd weights where a sample sees whole numbers only."""
    whole = np.random.default_rng(0).integers(-3, 4, (600, 500))
    odd = whole.astype(np.float32)
    odd[123, 77] = 0.1234567
    network = {"doubles": whole * 1e-6, "odd": odd}
    archive = nw.compress(network, **targets)
    for name, array in network.items():
        assert archive[name].tobytes() == array.tobytes()


def test_pruned_weights_and_dead_filters(make_network):
    """Half of the rows are zero, or all but zero: they cost next to nothing."""
    random = np.random.default_rng(0)
    alive = random.normal(size=(400, 256)).astype(np.float32)
    w = alive * (np.arange(400) % 2)[:, None].astype(np.float32)
    dead = alive * np.where(np.arange(400) % 2, 1, 1e-15).astype(np.float32)[:, None]
    slope = nw.compress({"w": alive}, bits=4).plan["slope"]
    full = nw.compress({"w": alive}, slope=slope).nbytes
    for half in (w, dead):
        archive = nw.compress({"w": half}, slope=slope)
        assert archive.nbytes < 0.53 * full
        assert np.max(np.abs(archive["w"][::2])) < 1e-3


def test_importance_moves_the_bits(make_network):
    """What counts 256 times as much gets four bits more than the rest, which is a step of 1/16."""
    network = make_network("dense")
    importance = {name: Stat(256.0 if name == "layer1.weight" else 1.0) for name in network}
    knobs = {
        row.name: row.knob for row in nw.compress(network, bits=5, importance=importance, codecs=["uniform"]).rows()
    }
    assert (knobs["layer0.weight"] - knobs["layer1.weight"]) / 512 == pytest.approx(4, abs=0.3)


# ---- the same bytes


@pytest.fixture(scope="module")
def small_network(make_network):
    """Layers of all kinds, few of each."""
    both = {**make_network("convolutional"), **make_network("dense")}
    return {name: array for name, array in both.items() if "conv0" not in name and "norm4" not in name}


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory, small_network):
    path = tmp_path_factory.mktemp("source") / "model.safetensors"
    save_file(small_network, path, metadata={"who": "test"})
    return path


@pytest.fixture(scope="module")
def expected(checkpoint_path):
    return digest(nw.compress(checkpoint_path, bits=3.5))


def test_twice(checkpoint_path, expected):
    assert digest(nw.compress(checkpoint_path, bits=3.5)) == expected


@pytest.mark.parametrize("workers", [1, 4])
def test_with_threads(checkpoint_path, expected, workers):
    with ThreadPoolExecutor(workers) as pool:
        assert digest(nw.compress(checkpoint_path, bits=3.5, executor=pool)) == expected


def test_with_processes(checkpoint_path, expected):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert digest(nw.compress(checkpoint_path, bits=3.5, executor=pool)) == expected


def test_processes_cannot_have_what_is_in_memory(make_network):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.raises(UsageError, match="in memory"):
        nw.compress(make_network("alone"), bits=3, executor=pool)


SCRIPT = """
import hashlib, sys
import netweight as nw
archive = nw.compress(sys.argv[1], sys.argv[2], bits=3.5)
from netweight import kernels
print(kernels.backend(), hashlib.sha256(open(sys.argv[2], "rb").read()).hexdigest())
"""


@pytest.mark.parametrize(("kernels", "hash_seed"), [("", "1"), ("numpy", "2")])
def test_in_another_process_on_either_path(checkpoint_path, expected, kernels, hash_seed, tmp_path):
    environment = {**os.environ, "NETWEIGHT_KERNELS": kernels, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", SCRIPT, checkpoint_path, tmp_path / "out.nwt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    backend, found = done.stdout.split()
    assert kernels in ("", backend)
    assert found == expected


def test_where_the_network_is_does_not_matter(checkpoint_path, small_network):
    """In memory there is no layout of files; sections and predictions are the same."""
    network = small_network
    held = nw.compress(network, slope=1e-3)
    filed = nw.compress(checkpoint_path, slope=1e-3)
    assert {row.name: (row.codec, row.knob) for row in held.rows()} == {
        row.name: (row.codec, row.knob) for row in filed.rows()
    }
    for name in network:
        assert held[name].tobytes() == filed[name].tobytes()


# ---- stages


def test_the_stages_are_the_whole(checkpoint_path):
    curves = nw.sweep(checkpoint_path)
    plan = nw.allocate(curves, slope=1e-3)
    assert digest(nw.encode(checkpoint_path, plan)) == digest(nw.compress(checkpoint_path, slope=1e-3))


def test_a_plan_given_back_gives_the_same_tensors(checkpoint_path):
    plan = nw.allocate(nw.sweep(checkpoint_path), bits=4)
    first = nw.compress(checkpoint_path, plan=plan)
    again = nw.compress(checkpoint_path, plan=nw.Plan.from_json(plan.to_json()))
    for name in first:
        assert first[name].tobytes() == again[name].tobytes()


def test_an_edited_plan_is_done(checkpoint_path, make_network):
    data = json.loads(nw.allocate(nw.sweep(checkpoint_path), bits=4).to_json())
    data["tensors"]["layer1.weight"] = {"codec": "exact"}
    data["tensors"]["layer0.weight"]["codec"] = "uniform"
    archive = nw.compress(checkpoint_path, plan=nw.Plan.from_json(json.dumps(data)))
    codecs = {row.name: row.codec for row in archive.rows()}
    assert (codecs["layer1.weight"], codecs["layer0.weight"]) == ("exact", "uniform")
    assert np.array_equal(archive["layer1.weight"], make_network("dense")["layer1.weight"])


def test_a_plan_for_another_network_is_refused(checkpoint_path, make_network):
    plan = nw.allocate(nw.sweep(make_network("alone")), bits=3)
    with pytest.raises(UsageError, match=r"lacks \d+ of the \d+ tensors and names 1 that are not there"):
        nw.compress(checkpoint_path, plan=plan)


def edited(plan: nw.Plan, name: str, **fields: object) -> nw.Plan:
    data = json.loads(plan.to_json())
    data["tensors"][name] |= fields
    return nw.Plan.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("weight", {"codec": "zip"}, "no codec"),
        ("indices", {"codec": "uniform"}, "I64"),
        ("mask", {"codec": "trellis"}, "BOOL"),
        ("broken", {"codec": "uniform"}, "broken"),
        ("broken", {"codec": "trellis"}, "broken"),
        ("empty", {"codec": "uniform"}, "empty"),
        ("weight", {"codec": "relative", "knob": 5}, "positive numbers only"),
        ("weight", {"codec": "trellis", "knob": -9000}, "too fine"),
        ("weight", {"codec": "uniform", "knob": -40000}, "too fine"),
        ("weight", {"codec": "uniform", "knob": 900000}, "too coarse"),
        ("ones", {"codec": "relative", "knob": 99}, "mantissa"),
        ("ones", {"codec": "relative", "knob": -1}, "mantissa"),
    ],
)
def test_a_plan_that_cannot_be_done_is_refused(name, fields, says, make_network):
    """An edited plan must not lead to a file of garbage, nor to an error of NumPy."""
    network = make_network("mixed")
    plan = nw.allocate(nw.sweep(network), bits=4)
    with pytest.raises(UsageError, match=says):
        nw.compress(network, plan=edited(plan, name, **fields))


def test_progress_has_both_stages_and_ends(make_network):
    network = make_network("dense")
    seen = []
    nw.compress(network, bits=3, progress=lambda *report: seen.append(report))
    sweeps = [(done, total) for stage, done, total in seen if stage == "sweep"]
    assert sweeps == [(j + 1, len(network)) for j in range(len(network))]
    assert {stage for stage, _, _ in seen} == {"sweep", "encode"}
    assert all(0 < done <= total for _, done, total in seen)
    assert seen[-1][1] == seen[-1][2]


# ---- sources and files


def test_a_folder_in_shards(make_network, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    parts = {"a.safetensors": make_network("dense"), "b.safetensors": make_network("alone")}
    for file, tensors in parts.items():
        save_file(tensors, folder / file)
    index = {"weight_map": {name: file for file, tensors in parts.items() for name in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    archive = nw.compress(folder, tmp_path / "out.nwt", bits=4)
    assert list(archive) == list(open_checkpoint(folder).names)
    assert set(archive) == {name for tensors in parts.values() for name in tensors}
    assert [(g.file, g.tensors) for g in archive.layout] == [(file, len(t)) for file, t in parts.items()]
    for name, array in parts["b.safetensors"].items():
        assert np.corrcoef(archive[name].ravel(), array.ravel())[0, 1] > 0.98


def test_torch_files_and_modules(make_network, tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in make_network("dense").items()}
    torch.save(state, tmp_path / "model.pt")
    filed = nw.compress(tmp_path / "model.pt", slope=1e-3)
    held = nw.compress(state, slope=1e-3)
    plain = nw.compress(make_network("dense"), slope=1e-3)
    for name in state:
        assert filed[name].tobytes() == held[name].tobytes() == plain[name].tobytes()


def test_loading_by_either_framework(checkpoint_path, tmp_path):
    torch = pytest.importorskip("torch")
    archive = nw.compress(checkpoint_path, tmp_path / "out.nwt", bits=4)
    arrays, tensors = nw.load(tmp_path / "out.nwt", framework="numpy"), nw.load(tmp_path / "out.nwt")
    assert list(arrays) == list(tensors) == list(archive)
    for name in archive:
        assert arrays[name].tobytes() == archive[name].tobytes()
        assert torch.equal(tensors[name], torch.from_numpy(archive[name]))
    with pytest.raises(UsageError, match="framework"):
        nw.load(tmp_path / "out.nwt", framework="jax")


def test_a_file_is_not_overwritten(make_network, tmp_path):
    path = tmp_path / "out.nwt"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        nw.compress(make_network("alone"), path, bits=3)
    assert path.read_bytes() == b"precious"
    nw.compress(make_network("alone"), path, bits=3, force=True)
    nw.Archive.open(path).check()
    with pytest.raises(OutputError):
        nw.compress(make_network("alone"), tmp_path / "nowhere" / "out.nwt", bits=3)


def test_a_source_that_is_damaged(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError):
        nw.compress(tmp_path / "model.safetensors", bits=3)
    with pytest.raises(UsageError):
        nw.compress(tmp_path / "nothing.safetensors", bits=3)


def test_safetensors_need_no_torch(checkpoint_path, tmp_path):
    script = (
        "import sys, netweight as nw\n"
        "nw.compress(sys.argv[1], sys.argv[2], bits=4)\n"
        "with nw.Archive.open(sys.argv[2]) as archive:\n"
        "    archive.check(); dict(archive)\n"
        "nw.load(sys.argv[2], framework='numpy')\n"
        "print('torch' in sys.modules)\n"
        "nw.load(sys.argv[2])\n"
        "print('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, checkpoint_path, tmp_path / "out.nwt"]
    pytest.importorskip("torch")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"], "and the test can fail"


def test_the_library_says_nothing(make_network, capfd, tmp_path):
    nw.compress(make_network("mixed"), tmp_path / "out.nwt", bits=4)
    nw.load(tmp_path / "out.nwt", framework="numpy")
    assert capfd.readouterr() == ("", "")
