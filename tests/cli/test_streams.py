"""stdout is data, stderr is story."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

VERBS = {
    "compress": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "4"],
    "dry run": ["compress", "model.safetensors", "--bits", "4", "--dry-run"],
    "plan": ["plan", "model.safetensors", "--bits", "4"],
    "plan to a file": ["plan", "model.safetensors", "--bits", "4", "-o", "plan.json"],
    "inspect": ["inspect", "model.nwt"],
    "verify": ["verify", "model.nwt"],
    "verify against": ["verify", "model.nwt", "--against", "model.safetensors"],
    "restore": ["restore", "model.nwt", "-o", "back.safetensors"],
    "restore to a folder": ["restore", "model.nwt", "-o", "back/"],
}


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_json_is_one_object_and_nothing_else(words, archive, call):
    outcome = call(*words, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 1
    verb = "plan" if words[0] == "plan" or "--dry-run" in words else words[0]
    assert outcome.json["schema"] == f"netweight.{verb}/1"
    assert "NaN" not in outcome.out
    assert "Infinity" not in outcome.out


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_quiet_says_nothing(words, archive, call):
    outcome = call(*words, "-q")
    assert outcome.code == 0
    assert outcome.err == ""


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_no_escape_codes_into_pipes(words, archive, call, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    outcome = call(*words)
    assert outcome.code == 0
    assert "\x1b" not in outcome.out + outcome.err


def test_quiet_still_says_errors(folder, run):
    assert "There is no" in run("inspect", "nothing.nwt", "-q").err


def on_terminal(words, folder, **environment: str) -> str:
    """What a terminal on stderr receives."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "netweight", *words]
    # rich would take these from the environment of the tests
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM")}
    received = bytearray()

    def drain() -> None:
        try:
            while chunk := os.read(leader, 4096):
                received.extend(chunk)
        except OSError:  # Linux: the other end is closed
            pass

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    env = {**inherited, "TERM": "xterm-256color", **environment}
    try:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=follower, env=env, check=False)
    finally:
        os.close(follower)  # ends what drain() reads
        reader.join(timeout=30)
        os.close(leader)
    shown = received.decode()
    assert done.returncode == 0, shown
    assert b"\x1b" not in done.stdout
    return shown


def test_bars_on_a_terminal(archive, folder):
    shown = on_terminal(VERBS["compress"], folder)
    assert "sweep" in shown
    assert "\x1b[38" in shown or "\x1b[3" in shown


def test_no_color(archive, folder):
    assert "\x1b[38" not in on_terminal(VERBS["compress"], folder, NO_COLOR="1")


def test_no_bars_on_a_dumb_terminal_or_when_quiet(archive, folder):
    assert "\x1b" not in on_terminal(VERBS["compress"], folder, TERM="dumb")
    assert on_terminal([*VERBS["verify"], "-q"], folder) == ""


def test_a_reader_that_has_enough_is_no_error(archive, folder):
    command = f"{sys.executable} -u -m netweight inspect model.nwt | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_behind_stdout(archive, folder):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "netweight", "inspect", "model.nwt", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "netweight: Standard output cannot be written: No space left on device."


def test_text_and_json_tell_the_same(archive, call):
    told = call("inspect", archive).out
    data = call("inspect", archive, "--json").json
    assert f"{data['bytes']:,}" in told
    for tensor in data["tensors"]:
        assert tensor["name"] in told


def test_json_of_compress_is_true(model, call):
    data = call("compress", model, "-o", "x.nwt", "--bits", "4", "--json").json
    size_bytes = (model.parent / "x.nwt").stat().st_size
    assert data["bytes"] == size_bytes
    assert data["bits_per_weight"] == pytest.approx(8 * size_bytes / data["weights"])
    assert data["bits_per_weight"] <= 4
    assert json.dumps(data)


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_keys_are_those_of_the_document(words, archive, call):
    document = Path(__file__).parents[2] / "docs" / "cli.md"
    data = call(*words, "--json").json
    (line,) = re.findall(rf"^\| `{re.escape(data['schema'])}` \| (.*) \|$", document.read_text(), re.MULTILINE)
    always, _, original = line.partition(", and with an original: ")
    expected = {"schema", *always.split(), *(original.split() if "--against" in words else [])}
    assert set(data) == expected
