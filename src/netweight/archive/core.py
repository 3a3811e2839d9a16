"""The archive: a compressed network as a lazy mapping from names to tensors."""

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from netweight.archive.accounting import Row, rows
from netweight.archive.encoding import Block
from netweight.archive.filling import CACHES_BYTES, fill_section, require_fit, scale_into
from netweight.archive.header import AGAIN, Group, Header, Section
from netweight.archive.lazy import LazyTensor
from netweight.archive.mapped import map_file
from netweight.archive.opened import Opened
from netweight.archive.refinement import Refinement, ordered, refinements
from netweight.archive.writing import pack
from netweight.atomic import atomic_file
from netweight.checkpoint import TensorInfo
from netweight.checkpoint.torch_tensors import tensor_of
from netweight.dtypes import from_float32, storage_dtype
from netweight.entropy.layout import Layout
from netweight.errors import FormatError
from netweight.kernels import Target

Storage = NDArray[Any]
KEPT_CHUNKS = 4  # decoded chunks that hold several tensors and are kept for the next one
KEPT_SECTIONS = 4  # whose tables, up to 5 MB each, are kept


@final
class Archive(Mapping[str, Storage]):
    """A compressed network; each tensor is decoded when it is asked for, and nothing else is.

    Made by `Archive.open`, `netweight.encode` or `netweight.compress`. Values are storage arrays: NumPy's own types
    as they are, BF16 as uint16 bit patterns, 8-bit floats as uint8.

    Attributes:
        header: all that the file says about itself.
        infos: name to dtype and shape, aliases included, in the order of the source.
        ties: alias to owner.
        metadata: of the source.
        layout: weight files of the source.
        plan: slope, target and predictions.
        nbytes: bytes of the file, or of what is used of it.
        header_bytes: of them, what precedes the sections.
        sections_here: how many of the header's sections there are; tensors are as far refined as these allow.

    >>> from netweight.pipeline import compress
    >>> archive = compress({"steps": np.arange(5), "w": np.ones((3, 4), np.float16)}, slope=0.0)
    >>> list(archive), archive["steps"].tolist(), archive.infos["w"].shape
    (['steps', 'w'], [0, 1, 2, 3, 4], (3, 4))
    """

    def __init__(
        self, header: Header, prefix: bytes, sections: Sequence[Sequence[bytes | memoryview]], source: str
    ) -> None:
        self.header = header
        self.source = source
        self.ties = dict(header.ties)
        self.metadata = dict(header.metadata)
        self.layout: tuple[Group, ...] = header.layout
        self.plan = dict(header.plan)
        owners = {info.name: info for info in header.tensors}
        self.infos = {name: _renamed(owners[self.ties.get(name, name)], name) for name in header.names}
        self.nbytes = len(prefix) + sum(section.size for section in header.sections[: len(sections)])
        self.header_bytes = len(prefix)
        self.sections_here = len(sections)
        self._prefix = prefix
        self._sections = sections
        self._index = {info.name: index for index, info in enumerate(header.tensors)}
        self._home: dict[int, list[tuple[int, int]]] = {}
        for number, section in enumerate(header.sections):
            for place, member in enumerate(section.members):
                self._home.setdefault(member, []).append((number, place))
        self._opened: OrderedDict[int, Opened] = OrderedDict()
        self._kept: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def build(cls, header: Header, blocks: Sequence[Block]) -> "Archive":
        """Put coded sections behind a header that lacks only them."""
        index = {info.name: number for number, info in enumerate(header.tensors)}
        blocks, refine = ordered(blocks)
        sections = []
        params: list[tuple[int, ...]] = [()] * len(header.tensors)
        for block in blocks:
            members = tuple(index[name] for name in block.names)
            crc = zlib.crc32(block.prelude)
            sections.append(
                Section(block.codec, block.version, block.stream, members, len(block.prelude), block.size, crc)
            )
            for member, numbers in zip(members, block.params, strict=True):
                params[member] = numbers
        full = replace(header, params=tuple(params), sections=tuple(sections), refine=refine)
        return cls(full, pack(full), [(block.prelude, *block.chunks) for block in blocks], "the new archive")

    def noted(self, **facts: Any) -> "Archive":
        """Give the same file with more entries in its plan, such as the loss that was measured after it was made.

        Args:
            facts: values of JSON by key; a key that is there already is replaced.

        >>> from netweight.pipeline import compress
        >>> compress({"w": np.ones(4, np.float16)}, slope=0.0).noted(heldout={"nats": 0.01}).plan["heldout"]
        {'nats': 0.01}
        """
        header = replace(self.header, plan={**self.header.plan, **facts})
        return Archive(header, pack(header), self._sections, self.source)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> "Archive":
        """Open a file; only its header is read.

        Of a file that refines the network level by level any length from its first refinement point on is enough; a
        warning says so when it ends early.

        Args:
            path: of the file.
            max_bytes: use only so much of such a file: a coarser network.

        Raises:
            UsageError: there is no such file, or nothing of `max_bytes` is a network.
            FormatError: it is damaged, no `.nwt`, or of a newer format.
        """
        header, prefix, sections = map_file(path, max_bytes)
        return cls(header, prefix, sections, os.fspath(path))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write the file: whole, or not at all.

        Raises:
            UsageError: the file exists and `force` is not given.
            OutputError: it cannot be written.
        """
        with atomic_file(path, force) as file:
            file.write(self._prefix)
            for section in self._sections:
                for part in section:
                    file.write(part)

    def __len__(self) -> int:
        return len(self.infos)

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __contains__(self, name: object) -> bool:
        return name in self.infos

    def __getitem__(self, name: str) -> Storage:
        """Decode one tensor into its storage.

        Raises:
            KeyError: there is no such tensor.
            FormatError: what it needs of the file is damaged.
        """
        info = self.infos[name]
        announced = self._home[self._index[self.ties.get(name, name)]]
        home = [(number, place) for number, place in announced if number < self.sections_here]
        if not home:  # all that there is of it refines it
            return np.zeros(info.storage_shape, storage_dtype(info.dtype))
        number, place = home[0]
        first = self.section(number)
        streams = tuple(self.header.sections[j].stream for j, _ in announced)
        if streams != first.streams_of(len(streams)):
            fact = f"{name!r} has the streams {list(streams)}, its codec needs {list(first.streams)}."
            raise FormatError(fact, AGAIN)
        if first.codec is None:
            found = [array for _, array in self._pieces(number, first, place)]
            return _joined(found, storage_dtype(info.dtype)).reshape(info.storage_shape)
        factor = first.factor(place)
        if factor is not None:
            flat = np.empty(info.size, np.float32)
            scale_into(first, {place: Target(flat, factor)}, partial(self._shared, number, first))
            values = Layout.of(info.shape).unscan(flat, info.shape)
        else:
            fine = {}
            for number, place in home:
                found = [piece.full() for _, piece in self._pieces(number, self.section(number), place)]
                fine[self.header.sections[number].stream] = _joined(found, np.dtype(np.int16))
            values = first.rebuild(home[0][1], fine)
        return from_float32(values, info.dtype).reshape(info.storage_shape)

    def read_into(self, name: str, out: NDArray[np.float32]) -> None:
        """Decode an F32 tensor into memory that is there already, which saves the system's work for new pages.

        Args:
            name: of the tensor.
            out: float32, contiguous, of its shape.

        Raises:
            KeyError: there is no such tensor.
            UsageError: it is not F32, or `out` does not fit it.
            FormatError: what it needs of the file is damaged.
        """
        self.fill({name: out})

    def fill(self, outs: Mapping[str, NDArray[np.float32]]) -> None:
        """Decode F32 tensors into memory that is there already; together they are quicker than one by one.

        Args:
            outs: by name, float32, contiguous, of the tensor's shape.

        Raises:
            KeyError: there is no such tensor.
            UsageError: one is not F32, or its memory does not fit it.
            FormatError: what they need of the file is damaged.

        >>> from netweight.pipeline import compress
        >>> out = np.empty((3, 4), np.float32)
        >>> compress({"w": np.ones((3, 4), np.float32)}, slope=0.0).fill({"w": out})
        >>> out.sum().item()
        12.0
        """
        require_fit(self.infos, outs)
        around = sum(out.nbytes for out in outs.values()) > CACHES_BYTES
        homes: dict[int, list[tuple[int, str]]] = {}
        for name in outs:
            number, place = self._home[self._index[self.ties.get(name, name)]][0]
            homes.setdefault(number, []).append((place, name))
        for number, found in homes.items():
            here = number < self.sections_here
            if here and fill_section(self.header, self._home, number, found, self._data(number), outs, around):
                continue
            targets: dict[int, Target] = {}
            opened = self.section(number) if here else None
            for place, name in found:
                factor = opened.factor(place) if opened else None
                if factor is None or Layout.of(outs[name].shape).order != "oik" or place in targets:
                    outs[name][...] = self[name]
                else:
                    targets[place] = Target(outs[name].reshape(-1), factor, around)
            if opened and targets:
                scale_into(opened, targets, partial(self._shared, number, opened))

    def tensor(self, name: str) -> Any:
        """Decode one tensor into a torch tensor of its dtype.

        Raises:
            UsageError: torch is not installed, or has no such dtype.
        """
        return tensor_of(self[name], self.infos[name].dtype, self.infos[name].shape)

    def section(self, number: int) -> Opened:
        """Read the head of a section; the last few are kept.

        Raises:
            FormatError: it is damaged.
        """
        with self._lock:
            opened = self._opened.get(number)
        if opened is None:
            section = self.header.sections[number]
            data = self._data(number)
            if zlib.crc32(data[: section.prelude]) != section.crc:
                raise FormatError(f"The checksum of section {number} is wrong.", AGAIN)
            infos = [self.header.tensors[member] for member in section.members]
            params = [self.header.params[member] for member in section.members]
            codec = (section.codec, section.version, section.stream)
            opened = Opened(data, section.prelude, codec, infos, params)
            with self._lock:
                self._opened[number] = opened
                while len(self._opened) > KEPT_SECTIONS:
                    self._opened.popitem(last=False)
        return opened

    def _data(self, number: int) -> memoryview:
        parts = self._sections[number]
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    def _pieces(self, number: int, opened: Opened, place: int) -> Iterator[tuple[int, Any]]:
        """Start and content of a tensor's pieces; a chunk with several tensors is kept for the others."""
        for chunk in opened.home[place]:
            at, piece = opened.piece(chunk, place)
            found = opened.decode(chunk) if len(opened.plan[chunk]) == 1 else self._shared(number, opened, chunk)
            yield piece.start, found[at]

    def _shared(self, number: int, opened: Opened, chunk: int) -> list[Any]:
        with self._lock:
            found = self._kept.get((number, chunk))
        if found is None:
            found = opened.decode(chunk)
            with self._lock:
                self._kept[number, chunk] = found
                while len(self._kept) > KEPT_CHUNKS:
                    self._kept.popitem(last=False)
        return found

    def check(self, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Decode everything and check every checksum.

        Raises:
            FormatError: at the first that is wrong.
        """
        total = len(self.header.tensors)
        for done, info in enumerate(self.header.tensors):
            self[info.name]
            if progress:
                progress("verify", done + 1, total)

    def rows(self) -> Sequence[Row]:
        """Give what each tensor takes; the rows and the header add up to the file."""
        return rows(self.header, self.section, self.sections_here)

    def refinements(self) -> list[Refinement]:
        """Give the lengths at which the file may end; none where it must be whole."""
        return refinements(self.header, self.header_bytes, self.sections_here)

    def lazy(self) -> dict[str, "LazyTensor"]:
        """Give stand-ins that decode into torch tensors on `[...]`: transformers fills a model from them one by one.

        AutoModel.from_pretrained(None, config=config, state_dict=Archive.open("model.nwt").lazy())
        """
        return {name: LazyTensor(self, name) for name in self}

    def close(self) -> None:
        """Forget what was decoded; arrays handed out stay valid."""
        self._opened.clear()
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Archive({self.source!r}: {len(self.infos)} tensors, {self.nbytes} bytes)"


def _joined(arrays: list[Storage], empty: np.dtype[Any]) -> Storage:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.zeros(0, empty)


def _renamed(info: TensorInfo, name: str) -> TensorInfo:
    return info if info.name == name else TensorInfo(name, info.dtype, info.shape)
