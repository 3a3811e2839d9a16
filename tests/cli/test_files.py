"""Which files are written, which are left alone."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

COMPRESS = ["compress", "model.safetensors", "-o", "model.nwt", "--bits", "4"]


@pytest.mark.parametrize(
    "words",
    [
        ["compress", "model.safetensors", "-o", "taken", "--bits", "4"],
        ["plan", "model.safetensors", "-o", "taken", "--bits", "4"],
        ["restore", "model.nwt", "-o", "taken.safetensors"],
    ],
    ids=["compress", "plan", "restore"],
)
def test_nothing_is_overwritten_without_force(words, archive, call):
    suffix = {"compress": ".nwt", "plan": ".json", "restore": ""}[words[0]]
    words = [word + suffix if word.startswith("taken") else word for word in words]
    target = archive.parent / next(word for word in words if word.startswith("taken"))
    target.write_bytes(b"mine")
    outcome = call(*words)
    assert outcome.code == 2
    assert "exists already" in outcome.err
    assert target.read_bytes() == b"mine"

    assert call(*words, "--force").code == 0
    assert target.read_bytes() != b"mine"


def test_refusal_comes_before_the_work(model, call):
    (model.parent / "model.nwt").write_bytes(b"mine")
    outcome = call(*COMPRESS, "-v")
    assert outcome.code == 2
    assert "sweep" not in outcome.err


def test_the_input_is_never_the_output(model, call):
    before = model.read_bytes()
    os.link(model, model.with_suffix(".nwt"))
    assert call(*COMPRESS, "--force").code == 2
    assert model.read_bytes() == before


def test_dry_run_writes_nothing(model, call, listing):
    outcome = call(*COMPRESS, "--dry-run", "--json")
    assert outcome.code == 0
    assert listing() == {"model.safetensors"}
    predicted = outcome.json["predicted_bytes"]
    written = call(*COMPRESS, "--json").json["bytes"]
    assert written == pytest.approx(predicted, rel=0.02, abs=64)


def test_a_new_file_has_the_permissions_of_any_other(model, call):
    call(*COMPRESS)
    (model.parent / "other").touch()
    mode = stat.S_IMODE((model.parent / "other").stat().st_mode)
    assert stat.S_IMODE((model.parent / "model.nwt").stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("output", ["back.safetensors", "back/"])
def test_a_full_disk_gives_one_clear_line_and_no_file(output, archive, listing):
    """A limit on the size of files stands for the disk."""
    before = listing()
    command = f"ulimit -f 16; exec {sys.executable} -m netweight restore model.nwt -o {output}"
    done = subprocess.run(["bash", "-c", command], cwd=archive.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be written: File too large" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2
    assert listing() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_gives_one_clear_line(model, call):
    model.parent.chmod(0o555)
    try:
        outcome = call(*COMPRESS)
    finally:
        model.parent.chmod(0o755)
    assert outcome.code == 2
    assert "cannot be written to" in outcome.err


def test_a_folder_there_and_back(folder, call, listing):
    random = np.random.default_rng(1)
    source = folder / "source"
    (source / "vae").mkdir(parents=True)
    parts = {
        "vae/weights.safetensors": {"conv": random.normal(size=(40, 60)).astype(np.float32)},
        "unet.safetensors": {"conv": random.normal(size=(50, 60)).astype(np.float32), "n": np.arange(3)},
    }
    for name, tensors in parts.items():
        save_file(tensors, source / name, metadata={"file": name})
    (source / "config.json").write_text('{"hidden": 60}')
    (source / "vae" / "config.json").write_text("{}")

    assert call("compress", "source", "-o", "small", "--codec", "exact").code == 0
    assert {path.name for path in (folder / "small").iterdir()} == {"model.nwt", "config.json", "vae"}
    assert call("restore", "small", "-o", "back").code == 0
    expected = {"/".join(path.relative_to(source).parts) for path in source.rglob("*")}
    assert {"/".join(path.relative_to(folder / "back").parts) for path in (folder / "back").rglob("*")} == expected
    for path in source.rglob("*.*"):
        assert (folder / "back" / path.relative_to(source)).read_bytes() == path.read_bytes()


def test_shards_there_and_back(folder, call):
    source = folder / "source"
    source.mkdir()
    tensors = {f"layer{i}": np.random.default_rng(i).normal(size=(30, 40)).astype(np.float32) for i in range(4)}
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({k: tensors[k] for k in ("layer0", "layer1")}, source / files[0])
    save_file({k: tensors[k] for k in ("layer2", "layer3")}, source / files[1])
    weight_map = {"layer0": files[0], "layer1": files[0], "layer2": files[1], "layer3": files[1]}
    index = source / "model.safetensors.index.json"
    index.write_text(f'{{"weight_map": {weight_map!r}}}'.replace("'", '"'))

    assert call("compress", index, "-o", "model.nwt", "--codec", "exact").code == 0
    assert call("verify", "model.nwt", "--against", "source").code == 0
    assert call("restore", "model.nwt", "-o", "back/").code == 0
    for name in files:
        assert (folder / "back" / name).read_bytes() == (source / name).read_bytes()
    assert call("verify", "model.nwt", "--against", "back/model.safetensors.index.json").code == 0
    assert call("restore", "model.nwt", "-o", "one.safetensors").code == 0
    assert load_file(folder / "one.safetensors").keys() == tensors.keys()


def test_a_folder_that_fails_leaves_nothing(archive, call, listing):
    (archive.parent / "back").mkdir()
    (archive.parent / "back" / "model.safetensors").write_bytes(b"mine")
    before = listing()
    assert call("restore", archive, "-o", "back/").code == 2
    assert listing() == before
    assert (archive.parent / "back" / "model.safetensors").read_bytes() == b"mine"
    assert call("restore", archive, "-o", "back/", "--force").code == 0
    assert len(load_file(archive.parent / "back" / "model.safetensors")) == 7
