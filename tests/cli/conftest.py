"""Small networks, and two ways to run the command: in this process, and as a user does."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from netweight.cli import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def network(seed: int = 0, rows: int = 96) -> dict[str, np.ndarray]:
    """Weights of several kinds: dense, convolution, small vectors, integers, a scalar, nothing."""
    random = np.random.default_rng(seed)
    return {
        "dense.weight": random.normal(scale=0.05, size=(rows, 128)).astype(np.float32),
        "dense.bias": random.normal(scale=0.1, size=rows).astype(np.float32),
        "conv.weight": random.laplace(scale=0.1, size=(32, 16, 3, 3)).astype(np.float32),
        "half": random.normal(size=(64, 80)).astype(np.float16),
        "steps": np.arange(12, dtype=np.int64),
        "scale": np.array(1.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(folder):
    """`model.safetensors` with metadata."""
    path = folder / "model.safetensors"
    save_file(network(), path, metadata={"format": "pt", "who": "tests"})
    return path


@pytest.fixture(scope="session")
def compressed_bytes(tmp_path_factory):
    """The model at 4 bits/weight, made once."""
    folder = tmp_path_factory.mktemp("compressed")
    save_file(network(), folder / "model.safetensors", metadata={"format": "pt", "who": "tests"})
    words = ["compress", str(folder / "model.safetensors"), "-o", str(folder / "model.nwt"), "--bits", "4", "-q"]
    assert main(words) == 0
    return (folder / "model.nwt").read_bytes()


@pytest.fixture
def archive(model, compressed_bytes):
    """`model.nwt` beside `model.safetensors`."""
    path = model.with_suffix(".nwt")
    path.write_bytes(compressed_bytes)
    return path


@pytest.fixture
def call(capfd):
    """Run the command in this process."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def run(folder):
    """Run the command in a process of its own, in the folder, with pipes for streams."""

    def run(*words: object, **options: object) -> Outcome:
        command = [sys.executable, "-m", "netweight", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **options)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def names(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def listing(folder):
    """Names of everything in the folder now."""
    return lambda: names(folder)
