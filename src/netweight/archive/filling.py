"""Decoding into memory that is there already."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netweight import kernels
from netweight.archive.header import Header
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
    with np.errstate(over="ignore"):  # what is beyond float32 is infinity: the format says so
        for chunk in opened.scale(targets):
            for piece, fine in zip(opened.plan[chunk], shared(chunk), strict=True):
                if piece.tensor in targets:
                    target = targets[piece.tensor]
                    fine.scaled(target.factor, target.out[piece.start : piece.start + piece.size])


def fill_section(
    header: Header, home: Mapping[int, Sequence[tuple[int, int]]], number: int, found: Sequence[tuple[int, str]],
    data: memoryview, outs: Mapping[str, NDArray[np.float32]], around: bool,
) -> bool:  # fmt: skip
    """Decode all of a section in a single call, if all is wanted and it is of the kind that most weights are in.

    Args:
        header: of the file.
        home: by tensor, sections that hold it and its places there.
        number: of the section.
        found: places in it that are wanted, and their names.
        data: its bytes.
        outs: memory by name, checked.
        around: more is decoded than the caches hold.

    Returns:
        Whether it is done; if not, reading it step by step does it, or says what is wrong.
    """
    section, names = header.sections[number], dict(found)
    if section.codec == EXACT or not len(names) == len(found) == len(section.members):
        return False
    codec = by_id(section.codec, section.version)
    if not codec.linear or codec.reals != (codec.linear,) or codec.streams != (section.stream,):
        return False
    if any(len(home[member]) > 1 or len(header.params[member]) != len(codec.params) for member in section.members):
        return False
    into = [outs[names[place]] for place in range(len(names))]
    layouts = [codec.layout(out.shape) for out in into]
    if any(x.order != "oik" for x in layouts) or sum(x.size for x in layouts) > AT_ONCE:
        return False
    shapes = [(x.rows, x.columns) for x in layouts]
    return kernels.decode_section(data, section.prelude, section.crc, shapes, into, _TAPS, around)
