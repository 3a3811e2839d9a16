"""Whole-process wall time of the commands that should answer at once."""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Final

from . import store
from .process import run

__all__ = ["measure"]

_RUNS: Final = 15
_COMMANDS: Final = {"python -c pass": ["-c", "pass"], "netweight --help": ["-m", "netweight", "--help"]}


def measure(_options: argparse.Namespace) -> store.Records:
    """Median and extremes of several runs of each command, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for _ in range(_RUNS):
        for name, words in _COMMANDS.items():
            seconds[name].append(run([sys.executable, *words], sample=False).wall_s)
    records = []
    for name, taken in seconds.items():
        print(f"{name}: {statistics.median(taken):.3f} s")
        spread = {"fastest_s": min(taken), "slowest_s": max(taken)}
        records.append({"command": name, "runs": _RUNS, "median_s": statistics.median(taken), **spread})
    return records


if __name__ == "__main__":
    from .page import finish

    finish("start", measure, store.arguments(__doc__))
