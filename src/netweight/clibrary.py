"""The C library, if it was built: found, checked, and called with arrays, numbers and structures."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

ABI = 12
BRIEF = 1 << 15  # weights that a simple loop is through in some twenty microseconds

# Arrays, integers (64 bits), floats (32 bits), structures or None (a null pointer).
Argument = Any


class CSegment(ctypes.Structure):
    """`segment` of csrc/kernels.c."""

    _fields_ = (
        ("n", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("plane", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("cls", ctypes.c_void_p),
        ("row", ctypes.c_void_p),
        ("column", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("top", ctypes.c_int64),
        ("dealt", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("scaled", ctypes.c_void_p),
        ("factor", ctypes.c_float),
        ("plain", ctypes.c_uint32),
        ("weighted", ctypes.c_uint32),
        ("beyond", ctypes.c_int64),
        ("around", ctypes.c_int64),
    )


class CChunk(ctypes.Structure):
    """`chunk` of csrc/decode.h."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("segs", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("place", ctypes.c_void_p),
        ("held", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        ("used", ctypes.c_int64),
        ("checksum", ctypes.c_int64),
    )


class CModel(ctypes.Structure):
    """`model` of csrc/kernels.c."""

    _fields_ = (
        ("codebooks", ctypes.c_int64),
        ("levels", ctypes.c_int64),
        ("tap0", ctypes.c_int64),
        ("tap1", ctypes.c_int64),
        ("thresholds", ctypes.c_void_p),
    )


class CTensor(ctypes.Structure):
    """`tensor` of csrc/section.h."""

    _fields_ = (("rows", ctypes.c_int64), ("columns", ctypes.c_int64), ("out", ctypes.c_void_p))


class CSuccessive(ctypes.Structure):
    """`successive` of csrc/kernels.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("rows", "columns", "groups", "span", "per_plane", "run", "bits", "tap0", "tap1", "survivors")
    )


def _open_library() -> ctypes.CDLL | None:
    if os.environ.get("NETWEIGHT_KERNELS") == "numpy":
        return None
    for path in sorted(Path(__file__).parent.glob("_kernels.*")):
        try:
            library = ctypes.CDLL(str(path))
            library.nw_abi.restype = ctypes.c_int64
        except (OSError, AttributeError):
            continue
        if library.nw_abi() == ABI:
            return library
    return None


LIBRARY = _open_library()


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the library; the interpreter's lock is released meanwhile.

    Arrays must be contiguous and of the type that the function expects; they are kept alive during the call.
    """
    function = getattr(LIBRARY, name)
    function.restype = ctypes.c_int64
    return int(function(*map(_converted, arguments)))


def brief(name: str, *arguments: Argument) -> int:
    """Call a function that takes less time than to hand the interpreter's lock to another thread and back: it is kept.

    Arguments as for `call`.
    """
    function = getattr(_locked(LIBRARY), name)
    function.restype = ctypes.c_int64
    return int(function(*map(_converted, arguments)))


@lru_cache(maxsize=1)
def _locked(library: ctypes.CDLL) -> ctypes.PyDLL:
    return ctypes.PyDLL(library._name, handle=library._handle)


def by_size(size: int) -> Callable[..., int]:
    """Choose the way to call a function that does a little with so many weights or symbols."""
    return brief if size <= BRIEF else call


def address(array: np.ndarray[Any, Any]) -> int:
    """Where an array's data lie; in half the time of `array.ctypes.data`."""
    return int(array.__array_interface__["data"][0])


def _converted(argument: Argument) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(address(argument))
    if isinstance(argument, int | np.integer):
        return ctypes.c_int64(int(argument))
    if isinstance(argument, float | np.floating):
        return ctypes.c_float(float(argument))
    return argument
