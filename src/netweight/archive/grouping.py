"""Which tensors share a section: small ones of one codec pool their tables and chunks, large ones stay alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from netweight.checkpoint import TensorInfo
from netweight.codecs.registry import EXACT

POOLED = 1 << 20  # weights up to which tensors share tables: as good as tables of their own, and fewer to read
POOLED_EXACT = 1 << 15
LARGEST_POOL = 1 << 21


@dataclass(frozen=True, slots=True)
class Job:
    """What one task codes: tensors that will share a section.

    Attributes:
        codec: id.
        dtype: common to all where the codec is exact.
        names: of the tensors.
        knobs: of each.
    """

    codec: str
    dtype: str
    names: tuple[str, ...]
    knobs: tuple[int, ...]


def group(choices: Mapping[str, tuple[str, int]], infos: Mapping[str, TensorInfo]) -> list[Job]:
    """Share tensors out over sections: small ones of one codec (exact: and one dtype) together, large ones alone.

    Args:
        choices: codec and knob by tensor.
        infos: of the checkpoint, whose order is kept within a section.
    """
    pools: dict[tuple[str, str], list[str]] = {}
    jobs: list[list[str]] = []
    room: dict[tuple[str, str], int] = {}
    for name, info in infos.items():
        codec = choices[name][0]
        key = (codec, info.dtype if codec == EXACT else "")
        limit = POOLED_EXACT if codec == EXACT else POOLED
        if info.size > limit:
            jobs.append([name])
            continue
        if key not in pools or room[key] < info.size:
            pools[key] = []
            room[key] = LARGEST_POOL
            jobs.append(pools[key])
        pools[key].append(name)
        room[key] -= info.size
    return [Job(choices[n[0]][0], infos[n[0]].dtype, tuple(n), tuple(choices[m][1] for m in n)) for n in jobs]
