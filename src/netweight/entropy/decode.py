"""Sections of weights, read: the head once, then any chunk.

What a file says is checked here before anything is allocated for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from netweight import kernels
from netweight.entropy.layout import Layout, Levels
from netweight.entropy.small import Reader, damaged, decode_small
from netweight.entropy.stream import (
    LARGEST_ESCAPE,
    LONGEST_RUN,
    SHORTEST_RUN,
    IntStream,
    Piece,
    model_of,
    plan_chunks,
    symmetric,
)
from netweight.entropy.tables import Shape, read
from netweight.entropy.trellis import TAPS
from netweight.kernels import LANES, Decoded, Float32, Int16, Int32, Job, Model, Run, Segment, Tables, Target

_NONE = np.zeros(0, np.int32)
LARGEST_BITS = 31  # of the magnitude of an integer with its low bits


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of a section needs.

    Attributes:
        bits: log2 of the trellis' states, 0 without trellis.
        capacity: log2 of the symbols of a chunk with several tensors.
        layouts: scan of each tensor.
        levels: scales of each tensor.
        shifts: low bits of each tensor.
        runs: log2 of the longest piece of each tensor.
        escapes: the tables hold escape symbols.
        model: contexts.
        tables: frequencies.
    """

    bits: int
    capacity: int
    layouts: tuple[Layout, ...]
    levels: tuple[Levels, ...]
    shifts: tuple[int, ...]
    runs: tuple[int, ...]
    escapes: bool
    model: Model
    tables: Tables

    def chunks(self) -> list[list[Piece]]:
        """Which pieces each chunk holds."""
        return plan_chunks([layout.size for layout in self.layouts], self.capacity, self.runs)


def decode_head(data: bytes | memoryview, layouts: Sequence[Layout]) -> Head:
    """Read what `encode_section` put before the chunks.

    Raises:
        FormatError: the head contradicts itself or the layouts.
    """
    reader = Reader(data)
    bits, capacity, flags = reader.varint(), reader.varint(), reader.varint()
    if bits not in (0, *TAPS) or not SHORTEST_RUN <= capacity <= LONGEST_RUN or flags > 7:
        raise damaged(f"trellis {bits}, capacity {capacity}, flags {flags}")
    bases = []
    runs = []
    for layout in layouts:
        bases.append((reader.signed(), reader.varint(), reader.varint() if layout.order == "kio" else 0))
        runs.append(reader.varint() if layout.size > 1 << SHORTEST_RUN else SHORTEST_RUN)
    if any(not SHORTEST_RUN <= run <= LONGEST_RUN for run in runs):
        raise damaged(f"runs of {min(runs)} .. {max(runs)}")
    if any(abs(base) > 127 or has >> 2 > 22 or steps > 3 for base, has, steps in bases):
        raise damaged("a level or a shift out of range")
    sizes = [
        (has & 1) * x.rows + (has >> 1 & 1) * x.places + (steps & 1) * x.rows + (steps >> 1) * x.places
        for (_, has, steps), x in zip(bases, layouts, strict=True)
    ]
    deviations = decode_small(reader, sum(sizes)).astype(np.int16)
    parts = np.split(deviations, np.cumsum(sizes)[:-1])
    levels = [
        _levels(base, has & 3 | steps << 2, layout, part)
        for (base, has, steps), layout, part in zip(bases, layouts, parts, strict=True)
    ]
    model = model_of(bits, bool(flags & 1))
    tables = read(reader, Shape(symmetric(model), bool(flags & 2), bool(flags & 4)))
    if reader.at != len(data):
        raise damaged(f"{len(data) - reader.at} bytes follow the tables")
    shifts = tuple(has >> 2 for _, has, _ in bases)
    return Head(bits, capacity, tuple(layouts), tuple(levels), shifts, tuple(runs), bool(flags & 4), model, tables)


def _levels(base: int, which: int, layout: Layout, deviations: Int16) -> Levels:
    """Share out the levels of a tensor: of rows, of columns, steps of rows, steps of columns, those it has."""
    found: list[Int16 | None] = []
    at = 0
    for j, size in enumerate((layout.rows, layout.places, layout.rows, layout.places)):
        has = which >> j & 1
        found.append(deviations[at : at + size] if has else None)
        at += size * has
    return Levels(base, *found)


def empty_stream(head: Head, tensor: int) -> IntStream:
    """Give what a head says of a tensor, without integers."""
    none = np.zeros(0, np.int16)
    return IntStream(none, head.layouts[tensor], head.levels[tensor], head.shifts[tensor], head.runs[tensor])


@dataclass(frozen=True, slots=True)
class Fine:
    """The decoded integers of a piece: k, or fine indices r behind a trellis.

    Attributes:
        run: what the tables gave, placeholders where values are escaped.
        escaped: int32, what belongs there.
        low: int32 [n] low bits, or None.
        shift: how many.
    """

    run: Run
    escaped: Int32
    low: Int32 | None = None
    shift: int = 0

    @property
    def coded(self) -> Int16:
        """What the tables gave, placeholders where values are escaped; of a piece without a target."""
        assert self.run.fine is not None
        return self.run.fine

    def full(self) -> Int16 | Int32:
        """All integers: int16 where nothing is escaped and there are no low bits, else int32."""
        if not self.escaped.size and self.low is None:
            return self.coded
        out = self.coded.astype(np.int32)
        out[self.run.places] = self.escaped
        return out if self.low is None else out << self.shift | self.low

    def scaled(self, factor: np.float32, out: Float32) -> None:
        """Put float32(r) factor, rounded once, into `out`."""
        if self.low is not None:
            np.multiply(self.full().astype(np.float32), factor, out=out)
            return
        kernels.scale(self.coded, factor, out)
        self.patch(factor, out)

    def patch(self, factor: np.float32, out: Float32) -> None:
        """Put what is escaped where the placeholders' multiples are."""
        if self.escaped.size:
            out[self.run.places] = self.escaped.astype(np.float32) * factor


@dataclass(frozen=True, slots=True)
class Coded:
    """A chunk to be decoded.

    Attributes:
        data: the chunk.
        pieces: what it holds.
        targets: memory for each piece's float32 values, if those are wanted and no integers; None where a piece has low
            bits.
    """

    data: bytes | memoryview
    pieces: Sequence[Piece]
    targets: Sequence[Target | None] = ()


def decode_chunk(head: Head, pieces: Sequence[Piece], data: bytes | memoryview) -> list[Fine]:
    """Decode the integers of a chunk's pieces.

    Raises:
        FormatError: the chunk contradicts its head.
    """
    ((fine, _),) = decode_chunks(head, [Coded(data, pieces)])
    return fine


def decode_chunks(head: Head, coded: Sequence[Coded]) -> Iterator[tuple[list[Fine], int | None]]:
    """Decode chunks: the pieces of each, and its checksum where that was counted by the way.

    Raises:
        FormatError: a chunk contradicts its head.
    """
    tensors = {p.tensor for chunk in coded for p in chunk.pieces}
    grids = {j: head.levels[j].grid(head.layouts[j]) for j in tensors}
    jobs = []
    for chunk in coded:
        places = [(p, head.layouts[p.tensor]) for p in chunk.pieces]
        segments = [Segment(p.size, p.start, x.plane, x.width, x.positions, grid=grids[p.tensor]) for p, x in places]
        jobs.append(Job(chunk.data, segments, chunk.targets or [None] * len(segments)))
    found = kernels.decode_chunks(jobs, LANES, head.tables, head.model)
    return ((_rest(head, chunk, decoded), decoded.checksum) for chunk, decoded in zip(coded, found, strict=True))


def scale_chunks(
    head: Head, data: memoryview, lie: Sequence[tuple[int, int]], plan: Sequence[Sequence[Piece]],
    targets: Mapping[int, Target],
) -> list[int] | None:  # fmt: skip
    """Decode chunks without low bits as multiples of factors.

    Args:
        head: of the section.
        data: that the chunks lie in.
        lie: first byte and bytes of each chunk.
        plan: its pieces.
        targets: for all weights of each tensor that has one of the pieces.

    Returns:
        The checksum of each chunk; None where `decode_chunks` has to do it, or to say what is wrong.
    """
    tensors = {tensor: j for j, tensor in enumerate(targets)}
    likes = []
    for tensor in tensors:
        x = head.layouts[tensor]
        likes.append(Segment(0, 0, x.plane, x.width, x.positions, grid=head.levels[tensor].grid(x)))
    where = np.array([(at, size, len(pieces)) for (at, size), pieces in zip(lie, plan, strict=True)], np.int64)
    flat = np.array([(tensors[p.tensor], p.start, p.size) for pieces in plan for p in pieces], np.int64)
    values = list(targets.values())
    found = kernels.decode_tensors(data, where, flat, likes, head.tables, head.model, values, head.escapes)
    return None if found is None else found.tolist()


def _rest(head: Head, chunk: Coded, decoded: Decoded) -> list[Fine]:
    """Read what follows the words of a chunk."""
    reader = Reader(chunk.data)
    reader.at = decoded.used
    out = [_escapes(run, reader, head) for run in decoded.runs]
    for j, p in enumerate(chunk.pieces):
        if shift := head.shifts[p.tensor]:
            out[j] = _with_low_bits(out[j], reader, p.size, shift)
    if reader.at != len(chunk.data):
        raise damaged(f"{len(chunk.data) - reader.at} bytes follow a chunk's last value")
    for fine, target in zip(out, chunk.targets, strict=False):
        if target is not None:
            fine.patch(target.factor, target.out)
    return out


def _with_low_bits(fine: Fine, reader: Reader, size: int, shift: int) -> Fine:
    if fine.escaped.size and int(np.abs(fine.escaped).max()) >> (LARGEST_BITS - shift):
        raise damaged(f"an escaped value and {shift} low bits need more than {LARGEST_BITS} bits")
    packed = np.frombuffer(reader.take((size * shift + 7) // 8), np.uint8)
    spread = np.unpackbits(packed, count=size * shift, bitorder="little").reshape(-1, shift)
    low = (spread.astype(np.int32) << np.arange(shift, dtype=np.int32)).sum(axis=1, dtype=np.int32)
    return replace(fine, low=low, shift=shift)


def _escapes(run: Run, reader: Reader, head: Head) -> Fine:
    """Read the values whose placeholders are v = -128 or 127, behind a trellis 2v - c sign(v), in their order."""
    if not head.escapes or not run.held.size:
        return Fine(run, _NONE)
    values = []
    for placeholder in run.held.tolist():
        value = reader.signed()
        odd = placeholder > 0  # 127 stands for odd values, -128 for even ones
        if abs(value) > LARGEST_ESCAPE or value & 1 != odd:
            raise damaged(f"the escaped value {value} does not fit its place")
        codebook = placeholder & 1 if head.bits else 0
        values.append(2 * value - codebook * ((value > 0) - (value < 0)) if head.bits else value)
    return Fine(run, np.array(values, np.int32))
