"""Networks made on the spot, real ones where they are, and how property tests run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

# The NumPy path takes seconds where C takes milliseconds, and other processes may be busy on the machine.
settings.register_profile("netweight", deadline=None, print_blob=True)
settings.load_profile("netweight")

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """Path of a real network, such as "cifar10/resnet20.safetensors"; the test is skipped where it is missing."""

    def real(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"the real network {name} is not in {DATA}")
        return path

    return real


def dense(seed: int = 0) -> Arrays:
    """A perceptron: Gaussian matrices of rows of several scales, biases."""
    random = np.random.default_rng(seed)
    out: Arrays = {}
    for j, (rows, columns) in enumerate([(300, 200), (100, 300), (10, 100)]):
        scale = 2.0 ** random.normal(0, 1, (rows, 1)) / np.sqrt(columns)
        out[f"layer{j}.weight"] = (random.normal(size=(rows, columns)) * scale).astype(np.float32)
        out[f"layer{j}.bias"] = random.normal(0, 0.1, rows).astype(np.float32)
    return out


def convolutional(seed: int = 0) -> Arrays:
    """Convolutions of all kinds, smooth in their kernels, and batch norms with variances over many octaves."""
    random = np.random.default_rng(seed)
    out: Arrays = {}
    for j, shape in enumerate([(32, 3, 7, 7), (64, 32, 3, 3), (64, 1, 3, 3), (96, 64, 1, 1), (48, 96, 3)]):
        kernel = random.laplace(0, 0.05, shape)
        if len(shape) == 4 and shape[-1] > 1:
            kernel += random.laplace(0, 0.1, (*shape[:2], 1, 1))
        out[f"conv{j}.weight"] = kernel.astype(np.float32)
        out[f"norm{j}.weight"] = random.uniform(0.5, 1.5, shape[0]).astype(np.float32)
        out[f"norm{j}.running_var"] = np.exp(random.normal(0, 2, shape[0])).astype(np.float32)
        out[f"norm{j}.num_batches_tracked"] = np.array(1000 + j, np.int64)
    return out


def mixed(seed: int = 0) -> Arrays:
    """Every awkward thing: half floats, doubles, integers, bool, complex, NaN and infinity, scalars, nothing."""
    random = np.random.default_rng(seed)
    broken = random.normal(size=(40, 30)).astype(np.float32)
    broken[3, 4], broken[5, 6] = np.nan, -np.inf
    return {
        "half": random.normal(size=(128, 96)).astype(np.float16),
        "double": random.normal(size=(64, 64)),
        "complex": (random.normal(size=(8, 8)) + 1j * random.normal(size=(8, 8))).astype(np.complex64),
        "indices": random.integers(0, 50_000, (64, 16)),
        "bytes": random.integers(0, 256, 300).astype(np.uint8),
        "mask": random.random((16, 16)) < 0.5,
        "broken": broken,
        "scalar": np.array(0.07, np.float32),
        "empty": np.zeros((0, 7), np.float32),
        "zeros": np.zeros((64, 64), np.float32),
        "ones": np.ones(256, np.float32),
        "weight": random.standard_t(4, (160, 120)).astype(np.float32),
    }


def alone(seed: int = 0) -> Arrays:
    """A network of one matrix."""
    return {"w": np.random.default_rng(seed).normal(size=(256, 384)).astype(np.float32)}


@pytest.fixture(scope="session")
def every_law() -> Arrays:
    """Tensors for which a law is assumed, of every kind, and of every kind for which there is none."""
    random = np.random.default_rng(0)
    return {
        "dense.weight": (random.normal(size=(200, 300)) * 0.05).astype(np.float32),
        "dense.bias": random.normal(0, 0.1, 200).astype(np.float32),
        "conv.weight": random.laplace(0, 0.1, (32, 64, 3, 3)).astype(np.float32),
        "norm.running_var": np.exp(random.normal(0, 2, 64)).astype(np.float32),
        "half": random.normal(size=(128, 100)).astype(np.float16),
        "steps": np.arange(40),
        "mask": np.zeros((50, 50), np.float32),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }


NETWORKS: dict[str, Callable[[], Arrays]] = {
    "dense": dense,
    "convolutional": convolutional,
    "mixed": mixed,
    "alone": alone,
}


@pytest.fixture(scope="session", params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> Arrays:
    """Each of the small networks in turn."""
    return NETWORKS[request.param]()


@pytest.fixture(scope="session")
def make_network() -> Callable[[str], Arrays]:
    """A small network by its name."""
    return lambda name: NETWORKS[name]()
