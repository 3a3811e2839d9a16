"""`netweight report`: one page about a file, for people."""

from __future__ import annotations

import contextlib
import time
from argparse import Namespace
from pathlib import Path

from netweight.archive import Archive
from netweight.atomic import atomic_file, check_target
from netweight.checkpoint import open_checkpoint
from netweight.report import report as page_of
from netweight.units import format_bytes, format_seconds

from .console import Console
from .targets import archive_in, beside, existing, measured, threads

__all__ = ["report"]


def report(options: Namespace, console: Console) -> int:
    """Write the page; with the original it also tells what was lost, and how far the file is from the bound."""
    path, output = archive_in(options.input), Path(options.output)
    check_target(output, options.force)
    beside(output, path)
    if options.against is not None:
        beside(output, existing(options.against))
    begin_s = time.perf_counter()
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(Archive.open(path))
        original = None
        if options.against is not None:
            original = stack.enter_context(open_checkpoint(existing(options.against)))
        executor = stack.enter_context(threads(options.workers))
        progress = stack.enter_context(console.progress())
        importance = measured(options)
        page = page_of(
            archive, original, model=options.model, importance=importance, executor=executor, progress=progress
        ).encode()
    with atomic_file(output, options.force) as file:
        file.write(page)
    console.story(f"written in {format_seconds(time.perf_counter() - begin_s)}")
    data = {"input": str(path), "output": str(output), "bytes": len(page), "against": options.against}
    console.result("report", data, [f"{output}  {format_bytes(len(page))}"])
    return 0
