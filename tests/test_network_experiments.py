"""The experiments on trained networks, on made-up images: files complete, arithmetic right, absence said loudly."""

import csv
import importlib
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from netweight.importance.stat import Stat

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    "importance_pruning", "importance_quantisation", "temperature", "iterative_pruning", "lenet5_file",
    "one_shot_pruning", "successive_refinement", "resnet20_file", "fisher_calibration",
)  # fmt: skip


def module(name: str):
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"experiments.{name}")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Blobs at ten places, and networks that have looked at them for a moment."""
    networks = module("networks")
    retraining = module("retraining")
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for sub, size, channels in (("mnist", 28, 1), ("cifar10", 32, 3)):
        (folder / sub).mkdir()
        arrays = {}
        for part, count in (("train", 120), ("test", 60)):
            y = random.integers(0, 10, count)
            x = random.integers(0, 120, (count, channels, size, size))
            for j, label in enumerate(y):
                x[j, :, 2 * label : 2 * label + 6, 4:20] += 130
            arrays |= {f"x_{part}": x.astype(np.uint8).squeeze(), f"y_{part}": y}
        np.savez(folder / sub / ("mnist.npz" if sub == "mnist" else "cifar10_exact.npz"), **arrays)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    for name, sub in networks.FOLDERS.items():
        model = networks.MODELS[name]()
        save_file(networks.state(model), folder / sub / f"{name}.safetensors")
        network = networks.load(name, folder)
        budget = retraining.Budget(8 if sub == "mnist" else 0.5, 0.05, batch=30)
        optimizer = retraining.optimizer_of(network.model, budget)
        retraining.retrain(network.model, network.train, budget, optimizer, torch.Generator().manual_seed(0))
        save_file(networks.state(network.model), folder / sub / f"{name}.safetensors")
    torch.set_rng_state(state)
    return folder


@pytest.mark.parametrize("name", [*NAMES, "bit_accounting"])
def test_files_are_complete(name, data, tmp_path):
    line = module("figures").network_report(name, module(name).run, 0, data, tmp_path)
    assert line.startswith(("holds: ", "DOES NOT HOLD: "))
    comment, *lines = (tmp_path / "reduced" / f"{name}.csv").read_text().splitlines()
    assert f"experiments.{name} --seed 0;" in comment
    rows = list(csv.reader(lines))
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(rows[0])}
    assert (tmp_path / "reduced" / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_one_network_of_several_has_files_of_its_own(data, tmp_path):
    run = partial(module("iterative_pruning").run, network="lenet5")
    module("figures").network_report("iterative_pruning", run, 0, data, tmp_path, network="lenet5")
    files = sorted(path.name for path in (tmp_path / "reduced").iterdir())
    assert files == ["iterative_pruning_lenet5.csv", "iterative_pruning_lenet5.svg"]
    comment, *lines = (tmp_path / "reduced" / files[0]).read_text().splitlines()
    assert "experiments.iterative_pruning --seed 0 --network lenet5; NumPy" in comment
    assert "; torch " in comment
    assert "netweight " in comment
    assert "CPU seconds, " in comment
    rows = list(csv.DictReader(lines))
    assert {(row["network"], row["method"]) for row in rows} == {("lenet5", "surp"), ("lenet5", "lamp")}


@pytest.mark.parametrize("name", NAMES)
def test_missing_networks_are_said_loudly(name, tmp_path):
    line = module("figures").network_report(name, module(name).run, 0, tmp_path, tmp_path)
    assert line.startswith("SKIPPED: the networks are not below")
    assert "--data" in line


def test_images_move_by_whole_pixels(data):
    retraining = module("retraining")
    x = torch.arange(2.0 * 5 * 6).reshape(2, 1, 5, 6) + 1
    budget = retraining.Budget(1, 0.1, shift=2)
    random = torch.Generator().manual_seed(1)
    offsets = torch.randint(0, 5, (2, 2), generator=torch.Generator().manual_seed(1)) - 2
    moved = retraining.moved(x, budget, random)
    for j in range(2):
        down, right = offsets[0, j].item(), offsets[1, j].item()
        for row in range(5):
            for column in range(6):
                inside = 0 <= row + down < 5 and 0 <= column + right < 6
                assert moved[j, 0, row, column] == (x[j, 0, row + down, column + right] if inside else 0)


def test_retraining_is_the_same_twice_and_learns(data):
    networks, retraining = module("networks"), module("retraining")
    budget = retraining.Budget(3, 0.05, shift=1, batch=30)
    found = []
    for _ in range(2):
        network = networks.load("lenet300", data)
        before = networks.judge(network.model, network.train)
        optimizer = retraining.optimizer_of(network.model, budget)
        retraining.retrain(network.model, network.train, budget, optimizer, torch.Generator().manual_seed(4))
        found.append(networks.state(network.model))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert networks.judge(network.model, network.train).loss_nats < before.loss_nats


def test_a_lesson_is_what_the_teacher_says(data):
    """Half of the images are mixtures of two; outputs are the teacher's; with them training is as with the teacher."""
    networks, retraining = module("networks"), module("retraining")
    network = networks.load("lenet300", data)
    still = retraining.Budget(0, 0)
    images, outputs = retraining.lesson(network.model, network.train, 2, still, torch.Generator().manual_seed(0))
    assert len(images) == 2 * len(network.train)
    with torch.no_grad():
        assert torch.allclose(network.model(images.x), outputs, atol=1e-5)
    known = {x.numpy().tobytes() for x in network.train.x}
    assert sum(x.numpy().tobytes() in known for x in images.x) == len(network.train)
    assert float(images.x.min()) >= 0
    assert float(images.x.max()) <= 1
    found = []
    for teacher in (network.model, outputs):
        pupil = networks.lenet300()
        networks.put(pupil, {name: np.float32(0.5) * w for name, w in network.weights.items()})
        budget = retraining.Budget(2, 0.2, teacher=1.0, batch=40)
        optimizer = retraining.optimizer_of(pupil, budget)
        random = torch.Generator().manual_seed(1)
        retraining.retrain(pupil, images, budget, optimizer, random, teacher=teacher)
        found.append(networks.state(pupil))
    assert all(np.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])
    assert not np.allclose(found[0]["1.weight"], np.float32(0.5) * network.weights["1.weight"], atol=1e-4)


def test_parts_that_ended_are_read_again(tmp_path):
    networks, parts = module("networks"), module("parts")
    calls = []
    score = networks.Score(np.array([0.1, 2.0 / 3.0]), np.array([True, False]))

    def make(checkpoint):
        calls.append(checkpoint)
        return parts.arrays_of({"0.8": score, "lamp 1": score})

    first, again = (parts.scores_of(parts.kept(tmp_path / "runs", "a", make)) for _ in range(2))
    assert calls == [tmp_path / "runs" / "a.pt"]
    assert first.keys() == again.keys() == {"0.8", "lamp 1"}
    for found in again.values():
        assert np.array_equal(found.losses_nats, score.losses_nats)
        assert np.array_equal(found.hits, score.hits)
    assert parts.kept(None, "a", make).keys() == {"0.8 losses", "0.8 hits", "lamp 1 losses", "lamp 1 hits"}
    assert len(calls) == 2


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch):
    """Stopped in the eleventh round, after two of the stops; the rest is trained once, all is as in one go."""
    networks, iterative = module("networks"), module("iterative_pruning")
    budget = module("retraining").Budget(0.5, 0.02, teacher=1.0, batch=30)
    case = iterative.Case(budget, 60, copies=1)
    network, retrain, calls = networks.load("lenet300", data), iterative.retrain, []

    def counted(*given, **named):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        retrain(*given, **named)

    monkeypatch.setattr(iterative, "retrain", counted)
    stop = 0
    run = partial(iterative.iterate, network, case, "lamp", 3)
    whole = run(None)
    calls, stop = [], 11
    with pytest.raises(KeyboardInterrupt):
        iterative.kept(tmp_path, "a", run)
    calls, stop = [], 0
    again = iterative.kept(tmp_path, "a", run)
    assert len(calls) == 17 - 10
    assert list(module("parts").scores_of(whole)) == [str(s) for s in iterative.STOPS.values()]
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    assert not np.array_equal(whole["0.8 losses"], whole["0.98 losses"])
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_parts_of_another_budget_are_not_read():
    iterative, retraining, vgg = module("iterative_pruning"), module("retraining"), module("vgg")
    cases = [iterative.Case(retraining.Budget(0.5, rate), images) for rate in (0.1, 0.2) for images in (5, 6)]
    budget = cases[0].budget
    trainings = [vgg.Training(budget, images, copies) for images in (5, 6) for copies in (1, 2)]
    cases += [iterative.Case(budget, 5, dense=training) for training in trainings]
    assert len({case.stamp for case in cases}) == 8
    assert cases[0].stamp == iterative.Case(retraining.Budget(0.5, 0.1), 5, methods=("erk",)).stamp


def test_pruning_keeps_the_share_of_every_layer(data):
    networks, paper1 = module("networks"), module("paper1")
    network = networks.load("lenet300", data)
    plain = dict.fromkeys(network.matrices, Stat())
    found = paper1.pruned(network, plain, 0.1)
    for name, w in found.items():
        kept = w != 0
        assert kept.sum() == int(0.1 * w.size)
        assert np.abs(network.weights[name][kept]).min() >= np.abs(network.weights[name][~kept]).max()


def test_the_gradient_objective_is_the_mean_square_of_each_samples_gradient(data):
    """Against one backward pass a sample; the mean gradient of a batch would be another matrix."""
    networks, paper1 = module("networks"), module("paper1")
    network = networks.load("lenet300", data)
    found = paper1.measured(network, "gradient", 40)
    squares = dict.fromkeys(network.matrices, 0.0)
    for x, y in zip(network.train.x[:40], network.train.y[:40], strict=True):
        network.model.zero_grad()
        torch.nn.functional.cross_entropy(network.model(x[None]), y[None]).backward()
        for name, parameter in network.model.named_parameters():
            if name in squares:
                squares[name] = squares[name] + parameter.grad.double().numpy() ** 2 / 40
    for name, square in squares.items():
        raw = found.raw(name)
        measured = raw.weight * raw.diagonal
        assert np.allclose(measured, square, rtol=1e-3, atol=1e-6 * square.max())


def test_in_a_network_of_relus_the_hessians_diagonal_is_the_fisher_information(data):
    """Outputs are piecewise linear in each single weight, so only the softmax bends: labels do not matter."""
    networks, paper1 = module("networks"), module("paper1")
    network = networks.load("lenet300", data)
    hessian = paper1.measured(network, "hessian", 30, temperature=4.0)
    fisher = paper1.measured(network, "fisher", 30, temperature=4.0)
    for name in network.matrices:
        one, other = (found.raw(name).weight * found.raw(name).diagonal for found in (hessian, fisher))
        ratio = one.sum() / other.sum()
        assert np.allclose(one, ratio * other, rtol=1e-3, atol=1e-6 * one.max())


def test_the_comparison_counts_what_is_sure():
    networks, paper1 = module("networks"), module("paper1")

    def score(losses):
        return networks.Score(np.array(losses, float), np.ones(4, bool))

    curves = paper1.Curves("n")
    base = [1.0, 2.0, 3.0, 4.0]
    for x, shift in ((1, [-1, -1.1, -1, -0.9]), (2, [1, 1.1, 1, 1.1]), (3, [-1, 1, -1.5, 1])):
        curves.scores[x, "baseline"] = score(base)
        curves.scores[x, "fisher"] = score(np.add(base, shift))
    assert curves.against("fisher") == (3, 2, 1, 1)
    assert curves.difference(1, "fisher") == (pytest.approx(-1.0), pytest.approx(np.std([1, 1.1, 1, 0.9], ddof=1) / 2))


def test_areas_of_prefixes():
    """Straight lines between points, where both have points; a reader who waits has the accuracy before."""
    refinement = module("successive_refinement")
    mine = [("n", "prefix", size, 0.0, 0.0, accuracy, 0.0) for size, accuracy in ((10, 0.0), (20, 0.5), (40, 1.0))]
    other = [("n", "surp", size, 0.0, 0.0, accuracy, 0.0) for size, accuracy in ((20, 0.5), (40, 1.0), (80, 1.0))]
    assert refinement.area(mine, other) == pytest.approx(1)
    flat = [(*row[:5], 1.0, row[6]) for row in other]
    assert refinement.area(mine, flat) == pytest.approx(0.75)
    waited = refinement.area(refinement.stairs(mine), [(*row[:5], 1.0, row[6]) for row in mine])
    assert waited == pytest.approx((9 * 0.0 + 0.25 + 19 * 0.5 + 0.75) / 30)
    assert refinement.between([10, 11, 44]) == [10, 11, 22, 44]


def test_what_a_stream_costs_and_gives():
    """At a share of the error each method has it; sparse formats by hand."""
    accounting = module("bit_accounting")
    w = {"w": np.random.default_rng(0).laplace(size=(100, 100)).astype(np.float32)}
    size, zeros = accounting.pruned(w, 0.5, "CSR")
    assert size == 6 * round(10_000 * (1 - zeros)) + 4 * 101
    left = np.sort(np.abs(w["w"]).reshape(-1))[: round(10_000 * zeros)].sum() / np.abs(w["w"]).sum()
    assert left == pytest.approx(0.5, abs=1e-3)
    for method in ("messages", "surp", "uniform"):
        size, zeros = accounting.spent(w, 0.5, method)
        assert 8 * size / 10_000 > 1.0, "R(D) is one bit"
        assert 0.6 < zeros < 0.85


def test_what_is_surely_above_and_the_verdict_on_it():
    """Of 100 images one more is no difference and ten are; the verdict falls with the first sure loss to LAMP."""
    networks, one_shot = module("networks"), module("one_shot_pruning")

    def score(hits):
        return networks.Score(np.zeros(100), np.arange(100) < hits)

    points = one_shot.SPARSITIES["lenet300"]
    scores = {(method, s): score(50) for method in (*one_shot.RULES, "surp, ladder") for s in points}
    assert one_shot.compared("lenet300", scores)[0]
    scores["lamp", points[0]] = score(51)
    assert one_shot.surely(scores, "lamp", "surp, ladder", points) == (0, 0)
    assert one_shot.compared("lenet300", scores)[0]
    scores["lamp", points[0]] = score(60)
    assert one_shot.surely(scores, "lamp", "surp, ladder", points) == (1, 0)
    good, text = one_shot.compared("lenet300", scores)
    assert not good
    assert "surp, ladder against lamp 0 / 1" in text
    assert "lamp against erk 1 / 0" in text


def test_the_verdict_of_iterative_pruning():
    """Seeds are averaged image by image; equal is not worse; a sure loss to LAMP, or LAMP's to another, is."""
    networks, iterative = module("networks"), module("iterative_pruning")

    def score(hits):
        return networks.Score(np.zeros(100), np.arange(100) < hits)

    final = {("n", method, s): [score(50)] * 2 for method in ("surp", "lamp", "erk") for s in iterative.STOPS.values()}
    good, text = iterative.compare("n", final)
    assert good
    assert "80 % 50.00 / 50.00 (+0.00 +- 0.00, over seeds 0.00)" in text
    assert "surp against erk 0 / 0, lamp against erk 0 / 0" in text
    final["n", "surp", 0.9] = [score(50), score(48)]
    good, text = iterative.compare("n", final)
    assert good, "one image in a hundred, two times in halves"
    assert "90 % 49.00 / 50.00 (-1.00 +- 0.70, over seeds 1.00)" in text
    alone = {key: scores[1:] for key, scores in final.items()}
    assert "90 % 48.00 / 50.00 (-2.00 +- 1.41)" in iterative.compare("n", alone)[1]
    for key, hits in ((("n", "surp", 0.95), 30), (("n", "erk", 0.8), 70)):
        good, text = iterative.compare("n", {**final, key: [score(hits)] * 2})
        assert not good
    assert "surp against erk 0 / 1, lamp against erk 0 / 1" in text


def test_one_shot_scores_that_were_kept_are_the_same_in_the_same_order(data, tmp_path, monkeypatch):
    one_shot, network = module("one_shot_pruning"), module("networks").load("lenet300", data)
    monkeypatch.setitem(one_shot.SPARSITIES, "lenet300", (0.9, 0.5))
    plain, first, again = (one_shot.finished(network, 60, False, folder, 0) for folder in (None, tmp_path, tmp_path))
    assert list(plain) == list(first) == list(again)
    assert [place for place in plain if place[0] == "lamp"] == [("lamp", 0.9), ("lamp", 0.5)]
    assert all(np.array_equal(plain[place].losses_nats, score.losses_nats) for place, score in again.items())
    assert len({score.loss_nats for score in plain.values()}) > len(one_shot.RULES)


def test_a_vgg_learns_from_its_teacher_and_is_kept(data, tmp_path):
    """Thirteen convolutions, one linear layer; the same seed gives the same weights, which are read again."""
    networks, retraining, vgg = module("networks"), module("retraining"), module("vgg")
    training = vgg.Training(retraining.Budget(3.0, 0.05, teacher=1.0, batch=20), 120, 2)
    network = vgg.trained(data, 1, tmp_path, training)
    assert [network.weights[name].ndim for name in network.matrices] == [4] * 13 + [2]
    assert sum(network.weights[name].size for name in network.matrices) == 921_008
    teacher = networks.load("resnet20", data)
    with torch.no_grad():
        wanted = teacher.model(teacher.train.x).softmax(1)
        torch.manual_seed(1)
        far = (vgg.vgg16().eval()(teacher.train.x).softmax(1) - wanted).abs().sum(1).mean()
        near = (network.model(teacher.train.x).softmax(1) - wanted).abs().sum(1).mean()
    assert near < 0.8 * far
    again = vgg.trained(data, 1, tmp_path, training)
    assert all(np.array_equal(w, network.weights[name]) for name, w in again.weights.items())
    assert len(list(tmp_path.iterdir())) == 1


def test_cuts_have_the_sparsity_they_say(data):
    one_shot = module("one_shot_pruning")
    network = module("networks").load("lenet300", data)
    weights = {name: network.weights[name] for name in network.matrices}
    total = sum(w.size for w in weights.values())
    small = {name: w[:40, :40] for name, w in weights.items()}
    stream, hit = one_shot.stream(small, 0.8)
    for tensors, whole, slack in (
        (one_shot.climbed(weights, 0.2), total, 0.002),
        (one_shot.cut(weights, 0.2, "lamp"), total, 1e-4),
        (one_shot.stopped(small, stream, hit, 0.2), sum(w.size for w in small.values()), 1e-3),
    ):
        kept = sum(int(np.count_nonzero(w)) for w in tensors.values())
        assert kept / whole == pytest.approx(0.2, abs=slack)
