"""Element types by their safetensors codes, and the exact way between storage and float32.

A tensor travels as *storage*: a NumPy array whose dtype NumPy knows everywhere. BF16 is stored as uint16, the
8-bit floats as uint8, types below a byte (F4, F6) as the flat uint8 bytes of the file. No optional package is needed.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from netweight.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ALIGNMENT_ORDER",
    "CODES",
    "MAX_RANK",
    "bits_per_element",
    "from_float32",
    "is_float",
    "nbytes",
    "storage_dtype",
    "to_float32",
]

Array = np.ndarray[Any, np.dtype[Any]]

MAX_RANK: Final = 16

# code: (bits of an element, dtype of the storage), in the order in which safetensors sorts tensors of a file (rising).
_TYPES: Final[Mapping[str, tuple[int, np.dtype[Any]]]] = MappingProxyType(
    {
        code: (bits, np.dtype(storage))
        for code, bits, storage in (
            ("BOOL", 8, "?"),
            ("F4", 4, "u1"),
            ("F6_E2M3", 6, "u1"),
            ("F6_E3M2", 6, "u1"),
            ("U8", 8, "u1"),
            ("I8", 8, "i1"),
            ("F8_E5M2", 8, "u1"),
            ("F8_E4M3", 8, "u1"),
            ("F8_E8M0", 8, "u1"),
            ("F8_E4M3FNUZ", 8, "u1"),
            ("F8_E5M2FNUZ", 8, "u1"),
            ("I16", 16, "<i2"),
            ("U16", 16, "<u2"),
            ("F16", 16, "<f2"),
            ("BF16", 16, "<u2"),
            ("I32", 32, "<i4"),
            ("U32", 32, "<u4"),
            ("F32", 32, "<f4"),
            ("C64", 64, "<c8"),
            ("F64", 64, "<f8"),
            ("I64", 64, "<i8"),
            ("U64", 64, "<u8"),
        )
    }
)
ALIGNMENT_ORDER: Final[Mapping[str, int]] = MappingProxyType({code: rank for rank, code in enumerate(_TYPES)})
# Codes by the names that NumPy, the package ml_dtypes and PyTorch have for their types; none need be installed.
CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bool": "BOOL",
        "uint8": "U8",
        "int8": "I8",
        "uint16": "U16",
        "int16": "I16",
        "uint32": "U32",
        "int32": "I32",
        "uint64": "U64",
        "int64": "I64",
        "float16": "F16",
        "bfloat16": "BF16",
        "float32": "F32",
        "float64": "F64",
        "complex64": "C64",
        "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
        "float8_e8m0fnu": "F8_E8M0",
        "float8_e4m3fnuz": "F8_E4M3FNUZ",
        "float8_e5m2fnuz": "F8_E5M2FNUZ",
        "float4_e2m1fn_x2": "F4",  # PyTorch: two values in a byte, along the last axis
    }
)
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


def _lookup(code: str) -> tuple[int, np.dtype[Any]]:
    try:
        return _TYPES[code]
    except (KeyError, TypeError):
        raise FormatError(f"The dtype {code!r} is unknown.", "Known are: " + ", ".join(_TYPES) + ".") from None


def bits_per_element(code: str) -> int:
    """Bits of one element: 4, 6, 8, 16, 32 or 64.

    Raises:
        FormatError: the code is unknown.

    >>> bits_per_element("BF16"), bits_per_element("F4")
    (16, 4)
    """
    return _lookup(code)[0]


def storage_dtype(code: str) -> np.dtype[Any]:
    """NumPy dtype in which tensors of this code are held; uint8 of flat bytes below 8 bits.

    Raises:
        FormatError: the code is unknown.

    >>> storage_dtype("BF16")
    dtype('uint16')
    """
    return _lookup(code)[1]


def is_float(code: str) -> bool:
    """Whether lossy codecs take this type: floats of 16 bits and more.

    >>> is_float("BF16"), is_float("F8_E4M3"), is_float("I32")
    (True, False, False)
    """
    return code in _FLOATS


def nbytes(code: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor, prod(shape) * bits / 8.

    Args:
        code: dtype code.
        shape: elements along each axis.

    Raises:
        FormatError: the code is unknown, or the bits do not fill whole bytes.

    >>> nbytes("F32", (3, 4)), nbytes("F4", (3, 4)), nbytes("F64", ())
    (48, 6, 8)
    """
    bits, _ = _lookup(code)
    total_bits = math.prod(shape) * bits
    if total_bits % 8:
        raise FormatError(
            f"A tensor of dtype {code} and shape {list(shape)} has {total_bits} bits, not whole bytes.",
            "Write the file again with an even last axis.",
        )
    return total_bits // 8


def to_float32(storage: Array, code: str) -> Array:
    """Values of a stored float tensor as float32; exact for all but F64, which is rounded to nearest even.

    Args:
        storage: array of `storage_dtype(code)`, any shape.
        code: F64, F32, F16 or BF16.

    Returns:
        float32 array of the same shape; the input itself for F32.

    Raises:
        UsageError: the code is no float of 16 bits and more.

    >>> to_float32(np.array([0x3FC0], np.uint16), "BF16")
    array([1.5], dtype=float32)
    """
    _require_float(code)
    if code == "BF16":
        wide = storage.astype(np.uint32)
        wide <<= np.uint32(16)
        return wide.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return storage.astype(np.float32, copy=False)


def from_float32(values: Array, code: str) -> Array:
    """Storage of float32 values, rounded once to nearest even; overflow gives infinity, NaN stays NaN.

    Args:
        values: float32 array, any shape.
        code: F64, F32, F16 or BF16.

    Returns:
        Array of `storage_dtype(code)` and the same shape; the input itself for F32.

    Raises:
        UsageError: the code is no float of 16 bits and more.

    >>> from_float32(np.array([1.5], np.float32), "BF16")
    array([16320], dtype=uint16)
    """
    _require_float(code)
    if code == "BF16":
        return _round_to_bf16(np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).reshape(values.shape))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(storage_dtype(code), copy=False)


def _round_to_bf16(bits: Array) -> Array:
    """Upper half of float32 bits after adding half a unit, a tie going to the even neighbour; integers only."""
    odd = bits >> np.uint32(16)
    odd &= np.uint32(1)
    odd += np.uint32(0x7FFF)
    with np.errstate(over="ignore"):
        odd += bits  # wraps only for NaN, which is replaced below
    odd >>= np.uint32(16)
    rounded = odd.astype(np.uint16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if nan.any():
        quiet = (bits >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
        rounded = np.where(nan, quiet, rounded)
    return rounded


def _require_float(code: str) -> None:
    if code not in _FLOATS:
        raise UsageError(
            f"The dtype {code} has no float32 arithmetic here.", "Only F64, F32, F16 and BF16 do; store others exactly."
        )
