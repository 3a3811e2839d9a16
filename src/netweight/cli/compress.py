"""`netweight compress` and `netweight plan`: the same choice, carried out or written down."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from argparse import Namespace
from concurrent.futures import Executor
from pathlib import Path

from netweight import pipeline
from netweight.allocate import Plan, allocate
from netweight.archive import Archive
from netweight.atomic import atomic_file, check_target
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.curve import sweep
from netweight.errors import UsageError
from netweight.units import format_bits, format_bytes, format_count, format_seconds

from .account import codec_table, codecs_of, losses, plan_shares, shares_of, tensor_table
from .console import Console, Progress
from .targets import ARCHIVE_NAME, beside, existing, is_folder, measured, new_folder, target, threads

__all__ = ["compress", "plan"]


def compress(options: Namespace, console: Console) -> int:
    """Write the checkpoint as small as asked for; 1 if the file misses its target after all."""
    if options.dry_run:
        return plan(options, console)
    if options.output is None:
        raise UsageError("No output is named.", "Add -o OUT.nwt, or --dry-run to see the plan.")
    _require_target(options)
    begin_s = time.perf_counter()
    with open_checkpoint(existing(options.input)) as checkpoint:
        output = Path(options.output)
        folder = is_folder(options.output, ".nwt")
        path = output / ARCHIVE_NAME if folder else output
        if not folder:
            beside(output, Path(options.input))
        if not folder or output.is_dir():
            check_target(path, options.force)
        with threads(options.workers) as executor, console.progress() as progress:
            archive = _compressed(checkpoint, options, executor, progress)
        if folder:
            with new_folder(output, options.force) as hidden:
                _copy(checkpoint, hidden)
                archive.save(hidden / ARCHIVE_NAME)
        else:
            archive.save(output, force=options.force)
        took_s = time.perf_counter() - begin_s
        console.story(f"compressed in {format_seconds(took_s)}")
        return _report(archive, checkpoint, path, took_s, options, console)


def plan(options: Namespace, console: Console) -> int:
    """Choose codec and knob of every tensor, and show the choice or write it down."""
    _require_target(options)
    output = None if options.verb == "compress" or options.output is None else Path(options.output)
    if output is not None:
        check_target(output, options.force)
    with (
        open_checkpoint(existing(options.input)) as checkpoint,
        threads(options.workers) as executor,
        console.progress() as progress,
    ):
        chosen = _plan(checkpoint, options, executor, progress)
    text = chosen.to_json()
    if output is not None:
        with atomic_file(output, options.force) as file:
            file.write(text.encode())
    alone = options.verb == "plan" and output is None
    console.result("plan", json.loads(text), text.splitlines() if alone else _plan_lines(chosen, console))
    return 0


def _plan_lines(chosen: Plan, console: Console) -> list[str]:
    shares = plan_shares(chosen)
    bits = format_bits(chosen.bits / max(1, chosen.weights))
    head = f"{format_bytes(round(chosen.bits / 8))} predicted, {bits}, loss {chosen.loss:.4g}, slope {chosen.slope:.4g}"
    return [head, "", *codec_table(shares), *(["", *tensor_table(shares)] if console.verbose else [])]


def _require_target(options: Namespace) -> None:
    """Refuse a request without exactly one target, before anything is opened."""
    if getattr(options, "plan", None) is None:
        target(options)
    elif options.codec:
        raise UsageError(
            "Options --codec and --plan exclude each other: a plan names codecs.", "Leave one of them out."
        )


def _compressed(checkpoint: Checkpoint, options: Namespace, executor: Executor, progress: Progress) -> Archive:
    if options.plan is None and target(options):
        wanted = target(options)
        return pipeline.compress(
            checkpoint,
            **wanted,
            importance=measured(options),
            codecs=options.codec,
            executor=executor,
            device=options.device,
            progress=progress,
        )
    chosen = _plan(checkpoint, options, executor, progress)
    return pipeline.encode(
        checkpoint, chosen, measured(options), executor=executor, device=options.device, progress=progress
    )


def _plan(checkpoint: Checkpoint, options: Namespace, executor: Executor, progress: Progress) -> Plan:
    """The plan given, or the one that meets the target; where nothing may be lost there is only one."""
    if getattr(options, "plan", None) is not None:
        return Plan.from_json(_text(existing(options.plan)))
    curves = sweep(
        checkpoint,
        measured(options),
        codecs=options.codec,
        executor=executor,
        device=options.device,
        progress=progress,
    )
    wanted = target(options)
    if wanted:
        return allocate(curves, **wanted)
    return dataclasses.replace(allocate(curves, slope=1.0), slope=0.0, target="lossless")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The plan {path} cannot be read: {error}.", "Write a new one with `netweight plan`."
        ) from None


def _copy(checkpoint: Checkpoint, folder: Path) -> None:
    """The other files of a folder, as they are; compressed files in it are not the network's."""
    assert checkpoint.root is not None
    for path in (file for file in checkpoint.files if file.suffix != ".nwt"):
        copy = folder / path.relative_to(checkpoint.root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _report(
    archive: Archive, checkpoint: Checkpoint, path: Path, took_s: float, options: Namespace, console: Console
) -> int:
    weights = sum(info.size for info in checkpoint.infos.values())
    bits = 8 * archive.nbytes / max(1, weights)
    before_bytes, shares = checkpoint.nbytes, shares_of(archive)
    data = {
        "input": options.input,
        "output": str(path),
        "source_bytes": before_bytes,
        "bytes": archive.nbytes,
        "weights": weights,
        "bits_per_weight": bits,
        "seconds": took_s,
        "plan": archive.plan,
        "codecs": [dataclasses.asdict(entry) for entry in codecs_of(shares)],
    }
    ratio = f"{before_bytes / archive.nbytes:.2f} times smaller"
    head = f"{path}  {format_bytes(archive.nbytes)} of {format_bytes(before_bytes)}, {ratio}"
    rate = f"{format_bits(bits)}, {format_count(weights)} weights"
    console.result("compress", data, [f"{head}, {rate}", *losses(archive.plan), "", *codec_table(shares)])
    missed = (options.size is not None and archive.nbytes > options.size) or (options.bits or bits) < bits
    if missed:
        console.error(
            f"The file has {archive.nbytes:,} bytes, more than asked for.", "Please report it: this should not happen."
        )
    return int(missed)
