"""Files by torch.save: only the weights-only loader, and a way out for what it refuses."""

import argparse
import logging
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from netweight.checkpoint import open_checkpoint
from netweight.errors import FormatError

torch = pytest.importorskip("torch")

WEIGHT = torch.arange(12.0).reshape(3, 4)
STATE = {
    "weight": WEIGHT,
    "tied": WEIGHT,
    "part": WEIGHT[1:],
    "turned": WEIGHT.t(),
    "bf16": WEIGHT.bfloat16(),
    "fp8": WEIGHT.to(torch.float8_e5m2),
    "steps": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
    "wide": torch.ones(1).expand(5),
}


def save(path, thing, **options):
    torch.save(thing, path, **options)
    return path


def refusal(path) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".model"])
def test_a_state_dict_comes_back(tmp_path, suffix):
    checkpoint = open_checkpoint(save(tmp_path / f"x{suffix}", STATE))
    assert checkpoint.names == tuple(STATE)
    assert checkpoint.ties == {"tied": "weight"}
    assert checkpoint.infos["bf16"].dtype == "BF16"
    assert checkpoint.infos["fp8"].dtype == "F8_E5M2"
    for name, tensor in STATE.items():
        stored = checkpoint.read(name)
        assert stored.flags.c_contiguous
        assert not stored.flags.writeable
        assert stored.tobytes() == tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        assert stored.shape == tuple(tensor.shape)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module"])
def test_the_usual_nests_are_opened_and_named(tmp_path, key, caplog):
    path = save(tmp_path / "x.ckpt", {"epoch": 3, key: STATE, "optimizer": {"lr": 0.1}})
    with caplog.at_level(logging.INFO, logger="netweight"):
        checkpoint = open_checkpoint(path)
    assert checkpoint.names == tuple(STATE)
    assert checkpoint.source == f"x.ckpt[{key}]"
    assert f"taking the tensors under '{key}'; beside it: 'epoch', 'optimizer'" in caplog.text


def test_a_dictionary_of_tensors_is_not_searched_for_nests(tmp_path):
    assert open_checkpoint(save(tmp_path / "x.pt", {"model": WEIGHT})).names == ("model",)
    assert open_checkpoint(save(tmp_path / "x.pt", {})).names == ()


@pytest.mark.parametrize(
    ("thing", "fact"),
    [
        (WEIGHT, "x.pt holds one Tensor, not a dictionary of tensors."),
        ([WEIGHT], "x.pt holds one list, not a dictionary of tensors."),
        ({"w": WEIGHT, "epoch": 3}, "x.pt holds other things than tensors, such as 'epoch' of type int."),
        (
            {"epoch": 3, "state_dict": {"w": WEIGHT, "extra": None}},
            "x.pt holds other things than tensors under 'state_dict', such as 'extra' of type NoneType.",
        ),
        ({3: WEIGHT}, None),
        ({"w": WEIGHT.to_sparse()}, "Tensor 'w' of x.pt is of layout torch.sparse_coo and has no plain data to store."),
        (
            {"w": WEIGHT.to(torch.complex128)},
            "Tensor 'w' of x.pt has the dtype torch.complex128, which safetensors cannot hold.",
        ),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, thing, fact):
    path = save(tmp_path / "x.pt", thing)
    with pytest.raises(Exception, match=r"x\.pt") as caught:
        open_checkpoint(path)
    assert caught.value.exit_code == (3 if fact else 2)
    assert fact is None or caught.value.fact == fact


class Trap:
    """Runs a command when unpickled carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("force", [None, "1"])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, force):
    if force:  # a variable by which torch's default gives in; ours does not ask the default
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    path = save(tmp_path / "x.pt", {"w": Trap(tmp_path / "trap")})
    assert refusal(path) == (
        "x.pt holds posix.mkdir, which could run code when loaded.\n"
        "Convert it to safetensors, or load it yourself and pass the dictionary of tensors."
    )
    assert not (tmp_path / "trap").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "trap").exists(), "the trap does not work, so that this test shows nothing"


def test_other_objects_are_named(tmp_path):
    path = save(tmp_path / "x.ckpt", {"state_dict": STATE, "args": argparse.Namespace(lr=0.1)})
    assert refusal(path).startswith("x.ckpt holds argparse.Namespace, which could run code when loaded.")
    path = save(tmp_path / "x.pt", torch.nn.Linear(2, 2))
    assert refusal(path).startswith("x.pt holds torch.nn.modules.linear.Linear, which could run code")


def test_torchscript_is_no_checkpoint(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    assert refusal(tmp_path / "x.pt").startswith("x.pt is a TorchScript program, not a dictionary of tensors.")


def test_the_old_format_cannot_be_mapped(tmp_path):
    path = save(tmp_path / "x.pt", STATE, _use_new_zipfile_serialization=False)
    assert refusal(path) == (
        "x.pt is in the format of torch before 1.6, which cannot be memory-mapped.\n"
        "Load it yourself and save it again, as safetensors or by torch.save, or pass the dictionary of tensors."
    )


def test_a_plain_pickle_is_refused_before_torch_sees_it(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"w": Trap(tmp_path / "trap")}))
    assert refusal(tmp_path / "x.pt").startswith("x.pt begins with b'\\x80\\x04")
    assert not (tmp_path / "trap").exists()


def test_packed_archives_are_refused_before_they_unpack(tmp_path):
    """One million zero bytes in a thousand; with more nines it could be terabytes."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1_000_000))
    assert refusal(tmp_path / "x.pt") == (
        "x.pt holds a packed part of 1,000,000 bytes, which cannot be memory-mapped.\n"
        "Save it again by torch.save, or convert it to safetensors."
    )


def test_a_stride_of_zero_cannot_claim_terabytes(tmp_path):
    path = save(tmp_path / "x.pt", {"w": torch.ones(1).expand(10**6, 10**6)})
    assert refusal(path).startswith("Tensor 'w' of x.pt claims 4,000,000,000,000 bytes, more than the file could hold.")


def test_damage_is_a_format_error(tmp_path):
    """Truncations, and bytes changed at random places: our error or tensors, nothing else."""
    sound = save(tmp_path / "x.pt", {"a": WEIGHT, "b": WEIGHT.bfloat16()}).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        raw = bytearray(sound)
        if trial < 100:
            del raw[random.integers(len(raw)) :]
        else:
            raw[random.integers(len(raw))] = random.choice([0, 255, random.integers(256)])
        (tmp_path / "x.pt").write_bytes(raw)
        try:
            checkpoint = open_checkpoint(tmp_path / "x.pt")
        except FormatError as error:
            refused += 1
            lines = str(error).splitlines()
        else:
            lines = [checkpoint.read(name).shape for name in checkpoint.names]
        assert len(lines) == 2
        assert trial >= 100 or refused == trial + 1, "a truncated file was opened"
    assert refused > 150


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists its memory maps")
def test_tensors_stay_on_disk_until_they_are_read(tmp_path):
    """The memory of a tensor is the file itself."""
    checkpoint = open_checkpoint(save(tmp_path / "x.pt", {"w": torch.zeros(1_000_000)}))
    address = checkpoint.read("w").ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= address < last:
            assert line.endswith(str(tmp_path / "x.pt"))
            return
    pytest.fail("the tensor is in no map")


def test_without_torch_the_message_says_what_to_install(tmp_path):
    import subprocess
    import sys

    path = save(tmp_path / "x.pt", STATE)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from netweight.checkpoint import open_checkpoint\n"
        f"try: open_checkpoint({str(path)!r})\n"
        "except Exception as error: print(error.exit_code, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "2 x.pt is a file of torch, which is not installed.",
        'Install it ("netweight[torch]"), or convert the file to safetensors.',
    ]
