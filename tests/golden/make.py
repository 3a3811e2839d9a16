"""Writes the golden files of the format's version, each once.

    python tests/golden/make.py

A golden file is decoded by every later release. So a file that exists is never written again: a release that cannot
read it is wrong, and a format that differs has another version. A new codec has a new file, made by a new function at
the end of MAKERS.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import netweight as nw
from netweight.archive import Archive
from netweight.archive.header import MAJOR
from netweight.checkpoint import TensorInfo, write_safetensors
from netweight.codecs.base import Point, index_of
from netweight.codecs.codebook import FREE
from netweight.codecs.sparse import knob_of
from netweight.dtypes import ALIGNMENT_ORDER, bits_per_element, from_float32, storage_dtype
from netweight.importance.stat import Stat

HERE = Path(__file__).resolve().parent
FOLDER = HERE / f"v{MAJOR}"

STEPPED = ("trellis", "uniform", "surp", "feedback", "feedback-scalar")

Array = np.ndarray[Any, np.dtype[Any]]
Entry = tuple[str, str, tuple[int, ...], Array, str, int]  # name, dtype, shape, storage, codec, knob


def entry(name: str, array: Array, codec: str = "exact", knob: float = 0, dtype: str = "") -> Entry:
    """A tensor and how it is coded: by a step where the codec has one."""
    if not dtype:
        plain = [code for code in ALIGNMENT_ORDER if not code.startswith(("F4", "F6_", "F8_", "BF"))]
        dtype = next(code for code in plain if storage_dtype(code) == array.dtype)
    number = index_of(knob) if codec in STEPPED else int(knob)
    return name, dtype, array.shape, array, codec, number


def trellis(random: np.random.Generator) -> Iterable[Entry]:
    """Matrices with levels of rows and columns, convolutions of both scans, half and double precision, escapes."""
    wide = random.standard_normal((48, 40)) * np.exp(random.normal(0, 1.5, (48, 1)))
    smooth = random.laplace(0, 1, (8, 6, 1, 1)) + random.laplace(0, 0.3, (8, 6, 3, 3))
    deep = random.laplace(0, 1, (3, 33, 1)) + random.laplace(0, 0.3, (3, 33, 5))
    heavy = random.standard_t(1.2, (40, 30))
    yield entry("levels", wide.astype(np.float32), "trellis", 0.7)
    yield entry("position first", smooth.astype(np.float32), "trellis", 0.3)
    yield entry("row first", deep.astype(np.float32), "trellis", 0.3)
    yield entry("escapes", heavy.astype(np.float32), "trellis", 0.2)
    yield entry("half", random.standard_normal((20, 20)).astype(np.float16), "trellis", 0.4)
    yield entry("brain", from_float32(wide[:20].astype(np.float32), "BF16"), "trellis", 0.7, "BF16")
    yield entry("double", random.standard_normal((20, 20)), "trellis", 0.4)


def uniform(random: np.random.Generator) -> Iterable[Entry]:
    """Low bits, escapes, zeros, all shapes of small tensors, a pruned matrix, half and double precision."""
    smooth = random.laplace(0, 1, (8, 6, 1, 1)) + random.laplace(0, 0.3, (8, 6, 3, 3))
    pruned = random.standard_normal((50, 40)) * (random.random((50, 40)) < 0.1)
    columns = random.standard_normal((40, 32)) * np.exp(random.normal(0, 1.5, 32))
    yield entry("low bits", random.standard_normal((9, 20)).astype(np.float32), "uniform", 1e-4)
    yield entry("escapes", random.standard_t(1.2, 400).astype(np.float32), "uniform", 0.1)
    yield entry("smooth", smooth.astype(np.float32), "uniform", 0.5)
    yield entry("pruned", pruned.astype(np.float32), "uniform", 0.5)
    yield entry("columns", columns.astype(np.float32), "uniform", 0.5)
    yield entry("zeros", np.zeros((6, 7), np.float32), "uniform", 1.0)
    yield entry("scalar", np.array(0.3, np.float32), "uniform", 0.01)
    yield entry("empty", np.zeros((0, 7), np.float32))
    yield entry("half", random.standard_normal(50).astype(np.float16), "uniform", 0.2)
    yield entry("brain", from_float32(random.standard_normal(50).astype(np.float32), "BF16"), "uniform", 0.2, "BF16")
    yield entry("double", random.standard_normal(50), "uniform", 0.2)


def relative(random: np.random.Generator) -> Iterable[Entry]:
    """Variances over many octaves, from one bit of mantissa to twenty-two."""
    for bits in (1, 4, 9, 22):
        yield entry(f"{bits} bits", np.exp(random.normal(0, 3, 60)).astype(np.float32), "relative", bits)
    yield entry("half", np.exp(random.normal(0, 1, 60)).astype(np.float16), "relative", 5)
    yield entry("conv", np.exp(random.normal(0, 1, (2, 32, 3))).astype(np.float32), "relative", 3)


def integers(random: np.random.Generator) -> Iterable[Entry]:
    """Every type that is no float of 16 bits or more; counting, few values, small numbers, noise."""
    for code in ALIGNMENT_ORDER:
        kind, bits = storage_dtype(code), bits_per_element(code)
        if kind.kind in "fc":
            continue
        storage = random.integers(0, 2 if code == "BOOL" else 256, 24 * kind.itemsize).astype(np.uint8)
        shape = (storage.size * 8 // bits,) if bits < 8 else (4, 6)
        yield code, code, shape, storage.view(kind).reshape(-1 if bits < 8 else shape), "exact", 0
    yield entry("counting", np.arange(10_000, 12_000))
    yield entry("causal", np.tril(np.ones((64, 64), np.bool_)))
    yield entry("few", np.array([-(2**60), 3, 17, 2**50])[random.integers(0, 4, 3000)])
    yield entry("falling", np.repeat(np.array([5, 3, 9], np.int16), 700))
    yield entry("small", np.rint(random.laplace(0, 3, 5000)).astype(np.int32))
    yield entry("signed", np.rint(random.laplace(0, 400, 2000)).astype(np.int32))
    walk = np.cumsum(random.integers(-1, 2, 3000)) % 50
    yield entry("walk", np.sort(random.integers(0, 2**60, 50))[walk].astype(np.uint64))
    yield entry("tokens", (random.pareto(1.0, 4500) * 10).astype(np.int64))
    yield entry("skewed", random.binomial(255, 0.02, 4500).astype(np.uint8))


def floats(random: np.random.Generator) -> Iterable[Entry]:
    """Every float, by symbol and rest: levels, special words, trailing zeros, NaN and infinity."""
    rows, columns = np.exp(random.normal(0, 1.5, (24, 1))), np.exp(random.normal(0, 1.5, 40))

    def normal() -> Array:
        return (random.standard_normal((24, 40)) * rows).astype(np.float32)

    broken, cut = normal(), normal()
    broken.view(np.uint32)[:, :3] = [0x7FC12345, 0xFF800000, 0x80000000]
    cut[:12] = cut[:12].astype(np.float16)
    yield entry("single", normal())
    yield entry("broken", broken)
    yield entry("zeros", np.where(random.random((24, 40)) < 0.5, normal(), np.float32(0)))
    yield entry("cut", cut)
    yield entry("half", normal().astype(np.float16))
    yield entry("brain", from_float32((normal() * columns).astype(np.float32), "BF16"), dtype="BF16")
    yield entry("double", random.standard_normal((24, 40)))
    yield entry("complex", (normal() + 1j * normal()).astype(np.complex64))
    for code, bits in (("F8_E4M3", 3), ("F8_E5M2", 2)):
        exponents = np.clip(random.normal(np.linspace(2, 12, 40)[:, None], 0.8, (40, 60)), 0, 14).astype(np.uint8)
        others = random.integers(0, 256, (40, 60)).astype(np.uint8) & (127 + (1 << bits))
        yield entry(code, exponents << bits | others, dtype=code)


def chunks(random: np.random.Generator) -> Iterable[Entry]:
    """Tensors of several chunks, which hardly hold anything."""
    kernel = np.zeros((370, 330, 3, 3), np.float32)
    kernel[7, 5], kernel[300, 200] = random.standard_normal((2, 3, 3))
    matrix = np.zeros((1050, 1000), np.float32)
    matrix[random.integers(0, 1050, 30), random.integers(0, 1000, 30)] = random.standard_normal(30)
    variance = np.ones(140_000, np.float32)
    variance[::10_000] = 2.5
    yield entry("kernel", kernel, "trellis", 0.5)
    yield entry("matrix", matrix, "uniform", 0.5)
    yield entry("variance", variance, "relative", 2)
    yield entry("exact", np.full(300_001, 7, np.int64))
    sparse = np.zeros(140_000, np.float32)
    sparse[random.integers(0, 140_000, 20)] = random.standard_normal(20)
    yield entry("sparse", sparse)


def nothing(_: np.random.Generator) -> Iterable[Entry]:
    """No tensor."""
    return ()


def codebook(random: np.random.Generator) -> Iterable[Entry]:
    """Numbers of codewords and prices, zeros and gaps, escapes, both scans, half and double precision."""
    smooth = random.laplace(0, 1, (8, 6, 1, 1)) + random.laplace(0, 0.3, (8, 6, 3, 3))
    deep = random.laplace(0, 1, (3, 33, 1)) + random.laplace(0, 0.3, (3, 33, 5))
    wide = random.standard_normal((48, 40)) * np.exp(random.normal(0, 1.5, (48, 1)))
    price = index_of(0.5) - FREE
    yield entry("levels", wide.astype(np.float32), "codebook", 16)
    yield entry("price", wide.astype(np.float32), "codebook", price)
    yield entry("position first", smooth.astype(np.float32), "codebook", 9)
    yield entry("row first", deep.astype(np.float32), "codebook", price)
    yield entry("escapes", random.standard_normal((40, 50)).astype(np.float32), "codebook", 256)
    yield entry("signs", np.where(random.random((20, 30)) < 0.5, 0.25, -0.5).astype(np.float32), "codebook", 2)
    yield entry("one", np.full((3, 5), 0.7, np.float32), "codebook", 4)
    yield entry("scalar", np.array(0.3, np.float32), "codebook", 1)
    yield entry("half", random.standard_normal(50).astype(np.float16), "codebook", 5)
    yield entry("brain", from_float32(random.standard_normal(50).astype(np.float32), "BF16"), "codebook", 5, "BF16")
    yield entry("double", random.standard_normal(50), "codebook", 5)


def surp(random: np.random.Generator) -> Iterable[Entry]:
    """Ladders of one rung and of all, levels, escapes, both scans, several chunks, half and double precision."""
    wide = random.laplace(0, 1, (48, 40)) * np.exp(random.normal(0, 1.5, (48, 1)))
    smooth = random.laplace(0, 1, (8, 6, 1, 1)) + random.laplace(0, 0.3, (8, 6, 3, 3))
    deep = random.laplace(0, 1, (3, 33, 1)) + random.laplace(0, 0.3, (3, 33, 5))
    heavy = random.standard_t(1.0, (40, 30))
    heavy[3, 3] = 3e4
    matrix = np.zeros((1050, 1000), np.float32)
    matrix[random.integers(0, 1050, 300), random.integers(0, 1000, 300)] = random.standard_normal(300)
    yield entry("levels", wide.astype(np.float32), "surp", 0.5)
    yield entry("position first", smooth.astype(np.float32), "surp", 0.1)
    yield entry("row first", deep.astype(np.float32), "surp", 0.02)
    yield entry("escapes", heavy.astype(np.float32), "surp", 0.1)
    yield entry("coarse", random.standard_normal((20, 20)).astype(np.float32), "surp", 2.5)
    yield entry("nothing", random.standard_normal((20, 20)).astype(np.float32), "surp", 20.0)
    yield entry("zeros", np.zeros((6, 7), np.float32), "surp", 1.0)
    yield entry("chunks", matrix, "surp", 0.5)
    yield entry("bias", random.standard_normal(40).astype(np.float32), "uniform", 0.01)
    yield entry("count", np.arange(3))
    yield entry("half", random.standard_normal((20, 20)).astype(np.float16), "surp", 0.3)
    yield entry("brain", from_float32(wide[:20].astype(np.float32), "BF16"), "surp", 0.3, "BF16")
    yield entry("double", random.standard_normal((20, 20)), "surp", 0.3)


def sparse(random: np.random.Generator) -> Iterable[Entry]:
    """One magnitude and many, escapes, both scans, few rows and one, all but all kept, half and double precision."""
    smooth = random.laplace(0, 1, (8, 6, 1, 1)) + random.laplace(0, 0.3, (8, 6, 3, 3))
    deep = random.laplace(0, 1, (3, 33, 1)) + random.laplace(0, 0.3, (3, 33, 5))
    wide = random.standard_normal((48, 40)) * np.exp(random.normal(0, 1.5, (48, 1)))
    yield entry("levels", wide.astype(np.float32), "sparse", knob_of(0.1, 6))
    yield entry("one size", wide.astype(np.float32), "sparse", knob_of(0.2, 0))
    yield entry("position first", smooth.astype(np.float32), "sparse", knob_of(0.3, 5))
    yield entry("row first", deep.astype(np.float32), "sparse", knob_of(0.2, 5))
    yield entry("escapes", random.standard_t(1.2, (40, 30)).astype(np.float32), "sparse", knob_of(0.5, 12))
    yield entry("vector", random.standard_normal(90).astype(np.float32), "sparse", knob_of(0.3, 4))
    yield entry("scalar", np.array(-0.3, np.float32), "sparse", knob_of(0.1, 4))
    yield entry("most", random.standard_normal((9, 20)).astype(np.float32), "sparse", knob_of(0.999, 6))
    yield entry("half", random.standard_normal((8, 9)).astype(np.float16), "sparse", knob_of(0.4, 6))
    yield entry("brain", from_float32(wide[:20].astype(np.float32), "BF16"), "sparse", knob_of(0.4, 6), "BF16")
    yield entry("double", random.standard_normal((8, 9)), "sparse", knob_of(0.4, 6))


def feedback(random: np.random.Generator, codec: str = "feedback") -> Iterable[Entry]:
    """Steps of columns, kernels with neighbours, steps of rows, several pieces, half and double precision, escapes."""
    wide = random.standard_normal((64, 40)) * np.exp(random.normal(0, 1, (64, 1)))
    smooth = random.laplace(0, 1, (32, 6, 1, 1)) + random.laplace(0, 0.3, (32, 6, 3, 3))
    long = np.zeros((1056, 1000), np.float32)
    long[random.integers(0, 1056, 400), random.integers(0, 1000, 400)] = random.standard_normal(400)
    yield entry("steps", wide.astype(np.float32), codec, 0.7)
    yield entry("neighbours", smooth.astype(np.float32), codec, 0.5)
    yield entry("depthwise", smooth.reshape(192, 1, 3, 3).astype(np.float32), codec, 0.5)
    yield entry("large kernel", random.standard_normal((32, 1, 9, 9)).astype(np.float32), codec, 0.7)
    yield entry("escapes", random.standard_t(1.2, (64, 30)).astype(np.float32), codec, 0.5)
    yield entry("pieces", long, codec, 0.5)
    yield entry("zeros", np.zeros((32, 7), np.float32), codec, 1.0)
    yield entry("half", random.standard_normal((32, 20)).astype(np.float16), codec, 0.4)
    yield entry("brain", from_float32(wide[:32].astype(np.float32), "BF16"), codec, 0.7, "BF16")
    yield entry("double", random.standard_normal((32, 20)), codec, 0.4)


def feedback_scalar(random: np.random.Generator) -> Iterable[Entry]:
    """The same without a trellis, and tensors that cannot be dealt to lanes."""
    yield from feedback(random, "feedback-scalar")
    yield entry("odd", random.standard_normal((33, 7)).astype(np.float32), "feedback-scalar", 0.5)
    yield entry("odd kernel", random.standard_normal((7, 5, 3)).astype(np.float32), "feedback-scalar", 0.5)


def moments(entries: list[Entry]) -> dict[str, Stat]:
    """Correlated inputs of many sizes for each tensor, of each group for those of one input channel."""
    stats = {}
    for name, _, shape, _, codec, _ in entries:
        if codec.startswith("feedback"):
            random = np.random.default_rng(len(name))
            n, groups = int(np.prod(shape[1:])), shape[0] if name == "depthwise" else 1
            x = random.standard_normal((groups, 2 * n, n)) * np.exp(random.normal(0, 1, (groups, 1, n)))
            x += np.exp(random.normal(0, 1, (groups, 1, 1))) * random.standard_normal((groups, 2 * n, 1))
            stats[name] = Stat(inputs=np.swapaxes(x, 1, 2) @ x / (2 * n))
    return stats


def encoded(entries: Iterable[Entry], folder: Path, metadata: dict[str, str]) -> Archive:
    """Code tensors by way of a safetensors file, which holds every dtype."""
    listed = list(entries)
    path = folder / "model.safetensors"
    tensors = [(TensorInfo(name, dtype, shape), lambda a=array: a) for name, dtype, shape, array, _, _ in listed]  # type: ignore[misc]
    write_safetensors(path, tensors, metadata, force=True)
    plan = nw.Plan({name: Point(0.0, 0.0, codec, knob) for name, _, _, _, codec, knob in listed}, 1.0)
    return nw.encode(path, plan, moments(listed) or None)


def shards(folder: Path) -> Archive:
    """A checkpoint of two files with metadata of their own."""
    random = np.random.default_rng(7)
    names = {"1": ["embed.weight", "norm.bias"], "2": ["head.weight", "step"]}
    shapes = {"embed.weight": (80, 48), "norm.bias": (48,), "head.weight": (48, 80), "step": ()}
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number, group in names.items():
        file = f"model-0000{number}-of-00002.safetensors"
        tensors = []
        for name in group:
            array = np.array(3000) if name == "step" else random.standard_normal(shapes[name]).astype(np.float32)
            tensors.append((TensorInfo(name, "I64" if name == "step" else "F32", shapes[name]), lambda a=array: a))
            index["weight_map"][name] = file
        write_safetensors(folder / file, tensors, {"format": "pt", "shard": number}, force=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return nw.encode(
        folder, planned({"embed.weight": "trellis", "norm.bias": "uniform", "head.weight": "trellis"}, "step")
    )


def ties(_: Path) -> Archive:
    """A tensor under three names, one of them odd."""
    random = np.random.default_rng(8)
    shared = random.standard_normal((60, 40)).astype(np.float32)
    bias = random.standard_normal(40).astype(np.float32)
    tensors = {"decoder": shared, "bias": bias, "encoder": shared, "é\n/": shared}
    return nw.encode(tensors, planned({"decoder": "trellis", "bias": "uniform"}))


def planned(lossy: dict[str, str], *exact: str) -> nw.Plan:
    """A plan of steps of an eighth."""
    choices = {name: Point(0.0, 0.0, codec, index_of(0.125)) for name, codec in lossy.items()}
    return nw.Plan(choices | {name: Point(0.0, 0.0, "exact") for name in exact}, 1.0)


def record(archive: Archive) -> dict[str, Any]:
    """What every later release has to find in a file."""
    return {
        "tensors": {
            name: [info.dtype, list(info.shape), hashlib.sha256(archive[name].tobytes()).hexdigest()]
            for name, info in archive.infos.items()
        },
        "ties": archive.ties,
        "metadata": archive.metadata,
        "layout": [[g.file, g.prefix, g.tensors, dict(g.metadata)] for g in archive.layout],
    }


MAKERS = (
    trellis, uniform, relative, integers, floats, chunks, nothing, shards, ties, codebook, surp, sparse, feedback,
    feedback_scalar,
)  # fmt: skip


def main() -> None:
    """Write the files that are not there yet, or refuse."""
    FOLDER.mkdir(exist_ok=True)
    list_path = FOLDER / "expected.json"
    records = json.loads(list_path.read_text(encoding="utf-8")) if list_path.exists() else {}
    new = [(number, make) for number, make in enumerate(MAKERS) if not (FOLDER / f"{make.__name__}.nwt").exists()]
    if not new:
        sys.exit(f"{FOLDER} has all its files, and golden files are written only once.")
    for number, make in new:
        with tempfile.TemporaryDirectory() as folder:
            if make in (shards, ties):
                archive = make(Path(folder))
            else:
                random = np.random.default_rng(number)
                archive = encoded(make(random), Path(folder), {"format": "pt", "about": make.__doc__ or ""})
            path = FOLDER / f"{make.__name__}.nwt"
            archive.save(path)
            with Archive.open(path) as read:
                read.check()
                records[path.name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | record(read)
        print(f"{path.name}: {path.stat().st_size} bytes")
    list_path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
