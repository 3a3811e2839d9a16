"""Bits above the Gaussian bound of each layer alone, with the second moment of its real inputs, beside four rivals.

The bound is reverse water-filling on the eigenvalues of A with the variance of the tensor's weights: R(D) of rows of
independent Gaussian weights of that variance. Trained weights are not: where the rows differ in size, or are small
along strong inputs, a file may lie below it, which is no contradiction; *own variances* is the same bound with each
row's own variance. Rates are whole files that hold one layer alone, header, levels, steps, tables and checksums
included. Rivals are written with the same coder, by their own rule of quantisation:

    rounding        plain rounding, one step
    RDO             plain rounding weighed against the rate, as DeepCABAC does: the codec `uniform`
    GPTQ            feedback without a ridge, plain rounding, one step; columns in their order or largest input first
    CERWU           feedback with the ridge and the rest of the rate in each decision, one step (its objective)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

import netweight as nw
from netweight.codecs.base import Point, index_of
from netweight.codecs.feedback import Feedback, FeedbackScalar
from netweight.codecs.lattice import Grid
from netweight.codecs.matrix import Array, Matrix, matrix_of
from netweight.codecs.ridge import FLOOR, Spectrum
from netweight.codecs.successive import Problem, first_rates, learnt_rates, quantise
from netweight.codecs.whitened import RUN, gain, theta_of
from netweight.entropy.layout import UNIT_CLASS, Levels
from netweight.entropy.stream import IntStream, encode_section
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.theory import gaussian

from . import store
from .rivals import cache_folder

__all__ = ["BITS", "METHODS", "PROMISES", "Layer", "bound_bits", "measure", "write"]

BITS: Final = (2.0, 3.0, 4.0)
REALS_BYTES: Final = 5  # the scale
CHUNK_BYTES: Final = 7  # its length and checksum
SCALAR: Final = Grid(0, FeedbackScalar.grid.kappa)
PLAIN: Final = Grid(0, 0.0)
Records = Sequence[Mapping[str, Any]]
Coded = tuple[float, float]  # bits a weight of the file, loss of a row as e A e^T


@dataclass(frozen=True)
class Layer:
    """A layer alone, and what several methods ask of it.

    Attributes:
        w: weights.
        stat: with A of its inputs.
    """

    w: np.ndarray[Any, Any]
    stat: Stat

    @cached_property
    def matrix(self) -> Matrix:
        """Weights and moments by columns."""
        found = matrix_of(self.w, self.stat)
        assert found is not None
        return found

    @cached_property
    def spectrum(self) -> Spectrum:
        """Both along the eigenvectors of the moments."""
        return Spectrum.of(self.matrix)


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each layer and method: what it leaves at each rate.

    Half an hour: what is done is noted layer by layer, and a run of the same version goes on where the last one ended.
    """
    version = store.setting()["versions"]["netweight"]
    done = _noted(notes := cache_folder() / "layer_gap.jsonl", version)
    records = []
    for key in ("resnet20", "minilm"):
        for name, w, stat in _layers(key, options):
            layer = Layer(w, stat)
            for method, code in METHODS.items():
                found = done.get((key, name, method))
                if found is None:
                    found = {"network": key, "layer": name, "method": method, **_gaps(layer, code)}
                    notes.parent.mkdir(parents=True, exist_ok=True)
                    with notes.open("a") as file:
                        file.write(json.dumps({"version": version, **found}) + "\n")
                records.append(found)
                said = ", ".join(f"{x:+.3f}" for x in found["above_bits"])
                print(f"{key} {name}, {method}: {said} at {', '.join(f'{b:.2f}' for b in found['bits'])}", flush=True)
    return records


def _noted(notes: Path, version: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Records of this version of the package by network, layer and method; none where it differs from its commit."""
    if not notes.exists() or "+" in version:
        return {}
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    return {
        (r["network"], r["layer"], r["method"]): {key: value for key, value in r.items() if key != "version"}
        for r in lines
        if r["version"] == version
    }


def _gaps(layer: Layer, code: Callable[[Layer, float], Coded]) -> dict[str, Any]:
    """What one method leaves of one layer."""
    tried = list(_tried(partial(code, layer)))
    at = [bits for bits, _ in tried]
    above = [bits - bound_bits(layer, loss) for bits, loss in tried]
    rows = [bits - bound_bits(layer, loss, rows=True) for bits, loss in tried]
    gaps = {"above_bits": _at(BITS, at, above), "above_rows_bits": _at(BITS, at, rows)}
    return {"weights": int(layer.w.size), "bits": at, **gaps}


def _tried(code: Callable[[float], Coded]) -> Iterator[Coded]:
    """Every rate that the method's integers can hold: few inputs may take most of the energy, and all of the levels."""
    for bits in BITS:
        try:
            yield code(bits)
        except UsageError as error:
            print(f"not at {bits:g} bits: {error.fact}", flush=True)


def _layers(key: str, options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray[Any, Any], Stat]]:
    """Matrices and convolutions of 32 channels and more, and the moments of their inputs on calibration data."""
    from .tasks import task

    found = task(key, options.networks)
    if found is None:
        print(f"{key}: no checkpoint or no data found, skipped")
        return
    loss = "squared" if key == "minilm" else "kl"
    with nw.checkpoint.open_checkpoint(found.file) as checkpoint:
        importance = nw.measure(found.build(), found.calibration, loss=loss).matched(checkpoint)
        for name, info in checkpoint.infos.items():
            linear = len(info.shape) == 2 and "embeddings" not in name and key == "minilm"
            if linear or (len(info.shape) == 4 and min(info.shape[:2]) >= 32):
                stat = importance[name]
                if stat.inputs is None:
                    continue  # the loss does not reach it
                yield name, checkpoint.read(name).astype(np.float32), replace(stat, weight=1.0, outputs=None)


def _at(wanted: tuple[float, ...], bits: list[float], values: list[float]) -> list[float]:
    """Values at the rates wanted, on lines through those that were met."""
    order = np.argsort(bits)
    x, y = np.array(bits)[order], np.array(values)[order]
    out = []
    for b in wanted:
        j = int(np.clip(np.searchsorted(x, b), 1, x.size - 1))
        out.append(float(y[j - 1] + (y[j] - y[j - 1]) * (b - x[j - 1]) / (x[j] - x[j - 1])))
    return out


def bound_bits(layer: Layer, loss: float, *, rows: bool = False) -> float:
    """R(D) a weight of independent Gaussian rows.

    Args:
        layer: with A of one group.
        loss: mean over the rows of e A e^T.
        rows: each row with its own variance; else all with that of the tensor.
    """
    values = layer.spectrum.values[0]
    square = np.square(layer.w.reshape(len(layer.w), -1), dtype=np.float64).mean(axis=1)
    sizes = square if rows else np.array([square.mean()])
    variances = np.sort((sizes[:, None] * values).reshape(-1))[::-1]
    nats = float(gaussian.rate_nats(variances, loss * len(sizes)))
    return nats / float(np.log(2)) / variances.size


# ---- ours


def _ours(codec: Feedback, layer: Layer, bits: float) -> Coded:
    """The codec at the step of the rate, as a file."""
    w, stat = layer.w, layer.stat
    knob = index_of(_step(layer.spectrum, codec.grid, bits))
    archive = nw.encode({"w": w}, nw.Plan({"w": Point(0.0, 0.0, codec.id, knob)}, 1.0), {"w": stat})
    return 8 * archive.nbytes / w.size, 2 * stat.loss(w, w - archive["w"]) / len(w)


def _step(spectrum: Spectrum, grid: Grid, bits: float) -> float:
    """Whitened step at which the channel's rate and what the quantiser adds to it make so many bits."""
    wanted = bits - (0.08 if grid.bits else 0.24)
    low, high = -40.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        mu = spectrum.ridge(theta_of(2.0**middle, grid))
        rate = 0.5 * float(np.mean(np.log2(1 + spectrum.values / mu[:, None])))
        low, high = (middle, high) if rate > wanted else (low, middle)
    return float(2.0**low)


# ---- rivals


def _rival(feedback: str, grid: Grid, layer: Layer, bits: float) -> Coded:
    """One step, with or without feedback and ridge.

    Args:
        feedback: "none", "natural", "largest first", or "ridge".
        grid: rounding.
        layer: with the moments of its inputs.
        bits: wanted.
    """
    matrix = layer.matrix
    ordered, back = _ordered(matrix, feedback == "largest first")
    a, n = ordered.a[0], ordered.a.shape[1]
    tau = float(np.sqrt(np.mean(np.square(matrix.w))))
    step = tau * np.sqrt(2 * np.pi * np.e) * 2.0**-bits  # high rate: h(w) - log2 step
    ridge, source = FLOOR * float(np.trace(a)) / n, ordered.w[0]
    if feedback == "ridge":
        whitened = _step(layer.spectrum, grid, bits)
        target = layer.spectrum.target(theta_of(whitened, grid))
        ridge, source = float(target.mu[0]), target.shrunk[0]
        step = whitened / 2.0 ** float(np.log2(np.diagonal(target.factor[0])).mean())
    factor = np.linalg.cholesky((a + ridge * np.eye(n))[::-1, ::-1])[::-1, ::-1]
    diagonal = np.diagonal(factor)
    m = np.zeros((n, n)) if feedback == "none" else factor / diagonal
    rho = ridge / np.square(diagonal) if feedback == "ridge" else np.zeros(n)
    base = UNIT_CLASS + round(4 * float(np.log2(np.sqrt(np.mean(np.square(source))) / step)))
    arrays = [
        np.ascontiguousarray(a, np.float32) for a in ((source / step).T, m[None], rho[None], np.ones(len(source)))
    ]
    problem = Problem(arrays[0], arrays[1], arrays[2], arrays[3], matrix.layout, Levels(base), RUN)
    tried = replace(problem, x=problem.x.copy())
    found = quantise(tried, grid, first_rates(grid, matrix.layout))
    if grid.kappa:
        found = quantise(problem, grid, learnt_rates(found.counts(tried), grid, matrix.layout))
    v = found.r.T[None] * step
    error = ordered.w - gain(ordered, v) * v
    stream = IntStream(replace(found, r=found.r[back]).integers(matrix.layout), matrix.layout, Levels(base), 0, RUN)
    return 8 * _file_bytes(stream, layer.w) / layer.w.size, float(np.sum((error @ ordered.a) * error)) / len(layer.w)


def _ordered(matrix: Matrix, largest_first: bool) -> tuple[Matrix, np.ndarray[Any, Any]]:
    """Columns in the order in which they are quantised, and the places that undo it."""
    n = matrix.a.shape[1]
    order = np.argsort(-np.diagonal(matrix.a[0]), kind="stable") if largest_first else np.arange(n)
    a: Array = matrix.a[:, order[:, None], order]
    return Matrix(matrix.w[:, :, order], a, matrix.layout), np.argsort(order)


def _file_bytes(stream: IntStream, w: np.ndarray[Any, Any]) -> int:
    """Bytes of a file of this layer alone."""
    empty = nw.encode({"w": w}, nw.Plan({"w": Point(0.0, 0.0, "uniform", index_of(1e3 * float(np.abs(w).max())))}, 1.0))
    head, chunks = encode_section([stream], 0)
    return empty.header_bytes + 1 + REALS_BYTES + len(head) + sum(len(chunk) + CHUNK_BYTES for chunk in chunks)


def _uniform(layer: Layer, bits: float) -> Coded:
    w, stat = layer.w, layer.stat
    step = float(np.sqrt(np.mean(np.square(w)) * 2 * np.pi * np.e)) * 2.0**-bits
    archive = nw.encode({"w": w}, nw.Plan({"w": Point(0.0, 0.0, "uniform", index_of(step))}, 1.0))
    return 8 * archive.nbytes / w.size, 2 * stat.loss(w, w - archive["w"]) / len(w)


METHODS: Final[Mapping[str, Callable[[Layer, float], Coded]]] = {
    "rounding + entropy": partial(_rival, "none", PLAIN),
    "RDO, as DeepCABAC": _uniform,
    "GPTQ + entropy": partial(_rival, "natural", PLAIN),
    "GPTQ largest first + entropy": partial(_rival, "largest first", PLAIN),
    "CERWU's objective": partial(_rival, "ridge", SCALAR),
    "feedback-scalar": partial(_ours, FeedbackScalar()),
    "feedback": partial(_ours, Feedback()),
}


def write(section: Mapping[str, Any], table: Callable[..., str], stamp: Callable[[Mapping[str, Any]], str]) -> str:
    """Its part of docs/results.md: means over layers."""
    parts = [_TEXT, stamp(section)]
    for key, title in (("minilm", "all-MiniLM-L6-v2"), ("resnet20", "ResNet-20")):
        rows = []
        for method in METHODS:
            found = [r for r in section["records"] if r["network"] == key and r["method"] == method]
            if not found:
                continue
            weights = np.array([r["weights"] for r in found])
            plain = np.array([r["above_bits"] for r in found])
            own = np.array([r["above_rows_bits"] for r in found]).mean(axis=0)
            cells = [*plain.mean(axis=0), *np.average(plain, axis=0, weights=weights), *own]
            rows.append([method, *(f"{x:+.3f}" for x in cells)])
        if rows:
            head = [f"{title}, {len(found)} layers"]
            head += [f"{b:g} bits{what}" for what in ("", ", by weights", ", own variances") for b in BITS]
            parts.append(table(head, rows))
    return "\n\n".join(parts)


def _mean_above(network: str, method: str, most_bits: float) -> Callable[[Records], tuple[bool, str] | None]:
    """Whether the mean over layers stays below at every rate."""

    def check(records: Records) -> tuple[bool, str] | None:
        found = [r["above_bits"] for r in records if r["network"] == network and r["method"] == method]
        if not found:
            return None
        means = np.mean(found, axis=0)
        text = ", ".join(f"{mean:+.3f} at {b:g}" for mean, b in zip(means, BITS, strict=True))
        return bool(means.max() <= most_bits), f"{text} bits, {len(found)} layers"

    return check


PROMISES: Final[tuple[tuple[str, str, Callable[[Records], tuple[bool, str] | None]], ...]] = tuple(
    (
        "layer_gap",
        f"{title}, {method}: at most {most_bits:g} bit above the Gaussian bound at 2, 3 and 4 bits, mean over layers",
        _mean_above(network, method, most_bits),
    )
    for network, title, method, most_bits in (
        ("minilm", "all-MiniLM-L6-v2's linear layers", "feedback-scalar", 0.30),
        ("minilm", "all-MiniLM-L6-v2's linear layers", "feedback", 0.15),
        ("resnet20", "ResNet-20's convolutions of 32 channels and more", "feedback-scalar", 0.40),
        ("resnet20", "ResNet-20's convolutions of 32 channels and more", "feedback", 0.30),
    )
)
_TEXT: Final = """\
## Layers alone: bits above the Gaussian bound

Mean over layers of bits a weight of a file that holds one layer alone above R(D) of Gaussian rows at the loss
tr(E A E^T) of the file, where A is the second moment of the layer's inputs on calibration data, shrunk as `measure`
shrinks it; at 2, 3 and 4 bits, on lines through three files near them, or two where few inputs with most of the energy
would need integers beyond the format's. The bound is reverse water-filling on the eigenvalues of A with the variance of
the tensor; *own variances* takes each row's. Trained weights may lie below either: they are not independent draws of
one law. *By weights* is the mean weighted by the layers' sizes."""


if __name__ == "__main__":
    from .page import finish

    finish("layer_gap", measure, store.arguments(__doc__))
