"""Calibrated compression end to end: whole files at equal divergence on held-out inputs, against NNCodec and GPTQ.

Every coder is run at a few rates; each file is judged by the outputs of the restored network on inputs that nothing was
chosen on. Bits at a divergence are read off a line between the two nearest points, log nats against bits.

    python -m benchmarks.calibrated [--networks FOLDER] [--only resnet20] [--coder GPTQ]

A run of some networks or coders keeps what is in the results file of the others.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import netweight as nw
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.importance.core import Importance
from netweight.moments import STAY, corrected
from netweight.secant import ROUNDS, secant
from netweight.trial import Trial

from . import nncodec, store
from .gptq import Gptq, without_positions
from .nats import CODERS, LENT, MOVED, UNFED
from .networks import float_weights
from .process import quiet_environment, run
from .tasks import TASKS, task
from .tasks.core import Task, outputs

__all__ = ["measure"]

BITS: Final[dict[str, Sequence[float]]] = {
    "lenet5": (0.14, 0.2, 0.3, 0.5, 0.9),
    "resnet20": (1.2, 1.35, 1.7, 2.2),
    "resnet32": (1.2, 1.35, 1.6, 2.0),
    "mobilenet_v2": (2.4, 2.6, 3.0, 3.6, 4.2),
    "minilm": (1.25, 1.6, 2.0, 2.6),
    "stories260k": (3.4, 3.9, 4.4, 5.0, 5.8),
}
QPS: Final[Mapping[str, Sequence[int]]] = {
    "lenet5": (-20, -18, -16, -15, -14, -13),
    "resnet20": (-28, -26, -24, -22, -20),
    "resnet32": (-28, -26, -24, -22, -20, -18),
    "mobilenet_v2": (-32, -30, -28),
    "minilm": (-28, -26, -24, -22, -20),
    "stories260k": (-36, -33, -30, -27, -24, -21),
}


# Batches at the end of the calibration inputs that the importance does not see, only the secant rounds: of a layer of
# 960 columns and some 200 images, what it loses on those images says little about others.
FRESH: Final[Mapping[str, int]] = {"mobilenet_v2": 4}
SECANTS: Final[Mapping[str, int]] = {"mobilenet_v2": 0}  # rounds; 0 measures only what all layers do together
RIVALS: Final = ("GPTQ", MOVED, LENT)
WHOLE: Final = frozenset({"mobilenet_v2"})  # measured by whole gradients: all positions of an image go into one mean


def measure(options: argparse.Namespace) -> store.Records:
    """Records of each network, measured in a process of its own, so that peak memory is that network's."""
    coders = getattr(options, "coder", None) or CODERS
    records = []
    for key in getattr(options, "only", None) or TASKS:
        command: list[object] = [sys.executable, "-m", "benchmarks.calibrated", "--child", key]
        command += [word for coder in coders for word in ("--coder", coder)]
        command += [word for bits in getattr(options, "bits", None) or () for word in ("--bits", bits)]
        if options.networks is not None:
            command += ["--networks", options.networks]
        records += json.loads(run(command, quiet_environment(), sample=False).stdout.splitlines()[-1])
    return merged(store.load(options.results).get("calibrated", {}).get("records", []), records)


def merged(before: store.Records, now: store.Records) -> store.Records:
    """Records of two runs: what the second measured of a network and a coder replaces what the first did."""
    again = {(r["network"], r["coder"]) for r in now}
    both = [*(r for r in before if (r["network"], r["coder"]) not in again), *now]
    return sorted(both, key=lambda r: (TASKS.index(r["network"]), CODERS.index(r["coder"])))


def _network(found: Task, coders: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Points of the coders."""
    judge, weights = _Judge(found), float_weights(found.file)
    about = {"network": found.key, "weights": weights, "figure": found.figure}
    with open_checkpoint(found.file) as checkpoint:
        began_s = time.process_time()
        importance = _importance(found, checkpoint) if set(coders) - {"NNCodec", *RIVALS} else None
        measured_s = time.process_time() - began_s
        own = {"measure_cpu_s": measured_s, "version": store.setting()["versions"]["netweight"]}
        for coder in coders:
            if coder == "NNCodec":
                points = _nncodec(found, judge)
            elif coder in RIVALS:
                if coder == LENT and found.key not in WHOLE:
                    continue  # it has next to nothing to lend elsewhere
                if found.key in WHOLE or importance is None:  # its own method has the inputs' second moment
                    plain = nw.measure(found.build(), found.calibration, loss=_loss(found)).matched(checkpoint)
                else:
                    plain = importance
                rival = Gptq(checkpoint, plain if coder == LENT else without_positions(plain))
                points = (_gptq if coder == "GPTQ" else _gptq_moved)(rival, found, weights, judge)
            else:
                codecs = ["trellis", "uniform", "relative"] if coder == UNFED else None
                assert importance is not None
                points = ({**own, **point} for point in _netweight(found, checkpoint, importance, judge, codecs))
            for point in points:
                yield _said({**about, "coder": coder, **point})


def _said(point: dict[str, Any]) -> dict[str, Any]:
    bits = 8 * point["bytes"] / point["weights"]
    line = f"{point['network']} {point['coder']} {bits:.3f} bits, {point['nats']:.4f} nats"
    print(line, f"{point['figure']} {point['score']:.4f}", file=sys.stderr, flush=True)
    return point


def _importance(found: Task, checkpoint: Checkpoint) -> Importance:
    known = found.calibration[: len(found.calibration) - FRESH.get(found.key, 0)]
    structure = "gradient" if found.key in WHOLE else "kronecker"
    return nw.measure(found.build(), known, loss=_loss(found), structure=structure).matched(checkpoint)


def _loss(found: Task) -> str:
    return "squared" if found.key == "minilm" else "kl"


def _netweight(
    found: Task, checkpoint: Checkpoint, importance: Importance, judge: _Judge, codecs: list[str] | None
) -> Iterator[dict[str, Any]]:
    model, loss = found.build(), _loss(found)
    batches = found.calibration[-FRESH.get(found.key, 0) :]
    began_s = time.process_time()
    curves = nw.sweep(checkpoint, importance, codecs=codecs)
    swept_s = time.process_time() - began_s
    for bits in BITS[found.key]:
        began_s = time.process_time()
        done = secant(
            model,
            batches,
            importance,
            checkpoint,
            divergence=loss,
            curves=curves,
            codecs=codecs,
            rounds=SECANTS.get(found.key, ROUNDS),
            bits=bits,
        )
        seconds = {"sweep_cpu_s": swept_s, "secant_cpu_s": time.process_time() - began_s}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        point = {"bytes": done.archive.nbytes, "predicted": done.plan.loss, "peak_bytes": peak}
        point["moments"] = done.archive.plan.get("moments", STAY._asdict())
        yield {**point, **seconds, **judge({name: done.archive[name] for name in done.archive})}


def _nncodec(found: Task, judge: _Judge) -> Iterator[dict[str, Any]]:
    for qp in QPS[found.key]:
        with tempfile.TemporaryDirectory() as scratch:
            restored = Path(scratch) / "restored.safetensors"
            report = nncodec.code(found.file, qp, restored=restored)
            with open_checkpoint(restored) as back:
                tensors = {name: np.array(back.read(name)) for name in back.infos}
        seconds = {"encode_cpu_s": report["encode"]["cpu_s"], "peak_bytes": report["peak_bytes"]}
        yield {"qp": qp, "bytes": report["bytes"], **seconds, **judge(tensors)}


def _gptq(rival: Gptq, found: Task, weights: int, judge: _Judge) -> Iterator[dict[str, Any]]:
    for bits in BITS[found.key]:
        done = rival.code_to(bits * weights)
        yield {"bytes": done.bits / 8, **judge(done.tensors)}


def _gptq_moved(rival: Gptq, found: Task, weights: int, judge: _Judge) -> Iterator[dict[str, Any]]:
    """GPTQ, and the moments of batch norms follow it by our method, where calibration inputs say that it gains."""
    with open_checkpoint(found.file) as checkpoint:
        trial = Trial(found.build(), checkpoint, found.nats, None)
    moments = {n: t.detach().clone() for n, t in trial.own.items() if n.endswith(("running_mean", "running_var"))}
    for bits in BITS[found.key]:
        done = rival.code_to(bits * weights)
        own = moments | {name: torch.from_numpy(np.array(w)) for name, w in done.tensors.items()}
        batches = found.calibration[-FRESH.get(found.key, 0) :]
        way, held = corrected(trial, batches, _Held(own), list(own), partial(_other, own))
        tensors = {name: tensor.numpy() for name, tensor in held.tensors.items()}
        yield {"bytes": done.bits / 8, "moments": way._asdict(), **judge(tensors)}


def _other(tensors: Mapping[str, torch.Tensor], moments: Mapping[str, torch.Tensor]) -> _Held:
    return _Held({**tensors, **moments})


@dataclass(frozen=True, slots=True)
class _Held:
    tensors: Mapping[str, torch.Tensor]

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]


class _Judge:
    """Compares a network with some tensors changed with the original, on held-out inputs."""

    def __init__(self, found: Task) -> None:
        self.task = found
        self.model = found.build()
        self.original = outputs(self.model, found.heldout)
        self.scores = found.score(self.original)
        self.state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        changed = {name: torch.from_numpy(np.array(w)).reshape(self.state[name].shape) for name, w in tensors.items()}
        self.model.load_state_dict({**self.state, **changed})
        found = outputs(self.model, self.task.heldout)
        nats = torch.cat([self.task.nats(a, b) for a, b in zip(self.original, found, strict=True)])
        scores = self.task.score(found)
        apart = scores - self.scores
        return {
            "nats": float(nats.mean()),
            "nats_se": float(nats.std()) / math.sqrt(len(nats)),
            "samples": len(nats),
            "score": self.task.summary(scores),
            "original": self.task.summary(self.scores),
            "difference": float(apart.mean()),
            "difference_se": float(apart.std()) / math.sqrt(len(apart)),
        }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="where checkpoints are looked for first")
    parser.add_argument(
        "--only", action="append", choices=TASKS, help="this network; may be given again (default: all)"
    )
    parser.add_argument("--coder", action="append", choices=CODERS, help="this coder; may be given again")
    parser.add_argument("--bits", action="append", type=float, help="rate; may be given again (default: by network)")
    parser.add_argument("--results", type=Path, default=store.RESULTS, metavar="FILE", help="results file to update")
    parser.add_argument("--child", choices=TASKS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _child(options: argparse.Namespace) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    found = task(options.child, options.networks)
    if options.bits:
        BITS[options.child] = options.bits
    print(json.dumps([] if found is None else list(_network(found, options.coder or CODERS))))


if __name__ == "__main__":
    from .page import finish

    arguments = _arguments()
    if arguments.child:
        _child(arguments)
    else:
        finish("calibrated", measure, arguments)
