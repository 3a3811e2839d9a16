"""Which tensors share a section: small ones of one codec pool their tables and chunks, large ones stay alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from netweight.checkpoint import TensorInfo
from netweight.codecs.registry import EXACT, codecs

POOLED = 1 << 20  # weights up to which tensors share tables: as good as tables of their own, and fewer to read
POOLED_EXACT = 1 << 15
LARGEST_POOL = 1 << 21
# A file may end behind every section of what refines, so these pools are an eighth of it: tables cost some 1 % more.
PARTS, SMALLEST_PART = 8, 1 << 12


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

    Pools of a codec that refines are smaller, so that there are several in each level.

    Args:
        choices: codec and knob by tensor.
        infos: of the checkpoint, whose order is kept within a section.
    """
    pools: dict[tuple[str, str], list[str]] = {}
    jobs: list[list[str]] = []
    room: dict[tuple[str, str], int] = {}
    refined = {codec: 0 for codec, known in codecs().items() if known.progressive}
    for name, info in infos.items():
        codec = choices[name][0]
        if codec in refined:
            refined[codec] += info.size
    # Tensors that refine by size: the small ones share a section, which is the first of each level.
    for name, info in sorted(infos.items(), key=lambda item: item[1].size if choices[item[0]][0] in refined else 0):
        codec = choices[name][0]
        key = (codec, info.dtype if codec == EXACT else "")
        limit = POOLED_EXACT if codec == EXACT else POOLED
        if info.size > limit:
            jobs.append([name])
            continue
        if key not in pools or room[key] < info.size:
            pools[key] = []
            room[key] = LARGEST_POOL if codec not in refined else max(refined[codec] // PARTS, SMALLEST_PART)
            jobs.append(pools[key])
        pools[key].append(name)
        room[key] -= info.size
    order = {name: number for number, name in enumerate(infos)}
    for job in jobs:
        job.sort(key=order.__getitem__)
    return [Job(choices[n[0]][0], infos[n[0]].dtype, tuple(n), tuple(choices[m][1] for m in n)) for n in jobs]
