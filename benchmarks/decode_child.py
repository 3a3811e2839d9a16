"""Decode every float tensor of a .nwt file in one thread, several times, in a process of its own.

    python -m benchmarks.decode_child FILE.nwt REPEATS

Each repeat opens the file anew, so that nothing decoded before helps; checksums are verified as always. One JSON object
on stdout: weights, and CPU and wall seconds of the quickest repeat.
"""

from __future__ import annotations

import json
import sys
import time

import netweight as nw
from netweight.dtypes import is_float


def main() -> None:
    """Decode, time, report."""
    path, repeats = sys.argv[1], int(sys.argv[2])
    best = {"cpu_s": float("inf"), "wall_s": float("inf")}
    weights = 0
    for _ in range(repeats):
        archive = nw.Archive.open(path)
        names = [name for name, info in archive.infos.items() if is_float(info.dtype)]
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        weights = sum(archive[name].size for name in names)
        best["cpu_s"] = min(best["cpu_s"], time.process_time() - cpu_s)
        best["wall_s"] = min(best["wall_s"], time.perf_counter() - wall_s)
    print(json.dumps({"weights": weights, **best}))


if __name__ == "__main__":
    main()
