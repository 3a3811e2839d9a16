"""`netweight inspect`: every byte of a file accounted for."""

from __future__ import annotations

import dataclasses
from argparse import Namespace

from netweight.archive import Archive
from netweight.units import format_bits, format_bytes, format_count

from .account import codec_table, codecs_of, losses, parts_of, refinement_table, shares_of, tensor_table
from .console import Console, printable, table
from .targets import archive_in

__all__ = ["inspect"]


def inspect(options: Namespace, console: Console) -> int:
    """Show the parts of the file, then codecs and tensors; sections that tensors share are decoded."""
    path = archive_in(options.input)
    with Archive.open(path) as archive:
        shares, parts, points = shares_of(archive), parts_of(archive), refinement_table(archive)
        weights = sum(share.weights for share in shares)
        bits = 8 * archive.nbytes / max(1, weights)
        data = {
            "input": str(path),
            "by": archive.header.by,
            "bytes": archive.nbytes,
            "weights": weights,
            "bits_per_weight": bits,
            "source": dict(archive.header.source),
            "plan": archive.plan,
            "metadata": archive.metadata,
            "ties": archive.ties,
            "files": [group.file for group in archive.layout],
            "refinements": [dataclasses.asdict(point) for point in archive.refinements()],
            "parts": [{"part": name, "bytes": size} for name, size in parts],
            "codecs": [dataclasses.asdict(entry) for entry in codecs_of(shares)],
            "tensors": [dataclasses.asdict(share) for share in shares],
        }
    unread = [share.section for share in shares if share.unread]
    if unread:
        console.warn(f"Section {unread[0]} cannot be decoded; netweight verify tells why. It is shared out by weights.")
    head = f"{path}  {format_bytes(archive.nbytes)}, {format_count(weights)} weights, {format_bits(bits)}"
    about = [f"by {archive.header.by}, source sha256 {archive.header.source.get('sha256', 'unknown')}"]
    about += losses(archive.plan)
    about += [f"metadata {key}: {text}" for key, text in archive.metadata.items()]
    about += [f"{alias} is {owner}" for alias, owner in archive.ties.items()]
    rows = [[name, f"{size:,}"] for name, size in [*parts, ("file", archive.nbytes)]]
    lines = [head, *map(printable, about), "", *table(["part", "bytes"], rows)]
    console.result("inspect", data, [*lines, *points, "", *codec_table(shares), "", *tensor_table(shares)])
    return 0
