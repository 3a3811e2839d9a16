"""What calibrated compression of all-MiniLM-L6-v2 costs, stage by stage, against NNCodec's trellis in the same run.

Three processes, as a user with two cores runs them: `measure` on 256 sentences (torch, two threads) into a file; the
command `plan`, which is the sweep; the command `compress --plan`, which encodes. Start of the interpreter, reading and
writing are included; of NNCodec only the call that encodes. Memory is the peak of the resident set of each process;
*idle*, what it is before it has work: the interpreter with the same packages imported.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import netweight as nw

from . import nncodec, store
from .networks import find, float_weights
from .process import Outcome, quiet_environment, run

__all__ = ["PROMISES", "measure", "write"]

Records = Sequence[Mapping[str, Any]]
QP, BITS = -20, 2.2  # where NNCodec is quickest, at about the same bits/weight
IDLE: Final = {
    "measure": "import torch, netweight.importance.collect",
    "sweep": "import netweight.cli.run, netweight.pipeline",
    "encode": "import netweight.cli.run, netweight.pipeline",
}


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each stage, with how much memory its data need, and one for NNCodec."""
    source = find("minilm", options.networks)
    assert source is not None
    idle = {stage: run([sys.executable, "-c", text], quiet_environment()).peak_bytes for stage, text in IDLE.items()}
    with tempfile.TemporaryDirectory() as scratch:
        statistics, plan, packed = (Path(scratch) / name for name in ("importance", "plan.json", "out.nwt"))
        child: list[object] = [sys.executable, "-m", "benchmarks.cost", "--child", statistics]
        if options.networks is not None:
            child += ["--networks", options.networks]
        own = [sys.executable, "-m", "netweight"]
        given = [source, "--importance", statistics, "--workers", options.workers, "--quiet"]
        outcomes = {"measure": run(child, quiet_environment(options.workers))}
        outcomes["sweep"] = run([*own, "plan", *given, f"--bits={BITS}"], quiet_environment())
        plan.write_text(outcomes["sweep"].stdout)
        outcomes["encode"] = run([*own, "compress", *given, "-o", packed, "--plan", plan], quiet_environment())
        about = {"bytes": packed.stat().st_size, "weights": float_weights(source), **_sizes(source, statistics)}
    rival = nncodec.code(source, QP)
    records: store.Records = [
        {"stage": stage, **about, **_taken(done), "idle_bytes": idle[stage]} for stage, done in outcomes.items()
    ]
    records.append({"stage": "NNCodec", "qp": QP, "bytes": rival["bytes"], "weights": about["weights"],
                    **rival["encode"], "peak_bytes": rival["peak_bytes"]})  # fmt: skip
    for r in records:
        print(f"{r['stage']}: {r['wall_s']:.1f} s, {r['cpu_s']:.1f} CPU s, {r['peak_bytes'] / 1e6:.0f} MB", flush=True)
    return records


def _taken(done: Outcome) -> dict[str, float]:
    return {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "peak_bytes": done.peak_bytes}


def _sizes(source: Path, statistics: Path) -> dict[str, int]:
    """Bytes of the largest tensor, of the largest layer's sums and of all of them."""
    with nw.checkpoint.open_checkpoint(source) as checkpoint:
        largest = max(4 * math.prod(info.shape) for info in checkpoint.infos.values())
    found = nw.Importance.open(statistics)
    sums = [[u for u in found.sums(name) if isinstance(found.sums(name), tuple)] for name in found]  # type: ignore[union-attr]
    sizes = [sum(a.nbytes for u in uses for a in (u.inputs, u.outputs, u.diagonal) if a is not None) for uses in sums]
    return {"largest_tensor_bytes": largest, "largest_sums_bytes": max(sizes), "all_sums_bytes": sum(sizes)}


def _child(options: argparse.Namespace) -> None:
    """The first stage."""
    from .tasks import task

    found = task("minilm", options.networks)
    assert found is not None
    nw.measure(found.build(), found.calibration, loss="squared").save(options.child)


def _times(records: Records) -> tuple[bool, str] | None:
    """Whether the stages together take at most six times what the rival takes."""
    seconds = {r["stage"]: float(r["wall_s"]) for r in records}
    if set(seconds) != {*IDLE, "NNCodec"}:
        return None
    whole = sum(seconds[stage] for stage in IDLE)
    parts = ", ".join(f"{stage} {seconds[stage]:.1f}" for stage in IDLE)
    times = whole / seconds["NNCodec"]
    return times <= 6, f"{times:.2f}x: {whole:.1f} s ({parts}; NNCodec {seconds['NNCodec']:.1f})"


def _memory(stages: Sequence[str], sums: str) -> Callable[[Records], tuple[bool, str] | None]:
    """Whether no stage's peak, above what is there before it has work, exceeds its data's bound."""

    def check(records: Records) -> tuple[bool, str] | None:
        found = {r["stage"]: r for r in records if r["stage"] in stages}
        if set(found) != set(stages):
            return None
        above = {stage: r["peak_bytes"] - r["idle_bytes"] for stage, r in found.items()}
        bounds = {stage: r[sums] + 2 * r["largest_tensor_bytes"] for stage, r in found.items()}
        text = ", ".join(
            f"{stage} {above[stage] / 1e6:.0f} MB + {r['idle_bytes'] / 1e6:.0f} idle" for stage, r in found.items()
        )
        most = max(bounds.values()) / 1e6
        return all(above[stage] <= bounds[stage] for stage in stages), f"{text}; bound {most:.0f} MB + idle"

    return check


PROMISES: Final[tuple[tuple[str, str, Callable[[Records], tuple[bool, str] | None]], ...]] = (
    (
        "cost",
        "all-MiniLM-L6-v2 calibrated (measure, sweep, encode), two cores: at most 6x the time of NNCodec's trellis",
        _times,
    ),
    (
        "cost",
        "... sweep and encode in the memory of the largest layer's statistics and twice the largest tensor",
        _memory(("sweep", "encode"), "largest_sums_bytes"),
    ),
    (
        "cost",
        "... measure in that of all layers' statistics, which one pass must keep, and twice the largest tensor",
        _memory(("measure",), "all_sums_bytes"),
    ),
)


def write(section: Mapping[str, Any], table: Callable[..., str], stamp: Callable[[Mapping[str, Any]], str]) -> str:
    """Its part of docs/results.md."""
    records = section["records"]
    rows = [
        [r["stage"], *(f"{r[key]:.1f}" for key in ("wall_s", "cpu_s")), f"{r['peak_bytes'] / 1e6:,.0f}",
         f"{r['idle_bytes'] / 1e6:,.0f}" if "idle_bytes" in r else ""]
        for r in records
    ]  # fmt: skip
    first = records[0]
    sizes = [first[key] / 1e6 for key in ("largest_tensor_bytes", "largest_sums_bytes", "all_sums_bytes")]
    about = (
        f"The largest tensor has {sizes[0]:,.0f} MB as float32, the largest layer's sums {sizes[1]:,.0f} MB, those of "
        f"all layers {sizes[2]:,.0f} MB. The file has {8 * first['bytes'] / first['weights']:.3f} bits/weight, "
        f"NNCodec's {8 * records[-1]['bytes'] / first['weights']:.3f}."
    )
    head = ("stage", "wall s", "CPU s", "peak MB", "of these idle MB")
    return "\n\n".join([_TEXT, stamp(section), table(head, rows), about])


_TEXT: Final = """\
## What calibration costs

all-MiniLM-L6-v2 complete, each stage a process of its own, interpreter, reading and writing included: `measure` on 256
sentences, the command `plan --bits`, which is the sweep, and `compress --plan`, which encodes (two threads
each). Of NNCodec the encode call alone. Memory is the peak resident set of the process; *idle* is an interpreter with
the same packages imported and nothing to do. `measure` sees every layer in one pass and keeps the sums of all of them,
in two halves that judge each other, of symmetric matrices the upper half; the network itself is in its memory too. With
`names=` it takes some tensors at a time."""


def _arguments() -> argparse.Namespace:
    return store.arguments(__doc__, lambda parser: parser.add_argument("--child", type=Path, help=argparse.SUPPRESS))


if __name__ == "__main__":
    from .page import finish

    arguments = _arguments()
    if arguments.child is not None:
        _child(arguments)
    else:
        finish("cost", measure, arguments)
