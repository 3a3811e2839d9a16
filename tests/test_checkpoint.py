"""A checkpoint as others use it: lookup, hash, another process, speed, and nothing of torch where it is not needed."""

import hashlib
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from netweight.checkpoint import TensorInfo, open_checkpoint, write_safetensors
from netweight.checkpoint.header import format_header
from netweight.errors import FormatError, UsageError

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float16)}
    save_file(tensors, path, {"format": "pt"})
    return path


def test_what_is_known_before_reading(model):
    with open_checkpoint(str(model)) as checkpoint:
        assert checkpoint.infos == {"w": TensorInfo("w", "F32", (2, 3)), "b": TensorInfo("b", "F16", (3,))}
        assert (checkpoint.infos["w"].size, checkpoint.infos["w"].nbytes, checkpoint.nbytes) == (6, 24, 30)
        assert checkpoint.metadata == {"format": "pt"}
        assert (checkpoint.path, checkpoint.root, checkpoint.files) == (model, model.parent, ())
        assert checkpoint.groups == {"model.safetensors": ("w", "b")}
        assert repr(checkpoint) == "Checkpoint('model.safetensors': 2 tensors, 30 bytes)"
        assert open_checkpoint(checkpoint) is checkpoint


def test_an_unknown_name_is_a_usage_error(model):
    with pytest.raises(UsageError) as caught:
        open_checkpoint(model).read("v")
    assert str(caught.value) == "model.safetensors has no tensor 'v'.\nIt has 2; see .names."


def test_nothing_can_be_read_after_closing(model):
    with open_checkpoint(model) as checkpoint:
        pass
    with pytest.raises(UsageError, match=r"The checkpoint model\.safetensors is closed\."):
        checkpoint.read("w")


def test_the_hash_is_of_names_types_shapes_and_bytes(tmp_path):
    def sha(**tensors):
        return open_checkpoint(tensors).sha256()

    weight = np.arange(6, dtype=np.float32)
    base = sha(w=weight)
    assert base == hashlib.sha256(b'["w", "F32", [6]]\n' + weight.tobytes()).hexdigest()
    assert base == sha(w=weight.copy())
    others = [
        sha(v=weight),
        sha(w=weight.view(np.int32)),
        sha(w=weight.reshape(2, 3)),
        sha(w=weight + 1),
        sha(w=weight, v=weight.copy()),
        sha(v=weight, w=weight.copy()),
        sha(w=weight, v=weight),  # tied
        sha(w=weight, empty=weight[:0]),
    ]
    assert len({base, *others}) == 1 + len(others)
    save_file({"w": weight}, tmp_path / "x.safetensors", {"who": "cares"})
    assert open_checkpoint(tmp_path / "x.safetensors").sha256() == base


def test_a_checkpoint_travels_as_its_path(tmp_path):
    save_file({"w": np.arange(250_000.0)}, tmp_path / "x.safetensors")
    with open_checkpoint(tmp_path / "x.safetensors") as checkpoint:
        letter, expected = pickle.dumps(checkpoint), checkpoint.sha256()
    assert len(letter) < 500
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).sha256())"
    done = subprocess.run([sys.executable, "-c", code], input=letter, capture_output=True, check=True, cwd="/")
    assert done.stdout.decode().strip() == expected


def test_a_worker_opens_a_checkpoint_once_for_all_its_tasks(model):
    letter = pickle.dumps(open_checkpoint(model))
    first = pickle.loads(letter)
    assert pickle.loads(letter) is first
    first.close()
    np.testing.assert_array_equal(pickle.loads(letter).read("w"), [[0, 1, 2], [3, 4, 5]])


def test_a_file_that_changed_on_the_way_is_noticed(model):
    letter = pickle.dumps(open_checkpoint(model))
    save_file({"w": np.zeros(7)}, model)
    with pytest.raises(FormatError, match="changed while it was in use"):
        pickle.loads(letter)


def test_a_relative_path_is_made_absolute(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert open_checkpoint("model.safetensors").path == model


def test_tensors_in_memory_are_not_sent_to_another_process():
    with pytest.raises(UsageError) as caught:
        pickle.dumps(open_checkpoint({"w": np.zeros(3)}))
    assert str(caught.value) == (
        "Tensors of the dictionary of tensors are in memory and are not sent to another process.\n"
        "Save them as safetensors and open that, or use threads."
    )


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("no.safetensors", "There is no file or folder {folder}/no.safetensors."),
        ("model.safetensors/x", "There is no file or folder {folder}/model.safetensors/x."),
        ("", "The path of the checkpoint is empty."),
        ("a\0b", "'{folder}/a\\x00b' cannot be a path."),
        ("/dev/null", "/dev/null is neither a file nor a folder."),
        ("x" * 300, "{folder}/" + "x" * 300 + " cannot be opened: File name too long."),
        (3, "A checkpoint cannot be opened from an object of type int."),
        (b"model.safetensors", "A checkpoint cannot be opened from an object of type bytes."),
        ([("w", np.zeros(3))], "A checkpoint cannot be opened from an object of type list."),
    ],
)
def test_what_cannot_be_opened_is_a_usage_error(model, monkeypatch, source, fact):
    monkeypatch.chdir(model.parent)
    with pytest.raises(UsageError) as caught:
        open_checkpoint(source)
    assert caught.value.fact == fact.replace("{folder}", str(model.parent))
    assert caught.value.remedy


def test_a_file_of_unknown_kind(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path / "x.onnx")
    assert str(caught.value) == (
        "x.onnx is no checkpoint: neither safetensors nor a file by torch.save.\n"
        "Known suffixes are .safetensors, .pt, .pth, .bin, .ckpt, .safetensors.index.json."
    )


def test_some_tensors_may_be_others(model):
    with open_checkpoint(model) as checkpoint:
        other = checkpoint.replaced({"b": np.ones(3, np.float16)})
        assert other.read("b").tolist() == [1.0, 1.0, 1.0]
        assert checkpoint.read("b").tolist() == [0.0, 0.0, 0.0]
        assert np.array_equal(other.read("w"), checkpoint.read("w"))
        assert (other.infos, other.groups) == (checkpoint.infos, checkpoint.groups)
        with pytest.raises(UsageError, match="not sent to another process"):
            pickle.dumps(other)
        for wrong in ({"b": np.ones(3, np.float32)}, {"w": np.ones(6, np.float32)}, {"c": np.ones(3, np.float16)}):
            with pytest.raises(UsageError, match="of that type and shape"):
                checkpoint.replaced(wrong)


def test_the_suffix_may_be_missing(model):
    model.rename(model.with_name("0123abcd"))
    assert open_checkpoint(model.with_name("0123abcd")).names == ("w", "b")


SCRIPT = """
import sys
from netweight.checkpoint import open_checkpoint, write_safetensors
source, target = sys.argv[1:]
with open_checkpoint(source) as checkpoint:
    checkpoint.sha256()
    entries = [(info, lambda name=name: checkpoint.read(name)) for name, info in checkpoint.infos.items()]
    write_safetensors(target, entries, checkpoint.metadata)
print("torch" in sys.modules)
"""


def imports_torch(source, target) -> str:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_safetensors_need_no_torch(model, tmp_path):
    bf16 = format_header([TensorInfo("w", "BF16", (2,))], {}) + b"\x80\x3f\xc0\x3f"
    (tmp_path / "bf16.safetensors").write_bytes(bf16)
    assert imports_torch(model, tmp_path / "out1") == "False"
    assert imports_torch(tmp_path / "bf16.safetensors", tmp_path / "out2") == "False"
    assert imports_torch(tmp_path, tmp_path / "out3") == "False"


def test_files_of_torch_do_need_it(tmp_path):
    """The test above could see it."""
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(3)}, tmp_path / "x.pt")
    assert imports_torch(tmp_path / "x.pt", tmp_path / "out") == "True"


def test_a_hundred_thousand_tensors_open_within_a_second(tmp_path):
    infos = [TensorInfo(f"model.layers.{number}.weight", "F32", (2, 1)) for number in range(100_000)]
    (tmp_path / "x.safetensors").write_bytes(format_header(infos, {}) + bytes(800_000))
    fastest_s = np.inf
    for _ in range(4):
        start_s = time.process_time()
        checkpoint = open_checkpoint(tmp_path / "x.safetensors")
        fastest_s = min(fastest_s, time.process_time() - start_s)
        assert len(checkpoint.infos) == 100_000
        if fastest_s < 1:
            return
    pytest.fail(f"opening took {fastest_s:.2f} s")


@pytest.mark.parametrize("file", ["cifar10/resnet20.safetensors", "mnist/lenet300.safetensors"])
def test_real_networks(tmp_path, file):
    path = DATA / file
    if not path.exists():
        pytest.skip(f"the real network {path} is not on this machine")
    expected = load_file(path)
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.names) == set(expected)
        for name, tensor in expected.items():
            np.testing.assert_array_equal(checkpoint.read(name), tensor)
        entries = [(info, lambda name=name: checkpoint.read(name)) for name, info in checkpoint.infos.items()]
        write_safetensors(tmp_path / "copy.safetensors", entries, checkpoint.metadata)
        assert open_checkpoint(tmp_path / "copy.safetensors").sha256() == checkpoint.sha256()
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()
