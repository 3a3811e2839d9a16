"""0 done; 1 the answer is no; 2 usage; 3 unreadable; 130 interrupted (see test_interrupt)."""

import pytest
from safetensors.numpy import load_file, save_file

WRONG_USAGE = {
    "no verb": [],
    "unknown verb": ["kompress", "model.safetensors"],
    "abbreviated option": ["inspect", "model.nwt", "--js"],
    "no target": ["compress", "model.safetensors", "-o", "x.nwt"],
    "two targets": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "3", "--size", "1MB"],
    "target and plan": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "3", "--plan", "p.json"],
    "no output": ["compress", "model.safetensors", "--bits", "3"],
    "negative rate": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "-3"],
    "rate is no number": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "nan"],
    "size is no size": ["compress", "model.safetensors", "-o", "x.nwt", "--size", "4XB"],
    "no such input": ["compress", "nothing.safetensors", "-o", "x.nwt", "--bits", "3"],
    "no such archive": ["inspect", "nothing.nwt"],
    "no such original": ["verify", "model.nwt", "--against", "nothing.safetensors"],
    "no such plan": ["compress", "model.safetensors", "-o", "x.nwt", "--plan", "nothing.json"],
    "unknown codec": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "3", "--codec", "zip"],
    "standard input": ["compress", "-", "-o", "x.nwt", "--bits", "3"],
    "standard output": ["compress", "model.safetensors", "-o", "-", "--bits", "3"],
    "no workers": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "3", "--workers", "0"],
    "output without a known suffix": ["restore", "model.nwt", "-o", "back.pt"],
    "output exists": ["restore", "model.nwt", "-o", "model.safetensors"],
    "output in no folder": ["restore", "model.nwt", "-o", "no/back.safetensors"],
    "quiet and loud": ["inspect", "model.nwt", "-q", "-v"],
}


@pytest.mark.parametrize("words", WRONG_USAGE.values(), ids=WRONG_USAGE)
def test_2_for_wrong_usage(words, archive, call, listing):
    before = listing()
    outcome = call(*words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert_message(outcome.err)
    assert listing() == before


def assert_message(err: str) -> None:
    """One line of fact, one of remedy."""
    lines = err.splitlines()
    assert len(lines) == 2, err
    assert lines[0].startswith("netweight: ")
    assert lines[1].startswith("  ")
    assert "Traceback" not in err


def test_0_for_help_and_version(call):
    for words in (["--help"], ["--version"], ["compress", "--help"], ["verify", "-h"]):
        outcome = call(*words)
        assert outcome.code == 0
        assert outcome.out
        assert outcome.err == ""


def test_1_for_a_target_out_of_reach(model, call, listing):
    outcome = call("compress", model, "-o", "x.nwt", "--size", "100")
    assert outcome.code == 1
    assert_message(outcome.err)
    assert listing() == {"model.safetensors"}


def test_1_for_a_difference(model, archive, call):
    tensors = load_file(model)
    assert call("verify", archive, "--against", model).code == 0
    tensors["steps"][3] += 1
    save_file(tensors, "other.safetensors")
    outcome = call("verify", archive, "--against", "other.safetensors")
    assert outcome.code == 1
    assert "steps" in outcome.out


@pytest.mark.parametrize("verb", ["inspect", "verify", "restore"])
def test_3_for_damage(verb, archive, call, listing):
    content = bytearray(archive.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    archive.write_bytes(content)
    before = listing()
    words = ["-o", "back.safetensors"] if verb == "restore" else []
    outcome = call(verb, archive, *words)
    if verb == "inspect":  # shows what there is
        assert "warning: Section" in outcome.err
        assert outcome.code == 0
        return
    assert outcome.code == 3
    assert outcome.out == ""
    assert_message(outcome.err)
    assert listing() == before


@pytest.mark.parametrize("verb", ["inspect", "verify"])
def test_3_for_an_archive_cut_short(verb, archive, call):
    archive.write_bytes(archive.read_bytes()[:-1])
    outcome = call(verb, archive)
    assert outcome.code == 3
    assert_message(outcome.err)


def test_3_for_a_newer_format(archive, call):
    content = bytearray(archive.read_bytes())
    content[8:10] = (99).to_bytes(2, "little")
    archive.write_bytes(content)
    outcome = call("inspect", archive)
    assert outcome.code == 3
    assert "99" in outcome.err
    assert_message(outcome.err)


def test_3_for_a_checkpoint_that_is_none(folder, call):
    (folder / "broken.safetensors").write_bytes(b"\x07" * 100)
    outcome = call("compress", "broken.safetensors", "-o", "x.nwt", "--bits", "3")
    assert outcome.code == 3
    assert_message(outcome.err)


def test_3_for_a_fault_of_our_own(archive, call, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyError("w\x1b[2J")

    monkeypatch.setattr("netweight.archive.Archive.open", fail)
    outcome = call("inspect", archive)
    assert outcome.code == 3
    assert_message(outcome.err)
    assert "KeyError" in outcome.err
    assert "\x1b" not in outcome.err

    loud = call("inspect", archive, "-v")
    assert loud.code == 3
    assert "Traceback" in loud.err
