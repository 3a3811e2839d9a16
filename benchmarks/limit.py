"""The int8 to float32 conversion limit of this machine: a plain C loop, compiled here, vectorised for AVX2."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

__all__ = ["conversion_limit"]


def conversion_limit(count: int, repeats: int = 9) -> dict[str, float] | None:
    """Weights a second that one thread converts at best; None without a compiler.

    Args:
        count: values converted by one call.
        repeats: calls, of which the quickest counts.

    Returns:
        `warm` into memory that was written before; `fresh` into memory the system has to give first, as a decoder that
        returns new arrays does.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        library = Path(scratch) / "limit.so"
        flags = ["-O3", "-shared", "-fPIC", *(["-mavx2"] if platform.machine() in ("x86_64", "AMD64") else [])]
        subprocess.run([compiler, *flags, "-o", str(library), str(Path(__file__).with_name("limit.c"))], check=True)
        convert = ctypes.CDLL(str(library)).convert
    convert.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float]
    convert.restype = None
    symbols = np.random.default_rng(0).integers(-8, 8, count, dtype=np.int8)
    warm = np.ones(count, np.float32)
    best = {"warm": float("inf"), "fresh": float("inf")}
    for _ in range(repeats):
        for kind in best:
            began = time.perf_counter()
            target = warm if kind == "warm" else np.empty(count, np.float32)
            convert(symbols.ctypes.data, target.ctypes.data, count, 0.125)
            best[kind] = min(best[kind], time.perf_counter() - began)
    return {kind: count / seconds for kind, seconds in best.items()}
