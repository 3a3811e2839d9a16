"""What the coder adds to the ideal cost of its own model, on the tensors of 1 M weights and more.

The model is the frequency tables in the file, one for each class, neighbourhood and codebook; its ideal cost is the sum
of -log2 of the probability they give each integer. A stricter yardstick stands beside it: the empirical entropy of the
integers given their tables, as if the best distributions were known for nothing. What is compared with both is the
whole file that holds the tensor alone: states, words, escapes, levels, tables, checksums, chunk index, header.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import netweight as nw
from netweight import kernels
from netweight.checkpoint import open_checkpoint
from netweight.codecs.registry import codecs
from netweight.dtypes import is_float, to_float32
from netweight.entropy.decode import decode_head
from netweight.entropy.layout import segment
from netweight.entropy.stream import IntStream, encode_section, plan_chunks, table_count
from netweight.importance.stat import Stat

from . import store
from .networks import find

__all__ = ["ideal_bits", "measure"]

LEAST_WEIGHTS: Final = 1_000_000
BITS: Final = (2.0, 3.0, 4.0)
CODECS: Final = ("uniform", "trellis")


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each large tensor, codec and rate."""
    records: store.Records = []
    for key in ("minilm", "mobilenet_v2"):
        source = find(key, options.networks)
        if source is not None:
            records += _large_tensors(source)
    return records


def _large_tensors(source: Path) -> Iterator[dict[str, Any]]:
    with open_checkpoint(source) as checkpoint:
        for name, info in checkpoint.infos.items():
            if info.size >= LEAST_WEIGHTS and is_float(info.dtype):
                w = to_float32(checkpoint.read(name), info.dtype)
                for codec in CODECS:
                    for record in _one_tensor(w, codec):
                        yield {"tensor": name, "codec": codec, "weights": info.size, **record}


def _one_tensor(w: kernels.Float32, codec: str) -> Iterator[dict[str, Any]]:
    importance = {"w": Stat()}
    curves = nw.sweep({"w": w}, importance, codecs=[codec])
    for bits in BITS:
        plan = nw.allocate(curves, bits=bits)
        archive = nw.encode({"w": w}, plan, importance)
        parts = codecs()[codec].encode(w, importance["w"], plan.choices["w"].knob)
        (stream,) = parts.streams.values()
        model, entropy = (round(bits / 8) for bits in ideal_bits(stream, parts.bits))
        print(f"{codec} {bits:g} bits, {w.shape}: {100 * (archive.nbytes / model - 1):+.3f} %", flush=True)
        yield {"asked_bits": bits, "model_bytes": model, "entropy_bytes": entropy, "coded_bytes": archive.nbytes}


def ideal_bits(stream: IntStream, trellis_bits: int) -> tuple[float, float]:
    """Cost of a tensor's integers without any overhead: under the tables that its file holds, and under the best ones.

    Args:
        stream: the integers and how they are scanned.
        trellis_bits: log2 of the states of their trellis, 0 without.

    Returns:
        sum of -log2(frequency / 4096), and sum over tables of n H, both in bits. Low bits that are written as they are
        count as they are; what an escape writes besides its symbol does not count.
    """
    head, _ = encode_section([stream], trellis_bits)
    decoded = decode_head(head, [stream.layout])
    counts = _counts(stream, decoded.model)
    frequency = decoded.tables.freq.astype(np.float64)
    escape = np.where(np.arange(256) & 1, frequency[:, 255:], frequency[:, :1])
    frequency = np.where(frequency > 0, frequency, escape)
    used, totals = counts > 0, counts.sum(axis=1)
    if not (frequency[used] > 0).all():
        raise ValueError("an integer has no probability in its table")
    low = stream.shift * stream.layout.size
    model = float(np.sum(counts[used] * np.log2(4096 / frequency[used])))
    totals = totals[totals > 0]
    entropy = float(np.sum(totals * np.log2(totals)) - np.sum(counts[used] * np.log2(counts[used])))
    return low + model, low + entropy


def _counts(stream: IntStream, model: kernels.Model) -> NDArray[np.int64]:
    """How often each table codes each symbol; int64 [tables, 256]."""
    high = (stream.k >> stream.shift).astype(np.int32)
    symbols = np.where(abs(high) <= 126, high, np.where(high & 1, 127, -128)).astype(np.int16)
    counts = np.zeros((table_count(model), 256), np.int64)
    for (piece,) in plan_chunks([stream.layout.size], stream.run):
        place = segment(stream.layout, stream.levels, piece.start, piece.size)
        symbol, index, _ = kernels.contexts(symbols[piece.start : piece.start + piece.size], model, place)
        counts += kernels.histogram(symbol, index, table_count(model))
    return counts


if __name__ == "__main__":
    from .page import finish

    finish("overhead", measure, store.arguments(__doc__))
