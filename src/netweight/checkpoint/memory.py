"""Tensors that are in memory already: mappings of NumPy arrays or torch tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from netweight.checkpoint import torch_tensors
from netweight.checkpoint.header import short
from netweight.checkpoint.infos import TensorInfo
from netweight.dtypes import CODES, MAX_RANK, storage_dtype
from netweight.errors import FormatError, UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from netweight.dtypes import Array

__all__ = ["HeldTensors", "is_tensor"]


class HeldTensors:
    """A mapping of tensors as a source; names that share one tensor become ties.

    Two names are tied if their tensors begin at the same address with equal shape, strides and dtype. Different views
    of one memory are different tensors.

    Args:
        tensors: name to NumPy array or torch tensor, on any device.
        source: what it is, for messages.
        limit_bytes: largest tensor to accept; a file a few bytes long can claim terabytes by a stride of 0.

    Raises:
        UsageError: a name is no string.
        FormatError: a value is no tensor, or of a kind that safetensors cannot hold.
    """

    def __init__(self, tensors: Mapping[str, Any], source: str, limit_bytes: int | None = None) -> None:
        self.infos: dict[str, TensorInfo] = {}
        self.ties: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self._tensors: dict[str, Any] = {}
        owners: dict[Hashable, str] = {}
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise UsageError(f"The key {short(name)} of {source} is no string.", "Name every tensor.")
            info, identity = _describe(name, tensor, source)
            if limit_bytes is not None and info.nbytes > limit_bytes:
                raise FormatError(
                    f"Tensor {short(name)} of {source} claims {info.nbytes:,} bytes, more than the file could hold.",
                    "Load it yourself, call .contiguous() on it, and pass the dictionary of tensors.",
                )
            owner = name if identity is None else owners.setdefault(identity, name)
            if owner != name:
                self.ties[name] = owner
            else:
                self.infos[name] = info
                self._tensors[name] = tensor
        self.names = tuple(tensors)

    def read(self, name: str) -> Array:
        """Storage of a tensor, a view of its memory where that is contiguous and on this machine's CPU."""
        info, tensor = self.infos[name], self._tensors[name]
        storage = torch_tensors.storage(tensor) if _is_torch(tensor) else _numpy_storage(np.asarray(tensor), info.dtype)
        view = (storage if storage.flags.aligned else storage.copy()).reshape(info.storage_shape).view()
        view.flags.writeable = False
        return view

    def forget(self) -> None:
        """Do nothing: these tensors are nowhere else."""

    def close(self) -> None:
        """Let go of the tensors."""
        self._tensors = {}


def is_tensor(value: object) -> bool:
    """Whether this is a NumPy array, a NumPy scalar or a torch tensor.

    >>> is_tensor(np.zeros(3)), is_tensor([0.0, 0.0])
    (True, False)
    """
    return isinstance(value, np.ndarray | np.generic) or _is_torch(value)


def _is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported torch
    return torch is not None and isinstance(value, torch.Tensor)


def _describe(name: str, tensor: Any, source: str) -> tuple[TensorInfo, Hashable]:
    """Info of a tensor, and an identity that is equal for tied ones; None for those that cannot be tied."""
    if _is_torch(tensor):
        code, shape, identity = torch_tensors.describe(tensor, f"Tensor {short(name)} of {source}")
    elif is_tensor(tensor):
        array = np.asarray(tensor)
        code, shape = _numpy_code(array.dtype, f"Tensor {short(name)} of {source}"), array.shape
        identity = (array.ctypes.data, shape, array.strides, array.dtype.str, code) if array.size else None
        if isinstance(tensor, np.generic):
            identity = None
    else:
        raise FormatError(
            f"{short(name)} of {source} is of type {type(tensor).__name__}, no tensor.",
            "Leave out what is no tensor, or pass the inner dictionary that holds only tensors.",
        )
    if len(shape) > MAX_RANK:
        raise FormatError(
            f"Tensor {short(name)} of {source} has {len(shape)} axes; at most {MAX_RANK} are supported.",
            "Reshape it to fewer axes.",
        )
    return TensorInfo(name, code, shape), identity


def _numpy_code(dtype: np.dtype[Any], what: str) -> str:
    try:
        return CODES[dtype.name]
    except KeyError:
        raise FormatError(
            f"{what} has the NumPy dtype {dtype}, which safetensors cannot hold.",
            "Convert it to one of its dtypes first.",
        ) from None


def _numpy_storage(array: Array, code: str) -> Array:
    dense = np.ascontiguousarray(array)
    if dense.dtype.isbuiltin == 2:  # a type of another package: same bits under the storage dtype
        return dense.view(storage_dtype(code))
    return dense.astype(storage_dtype(code), copy=False)
