"""Importance: the weight importance matrix of every tensor, as sums over samples with their record."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, final

from netweight.errors import FormatError, UsageError
from netweight.importance.completion import Renamed, complete
from netweight.importance.files import Opened, read_entries
from netweight.importance.packed import Collected, PackedSums
from netweight.importance.record import Record
from netweight.importance.stat import Stat
from netweight.importance.sums import ARRAYS, Counts, Judge, Shrinkage, Sums, averaged, merged, shrinkage, stat
from netweight.importance.writing import write_entries

__all__ = ["Importance", "Record"]

VERSION: Final = 4  # of files: 2 knew moments of whole gradients, 3 optimism by rate, 4 knows moments of positions

Entry = Stat | tuple[Sums, ...]


@final
class Importance(Mapping[str, Stat]):
    """The importance I_w of every tensor of a network: loss = 1/2 sum (w - w')^T I_w (w - w'), in nats a prediction.

    Made by `netweight.measure`, or by `Importance.open`. It holds sums over samples, so that two parts of the data add
    up to the whole; a value is made of them when it is asked for: mean, then shrinkage (`netweight.importance.shrink`).

    Attributes:
        record: data, counts and estimator.
        path: the file it was opened from; None in memory.

    >>> a = Importance.of({"w": Stat(2.0)})
    >>> a["w"].weight, list(a), a.scaled({"w": 3.0})["w"].weight
    (2.0, ['w'], 6.0)
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        record: Record,
        *,
        shrinkages: Mapping[str, tuple[Shrinkage, ...]] | None = None,
        factors: Mapping[str, float] | None = None,
        path: Path | None = None,
    ) -> None:
        self.record = record
        self.path = path
        self._entries = entries
        self._shrinkages = dict(shrinkages or {})
        self._factors = dict(factors or {})
        self._judge = Judge()

    @classmethod
    def of(cls, stats: Mapping[str, Stat], record: Record | None = None) -> Importance:
        """Wrap statistics made by hand."""
        return cls(dict(stats), record or Record(objective="given"))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Importance:
        """Open a file by `save`; only its header is read.

        Raises:
            UsageError: there is no such file.
            FormatError: it is damaged, no importance, or of a newer version.
        """
        return _of_file(read_entries(Path(path), VERSION))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write a safetensors file with the sums, their checksums and the record: whole, or not at all.

        Raises:
            UsageError: the file exists and `force` is not given.
            OutputError: it cannot be written.
        """
        known = {name: self._known(name) for name in self._entries}  # () of a Stat
        write_entries(Path(path), VERSION, self._entries, self.record.to_json(), known, self._factors, force=force)

    def __getitem__(self, name: str) -> Stat:
        """Give the importance of a tensor, shrunk.

        Raises:
            KeyError: the tensor was not measured.
            FormatError: the file is damaged.
        """
        return self._stat(name, shrunk=True)

    def raw(self, name: str) -> Stat:
        """Give the importance of a tensor as measured: plain means, without any shrinkage."""
        return self._stat(name, shrunk=False)

    def mean(self, name: str) -> float:
        """Give the mean importance of a weight as measured, which takes no more than the moments' diagonals."""
        entry = self._entries[name]
        if isinstance(entry, Stat):
            return self.raw(name).flat().weight
        counts = Counts(self.record.samples, self.record.predictions)
        found = merged([stat(averaged(use), counts, None) for use in entry])
        self.forget()
        return found.flat().weight * self._factors.get(name, 1.0)

    def shrinkage(self, name: str) -> tuple[Shrinkage, ...]:
        """Give (rho of inputs, rho of outputs, optimism, tau) for each use of the tensor; see `sums.Shrinkage`."""
        return self._known(name)

    def sums(self, name: str) -> Entry:
        """Give what is stored: the sums of each use of the tensor, or a Stat made by hand."""
        return self._entries[name]

    def nbytes(self, name: str) -> int:
        """Bytes of what `sums` gives of a tensor; nothing is read or unfolded."""
        if isinstance(self._entries, Opened | Renamed | Collected):
            return self._entries.nbytes(name)
        entry = self._entries[name]
        parts = (entry,) if isinstance(entry, Stat) else entry
        return sum(array.nbytes for part in parts for key in ARRAYS if (array := getattr(part, key, None)) is not None)

    def is_summed(self, name: str) -> bool:
        """Whether sums over samples are stored of a tensor, of which each look makes a new `Stat`."""
        return isinstance(self._entries, Collected) or not isinstance(self._entries[name], Stat)

    def forget(self) -> None:
        """Give back the memory of what was read from a file so far."""
        if isinstance(self._entries, Opened | Renamed):
            self._entries.forget()

    def scaled(self, factors: Mapping[str, float]) -> Importance:
        """Multiply the importance of some tensors; nothing is read or copied.

        Args:
            factors: by name; others stay.

        Raises:
            UsageError: a name is unknown.
        """
        unknown = [name for name in factors if name not in self._entries]
        if unknown:
            raise UsageError(f"The importance has no tensor {unknown[0]!r}.", f"It has {len(self)}.")
        product = dict(self._factors)
        for name, factor in factors.items():
            product[name] = product.get(name, 1.0) * factor
        return Importance(
            self._entries, self.record, shrinkages=self._shrinkages, factors=product, path=self.path
        )  # fmt: skip

    def matched(self, checkpoint: Any) -> Importance:
        """Name tensors as a checkpoint does, and give those that were not measured a plain importance.

        Aliases become owners; where names differ by one prefix ("bert.") it is added or removed. A float tensor that
        was not measured, because the loss does not reach it, gets I = r / mean(w^2), with r the median over the
        matrices of mean(I_ii) mean(w^2): as sensitive, relative to its size, as the middle of the others.

        Args:
            checkpoint: path, tensors, module or open checkpoint.

        Raises:
            UsageError: no tensor of the checkpoint was measured, or one has another shape.
        """
        entries, renamed = complete(self, checkpoint)
        shrinkages = {new: self._shrinkages[old] for new, old in renamed.items() if old in self._shrinkages}
        factors = {new: self._factors[old] for new, old in renamed.items() if old in self._factors}
        return Importance(entries, self.record, shrinkages=shrinkages, factors=factors)

    def __add__(self, other: Importance) -> Importance:
        """Give the importance of the samples of both.

        Raises:
            UsageError: they have different tensors, estimators or shapes, or factors.
        """
        record = self.record + other.record
        if set(self) != set(other):
            odd = sorted(set(self) ^ set(other))
            raise UsageError(f"Only one importance has the tensor {odd[0]!r}.", "Measure the same model.")
        if self._factors or other._factors:
            raise UsageError("One of the importances is scaled.", "Add first, then scale.")
        return Importance({name: _added(name, self._entries[name], other._entries[name]) for name in self}, record)

    def _stat(self, name: str, *, shrunk: bool) -> Stat:
        entry = self._entries[name]
        if isinstance(entry, Stat):
            found = entry
        else:
            by = self._known(name, entry) if shrunk else (None,) * len(entry)
            counts = Counts(self.record.samples, self.record.predictions)
            found = merged([stat(use, counts, rho) for use, rho in zip(entry, by, strict=True)])
            del entry
            self.forget()  # the sums of all layers need more memory than any one of them
        return found.scaled(self._factors[name]) if name in self._factors else found

    def _known(self, name: str, entry: Entry | None = None) -> tuple[Shrinkage, ...]:
        """Shrinkage of each use, chosen once."""
        if name not in self._shrinkages:
            if isinstance(self._entries, Collected):
                uses: tuple[Sums | PackedSums, ...] = self._entries.folded(name)
            else:
                entry = self._entries[name] if entry is None else entry
                uses = () if isinstance(entry, Stat) else entry
            self._shrinkages[name] = tuple(shrinkage(use, self._judge) for use in uses)
        return self._shrinkages[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"Importance({len(self)} tensors, {self.record.samples} samples, {self.record.objective})"

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._entries, Opened):
            return _reopen, (self._entries.path, self._entries.stamp, self._factors)
        return _remake, (self._entries, self.record, self._shrinkages, self._factors)


def _of_file(opened: Opened) -> Importance:
    record = Record.from_json(opened.record)
    return Importance(opened, record, shrinkages=opened.shrinkages, factors=opened.factors, path=opened.path)


def _added(name: str, a: Entry, b: Entry) -> Entry:
    if isinstance(a, Stat) or isinstance(b, Stat) or len(a) != len(b):
        raise UsageError(f"The importance of {name!r} is no sum over samples.", "Add what `measure` gave.")
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _remake(
    entries: Mapping[str, Entry],
    record: Record,
    shrinkages: dict[str, tuple[Shrinkage, ...]],
    factors: dict[str, float],
) -> Importance:
    return Importance(entries, record, shrinkages=shrinkages, factors=factors)


_REOPENED: dict[tuple[Path, tuple[int, int]], Importance] = {}


def _reopen(path: Path, stamp: tuple[int, int], factors: Mapping[str, float]) -> Importance:
    """Open an importance that was pickled; a worker that gets many tasks of one file opens it once."""
    found = _REOPENED.get((path, stamp))
    if found is None:
        opened = read_entries(path, VERSION)
        if opened.stamp != stamp:
            raise FormatError(f"{path} changed while it was in use.", "Leave it alone and start again.")
        _REOPENED.clear()
        found = _REOPENED[path, stamp] = _of_file(opened)
    return Importance(
        found._entries, found.record, shrinkages=found._shrinkages, factors=factors, path=path
    )  # fmt: skip
