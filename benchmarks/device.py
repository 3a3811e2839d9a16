"""Feedback on a device of torch beside the C library, one thread: a layer of 384 x 1536 Gaussian weights.

Inputs are correlated and of many sizes, outputs of no known importance or all correlated (full G). Each time is the
quicker of two calls that took turns; torch runs on the processor, and on a CUDA device where there is one. Two things
are timed alone: one step of a search through the 256 states of the trellis, in C within a column, in torch as the four
calls that it takes at least; and the rounding of a column, by which `MANY` of `netweight.kernels_torch` was chosen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from netweight.codecs.base import step_of
from netweight.codecs.feedback import Feedback, FeedbackScalar
from netweight.codecs.machine import HOST, machine_of
from netweight.entropy.trellis import TAPS
from netweight.importance.stat import Stat
from netweight.kernels_feedback import Successive
from netweight.kernels_numpy_trellis import _merges

from . import store

__all__ = ["layer", "measure", "write"]

SHAPE: Final = (384, 1536)
BITS: Final = 2.0
REPEATS: Final = 2
FEW, MANY = 64, 8192  # rows of the columns that are rounded alone
_CASES: Final = (("feedback", "none"), ("feedback", "full"), ("feedback-scalar", "none"))
_CODECS: Final = {codec.id: codec for codec in (Feedback(), FeedbackScalar())}


def layer(shape: tuple[int, int], outputs: str) -> tuple[np.ndarray[Any, Any], Stat]:
    """Gaussian weights, and second moments of inputs and outputs that move together."""
    random = np.random.default_rng(0)
    moments = []
    for n in shape[::-1]:
        x = random.standard_normal((2 * n, n)) * np.exp(random.normal(0, 1, n)) + random.standard_normal((2 * n, 1))
        moments.append(x.T @ x / (2 * n))
    w = random.standard_normal(shape).astype(np.float32)
    return w, Stat(1.0, inputs=moments[0][None], outputs=moments[1] if outputs == "full" else None)


def measure(_options: argparse.Namespace) -> store.Records:
    """One record for each codec, kind of outputs and device, and two of what is timed alone."""
    import torch

    torch.set_num_threads(1)
    devices: list[str | None] = [None, "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    records: store.Records = []
    for codec, outputs in _CASES:
        records += _compared(codec, outputs, devices)
    for device in devices:
        records.append({"device": device or "C", "what": "alone", "step_s": _step_s(device), **_column_s(device)})
    for r in records:
        print(", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{value}" for key, value in r.items()))
    return records


def _compared(codec: str, outputs: str, devices: list[str | None]) -> store.Records:
    """The same sweep and the same encoding on every device, taking turns."""
    w, stat = layer(SHAPE, outputs)
    forms = {device or "C": _CODECS[codec].on(device) for device in devices}
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    knob = 0
    found: dict[str, np.ndarray[Any, Any]] = {}
    for _ in range(REPEATS):
        for device, form in forms.items():
            begin = time.perf_counter(), time.process_time()
            points = form.sweep(w, stat)
            taken.setdefault((device, "sweep"), []).append(_since(begin))
            if not found:
                knob = min(points[1:], key=lambda point: abs(point.bits / w.size - BITS)).knob
            begin = time.perf_counter(), time.process_time()
            found[device] = form.encode(w, stat, knob).streams["k"].k
            taken.setdefault((device, "encode"), []).append(_since(begin))
    about = {"codec": codec, "outputs": outputs, "rows": SHAPE[0], "columns": SHAPE[1], "step": step_of(knob)}
    return [
        {
            "device": device,
            "what": what,
            **about,
            "wall_s": min(wall for wall, _ in times),
            "cpu_s": min(cpu for _, cpu in times),
            "differ": int(np.count_nonzero(found[device] != found["C"])),
        }
        for (device, what), times in taken.items()
    ]


def _since(begin: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def _step_s(device: str | None) -> float:
    """Seconds for one weight of a path through 256 states."""
    run, steps = (_path, 16 * 4096) if device is None else (_calls(device), 2000)
    run(100)
    begin = time.perf_counter()
    run(steps)
    return (time.perf_counter() - begin) / steps


def _column_s(device: str | None) -> dict[str, float]:
    """Seconds to round a column of few rows and one of many."""
    found = {}
    for name, rows in (("few_s", FEW), ("many_s", MANY)):
        x = np.random.default_rng(0).standard_normal((32, rows)).astype(np.float32)
        paid, m = (np.zeros((1, 32), np.float32), np.ones(rows, np.float32)), np.zeros((1, 32, 32), np.float32)
        rate = (300 * np.abs(np.arange(256, dtype=np.int32) - 128)).reshape(1, 1, 256)
        work: Any = machine_of(device).columns(x, m, None, paid, Successive(rows, 32, 1, 32), rate)
        context = np.zeros((32, rows), np.uint16), np.zeros((32, rows), np.uint8)
        run = work.quantise if device is None else work.rounded
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            run(range(32), context)
            times.append((time.perf_counter() - begin) / 32)
        found[name] = min(times)
    return found


def _path(steps: int) -> None:
    """Search one column of so many rows, in pieces of 4096."""
    rows = -(-steps // 32) * 32
    x = np.random.default_rng(0).standard_normal((1, rows)).astype(np.float32)
    how = Successive(rows, 1, 1, 1, rows, rows, 8, *TAPS[8])
    paid, m = (np.zeros((1, 1), np.float32), np.ones(rows, np.float32)), np.zeros((1, 1, 1), np.float32)
    rate = np.broadcast_to(300 * np.abs(np.arange(256, dtype=np.int32) - 128), (1, 2, 256))
    context = np.zeros((1, rows), np.uint16), np.zeros((1, rows), np.uint8)
    HOST.columns(x, m, None, paid, how, np.ascontiguousarray(rate)).quantise(range(1), context)


def _calls(device: str) -> Callable[[int], None]:
    """What a step needs at least: costs of both ways into each state, of the branches, their sum, the smaller one."""
    import torch

    into = torch.from_numpy(_merges(8, *TAPS[8])).to(device)
    source, branch = into >> 1, into & 3
    cost, first = torch.ones(4, dtype=torch.int32, device=device), torch.zeros(256, dtype=torch.int32, device=device)

    def run(steps: int) -> None:
        total = first
        for _ in range(steps):
            total = (total[source] + cost[branch]).min(0).values
        total.cpu()

    return run


def write(section: Mapping[str, Any], table: Callable[..., str], stamp: Callable[[Mapping[str, Any]], str]) -> str:
    """Its part of docs/results.md."""
    records = [r for r in section["records"] if r["what"] != "alone"]
    alone = {r["device"]: r for r in section["records"] if r["what"] == "alone"}
    names = {device: device if device == "C" else f"torch {device}" for device in alone}
    rows = []
    for codec, outputs, what in dict.fromkeys((r["codec"], r["outputs"], r["what"]) for r in records):
        line = {r["device"]: r for r in records if (r["codec"], r["outputs"], r["what"]) == (codec, outputs, what)}
        times = [f"{line[d]['wall_s']:.2f} ({line[d]['cpu_s']:.2f})" if d in line else "-" for d in alone]
        size = line["C"]["rows"] * line["C"]["columns"]
        differ = ", ".join(f"{r['differ']:,}" for d, r in line.items() if d != "C")
        rows.append([codec, outputs, what, *times, f"{differ} of {size:,}" if what == "encode" else ""])
    head = ("codec", "G", "call", *(f"{name}, s (CPU s)" for name in names.values()), "symbols that differ")
    steps = ", ".join(f"{name} {1e9 * alone[d]['step_s']:,.0f} ns" for d, name in names.items())
    columns = ", ".join(
        f"{name} {1e6 * alone[d]['few_s']:,.0f} and {1e6 * alone[d]['many_s']:,.0f} µs" for d, name in names.items()
    )
    text = (
        f"One step of a path through 256 states: {steps}. To round a column of {FEW} and of {MANY:,} rows: {columns}."
    )
    if "cuda" not in alone:
        text += " No CUDA device was there: nothing here says how fast one is."
    return "\n\n".join([_TEXT, stamp(section), table(head, rows), text])


_TEXT: Final = f"""\
## Feedback by C and by torch

A layer of {SHAPE[0]} x {SHAPE[1]} Gaussian weights with correlated inputs, at {BITS:g} bits, one thread; the quicker of
{REPEATS} calls that took turns, CPU seconds in brackets. *Symbols that differ* follow from ties."""


if __name__ == "__main__":
    from .page import finish

    finish("device", measure, store.arguments(__doc__))
