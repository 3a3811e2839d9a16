"""Run a command and see what it took: seconds of wall and CPU, peak memory of it and its children together."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Outcome", "quiet_environment", "run"]

_SAMPLE_S = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished command printed and took; `peak_bytes` is resident memory, summed over its processes."""

    stdout: str
    wall_s: float
    cpu_s: float
    peak_bytes: int


def quiet_environment(threads: int = 1) -> dict[str, str]:
    """This process's variables, with BLAS and OpenMP held to some threads that sleep while they wait."""
    pinned = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **pinned, "OMP_WAIT_POLICY": "PASSIVE"}


def run(command: Sequence[object], environment: Mapping[str, str] | None = None, *, sample: bool = True) -> Outcome:
    """Run to the end; stderr passes through.

    Args:
        command: program and arguments.
        environment: variables; those of `quiet_environment()` without.
        sample: follow the memory of its children too, by looking every 10 ms; costs a little time of the other core.

    Raises:
        subprocess.CalledProcessError: it ended with another code than 0.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], env=dict(environment or quiet_environment()), stdout=subprocess.PIPE, text=True
    )
    sampler = _Sampler(process.pid) if sample else None
    assert process.stdout is not None
    with process.stdout:
        stdout = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # reaped here, so Popen must not wait for it
    sampled = sampler.stop() if sampler else 0
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, stdout)
    return Outcome(stdout, wall_s, usage.ru_utime + usage.ru_stime, sampled or _kernels_own(usage))


def _kernels_own(usage: resource.struct_rusage) -> int:
    """Peak as the kernel tells it at the end; on Linux this is at least what the parent held when it forked."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Sampler:
    """A thread that looks at the memory of a process and its descendants, and keeps the largest sum."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self._peak = max(self._peak, _resident_bytes(self._pid))

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self._peak


def _resident_bytes(pid: int) -> int:
    """Peak resident bytes of a process so far, or what it and those below it hold now; 0 where /proc does not say.

    What a child shares with others (a program's text, all that a fork has not written yet) is there only once.
    """
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
        peak, now = (1024 * int(status.partition(key)[2].split(maxsplit=1)[0]) for key in ("VmHWM:", "VmRSS:"))
        return max(peak, now + sum(_private_bytes(child) for child in _children(pid)))
    except (OSError, IndexError, ValueError):
        return 0


def _private_bytes(pid: int) -> int:
    """Bytes that only this process holds, and those of its descendants."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 1024 * kilobytes + sum(_private_bytes(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    tasks = (Path("/proc") / str(pid) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
