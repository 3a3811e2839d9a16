"""What calibrated compression of all-MiniLM-L6-v2 costs, stage by stage, against NNCodec's trellis in the same run.

Three processes, as a user with two cores runs them: `measure` on 256 sentences (torch, one thread) into a file; the
command `plan`, which is the sweep; the command `compress --plan`, which encodes. Start of the interpreter, reading and
writing are included; of NNCodec only the call that encodes. Memory is the peak of the resident set of each process;
*idle*, what it is before it has work: the interpreter with the same packages imported.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Final

import netweight as nw

from . import nncodec, store
from .networks import find, float_weights
from .process import Outcome, quiet_environment, run

__all__ = ["measure"]

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
        outcomes = {"measure": run(child, quiet_environment())}
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


def _arguments() -> argparse.Namespace:
    return store.arguments(__doc__, lambda parser: parser.add_argument("--child", type=Path, help=argparse.SUPPRESS))


if __name__ == "__main__":
    from .page import finish

    arguments = _arguments()
    if arguments.child is not None:
        _child(arguments)
    else:
        finish("cost", measure, arguments)
