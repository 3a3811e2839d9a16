"""Checksums of chunks: of their bytes and of what they decode to.

So a decoder that goes wrong is found out as well as a damaged file.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netweight.entropy.decode import Fine


def checksum_of_integers(chunk: bytes | memoryview, fine: Sequence[Fine]) -> int:
    """Give crc32 of a chunk's bytes and of two sums of what its tables gave, r_1 .. r_n.

        sum r_i,   sum i r_i,   mod 2^32

    Args:
        chunk: as it is in the file.
        fine: decoded integers of its pieces, in order.
    """
    plain, weighted, at = 0, 0, 0
    for piece in fine:
        a, b = piece.run.sums
        plain += a
        weighted += b + at * a
        at += piece.run.size
    return zlib.crc32(struct.pack("<II", plain & 0xFFFFFFFF, weighted & 0xFFFFFFFF), zlib.crc32(chunk))


def checksum_of_bytes(chunk: bytes | memoryview, arrays: Sequence[NDArray[np.generic]]) -> int:
    """Give crc32 of a chunk's bytes and of the elements it decodes to."""
    crc = zlib.crc32(chunk)
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)
    return crc
