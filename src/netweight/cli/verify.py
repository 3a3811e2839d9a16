"""`netweight verify`: is the file whole, and is it the network it claims to be?"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from netweight.archive import Archive
from netweight.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from netweight.codecs.registry import EXACT
from netweight.importance.prior import prior
from netweight.importance.stat import Stat
from netweight.units import format_bytes, format_seconds

from .account import shares_of
from .console import Console, Progress, printable, table
from .difference import Difference, difference
from .targets import archive_in, existing

__all__ = ["verify"]

# The loss of the encoder's prediction, which is an estimate, that another original may have.
_SLACK: Final = 1.1


def verify(options: Namespace, console: Console) -> int:
    """Check every checksum and decode everything; with an original, compare, and answer 1 if it differs too much."""
    path = archive_in(options.input)
    begin_s = time.perf_counter()
    with Archive.open(path) as archive:
        data: dict[str, object] = {"input": str(path), "bytes": archive.nbytes, "tensors": len(archive.infos)}
        lines = [f"{path}  {format_bytes(archive.nbytes)}, {len(archive.infos)} tensors, every checksum is right"]
        problems: list[str] = []
        missing = len(archive.header.sections) - archive.sections_here
        with console.progress() as progress:
            if options.against is None:
                archive.check(progress)
            else:
                with open_checkpoint(existing(options.against)) as original:
                    comparison = _Comparison(archive, original, progress)
                problems = comparison.problems
                if comparison.too_lossy and comparison.same_source:  # a plan edited by hand predicts nothing
                    console.warn(f"the loss is {comparison.loss:.4g}, {comparison.predicted:.4g} was predicted.")
                data |= comparison.data()
                lines += ["", *comparison.lines(), *(["", *problems] if problems else [])]
    if missing:
        problems.append(f"the file ends early: sections that refine the network are missing ({missing})")
        lines += ["", problems[-1]]
    data["problems"] = problems
    console.story(f"verified in {format_seconds(time.perf_counter() - begin_s)}")
    console.result("verify", data, lines)
    return int(bool(problems))


@dataclass(frozen=True, slots=True)
class _Row:
    """One tensor beside its original."""

    name: str
    info: TensorInfo
    codec: str
    found: Difference


class _Comparison:
    """An archive beside an original, judged by what the file promises.

    Promised are names, types and shapes; every bit of what the codec `exact` holds; for the rest an error below the
    signal, tensor by tensor. An original that is not the one the file was made from must also be as near as predicted,
    where that was predicted without data.
    """

    def __init__(self, archive: Archive, original: Checkpoint, progress: Progress) -> None:
        self.problems = _structure(archive, original)
        self.sha256 = original.sha256()
        self.same_source = self.sha256 == archive.header.source.get("sha256")
        self.rows = [] if self.problems else list(_rows(archive, original, progress))
        self.problems += [problem for row in self.rows if (problem := _broken_promise(row))]
        self.predicted = float(archive.plan.get("loss", 0.0))
        self.loss = sum(row.found.loss for row in self.rows)
        # With measured importance the prediction is in nats, and only the importance could say how many are lost here.
        self.comparable = "importance" not in archive.plan
        self.too_lossy = self.comparable and self.loss > _SLACK * self.predicted
        if self.too_lossy and not self.same_source:
            self.problems.append(f"the loss is {self.loss:.4g}, {self.predicted:.4g} was predicted for the source")

    def data(self) -> dict[str, object]:
        """The comparison as it goes into JSON."""
        differences = [
            {
                "name": row.name,
                "codec": row.codec,
                "identical": row.found.identical,
                "snr_db": row.found.snr_db,
                "largest_error": row.found.largest,
            }
            for row in self.rows
        ]
        return {
            "sha256": self.sha256,
            "same_source": self.same_source,
            "loss": self.loss,
            "predicted_loss": self.predicted,
            "differences": differences,
        }

    def lines(self) -> list[str]:
        """The comparison as text."""
        source = "is the one the file was made from" if self.same_source else "is not the file's source"
        rows = [
            [row.name, row.info.dtype, _shape(row.info), row.codec, _snr(row.found), f"{row.found.largest:.3g}"]
            for row in self.rows
        ]
        shown = table(["tensor", "dtype", "shape", "codec", "SNR dB", "largest error"], rows) if rows else []
        unit = "" if self.comparable else " nats"
        loss = f"loss {self.loss:.4g}, predicted {self.predicted:.4g}{unit}"
        return [f"original, sha256 {self.sha256}, {source}", *([loss, "", *shown] if shown else [])]


def _structure(archive: Archive, original: Checkpoint) -> list[str]:
    """Names, types and shapes that differ."""
    expected = {name: original.infos[original.ties.get(name, name)] for name in original.names}
    problems = [f"{printable(name)} is not in the file" for name in expected if name not in archive.infos]
    problems += [f"{printable(name)} is not in the original" for name in archive.infos if name not in expected]
    for name, info in archive.infos.items():
        other = expected.get(name, info)
        if (info.dtype, info.shape) != (other.dtype, other.shape):
            here, there = (f"{i.dtype} {list(i.shape)}" for i in (info, other))
            problems.append(f"{printable(name)} is {here} in the file, {there} in the original")
    return problems


def _rows(archive: Archive, original: Checkpoint, progress: Progress) -> Iterator[_Row]:
    codecs, stats = {share.name: share.codec for share in shares_of(archive)}, prior(original)
    for done, (name, info) in enumerate(archive.infos.items()):
        owner = archive.ties.get(name, name)
        stat = stats.get(owner, Stat())
        yield _Row(name, info, codecs[owner], difference(original.read(name), archive[name], info.dtype, stat))
        progress("verify", done + 1, len(archive.infos))


def _broken_promise(row: _Row) -> str:
    if row.found.identical:
        return ""
    name = printable(row.name)
    if row.codec == EXACT:
        return f"{name} should be exact, and differs by up to {row.found.largest:.3g}"
    if not row.found.error <= row.found.signal:
        return f"{name} has an error of {row.found.error:.3g} on a signal of {row.found.signal:.3g}"
    return ""


def _shape(info: TensorInfo) -> str:
    return "x".join(map(str, info.shape)) or "scalar"


def _snr(found: Difference) -> str:
    return "identical" if found.identical else f"{found.snr_db:.2f}"
