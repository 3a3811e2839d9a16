"""Decoding into memory that is there already."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.archive.header import Section
from netweight.archive.opened import Opened
from netweight.checkpoint import TensorInfo
from netweight.codecs.registry import EXACT, by_id
from netweight.entropy.trellis import TAPS
from netweight.errors import UsageError
from netweight.kernels import Target

CACHES_BYTES = 1 << 24  # what is decoded at once and larger than this is written around the caches
AT_ONCE = 1 << 25  # weights that are decoded in a single call: no more, so that an interrupt is heard
_TAPS = np.array([TAPS.get(bits, (0, 0)) for bits in range(9)], np.int64)


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


def fill_section(
    section: Section, data: memoryview, params: Sequence[tuple[int, ...]], outs: Sequence[NDArray[np.float32]],
    around: bool,
) -> bool:  # fmt: skip
    """Decode all of a section in a single call, if it is of the kind that most weights are in.

    Args:
        section: what the header says of it.
        data: its bytes.
        params: integers of each member.
        outs: memory for each member, of its shape.
        around: more is decoded than the caches hold.

    Returns:
        Whether it is done; if not, reading it step by step does it, or says what is wrong.
    """
    if section.codec == EXACT or sum(out.size for out in outs) > AT_ONCE:
        return False
    codec = by_id(section.codec, section.version)
    if not codec.linear or codec.reals != (codec.linear,) or codec.streams != (section.stream,):
        return False
    layouts = [codec.layout(out.shape) for out in outs]
    if any(x.order != "oik" for x in layouts) or any(len(numbers) != len(codec.params) for numbers in params):
        return False
    shapes = [(x.rows, x.columns) for x in layouts]
    return kernels.decode_section(data, section.prelude, section.crc, shapes, outs, _TAPS, around)
