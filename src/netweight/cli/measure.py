"""`netweight measure`: the importance of a Hugging Face network's weights, from a text file or a folder of images."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

from netweight.atomic import check_target
from netweight.importance.core import Importance
from netweight.importance.hugging_face import open_network
from netweight.importance.measure import measure as measure_of
from netweight.importance.stat import Stat
from netweight.units import format_bytes, format_count, format_seconds

from .console import Console
from .targets import existing

__all__ = ["measure"]


def measure(options: Namespace, console: Console) -> int:
    """Run the network over the data and write what was measured."""
    output = Path(options.output)
    check_target(output, options.force)
    begin_s = time.perf_counter()
    network = open_network(
        existing(options.input), existing(options.data), options.samples, options.batch, options.length
    )
    console.story(f"{network.samples} of {network.available} samples, loss {options.loss or network.loss}")
    with console.progress() as progress:
        importance = measure_of(
            network.model,
            network.batches,
            options.loss or network.loss,
            structure=options.structure,
            forward=network.forward,
            temperature=options.temperature,
            draws=options.draws,
            seed=options.seed,
            progress=progress,
        )
    importance.save(output, force=options.force)
    took_s = time.perf_counter() - begin_s
    console.story(f"measured in {format_seconds(took_s)}")
    console.result("measure", _data(importance, options, output, took_s), _lines(importance, output))
    return 0


def _data(importance: Importance, options: Namespace, output: Path, took_s: float) -> dict[str, object]:
    return {
        "input": options.input,
        "data": options.data,
        "output": str(output),
        "bytes": output.stat().st_size,
        "seconds": took_s,
        "tensors": len(importance),
        "structured": _structured(importance),
        "record": importance.record.to_json(),
    }


def _lines(importance: Importance, output: Path) -> list[str]:
    record, structured = importance.record, _structured(importance)
    size = format_bytes(output.stat().st_size)
    counts = f"{format_count(record.samples)} samples, {format_count(round(record.predictions))} predictions"
    return [
        f"{output}  {size}, {len(importance)} tensors, {structured} of them with second moments",
        f"{counts}, {record.objective} of {record.loss}, data {record.data[:16]}",
    ]


def _structured(importance: Importance) -> int:
    entries = (importance.sums(name) for name in importance)
    return sum(not isinstance(entry, Stat) and any(use.inputs is not None for use in entry) for entry in entries)
