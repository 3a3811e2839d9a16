"""Lossless: every bit of every dtype comes back, NaN payloads, negative zeros and all.

Floats by planes with context by exponent, row and column; integers by difference, palette and byte planes:
`entropy.planes` has the streams. It takes what no lossy codec can, and as the only codec of a plan it stores a whole
checkpoint without loss.

It has no knob and no float32 arithmetic, so it is not a `Codec` of the lossy kind: it deals in storage arrays and their
dtype codes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, final

from numpy.typing import NDArray

from netweight.codecs.base import Point
from netweight.entropy.planes import PlanesHead, decode_planes_chunk, decode_planes_head, encode_planes, predicted_bits
from netweight.entropy.stream import Piece

Storage = NDArray[Any]


@final
class Exact:
    """Lossless coding of tensors of any dtype."""

    id: ClassVar[str] = "exact"
    version: ClassVar[int] = 1

    def sweep(self, array: Storage, dtype: str) -> Sequence[Point]:
        """Predict the bits of the one way there is: within 2 % + 64 bytes, without loss.

        Args:
            array: storage array (`dtypes.storage_dtype`).
            dtype: its code.

        >>> import numpy as np
        >>> Exact().sweep(np.arange(4096), "I64")[0].bits < 200
        True
        """
        return [Point(predicted_bits(array, dtype), 0.0, self.id, 0)]

    def encode(self, arrays: Sequence[Storage], dtype: str) -> tuple[bytes, list[bytes]]:
        """Code arrays of one dtype as a section: head and chunks."""
        return encode_planes(arrays, dtype)

    def open(self, data: bytes | memoryview, dtype: str, shapes: Sequence[tuple[int, ...]]) -> PlanesHead:
        """Read a section's head.

        Raises:
            FormatError: the head contradicts itself or the shapes.
        """
        return decode_planes_head(data, dtype, shapes)

    def decode(self, head: PlanesHead, pieces: Sequence[Piece], data: bytes | memoryview) -> list[Storage]:
        """Decode a chunk into the flat storage elements of its pieces.

        Raises:
            FormatError: the chunk contradicts its head.
        """
        return decode_planes_chunk(head, pieces, data)
