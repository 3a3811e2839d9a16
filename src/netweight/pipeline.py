"""The whole flow on one screen: checkpoint, curves, one slope, integers, bytes, file."""

import copy
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from netweight import __version__
from netweight.allocate import HEADER_BITS, Plan, allocate, positive, steepest, too_small, within_bits
from netweight.archive import Archive, Group, Header
from netweight.archive.encoding import Block
from netweight.archive.grouping import Job, group
from netweight.archive.members import encoded
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.codecs.machine import machine_of
from netweight.curve import FLATTEST, Curve, Progress, Source, sweep
from netweight.errors import UsageError
from netweight.importance.given import record_of, stats_of
from netweight.importance.stat import Stat
from netweight.units import format_bytes, parse_size

# Encodings at most to meet a size: some that correct the prediction; of small files, whose size goes up and down by ten
# bytes or so from one step to the next, then a few to both sides of where they should be.
ROUNDS, MORE_ROUNDS = 6, 14
SMALL_BYTES = 1 << 16
ASIDE = 0.002
FROM_BELOW = 0.995  # a file of at least this share of the size asked for has met it
DOUBT = (
    1.05  # a prediction above this share of the size asked for is believed without a file, but for the header's part
)
# Where in between an encoding aims: large files are mostly 0.1 % below to 0.3 % above the prediction.
FIRST_AIM, AIM = 0.9962, 0.9985


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


def fit(
    coder: "Coder",
    curves: Mapping[str, Curve],
    *,
    size: str | int | None = None,
    bits: float | None = None,
    loss: float | None = None,
    slope: float | None = None,
) -> tuple[Plan, Archive]:
    """Allocate and encode; a size or rate asked for is met by the file itself.

    Args:
        coder: of the checkpoint.
        curves: by `sweep`.
        size: as for `compress`, like the other targets, of which one is given.
        bits: likewise.
        loss: likewise.
        slope: likewise.

    Raises:
        TargetError: the target is out of reach.
    """
    if size is None and bits is None:
        plan = allocate(curves, loss=loss, slope=slope)
        return plan, coder.encode(plan)
    budget_bytes = int(most_bytes(curves, size=size, bits=bits))
    target = format_bytes(budget_bytes) if size is not None else f"{bits:g} bits/weight"
    return _within(coder, curves, budget_bytes, target)


def most_bytes(
    curves: Mapping[str, Curve], *, size: str | int | None = None, bits: float | None = None, **_: float | None
) -> float:
    """Bytes of the largest file that meets a target, which may be another than a size: then any."""
    if size is not None:
        return parse_size(size)
    if bits is None:
        return math.inf
    return int(positive("bits", bits) * sum(curve.size for curve in curves.values()) // 8)


def _within(coder: "Coder", curves: Mapping[str, Curve], budget_bytes: int, target: str) -> tuple[Plan, Archive]:
    """Encode, compare with the size asked for, correct the prediction, encode again; keep the largest that fits.

    The correction is one ratio for all tensors: a prediction is off by a percent or so, and by nearly the same ratio
    the next time.
    """
    least = steepest(curves, target)
    if least.bits > DOUBT * 8 * budget_bytes + 2 * HEADER_BITS:
        raise too_small(curves, least, 8.0 * budget_bytes)
    budget_bits, best, least_bytes = FIRST_AIM * 8.0 * budget_bytes, None, math.inf
    above, below = math.inf, 0.0  # predicted sizes known to give too much, and to fit
    ratios: list[float] = []
    for done in range(ROUNDS + MORE_ROUNDS * int(budget_bytes < SMALL_BYTES)):
        plan = within_bits(curves, max(budget_bits, least.bits), target)
        archive = coder.encode(plan)
        ratio = 8 * archive.nbytes / plan.bits
        ratios.append(ratio)
        if archive.nbytes <= budget_bytes:
            below = max(below, plan.bits)
            best = (plan, archive) if best is None or archive.nbytes >= best[1].nbytes else best
            if archive.nbytes >= FROM_BELOW * budget_bytes or plan.slope <= 2.0**FLATTEST:
                return plan, archive
        else:
            above = min(above, plan.bits)
            least_bytes = min(least_bytes, archive.nbytes)
            if plan.choices == least.choices:
                break
        budget_bits = AIM * 8 * budget_bytes / ratio
        if done + 1 >= ROUNDS:
            aside = ASIDE * ((done + 2 - ROUNDS) // 2) * (-1) ** done
            budget_bits = AIM * 8 * budget_bytes / (sum(ratios) / len(ratios)) * (1 + aside)
        elif not below < budget_bits < above:
            budget_bits = (below + above) / 2
    if best is None:
        raise too_small(curves, least, 8.0 * budget_bytes, 8 * least_bytes)
    return best


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
