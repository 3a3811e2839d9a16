"""Sections over an executor: whole ones, or over threads tensor by tensor as memory has room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from threading import Lock

from netweight.archive.encoding import Block, blocks_of, codec_of, encode_job, encode_member
from netweight.archive.grouping import Job
from netweight.checkpoint import Checkpoint
from netweight.codecs.base import Parts
from netweight.codecs.registry import EXACT
from netweight.importance.given import held_bytes
from netweight.importance.stat import Stat
from netweight.room import need_of_encoding, run

__all__ = ["encoded"]


def encoded(
    executor: Executor | None,
    checkpoint: Checkpoint,
    stats: Mapping[str, Stat],
    jobs: Sequence[Job],
    device: str | None = None,
) -> Iterator[tuple[Job, list[Block]]]:
    """Code sections, in any order.

    Args:
        executor: anything with `map`; None to do it here.
        checkpoint: where the tensors are.
        stats: importance by tensor.
        jobs: sections, in the order in which they should begin.
        device: of torch, for codecs that have a form for it.
    """
    if not isinstance(executor, ThreadPoolExecutor):
        task = partial(encode_job, checkpoint, stats, device=device)
        yield from zip(jobs, run(executor, task, jobs), strict=True)
        return
    members, needs = _Members(checkpoint, stats, jobs, device), {}
    for number, place in members.tasks:
        name = jobs[number].names[place]
        needs[number, place] = need_of_encoding(checkpoint.infos[name].size, held_bytes(stats, name))
    tasks = sorted(needs, key=lambda task: -needs[task].cost)
    yield from filter(None, run(executor, members.encode, tasks, [needs[task] for task in tasks]))


class _Members:
    """Codes sections tensor by tensor, in any order and by several threads; the last tensor of one makes its blocks."""

    def __init__(
        self, checkpoint: Checkpoint, stats: Mapping[str, Stat], jobs: Sequence[Job], device: str | None = None
    ) -> None:
        self.checkpoint, self.stats, self.jobs, self.device = checkpoint, stats, jobs, device
        self._parts: list[dict[int, Parts]] = [{} for _ in jobs]
        self._lock = Lock()

    @property
    def tasks(self) -> list[tuple[int, int]]:
        """Number of a job, and place of a tensor in it; what is coded exactly is one task."""
        return [(n, at) for n, job in enumerate(self.jobs) for at in range(1 if job.codec == EXACT else len(job.names))]

    def encode(self, task: tuple[int, int]) -> tuple[Job, list[Block]] | None:
        """Code a tensor; give the blocks of its section if it was the last.

        Raises:
            UsageError: as `encode_job`.
        """
        number, place = task
        job = self.jobs[number]
        if job.codec == EXACT or len(job.names) == 1:
            return job, encode_job(self.checkpoint, self.stats, job, self.device)
        made, parts = encode_member(self.checkpoint, self.stats, job, place, self.device), self._parts[number]
        with self._lock:
            parts[place] = made
            if len(parts) < len(job.names):
                return None
            self._parts[number] = {}
        return job, blocks_of(job, codec_of(job), [parts[at] for at in range(len(parts))])
