"""What the verbs compute: round trips, plans, accounts."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file


def test_restored_file_has_names_shapes_types_and_metadata(model, archive, call):
    assert call("restore", archive, "-o", "back.safetensors").code == 0
    before, after = load_file(model), load_file("back.safetensors")
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert (after[name].dtype, after[name].shape) == (tensor.dtype, tensor.shape)
    assert np.array_equal(before["steps"], after["steps"])
    assert 0 < np.mean((before["dense.weight"] - after["dense.weight"]) ** 2) < 0.05**2 / 8
    with safe_open("back.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "who": "tests"}


def test_exact_gives_the_file_back_bit_for_bit(model, call):
    assert call("compress", model, "-o", "x.nwt", "--codec", "exact").code == 0
    assert call("restore", "x.nwt", "-o", "back.safetensors").code == 0
    assert (model.parent / "back.safetensors").read_bytes() == model.read_bytes()


@pytest.mark.parametrize(("option", "value"), [("--size", "14 kB"), ("--bits", "3.5"), ("--bits", "5")])
def test_a_target_is_met_from_below(option, value, model, call):
    outcome = call("compress", model, "-o", "x.nwt", option, value, "--json")
    assert outcome.code == 0, outcome.err
    limit_bytes = 14_000 if option == "--size" else float(value) * outcome.json["weights"] / 8
    assert 0.9 * limit_bytes <= outcome.json["bytes"] <= limit_bytes


def test_same_input_same_bytes(model, call):
    digests = set()
    for name, workers in (("a.nwt", 1), ("b.nwt", 1), ("c.nwt", 4)):
        assert call("compress", model, "-o", name, "--bits", "4", "--workers", workers).code == 0
        digests.add((model.parent / name).read_bytes())
    assert len(digests) == 1


def test_compress_follows_a_plan_edited_or_not(model, call):
    assert call("plan", model, "--bits", "4", "-o", "plan.json").code == 0
    plan = json.loads((model.parent / "plan.json").read_text())
    plan["tensors"]["half"] = {"codec": "exact", "knob": 0}
    (model.parent / "plan.json").write_text(json.dumps(plan))
    assert call("compress", model, "-o", "x.nwt", "--plan", "plan.json").code == 0
    tensors = {tensor["name"]: tensor for tensor in call("inspect", "x.nwt", "--json").json["tensors"]}
    assert tensors.keys() == plan["tensors"].keys()
    for name, choice in plan["tensors"].items():
        assert (tensors[name]["codec"], tensors[name]["knob"]) == (choice["codec"], choice["knob"])


def test_plan_goes_to_stdout_without_output(model, call):
    text = call("plan", model, "--bits", "4").out
    assert json.loads(text)
    (model.parent / "plan.json").write_text(text)
    assert call("compress", model, "-o", "a.nwt", "--plan", "plan.json").code == 0


@pytest.mark.parametrize("text", ["[1, 2", "[]", "{}", '{"schema": "netweight.plan/1", "tensors": {"w": 3}}', "\udcff"])
def test_a_plan_that_is_none(text, model, call, listing):
    (model.parent / "plan.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    outcome = call("compress", model, "-o", "a.nwt", "--plan", "plan.json")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 2
    assert listing() == {"model.safetensors", "plan.json"}


def test_only_the_codecs_allowed(model, call):
    assert call("compress", model, "-o", "x.nwt", "--bits", "6", "--codec", "uniform", "--codec", "exact").code == 0
    tensors = call("inspect", "x.nwt", "--json").json["tensors"]
    assert {tensor["codec"] for tensor in tensors} <= {"uniform", "exact"}
    assert {tensor["codec"] for tensor in tensors} >= {"uniform"}


def test_inspect_accounts_for_every_byte(archive, call):
    data = call("inspect", archive, "--json").json
    size_bytes = archive.stat().st_size
    assert data["bytes"] == size_bytes
    assert sum(part["bytes"] for part in data["parts"]) == size_bytes
    sections = sum(part["bytes"] for part in data["parts"] if part["part"].startswith("section"))
    assert sum(tensor["bytes"] for tensor in data["tensors"]) == pytest.approx(sections)
    assert sum(codec["bytes"] for codec in data["codecs"]) == pytest.approx(sections)
    assert {tensor["name"] for tensor in data["tensors"]} == set(load_file("model.safetensors"))
    assert data["bits_per_weight"] == pytest.approx(8 * size_bytes / data["weights"])


def test_verify_reports_what_was_lost(model, archive, call):
    data = call("verify", archive, "--against", model, "--json").json
    assert data["same_source"] is True
    rows = {row["name"]: row for row in data["differences"]}
    assert rows["steps"]["identical"] is True
    dense = rows["dense.weight"]
    assert dense["identical"] is False
    before, after = load_file(model), load_file(_restored(archive, call))
    error = before["dense.weight"].astype(float) - after["dense.weight"]
    assert dense["largest_error"] == pytest.approx(np.abs(error).max())
    signal = np.square(before["dense.weight"].astype(float)).sum()
    assert dense["snr_db"] == pytest.approx(10 * np.log10(signal / np.square(error).sum()))


def _restored(archive, call) -> str:
    assert call("restore", archive, "-o", "back.safetensors").code == 0
    return "back.safetensors"


CHANGES = {
    "a name": lambda t: t.update({"dense.weight2": t.pop("dense.weight")}),
    "a shape": lambda t: t.update({"dense.weight": t["dense.weight"].reshape(128, 96)}),
    "a type": lambda t: t.update({"half": t["half"].astype(np.float32)}),
    "one weight": lambda t: t["dense.weight"].__setitem__((3, 4), 7.0),
    "one integer": lambda t: t["steps"].__setitem__(0, 9),
    "one tensor less": lambda t: t.pop("scale"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_verify_finds_what_differs(change, model, archive, call):
    tensors = load_file(model)
    change(tensors)
    save_file(tensors, "other.safetensors")
    outcome = call("verify", archive, "--against", "other.safetensors", "--json")
    assert outcome.code == 1
    assert outcome.json["same_source"] is False
    assert outcome.json["problems"]


def test_hostile_names_do_not_reach_the_terminal(folder, call):
    save_file({"a\x1b[2Jb": np.ones((64, 64), np.float32)}, "model.safetensors")
    assert call("compress", "model.safetensors", "-o", "x.nwt", "--bits", "8").code == 0
    for words in (["inspect", "x.nwt"], ["verify", "x.nwt", "--against", "model.safetensors"]):
        outcome = call(*words)
        assert "\x1b" not in outcome.out + outcome.err
        assert "a\\x1b[2Jb" in outcome.out


def test_a_checkpoint_of_torch(folder, call):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), "n": torch.arange(3)}, "m.pt")
    assert call("compress", "m.pt", "-o", "m.nwt", "--bits", "5").code == 0
    assert call("verify", "m.nwt", "--against", "m.pt").code == 0
    assert call("restore", "m.nwt", "-o", "m.safetensors").code == 0
    assert load_file("m.safetensors")["n"].tolist() == [0, 1, 2]
