"""Decode every float tensor of a .nwt file in one thread, several times, in a process of its own.

    python -m benchmarks.decode_child FILE.nwt REPEATS

Each repeat opens the file anew, so that nothing decoded before helps; checksums are verified as always. One JSON object
on stdout: weights, and CPU and wall seconds of the quickest repeat, into new arrays and (warm) into arrays that are
there, written before.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

import netweight as nw
from netweight.dtypes import is_float


def main() -> None:
    """Decode, time, report."""
    path, repeats = sys.argv[1], int(sys.argv[2])
    best = dict.fromkeys(("cpu_s", "wall_s", "warm_cpu_s", "warm_wall_s"), float("inf"))
    weights = 0
    with nw.Archive.open(path) as archive:
        names = [name for name, info in archive.infos.items() if is_float(info.dtype)]
        there = {name: np.ones(archive.infos[name].shape, np.float32) for name in names}
    for _ in range(repeats):
        for kind in ("", "warm_"):
            archive = nw.Archive.open(path)
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            if kind:
                archive.fill(there)
            else:
                weights = sum(archive[name].size for name in names)
            best[f"{kind}cpu_s"] = min(best[f"{kind}cpu_s"], time.process_time() - cpu_s)
            best[f"{kind}wall_s"] = min(best[f"{kind}wall_s"], time.perf_counter() - wall_s)
    print(json.dumps({"weights": weights, **best}))


if __name__ == "__main__":
    main()
