"""Torch tensors as dtype, shape and storage; the only file that knows how torch lays them out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from netweight.dtypes import CODES, storage_dtype
from netweight.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from netweight.dtypes import Array

__all__ = ["describe", "dtype_of", "storage", "tensor_of"]


def describe(tensor: Any, what: str) -> tuple[str, tuple[int, ...], Hashable]:
    """Dtype code, shape and identity of a torch tensor; nothing is copied.

    Args:
        tensor: any torch.Tensor.
        what: what it is, for messages.

    Returns:
        Code, elements along each axis, and an identity equal for two tensors that are the same view of the same
        memory (None for those without elements).

    Raises:
        FormatError: the tensor has no plain data (sparse, quantized, meta, nested), or a dtype outside safetensors.
    """
    kind = _without_plain_data(tensor)
    if kind:
        raise FormatError(f"{what} is {kind} and has no plain data to store.", "Convert it to a dense tensor first.")
    name = str(tensor.dtype).removeprefix("torch.")
    code = CODES.get(name)
    if code is None:
        raise FormatError(
            f"{what} has the dtype {tensor.dtype}, which safetensors cannot hold.",
            "Convert it to one of its dtypes first.",
        )
    shape = tuple(int(axis) for axis in tensor.shape)
    if code == "F4":
        if not shape:
            raise FormatError(f"{what} packs two values into a scalar.", "Give it one axis at least.")
        shape = (*shape[:-1], 2 * shape[-1])
    if not tensor.numel():
        return code, shape, None
    lazy_bits = (tensor.is_conj(), tensor.is_neg())
    return code, shape, (str(tensor.device), tensor.data_ptr(), shape, tensor.stride(), code, lazy_bits)


def _without_plain_data(tensor: Any) -> str:
    torch = sys.modules["torch"]
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"of layout {tensor.layout}"
    if tensor.is_quantized:
        return "quantized"
    if tensor.device.type == "meta":
        return "on the meta device"
    if torch.nn.parameter.is_lazy(tensor):
        return "not initialised"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:  # its memory is not what it shows
        return f"of type {type(tensor).__name__}"
    return ""


def storage(tensor: Any) -> Array:
    """Elements of a torch tensor in C order as a flat array of the storage dtype, without a copy where possible."""
    torch = sys.modules["torch"]
    dtype = storage_dtype(CODES[str(tensor.dtype).removeprefix("torch.")])
    if not tensor.numel():  # may have strides that no view as bytes accepts
        return np.empty(0, dtype)
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    raw: Array = dense.reshape(-1).view(torch.uint8).numpy()
    return raw.view(dtype)


def tensor_of(array: Array, code: str, shape: tuple[int, ...]) -> Any:
    """Give a torch tensor of a dtype code from its storage; the inverse of `storage`.

    Args:
        array: storage of the code; its memory is taken over where it is writable.
        code: dtype code.
        shape: elements along each axis.

    Raises:
        UsageError: torch is not installed, or has no such dtype.
    """
    dtype = dtype_of(code)
    import torch

    flat = np.require(array.reshape(-1), requirements=["C", "W"]).view(np.uint8)
    if code == "F4":
        shape = (*shape[:-1], shape[-1] // 2)
    if not flat.size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(flat).view(dtype).reshape(shape)


def dtype_of(code: str) -> Any:
    """Give the torch dtype of a dtype code.

    Raises:
        UsageError: torch is not installed, or has no such dtype.
    """
    try:
        import torch
    except ImportError:
        raise UsageError("The package torch is not installed.", 'Install it, or ask for framework="numpy".') from None
    name = next((name for name, known in CODES.items() if known == code), "")
    dtype = getattr(torch, name, None)
    if dtype is None:
        raise UsageError(f"PyTorch {torch.__version__} has no dtype {code}.", 'Ask for framework="numpy".')
    return dtype
