# mypy: ignore-errors
# (the rivals' packages are installed in their own environment only, and have no types)
"""Code one checkpoint with NNCodec and decode it again; runs inside NNCodec's own environment.

    python rival_nncodec.py IN.safetensors OUT.safetensors --qp -24 [--decodes 3]

Every float tensor of IN is coded with the trellis; OUT receives what comes back. One JSON object on stdout: bytes of
the stream, CPU and wall seconds of encode and of the quickest decode, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import sys
import tempfile
import time
from types import ModuleType

os.environ["OMP_NUM_THREADS"] = "1"


class _HasAll(type):
    """A class that has every attribute: another such class."""

    def __getattr__(cls, name: str) -> object:
        return _hollow_class(name)


def _hollow_class(name: str) -> type:
    """Stand for any class or function of torchvision; NNCodec builds some when imported, and codes arrays with none."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _HasAll(
        name, (), {"__init__": lambda self, *_values, **_options: None, "__call__": lambda self, *_values: self}
    )


class _Hollow(ModuleType):
    """A module that has every public name."""

    __version__ = "0"

    def __getattr__(self, name: str) -> object:
        return _hollow_class(name)


class _HollowTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and everything below it, hollow, so that it need not be installed."""

    def find_spec(self, fullname, _path=None, _target=None):
        """Claim torchvision."""
        if fullname.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        """Give a module that answers to every name."""
        return _Hollow(spec.name)

    def exec_module(self, module):
        """Nothing runs."""


class _Stopwatch:
    def __init__(self) -> None:
        self.cpu_s, self.wall_s = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        return {"cpu_s": time.process_time() - self.cpu_s, "wall_s": time.perf_counter() - self.wall_s}


def _peak_bytes() -> int:
    """Peak resident memory; not from rusage where /proc has it, since that counts what the parent held, too."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return 1024 * int(status.read().partition("VmHWM:")[2].split(maxsplit=1)[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Encode, decode, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("restored")
    parser.add_argument("--qp", type=int, required=True)
    parser.add_argument("--decodes", type=int, default=1)
    arguments = parser.parse_args()

    sys.meta_path.append(_HollowTorchvision())
    import numpy as np
    from nncodec import nn as nncodec
    from safetensors.numpy import load_file, save_file

    tensors = {name: value for name, value in load_file(arguments.source).items() if value.dtype == np.float32}
    report = {"idle_peak_bytes": _peak_bytes()}
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        watch = _Stopwatch()
        stream = bytes(
            nncodec.encode(dict(tensors), {"qp": arguments.qp, "use_dq": True, "results": scratch, "verbose": False})
        )
        report["encode"] = watch.read()
        report["peak_bytes"] = _peak_bytes()
        decodes = []
        for _ in range(arguments.decodes):
            watch = _Stopwatch()
            restored = nncodec.decode(bytearray(stream))
            decodes.append(watch.read())
    report["decode"] = min(decodes, key=lambda seconds: seconds["cpu_s"])
    report["bytes"] = len(stream)
    shaped = {k: np.ascontiguousarray(restored[k], np.float32).reshape(v.shape) for k, v in tensors.items()}
    save_file(shaped, arguments.restored)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
