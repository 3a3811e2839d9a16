"""What all experiments share: a result, its files, and the command line."""

from __future__ import annotations

import argparse
import csv
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.store import setting
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OUT = Path("experiments/results")
# Okabe and Ito's palette: distinct for colour-blind readers and on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: Any = {  # the stub wants a literal type for every key
    "svg.hashsalt": "netweight",
    "svg.fonttype": "none",
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "font.size": 9,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True, slots=True)
class Result:
    """Columns for the CSV, a function that draws the panels, and what was found."""

    columns: Mapping[str, Sequence[object]]
    draw: Callable[[Sequence[Axes]], None]
    verdict: str
    panels: int = 1


def write(
    name: str, result: Result, seed: int, out: Path, options: str = "", made_by: str = "", network: str = ""
) -> None:
    """Write NAME.csv and NAME.svg into `out`; the CSV says by what and on what it was made.

    Files of an experiment on one network of several have its name too: NAME_NETWORK.csv.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{name}_{network}" if network else name
    options = f" --network {network}{options}" if network else options
    with (out / f"{stem}.csv").open("w", newline="") as file:
        file.write(
            f"# python -m experiments.{name} --seed {seed}{options}; NumPy {np.__version__}, {platform.machine()}"
            f"{made_by}\n"
        )
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(result.columns)
        for row in zip(*result.columns.values(), strict=True):
            writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * result.panels, 3.4), layout="constrained")
        result.draw(figure.subplots(1, result.panels, squeeze=False)[0])
        figure.savefig(out / f"{stem}.svg", metadata={"Date": None, "Creator": None})


def begun() -> Callable[[], str]:
    """Look at the clock, the machine and the commit; what it gives says them, and the CPU time from here on."""
    start, on = time.process_time(), setting()

    def made_by() -> str:
        cpu_s = time.process_time() - start
        cost = f"{cpu_s / 60:.1f} CPU minutes" if cpu_s >= 60 else f"{cpu_s:.0f} CPU seconds"
        torch = f"torch {version('torch')}, " if "torch" in sys.modules else ""
        return (
            f", {on['machine']['processor']}; {torch}Python {on['versions']['python']}, "
            f"netweight {on['versions']['netweight']}; {cost}, {on['date']}"
        )

    return made_by


def options(name: str, *, data: bool = False) -> argparse.ArgumentParser:
    """What every command here takes, and `--data` where it looks at trained networks."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{name}")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the CSVs and figures")
    if data:
        parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="trained networks, .safetensors")
    return parser


def command(name: str, run: Callable[[int], Result]) -> None:
    """Command line of one experiment."""
    arguments = options(name).parse_args()
    made_by = begun()
    result = run(arguments.seed)
    write(name, result, arguments.seed, arguments.out, made_by=made_by())
    print(f"{name}: {result.verdict}")


NetworkRun = Callable[[int, Path, bool], Result | None]


def network_report(
    name: str,
    run: NetworkRun,
    seed: int,
    data: Path,
    out: Path,
    full: bool = False,
    resumed: bool = False,
    network: str = "",
) -> str:
    """Run an experiment on trained networks, write its files, and return the line of verdict or of the skip.

    What a run costs that read parts of earlier ones (`resumed`) is less than all; the CSV says that it did.

    Files of the reduced setting go to a folder of their own, so that they never replace those of the full one.
    """
    made_by = begun()
    result = run(seed, data, full)
    if result is None:
        return f"SKIPPED: the networks are not below {data}; give their folder with --data"
    given = (" --full" if full else "") + (" --resume" if resumed else "")
    write(name, result, seed, out if full else out / "reduced", given, made_by(), network)
    return result.verdict


def network_command(
    name: str, run: Callable[..., Result | None], *, resumes: bool = False, networks: Sequence[str] = ()
) -> None:
    """Command line of an experiment on trained networks, in a reduced setting unless --full is given.

    Args:
        name: of the experiment.
        run: of seed, data, full; and `resume` and `network` where it takes them.
        resumes: whether it takes a folder of finished parts.
        networks: of which it takes one, or all where none is named.
    """
    parser = options(name, data=True)
    if resumes:
        parser.add_argument("--resume", type=Path, help="folder that keeps finished parts, for a run that was stopped")
    parser.add_argument("--full", action="store_true", help="all networks and images; minutes on a GPU, hours without")
    if networks:
        parser.add_argument("--network", choices=networks, default="", help="one network; all if not given")
    given = parser.parse_args()
    resumed = resumes and given.resume is not None and given.resume.is_dir()
    run = partial(run, resume=given.resume) if resumes else run
    run, network = (partial(run, network=given.network), given.network) if networks else (run, "")
    print(f"{name}: {network_report(name, run, given.seed, given.data, given.out, given.full, resumed, network)}")


def holds(claim: bool, text: str) -> str:
    """One line that says whether the claim held."""
    return f"{'holds' if claim else 'DOES NOT HOLD'}: {text}"


def floats(values: Sequence[float] | np.ndarray) -> list[float]:
    """Plain floats for a column."""
    return [float(x) for x in values]
