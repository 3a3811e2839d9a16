"""Folders and shards: which files are weights, how tensors are named, and what is wrong with a folder."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from netweight.checkpoint import open_checkpoint
from netweight.errors import FormatError, UsageError


def array(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def write(path, *names, metadata=None, value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: array(value + place) for place, name in enumerate(names)}, path, metadata)


def write_index(path, weight_map):
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def write_text(path, text="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def shards(tmp_path):
    """Three tensors in two shards with their index, and a configuration."""
    write(tmp_path / "model-00001-of-00002.safetensors", "a", "b", metadata={"format": "pt", "part": "1"}, value=1)
    write(tmp_path / "model-00002-of-00002.safetensors", "c", metadata={"format": "pt", "part": "2"}, value=3)
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write_index(tmp_path / "model.safetensors.index.json", {"a": first, "b": first, "c": second})
    write_text(tmp_path / "config.json", "{}")
    return tmp_path


def values(checkpoint):
    return {name: float(checkpoint.read(name)[0]) for name in checkpoint.names}


@pytest.mark.parametrize("through", ["folder", "index"])
def test_shards_are_one_checkpoint(shards, through):
    index = shards / "model.safetensors.index.json"
    checkpoint = open_checkpoint(shards if through == "folder" else index)
    assert values(checkpoint) == {"a": 1, "b": 2, "c": 3}
    assert checkpoint.groups == {
        "model-00001-of-00002.safetensors": ("a", "b"),
        "model-00002-of-00002.safetensors": ("c",),
    }
    assert checkpoint.root == shards
    assert set(checkpoint.prefixes.values()) == {""}
    assert checkpoint.metadata == {"format": "pt"}
    assert [metadata["part"] for metadata in checkpoint.group_metadata.values()] == ["1", "2"]
    assert checkpoint.files == ((shards / "config.json", index) if through == "folder" else (index,))
    assert checkpoint.nbytes == 36


def test_shards_without_an_index_keep_their_names(shards):
    (shards / "model.safetensors.index.json").unlink()
    assert values(open_checkpoint(shards)) == {"a": 1, "b": 2, "c": 3}
    (shards / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(FormatError, match=r"model\.safetensors has 1 of 2 shards\."):
        open_checkpoint(shards)


def test_one_file_in_a_folder_keeps_its_names(tmp_path):
    write(tmp_path / "sub" / "model.safetensors", "a", metadata={"format": "pt"})
    write_text(tmp_path / "readme.md")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.groups == {"sub/model.safetensors": ("a",)}
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.files == (tmp_path / "readme.md",)


def test_a_repository_of_components(tmp_path):
    """As diffusers lays it out: equal names in several components, one of them in shards."""
    write(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", "w", value=1)
    write(tmp_path / "text_encoder" / "model.safetensors", "w", "x", value=2)
    unet = tmp_path / "unet"
    shards = [f"diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    write(unet / shards[0], "w", value=4)
    write(unet / shards[1], "y", value=5)
    write_index(unet / "diffusion_pytorch_model.safetensors.index.json", {"w": shards[0], "y": shards[1]})
    for name in ("model_index.json", "scheduler/scheduler_config.json", ".gitattributes", ".git/config", ".cache/a/b"):
        write_text(tmp_path / name)
    checkpoint = open_checkpoint(tmp_path)
    index = "unet/diffusion_pytorch_model.safetensors.index.json:"
    assert values(checkpoint) == {
        "text_encoder/model.safetensors:w": 2,
        "text_encoder/model.safetensors:x": 3,
        f"{index}w": 4,
        f"{index}y": 5,
        "vae/diffusion_pytorch_model.safetensors:w": 1,
    }
    assert checkpoint.prefixes[f"unet/{shards[1]}"] == index
    assert [str(file.relative_to(tmp_path)) for file in checkpoint.files] == [
        ".gitattributes",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/diffusion_pytorch_model.safetensors.index.json",
    ]


def test_groups_are_enough_to_write_the_same_layout_again(tmp_path):
    """Every weight file from the plain data alone; the same bytes."""
    from netweight.checkpoint import TensorInfo, write_safetensors

    write(tmp_path / "in" / "a" / "model.safetensors", "w", "x", metadata={"format": "pt"})
    write(tmp_path / "in" / "b" / "model.safetensors", "w", value=7)
    checkpoint = open_checkpoint(tmp_path / "in")
    layout = json.loads(json.dumps([checkpoint.groups, checkpoint.prefixes, checkpoint.group_metadata]))
    for file, names in layout[0].items():
        entries = [
            (
                TensorInfo(
                    name.removeprefix(layout[1][file]), checkpoint.infos[name].dtype, checkpoint.infos[name].shape
                ),
                lambda name=name: checkpoint.read(name),
            )
            for name in names
        ]
        (tmp_path / "out" / file).parent.mkdir(parents=True)
        write_safetensors(tmp_path / "out" / file, entries, layout[2][file])
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "in" / file).read_bytes()


def test_names_are_those_of_all_groups_in_order(tmp_path):
    for folder in "ba":
        write(tmp_path / folder / "model.safetensors", "w", "x")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.names == tuple(name for names in checkpoint.groups.values() for name in names)
    assert list(checkpoint.groups) == ["a/model.safetensors", "b/model.safetensors"]


class TestTorch:
    torch = pytest.importorskip("torch")

    def save(self, path, **tensors):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.torch.save({name: self.torch.full((3,), float(value)) for name, value in tensors.items()}, path)

    def test_torch_files_count_where_there_are_no_safetensors(self, tmp_path):
        self.save(tmp_path / "pytorch_model.bin", a=1)
        self.save(tmp_path / "training_args.bin", b=2)
        self.save(tmp_path / "optimizer.pt", c=2)
        write_text(tmp_path / "tokenizer.bin", "no file of torch at all")
        checkpoint = open_checkpoint(tmp_path)
        assert values(checkpoint) == {"a": 1}
        assert [file.name for file in checkpoint.files] == ["optimizer.pt", "tokenizer.bin", "training_args.bin"]

    def test_beside_safetensors_they_are_copied(self, tmp_path):
        write(tmp_path / "model.safetensors", "a")
        self.save(tmp_path / "pytorch_model.bin", a=9)
        checkpoint = open_checkpoint(tmp_path)
        assert values(checkpoint) == {"a": 1}
        assert [file.name for file in checkpoint.files] == ["pytorch_model.bin"]

    def test_each_folder_decides_for_itself(self, tmp_path):
        write(tmp_path / "a" / "model.safetensors", "w")
        self.save(tmp_path / "b" / "model.bin", w=2)
        assert values(open_checkpoint(tmp_path)) == {"a/model.safetensors:w": 1, "b/model.bin:w": 2}

    def test_shards_of_torch(self, tmp_path):
        shared = self.torch.ones(3)
        self.torch.save({"a": shared, "b": shared}, tmp_path / "pytorch_model-00001-of-00002.bin")
        self.save(tmp_path / "pytorch_model-00002-of-00002.bin", c=3)
        names = {"a": 1, "b": 1, "c": 2}
        write_index(
            tmp_path / "pytorch_model.bin.index.json",
            {name: f"pytorch_model-0000{part}-of-00002.bin" for name, part in names.items()},
        )
        checkpoint = open_checkpoint(tmp_path)
        assert values(checkpoint) == {"a": 1, "b": 1, "c": 3}
        assert checkpoint.ties == {"b": "a"}
        assert checkpoint.groups["pytorch_model-00001-of-00002.bin"] == ("a", "b")

    def test_a_tie_in_one_shard_cannot_hide_a_tensor_of_another(self, tmp_path):
        shared = self.torch.ones(3)
        self.torch.save({"a": shared, "b": shared}, tmp_path / "model-00001-of-00002.bin")
        self.save(tmp_path / "model-00002-of-00002.bin", b=3)
        assert "hold a tensor 'b', the second is model-00002-of-00002.bin." in message(tmp_path)

    def test_ties_keep_their_component(self, tmp_path):
        shared = self.torch.ones(3)
        for folder in "ab":
            (tmp_path / folder).mkdir()
            self.torch.save({"x": shared, "y": shared}, tmp_path / folder / "model.bin")
        checkpoint = open_checkpoint(tmp_path)
        assert checkpoint.ties == {"a/model.bin:y": "a/model.bin:x", "b/model.bin:y": "b/model.bin:x"}


def message(path, kind=FormatError) -> str:
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


def test_a_folder_without_weights(tmp_path):
    assert message(tmp_path, UsageError).startswith(f"{tmp_path} has 0 files, but none with weights.")
    write_text(tmp_path / "a.txt")
    assert message(tmp_path, UsageError) == (
        f"{tmp_path} has 1 files, but none with weights.\n"
        "Weights are files named *.safetensors, *.pt, *.pth, *.bin, *.ckpt."
    )


def test_missing_shards_are_counted_and_named(shards):
    (shards / "model-00002-of-00002.safetensors").unlink()
    assert message(shards) == (
        f"1 of the 2 shards in {shards / 'model.safetensors.index.json'} are missing, such as "
        "model-00002-of-00002.safetensors.\nDownload them into the same folder."
    )


def test_an_index_that_promises_too_much(shards):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    write_index(shards / "model.safetensors.index.json", {"a": first, "b": first, "c": second, "d": second})
    assert message(shards).startswith(
        "The index model.safetensors.index.json expects tensor 'd' in model-00002-of-00002.safetensors, which lacks it."
    )


def test_a_name_in_two_shards(shards):
    write(shards / "model-00002-of-00002.safetensors", "a", "c")
    assert message(shards).startswith(
        f"Two files of {shards.name} hold a tensor 'a', the second is model-00002-of-00002.safetensors."
    )


@pytest.mark.parametrize(
    "file", ["../x.safetensors", "/etc/passwd", "a/../../x", "C:\\x", "a\\..\\x", "", ".", "./x", 3, None]
)
def test_an_index_cannot_lead_out_of_its_folder(tmp_path, file):
    write(tmp_path.parent / "x.safetensors", "a")
    write_index(tmp_path / "model.safetensors.index.json", {"a": file})
    assert "which is no file beside it." in message(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": "x", "a": "y"}}', "[" * 99999],
)
def test_a_damaged_index(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in message(tmp_path / "model.safetensors.index.json")


def test_damage_in_a_folder_names_the_file(tmp_path):
    write(tmp_path / "a" / "model.safetensors", "w")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.safetensors").write_bytes(b"123")
    assert message(tmp_path).startswith("b/model.safetensors has 3 bytes, too few")


def test_links_that_loop_or_lead_nowhere(tmp_path):
    write(tmp_path / "model.safetensors", "w")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert message(tmp_path) == (
        f"The folder {tmp_path / 'sub' / 'up'} is a link to a folder above it, a loop.\nRemove the link."
    )
    (tmp_path / "sub" / "up").unlink()
    (tmp_path / "sub" / "gone").symlink_to("nothing")
    assert message(tmp_path).startswith(f"{tmp_path / 'sub' / 'gone'} is a link that leads nowhere: No such file")
    (tmp_path / "sub" / "gone").unlink()
    (tmp_path / "sub" / "self").symlink_to("self")
    assert message(tmp_path).startswith(f"{tmp_path / 'sub' / 'self'} is a link that leads nowhere: Too many levels")
    assert message(tmp_path / "sub" / "self", UsageError).startswith(f"{tmp_path / 'sub' / 'self'} cannot be opened")


def test_links_that_lead_somewhere_are_followed(tmp_path):
    """As in the cache of a hub: names in one folder, content in another."""
    write(tmp_path / "blobs" / "0123abcd", "w")
    write_text(tmp_path / "blobs" / "4567", "{}")
    view = tmp_path / "snapshot"
    view.mkdir()
    (view / "model.safetensors").symlink_to("../blobs/0123abcd")
    (view / "config.json").symlink_to("../blobs/4567")
    checkpoint = open_checkpoint(view)
    assert values(checkpoint) == {"w": 1}
    assert checkpoint.files == (view / "config.json",)
    assert values(open_checkpoint(tmp_path / "blobs" / "0123abcd")) == {"w": 1}


def test_odd_files_are_left_alone(tmp_path):
    write(tmp_path / "model.safetensors", "w")
    os.mkfifo(tmp_path / "pipe")
    assert open_checkpoint(tmp_path).files == ()


def test_a_file_name_that_is_no_text(tmp_path):
    write(tmp_path / "model.safetensors", "w")
    os.rename(tmp_path / "model.safetensors", os.fsencode(tmp_path) + b"/\xff.safetensors")
    assert "has weights in a file named '\\udcff.safetensors'." in message(tmp_path)


def test_an_index_whose_shards_are_below_it(tmp_path):
    write(tmp_path / "parts" / "one.safetensors", "a")
    write_index(tmp_path / "model.safetensors.index.json", {"a": "parts/one.safetensors"})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.groups == {"parts/one.safetensors": ("a",)}
    assert values(checkpoint) == {"a": 1}
