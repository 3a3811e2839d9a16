"""Where the bytes of a file, or of a plan, go: by part, by codec, by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from netweight.allocate import Plan
from netweight.archive import Archive
from netweight.archive.header import FIXED_BYTES

from .console import table

__all__ = [
    "CodecSum", "Share", "codec_table", "codecs_of", "losses", "parts_of", "plan_shares", "refinement_of",
    "refinement_table", "shares_of", "tensor_table",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Share:
    """What one tensor takes of a file.

    Args:
        name: of the tensor.
        dtype: code of its elements.
        shape: elements along each axis.
        codec: id.
        knob: the codec's integer.
        weights: elements.
        bytes: its part of its sections.
        section: the number of its first section; -1 where there is no file yet.
        shared: other tensors have a part of that section, which is shared out by what their integers cost.
        unread: that section cannot be decoded, and is shared out by weights.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    codec: str
    knob: int
    weights: int
    bytes: float
    section: int = -1
    shared: bool = False
    unread: bool = False


@dataclass(frozen=True, slots=True)
class CodecSum:
    """What all tensors of one codec take together.

    Args:
        codec: id.
        tensors: how many.
        weights: elements of all.
        bytes: of all.
    """

    codec: str
    tensors: int
    weights: int
    bytes: float


def parts_of(archive: Archive) -> list[tuple[str, int]]:
    """Every byte of the file: the fixed part, the header, each section."""
    fixed = [("fixed part", FIXED_BYTES), ("header", archive.header_bytes - FIXED_BYTES)]
    sections = enumerate(archive.header.sections[: archive.sections_here])
    return fixed + [(f"section {number}: {s.codec} {s.stream}", s.size) for number, s in sections]


def refinement_of(archive: Archive) -> str:
    """How far a network is refined, and by how many bytes."""
    points = archive.refinements()
    reached = sum(point.here for point in points)
    return f"refinement {reached} of {len(points)}, {archive.nbytes:,} bytes used"


def refinement_table(archive: Archive) -> list[str]:
    """The lengths at which the file may end, as text; nothing where it must be whole."""
    rows = [
        [str(number), point.stream, f"{point.nbytes:,}", "yes" if point.here else "no"]
        for number, point in enumerate(archive.refinements(), 1)
    ]
    return ["", *table(["refinement", "stream", "bytes", "here"], rows)] if rows else []


def shares_of(archive: Archive) -> list[Share]:
    """Every tensor with data of its own, in the order of the source; their bytes sum to the sections'."""
    sizes = {info.name: info.size for info in archive.header.tensors}
    return [
        Share(r.name, r.dtype, r.shape, r.codec, r.knob, sizes[r.name], r.nbytes, r.section, r.shared, r.unread)
        for r in archive.rows()
    ]


def codecs_of(shares: Iterable[Share]) -> list[CodecSum]:
    """Sums by codec, the largest first.

    >>> [s.bytes for s in codecs_of([Share("a", "F32", (8,), "x", 1, 8, 3.0), Share("b", "F32", (8,), "x", 1, 8, 4.0)])]
    [7.0]
    """
    groups: dict[str, list[Share]] = {}
    for share in shares:
        groups.setdefault(share.codec, []).append(share)
    sums = [
        CodecSum(codec, len(members), sum(s.weights for s in members), sum(s.bytes for s in members))
        for codec, members in groups.items()
    ]
    return sorted(sums, key=lambda entry: -entry.bytes)


def codec_table(shares: Iterable[Share]) -> list[str]:
    """Sums by codec, as text."""
    rows = [
        [s.codec, f"{s.tensors:,}", f"{s.weights:,}", f"{s.bytes:,.0f}", _rate(s.bytes, s.weights)]
        for s in codecs_of(shares)
    ]
    return table(["codec", "tensors", "weights", "bytes", "bits/weight"], rows)


def _rate(size_bytes: float, weights: int) -> str:
    return f"{8 * size_bytes / weights:.2f}" if weights else "-"


def tensor_table(shares: Iterable[Share]) -> list[str]:
    """One line a tensor; bytes after ~ are a share of what several tensors take together, by their weights after ?."""
    rows = [
        [
            s.name,
            s.dtype,
            "x".join(map(str, s.shape)) or "scalar",
            str(s.section) if s.section >= 0 else "-",
            s.codec,
            str(s.knob),
            f"{'?' if s.unread else '~' * s.shared}{s.bytes:,.0f}",
            _rate(s.bytes, s.weights),
        ]
        for s in shares
    ]
    return table(["tensor", "dtype", "shape", "section", "codec", "knob", "bytes", "bits/weight"], rows)


def plan_shares(plan: Plan) -> list[Share]:
    """What each tensor will take by the plan's prediction."""
    return [
        Share(name, "", (), point.codec, point.knob, plan.sizes.get(name, 0), point.bits / 8)
        for name, point in plan.choices.items()
    ]


def losses(plan: Mapping[str, Any]) -> list[str]:
    """What a file says it loses, in nats: predicted from which data, and measured on other data; nothing otherwise.

    The plan comes from a file, so any entry may be anything.

    >>> losses({"loss": 0.0123, "importance": {"samples": 512, "objective": "fisher", "data": "00ab"}})
    ['predicted 0.0123 nats; importance: fisher of 512 samples, data 00ab']
    >>> losses({"moments": {"equal": "signal", "step": 0.5}})
    ['moments of batch norms moved, 0.5 of the way to an equal signal']
    """
    record, heldout = plan.get("importance"), plan.get("heldout")
    lines = []
    if isinstance(record, Mapping):
        kind, samples, data = (str(record.get(key, "unknown"))[:16] for key in ("objective", "samples", "data"))
        lines.append(f"predicted {_nats(plan.get('loss'))}; importance: {kind} of {samples} samples, data {data}")
    if isinstance(heldout, Mapping):
        spread = f" ± {_nats(heldout['se'])}" if "se" in heldout else ""
        lines.append(
            f"held out {_nats(heldout.get('nats'))}{spread}, {str(heldout.get('samples', 'unknown'))[:16]} samples"
        )
    moments = plan.get("moments")
    if isinstance(moments, Mapping):
        step, equal = (str(moments.get(key, "unknown"))[:16] for key in ("step", "equal"))
        lines.append(f"moments of batch norms moved, {step} of the way to an equal {equal}")
    return lines


def _nats(value: object) -> str:
    return f"{value:.3g} nats" if isinstance(value, int | float) else "unknown"
