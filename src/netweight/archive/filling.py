"""Decoding into memory that is there already."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight.archive.opened import Opened
from netweight.checkpoint import TensorInfo
from netweight.errors import UsageError
from netweight.kernels import Target

CACHES_BYTES = 1 << 24  # what is decoded at once and larger than this is written around the caches


def require_fit(infos: Mapping[str, TensorInfo], outs: Mapping[str, NDArray[np.float32]]) -> None:
    """Check memory against the tensors it is for.

    Raises:
        KeyError: there is no such tensor.
        UsageError: one is not F32, or its memory does not fit it.
    """
    for name, out in outs.items():
        info = infos[name]
        if info.dtype != "F32" or out.dtype != np.float32 or out.shape != info.shape or not out.flags.c_contiguous:
            fact = f"{name!r} of {info.dtype} {list(info.shape)} does not fit {out.dtype} {list(out.shape)}."
            raise UsageError(fact, "Give a contiguous float32 array of the tensor's shape.")


def scale_into(opened: Opened, targets: Mapping[int, Target], shared: Callable[[int], list[Any]]) -> None:
    """Decode members of a section, each to its target; `shared` decodes chunks that hold pieces of others too."""
    for chunk in opened.scale(targets):
        for piece, fine in zip(opened.plan[chunk], shared(chunk), strict=True):
            if piece.tensor in targets:
                target = targets[piece.tensor]
                fine.scaled(target.factor, target.out[piece.start : piece.start + piece.size])
