"""Awkward tensors, and a codec's whole way there and back."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from netweight import kernels
from netweight.codecs.base import Codec, Parts, Point
from netweight.codecs.registry import codecs
from netweight.entropy.decode import Head, decode_chunk, decode_head
from netweight.entropy.layout import Layout, segment
from netweight.entropy.small import varint
from netweight.entropy.stream import IntStream, encode_section
from netweight.importance.stat import Stat

Weights = NDArray[np.float32]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def outlier(seed: int = 0) -> NDArray[np.float64]:
    w = rng(seed).normal(size=(96, 80))
    w[40, 40] = 1e4
    return w


def smooth(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Kernels whose positions resemble each other."""
    return rng().laplace(size=shape) * 0.3 + rng(1).laplace(size=(*shape[:2], *(1 for _ in shape[2:])))


def scaled_rows(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    random = rng(seed)
    rows, columns = 2.0 ** random.normal(0, 1, (shape[0], 1)), 2.0 ** random.normal(0, 0.4, shape[1])
    return random.normal(size=shape) * rows * columns


# name: how to make it, in float64; `weights` rounds to the dtype that it came in and then to float32
TENSORS: dict[str, tuple[Callable[[], NDArray[np.floating]], str]] = {
    "scalar": (lambda: np.array(0.3), "f4"),
    "1x1": (lambda: np.array([[-2.5]]), "f4"),
    "1xN": (lambda: rng().normal(size=(1, 5000)), "f4"),
    "Nx1": (lambda: rng().normal(size=(5000, 1)), "f4"),
    "two weights": (lambda: np.array([3.0, -1.0]), "f4"),
    "vector": (lambda: rng().uniform(0.5, 1.5, 700), "f4"),
    "matrix": (lambda: rng().normal(size=(120, 96)), "f4"),
    "rows of many scales": (lambda: scaled_rows((200, 160)), "f4"),
    "conv 3x3": (lambda: smooth((48, 40, 3, 3)), "f4"),
    "conv 1x1": (lambda: rng().laplace(size=(96, 64, 1, 1)), "f4"),
    "depthwise": (lambda: smooth((160, 1, 3, 3)), "f4"),
    "conv 7x7": (lambda: smooth((32, 3, 7, 7)), "f4"),
    "conv 11x11": (lambda: smooth((16, 3, 11, 11)), "f4"),
    "conv 1-D": (lambda: smooth((64, 48, 5)), "f4"),
    "conv 3-D": (lambda: smooth((24, 16, 3, 3, 3)), "f4"),
    "5-D, long": (lambda: rng().normal(size=(3, 4, 5, 6, 7)), "f4"),
    "all equal": (lambda: np.full((64, 64), 0.125), "f4"),
    "all equal, negative": (lambda: np.full(1500, -1e-3), "f4"),
    "two values": (lambda: np.where(rng().random((64, 64)) < 0.1, 1.0, -1.0), "f4"),
    "sparse": (lambda: rng().normal(size=(128, 128)) * (rng(1).random((128, 128)) < 0.05), "f4"),
    "one that is not zero": (lambda: np.eye(1, 4096, 77).reshape(64, 64), "f4"),
    "pruned rows": (lambda: rng().normal(size=(128, 96)) * (rng(1).random((128, 1)) < 0.4), "f4"),
    "dead filters": (lambda: smooth((64, 32, 3, 3)) * np.where(rng(1).random((64, 1, 1, 1)) < 0.3, 1e-12, 1), "f4"),
    "outlier": (outlier, "f4"),
    "tiny": (lambda: rng().normal(size=(64, 64)) * 1e-20, "f4"),
    "huge": (lambda: rng().normal(size=(64, 64)) * 1e15, "f4"),
    "among subnormals": (lambda: rng().normal(size=(64, 64)) * 10.0 ** rng(1).uniform(-44, -28, (64, 64)), "f4"),
    "heavy tails": (lambda: rng().standard_cauchy((100, 90)), "f4"),
    "octaves": (lambda: np.exp(rng().normal(0, 4, 512)), "f4"),
    "half": (lambda: rng().normal(size=(96, 64)), "f2"),
    "brain": (lambda: rng().normal(size=(96, 64)), "bf16"),
    "double": (lambda: rng().normal(size=(96, 64)), "f8"),
    "large": (lambda: scaled_rows((512, 384), 3), "f4"),
    "large conv": (lambda: smooth((128, 96, 3, 3)), "f4"),
}


def weights(name: str) -> Weights:
    """An awkward tensor as a codec gets it."""
    make, dtype = TENSORS[name]
    w = np.asarray(make())
    if dtype == "bf16":
        return (w.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    return w.astype(dtype).astype(np.float32)


@dataclass(frozen=True)
class Coded:
    """A tensor at a knob.

    Attributes:
        parts: what the codec gave.
        back: what came back from bytes.
        nbytes: all of them, but for the 14 bytes or so of name and shape in the header.
        row_bits: of the integers, by row of the layout, by the tables' frequencies.
    """

    parts: Parts
    back: Weights
    nbytes: int
    row_bits: NDArray[np.float64]


def coded(codec: Codec, w: Weights, stat: Stat, knob: int) -> Coded:
    """There and back through bytes, as the archive does it."""
    parts = codec.encode(w, stat, knob)
    reals = {name: np.frombuffer(parts.reals[name].astype("<f4").tobytes(), "<f4") for name in codec.reals}
    params = json.loads(json.dumps(dict(parts.params)))
    assert params == dict(parts.params)
    assert set(params) == set(codec.params)
    assert all(type(value) is int for value in params.values())
    nbytes = real_bytes(parts)
    fine: dict[str, NDArray[np.signedinteger]] = {}
    layout = Layout.of(w.shape)
    row_bits = np.zeros(layout.rows)
    for name, stream in parts.streams.items():
        head, chunks = encode_section([stream], parts.bits)
        read = decode_head(head, [layout])
        found = [decode_chunk(read, p, c)[0].full() for p, c in zip(read.chunks(), chunks, strict=True)]
        fine[name] = np.concatenate(found)
        nbytes += section_bytes(head, chunks)
        row_bits += layout.unscan(symbol_bits(stream, read), w.shape).reshape(layout.rows, -1).sum(axis=1)
    back = codec.decode(replace(parts, streams={}, reals=reals, params=params), fine, w.shape)
    return Coded(parts, back, nbytes, row_bits)


def section_bytes(head: bytes, chunks: Sequence[bytes]) -> int:
    """Head, chunks, and their entries in the table of chunks."""
    return len(head) + sum(len(chunk) + len(varint(len(chunk))) + 4 for chunk in chunks)


def real_bytes(parts: Parts) -> int:
    """Bytes of the real arrays of a tensor: lengths and numbers."""
    return sum(len(varint(values.size)) + 4 * values.size for values in parts.reals.values())


def symbol_bits(stream: IntStream, head: Head) -> NDArray[np.float64]:
    """What each integer costs by the tables, in scan order; an escape is taken for 28 bits."""
    out = np.zeros(stream.k.size)
    for (p,) in head.chunks():
        k = stream.k[p.start : p.start + p.size] >> stream.shift
        near = np.where(np.abs(k) > 1000, 1000, k).astype(np.int16)
        symbol, index, _ = kernels.contexts(near, head.model, segment(head.layouts[0], head.levels[0], p.start, p.size))
        freq = head.tables.freq[index, symbol].astype(float)
        cost = np.where(freq > 0, 12 - np.log2(np.maximum(freq, 1)), 28.0)
        out[p.start : p.start + p.size] = cost + stream.shift
    return out


def share_in_a_pool(codec: Codec, w: Weights, stat: Stat, knob: int) -> float:
    """Bytes of a tensor that shares its section with others like it: rows in another order, half of them negated."""
    parts = []
    copies = 8 if w.size < 1 << 15 else 3
    for j in range(copies):
        v = w if w.ndim == 0 else w[rng(j).permutation(w.shape[0])]
        parts.append(codec.encode(np.ascontiguousarray(-v if j % 2 and (w < 0).any() else v), stat, knob))
    total = sum(
        section_bytes(*encode_section([p.streams[name] for p in parts], parts[0].bits)) for name in parts[0].streams
    )
    return total / copies + sum(map(real_bytes, parts)) / copies


def spread(points: Sequence[Point], count: int) -> list[Point]:
    """A few points of many, first and last among them."""
    items = sorted(points, key=lambda p: p.bits)
    if len(items) <= count:
        return items
    return [items[j] for j in np.linspace(0, len(items) - 1, count).astype(int)]


STATS = {"relative": Stat(2.0, relative=True)}


@dataclass(frozen=True)
class Case:
    """An awkward tensor under a codec: what is predicted, and what came of it at some knobs."""

    codec: Codec
    w: Weights
    stat: Stat
    points: Sequence[Point]
    found: Mapping[int, Coded]

    @property
    def chosen(self) -> list[Point]:
        """The points that were tried."""
        return [p for p in self.points if p.knob in self.found]


@cache
def case(codec_id: str, tensor_name: str) -> Case:
    """Sweep, and code at up to five of the knobs."""
    codec, w = codecs()[codec_id], weights(tensor_name)
    stat = STATS.get(codec_id, Stat())
    points = codec.sweep(w, stat)
    return Case(codec, w, stat, points, {p.knob: coded(codec, w, stat, p.knob) for p in spread(points, 5)})


def offers(codec_id: str, tensor_name: str) -> bool:
    """Whether a codec of this package is meant for a tensor; of a codec that is not ours nothing is known."""
    w = weights(tensor_name)
    if codec_id == "trellis":
        return w.size >= 1024
    if codec_id.startswith("feedback"):
        return False  # nothing is known of the inputs: test_feedback.py
    if codec_id == "surp":
        return w.ndim > 1
    return codec_id != "relative" or bool((w >= 0).all() and (w >= np.finfo(np.float32).tiny).any())


# Codecs that are slow and not tried by default meet a choice of tensors: of each kind of shape and of trouble, one.
CHOICE = {
    "scalar", "1xN", "vector", "rows of many scales", "conv 3x3", "depthwise", "conv 1-D", "all equal", "two values",
    "sparse", "outlier", "tiny", "huge", "heavy tails", "half", "large",
}  # fmt: skip


def meets(codec_id: str, tensor_name: str) -> bool:
    """Whether a codec is tried on a tensor at all."""
    return codecs()[codec_id].default or tensor_name in CHOICE


PAIRS = [
    pytest.param((c, name), marks=[pytest.mark.slow] if name.startswith("large") else [])
    for c in sorted(codecs())
    for name in TENSORS
    if meets(c, name) and offers(c, name)
]


@pytest.fixture(scope="session", params=PAIRS, ids=lambda pair: f"{pair[0]}, {pair[1]}")
def tried(request: pytest.FixtureRequest) -> Case:
    """Each awkward tensor under each codec that is meant for it."""
    found = case(*request.param)
    assert found.points, "a codec offers something for every tensor that it is meant for"
    return found


@pytest.fixture(
    scope="session", params=[(c, name) for c in sorted(codecs()) for name in TENSORS if not offers(c, name)]
)
def refused(request: pytest.FixtureRequest) -> Case:
    """Each awkward tensor under each codec that is not meant for it."""
    return case(*request.param)


@pytest.fixture(scope="session")
def pool_bytes() -> Callable[..., float]:
    """Bytes of a tensor in a pool of its like."""
    return share_in_a_pool


@pytest.fixture(scope="session")
def awkward() -> Callable[[str], Weights]:
    """An awkward tensor by name."""
    return weights


@pytest.fixture(scope="session")
def there_and_back() -> Callable[..., Coded]:
    """Code a tensor at a knob, and decode it."""
    return coded
