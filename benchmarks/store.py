"""The results file: one JSON object, a section for each benchmark with the machine and the day of it."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import netweight

from .rivals import LOSSLESS, NNCODEC

__all__ = ["RESULTS", "Records", "arguments", "load", "record", "setting"]

Records = list[dict[str, Any]]

RESULTS: Final = Path(__file__).parent / "results" / "results.json"
_VERSIONED: Final = ("nncodec", "zipnn", "lmzip", "zstandard")


def arguments(
    description: str | None, more: Callable[[argparse.ArgumentParser], object] | None = None
) -> argparse.Namespace:
    """Options that all benchmarks share: --networks FOLDER, --workers N, --results FILE; `more` adds others."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="where checkpoints are looked for first")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="threads of netweight where it may use several"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="results file to update")
    if more is not None:
        more(parser)
    return parser.parse_args()


def load(path: Path = RESULTS) -> dict[str, Any]:
    """All sections measured so far."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def record(section: str, measure: Callable[[argparse.Namespace], Records], options: argparse.Namespace) -> None:
    """Measure one section and write it into the results file, in place of what was there."""
    began = setting()
    records = measure(options)
    results = load(options.results)
    results[section] = {**began, "load_after": _load_average(), "records": records}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


def setting() -> dict[str, Any]:
    """Day, machine, load and versions.

    >>> setting()["machine"]["cores"] >= 1
    True
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.release()}",
        },
        "load_before": _load_average(),
        "versions": {
            "netweight": _own_version(),
            "python": platform.python_version(),
            "numpy": importlib.metadata.version("numpy"),
            **_rival_versions(),
        },
    }


def _rival_versions() -> Mapping[str, str]:
    """Versions that the rivals' environments pin."""
    pinned = dict(
        pin.split("==") for rival in (NNCODEC, LOSSLESS) for pin in (*rival.requires, *rival.alone) if "==" in pin
    )
    return {name: pinned[name] for name in _VERSIONED}


def _own_version() -> str:
    """Version and commit, with a plus where the package differs from the commit."""
    root = str(Path(__file__).parents[1])
    try:
        commit = subprocess.check_output(["git", "-C", root, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output(
            ["git", "-C", root, "status", "--porcelain", "src", "csrc"], text=True
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return netweight.__version__
    return f"{netweight.__version__} ({commit}{'+' if changed else ''})"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
