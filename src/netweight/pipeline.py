"""The whole flow on one screen: checkpoint, curves, one slope, integers, bytes, file."""

import copy
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from netweight import __version__
from netweight.allocate import Plan
from netweight.archive import Archive, Group, Header
from netweight.archive.encoding import Block
from netweight.archive.grouping import Job, group
from netweight.archive.members import encoded
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.codecs.machine import machine_of
from netweight.curve import Progress, Source, sweep
from netweight.errors import UsageError
from netweight.fitting import fit
from netweight.importance.given import record_of, stats_of
from netweight.importance.stat import Stat


def compress(
    source: Source,
    out: str | os.PathLike[str] | None = None,
    *,
    size: str | int | None = None,
    bits: float | None = None,
    loss: float | None = None,
    slope: float | None = None,
    plan: Plan | None = None,
    importance: Mapping[str, Stat] | None = None,
    codecs: Sequence[str] | None = None,
    executor: Executor | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Archive:
    """Compress a network to a target: minimise loss + slope bits over all tensors and codecs.

    Args:
        source: a path, a dictionary of tensors, a module, or an open checkpoint.
        out: file to write; None keeps the archive in memory.
        size: bytes of the file, as a number or like "4MB"; met from below within 0.5 %.
        bits: bits of the file for each weight; likewise.
        loss: predicted loss, in the unit of the importance: nats of what was measured (without: half the squared
            error).
        slope: loss for each bit.
        plan: a plan made before, instead of a target.
        importance: by tensor, as `measure` gives it; the file says where it comes from.
        codecs: ids to allow; those tried by default (`Codec.default`) if None.
        executor: anything with `map`.
        device: of torch, such as "cuda"; see `sweep`.
        progress: called with (stage, done, total).
        force: replace an existing file.

    Raises:
        UsageError: not exactly one target, an unknown codec or device, or an existing file.
        TargetError: the target is out of reach.
        FormatError: the source is damaged or unsafe.
        OutputError: the file cannot be written.

    >>> import numpy as np
    >>> archive = compress({"w": np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)}, bits=3)
    >>> 2.98 < archive.nbytes * 8 / 10_000 <= 3
    True
    """
    checkpoint = open_checkpoint(source)
    given = [value for value in (size, bits, loss, slope, plan) if value is not None]
    if len(given) != 1:
        raise UsageError(f"{len(given)} targets are given.", "Give one of size, bits, loss, slope and plan.")
    stats = stats_of(checkpoint, importance)
    if plan is not None:
        archive = encode(checkpoint, plan, stats, executor=executor, device=device, progress=progress)
    else:
        curves = sweep(checkpoint, stats, codecs=codecs, executor=executor, device=device, progress=progress)
        coder = Coder(checkpoint, stats, executor, progress, device)
        _, archive = fit(coder, curves, size=size, bits=bits, loss=loss, slope=slope)
    if out is not None:
        archive.save(out, force=force)
    return archive


class Coder:
    """Encodes plans for one checkpoint; sections whose plan did not change since the last time are kept."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        stats: Mapping[str, Stat],
        executor: Executor | None,
        progress: Progress | None,
        device: str | None = None,
    ) -> None:
        machine_of(device)
        self.device = device
        self.checkpoint, self.stats, self.executor, self.progress = checkpoint, stats, executor, progress
        self.kept: dict[Job, list[Block]] = {}
        self.sha256 = checkpoint.sha256()

    def replaced(self, tensors: Mapping[str, Any]) -> "Coder":
        """Give one that codes some tensors with other values, in this process, and keeps what the others gave."""
        other = copy.copy(self)
        other.checkpoint, other.executor = self.checkpoint.replaced(tensors), None
        other.kept = {job: blocks for job, blocks in self.kept.items() if not tensors.keys() & set(job.names)}
        return other

    def encode(self, plan: Plan) -> Archive:
        """Code every section of a plan, the heaviest first."""
        infos = self.checkpoint.infos
        jobs = group({name: (p.codec, p.knob) for name, p in plan.choices.items()}, infos)
        new = sorted(
            (job for job in jobs if job not in self.kept), key=lambda job: -sum(infos[name].size for name in job.names)
        )
        blocks = {job: self.kept[job] for job in jobs if job in self.kept}
        for job, made in encoded(self.executor, self.checkpoint, self.stats, new, self.device):
            blocks[job] = made
            if self.progress:
                self.progress("encode", len(blocks), len(jobs))
        self.kept = blocks
        return Archive.build(
            _header(self.checkpoint, plan, self.sha256, record_of(self.stats)),
            [block for job in jobs for block in blocks[job]],
        )


def encode(
    source: Source,
    plan: Plan,
    importance: Mapping[str, Stat] | None = None,
    *,
    executor: Executor | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Archive:
    """Code every tensor as a plan says; each chunk is decoded and compared before it counts.

    Args:
        source: what the plan was made for.
        plan: codec and knob by tensor.
        importance: by tensor; see `sweep`.
        executor: anything with `map`; a task is a section.
        device: of torch, such as "cuda"; see `sweep`.
        progress: called with ("encode", done, total).

    Raises:
        UsageError: the plan does not fit the source, or torch has no such device.

    >>> import numpy as np
    >>> source = {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)}
    >>> from netweight.allocate import allocate
    >>> archive = encode(source, allocate(sweep(source), loss=50.0))
    >>> 45 < 0.5 * float(np.sum((archive["w"] - source["w"]) ** 2)) < 55
    True
    """
    checkpoint = open_checkpoint(source)
    stats = stats_of(checkpoint, importance)
    _require_match(checkpoint, plan)
    return Coder(checkpoint, stats, executor, progress, device).encode(plan)


def _require_match(checkpoint: Checkpoint, plan: Plan) -> None:
    missing = [name for name in checkpoint.infos if name not in plan.choices]
    extra = [name for name in plan.choices if name not in checkpoint.infos]
    if missing or extra:
        raise UsageError(
            f"The plan lacks {len(missing)} of the {len(checkpoint.infos)} tensors and names {len(extra)} "
            f"that are not there: {(missing + extra)[0]!r}.",
            "Make the plan for this checkpoint.",
        )


def _header(checkpoint: Checkpoint, plan: Plan, sha256: str, record: dict[str, Any] | None) -> Header:
    summary: dict[str, Any] = {"slope": plan.slope, "target": plan.target, "bits": round(plan.bits), "loss": plan.loss}
    if record is not None:
        summary["importance"] = record
    layout = tuple(
        Group(f, checkpoint.prefixes[f], len(names), checkpoint.group_metadata[f])
        for f, names in checkpoint.groups.items()
    )
    return Header(
        by=f"netweight {__version__}",
        tensors=tuple(checkpoint.infos.values()),
        names=checkpoint.names,
        ties=checkpoint.ties,
        knobs=tuple(plan.choices[name].knob for name in checkpoint.infos),
        params=(),
        sections=(),
        metadata=checkpoint.metadata,
        layout=layout,
        source={"sha256": sha256, "bytes": checkpoint.nbytes},
        plan=summary,
    )


def load(path: str | os.PathLike[str], *, framework: str = "torch") -> dict[str, Any]:
    """Decode a file into tensors.

    Args:
        path: a `.nwt` file.
        framework: "torch" for torch tensors of the original dtypes, ties sharing memory; "numpy" for storage arrays.

    Raises:
        UsageError: there is no such file, or torch is asked for and not installed.
        FormatError: the file is damaged.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = compress({"steps": np.arange(5)}, f"{folder}/model.nwt", slope=1.0)
    ...     load(f"{folder}/model.nwt", framework="numpy")
    {'steps': array([0, 1, 2, 3, 4])}
    """
    with Archive.open(path) as archive:
        if framework == "numpy":
            return {name: archive[name] for name in archive}
        if framework != "torch":
            raise UsageError(f"The framework is {framework!r}.", 'Ask for "torch" or "numpy".')
        owners = {name: archive.tensor(name) for name in archive if name not in archive.ties}
        return {name: owners[archive.ties.get(name, name)] for name in archive}
