"""Valid files to be damaged, and what finds the damage."""

import re
from pathlib import Path

import forge
import numpy as np

import netweight as nw
from netweight.archive import Archive
from netweight.codecs.base import Point, index_of
from netweight.errors import FormatError

CHECKSUM = re.compile(r"The checksum of a chunk of .* is ([0-9a-f]{8}), ([0-9a-f]{8}) is expected")
HUGE_BYTES = 1 << 24


def check(path: Path, data: bytes) -> None:
    """Open and verify a file of these bytes; tensors decoded together are what they are one by one."""
    path.write_bytes(data)
    with Archive.open(path) as archive:
        floats = {name: i.shape for name, i in archive.infos.items() if i.dtype == "F32" and i.nbytes < HUGE_BYTES}
        outs = {name: np.full(shape, np.nan, np.float32) for name, shape in floats.items()}
        try:
            archive.fill(outs)
        except FormatError:
            outs = {}
        found = {name: _tensor(archive, name) for name in floats}
        assert {name: out.tobytes() for name, out in outs.items()} == (found if None not in found.values() else {})
        archive.check()


def _tensor(archive: Archive, name: str) -> bytes | None:
    try:
        return archive[name].tobytes()
    except FormatError:
        return None


def encoded(tensors: dict[str, tuple[np.ndarray, str, int]]) -> bytes:
    """The file of tensors, codecs and knobs."""
    choices = {name: Point(0.0, 0.0, codec, knob) for name, (_, codec, knob) in tensors.items()}
    archive = nw.encode({name: array for name, (array, _, _) in tensors.items()}, nw.Plan(choices, 1.0))
    return b"".join([archive._prefix, *(part for section in archive._sections for part in section)])


def tiny() -> bytes:
    """A file of a kB with a section of each codec."""
    random = np.random.default_rng(3)
    return encoded(
        {
            "matrix": (random.standard_normal((24, 12)).astype(np.float32), "trellis", index_of(1.0)),
            "variance": (np.exp(random.normal(0, 1, 9)).astype(np.float32), "relative", 5),
            "index": (np.arange(40) ** 2, "exact", 0),
            "empty": (np.zeros((0, 3), np.float32), "exact", 0),
        }
    )


def small() -> bytes:
    """A file of two kB: escapes, low bits and half floats as well."""
    random = np.random.default_rng(3)
    normal = random.standard_normal((9, 4, 3, 3)).astype(np.float32)
    return encoded(
        {
            "conv": (normal, "trellis", index_of(0.7)),
            "heavy": (random.standard_t(1.5, 64).astype(np.float32), "uniform", index_of(0.25)),
            "fine": (normal[:1], "uniform", index_of(1e-4)),
            "variance": (np.exp(normal[0, 0].ravel()), "relative", 5),
            "index": (np.arange(40) ** 2, "exact", 0),
            "half": (normal[1].astype(np.float16), "exact", 0),
            "few": (np.float32([1, 2, 2, 1] * 9), "exact", 0),
            "empty": (np.zeros((0, 3), np.float32), "exact", 0),
        }
    )


def larger() -> bytes:
    """A file whose sections have levels, several tensors a chunk, and floats stored by symbol and rest."""
    random = np.random.default_rng(4)
    spread = np.exp(random.normal(0, 2, (40, 1))).astype(np.float32)
    return encoded(
        {
            "a": (random.standard_normal((40, 50)).astype(np.float32) * spread, "trellis", index_of(1.0)),
            "b": (random.laplace(0, 1, (6, 33, 3, 3)).astype(np.float32), "trellis", index_of(1.0)),
            "c": (random.standard_normal((50, 40)).astype(np.float32) * spread[:, 0], "exact", 0),
            "d": (random.integers(0, 3, 5000), "exact", 0),
        }
    )


def plain() -> bytes:
    """A file whose sections are decoded in one call each: levels, chunks of several tensors, escapes."""
    random = np.random.default_rng(5)
    spread = np.exp(random.normal(0, 1, (40, 1))).astype(np.float32)
    return encoded(
        {
            "a": (random.standard_normal((40, 50)).astype(np.float32) * spread, "trellis", index_of(1.0)),
            "b": (random.standard_normal((50, 40)).astype(np.float32) * spread[:, 0], "trellis", index_of(0.5)),
            "c": (random.standard_t(1.5, (30, 20)).astype(np.float32), "uniform", index_of(0.25)),
            "d": (random.standard_normal((40, 30)).astype(np.float32) * spread, "uniform", index_of(0.5)),
            "e": (random.standard_normal(70).astype(np.float32), "uniform", index_of(0.5)),
        }
    )


def healed(path: Path, data: bytes) -> bytes:
    """A file whose chunks have the checksums of what they decode to, as far as they decode."""
    for _ in range(20):
        try:
            check(path, data)
        except FormatError as error:
            found = CHECKSUM.search(error.fact)
            if not found:
                return data
            right, wrong = (int(text, 16) for text in found.groups())
            header, parts = forge.take_apart(data)
            data = forge.put_together(header, [with_checksum(part, wrong, right) for part in parts])
        else:
            return data
    return data


def with_checksum(part: forge.Part, old: int, new: int) -> forge.Part:
    return forge.Part(part.rest, tuple((chunk, new if crc == old else crc) for chunk, crc in part.chunks))
