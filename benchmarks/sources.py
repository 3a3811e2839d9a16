"""Bits above R(D) on sources whose R(D) is known: what each codec's whole file leaves of what is possible.

A million independent Gaussian or Laplacian weights are written at 0.5 to 4 bits a weight; the rate is the file's,
header and tables included, the error is measured after reading it back, and R(D) is that of the law under squared
error. The trellis of 8 states is the codec `trellis` with another grid: its file is read by the same decoder.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from math import log, log2
from pathlib import Path
from typing import Any, Final

import numpy as np

import netweight as nw
from netweight.codecs.base import Point, index_of
from netweight.codecs.lattice import Grid
from netweight.codecs.trellis import KAPPA, Trellis
from netweight.importance.stat import Stat
from netweight.kernels import Float32
from netweight.theory import ecsq, scalar
from netweight.theory.scalar import GeneralizedGaussian

from . import store

__all__ = ["BITS", "CODERS", "LAWS", "code", "draw", "measure"]

SIDE: Final = 1000  # the weights are a square matrix
BITS: Final = (0.5, 1.0, 2.0, 3.0, 4.0)
LAWS: Final = {"Gaussian": GeneralizedGaussian.gaussian(), "Laplacian": GeneralizedGaussian.laplace()}
CODERS: Final = {"scalar": 0, "trellis, 8 states": 3, "trellis, 256 states": 8}  # log2 of the states


def measure(options: argparse.Namespace) -> store.Records:
    """One record for each law, coder and rate."""
    del options
    records = []
    for name, law in LAWS.items():
        w = draw(law, SIDE)
        for coder in CODERS:
            for bits in BITS:
                record = {"law": name, "coder": coder, "asked_bits": bits, **code(w, law, coder, bits)}
                print(f"{name}, {coder}, {record['bits']:.3f} bits: {record['above_bits']:+.4f} above R(D)", flush=True)
                records.append(record)
    return records


def draw(law: GeneralizedGaussian, side: int, seed: int = 0) -> Float32:
    """A square matrix of independent weights of a law."""
    return law.sample(side * side, np.random.default_rng(seed)).astype(np.float32).reshape(side, side)


def code(w: Float32, law: GeneralizedGaussian, coder: str, bits: float) -> dict[str, Any]:
    """Write a file, read it back, and compare with R(D).

    Args:
        w: weights of the law, any shape.
        law: the source.
        coder: one of CODERS.
        bits: rate asked for, to which the step is searched on a fifth of the rows; the file's is within a percent or
            two, and R(D) is taken at the error that it has.

    Returns:
        bits (of the file, each weight), mse, bound_bits = R(mse), above_bits, and for the scalar coder
        ideal_above_bits: what the best entropy-coded scalar quantiser leaves at that rate.
    """
    with _states(CODERS[coder]) as codec, tempfile.TemporaryDirectory() as scratch:
        part = w[: max(64, len(w) // 5)]
        finest, coarsest = index_of(law.variance**0.5 / 64), index_of(law.variance**0.5 * 16)
        while coarsest - finest > 4:  # the rate falls with the step
            middle = (finest + coarsest) // 2
            above = 8 * _archive(part, codec, middle).nbytes / part.size > bits
            finest, coarsest = (middle, coarsest) if above else (finest, middle)
        path = Path(scratch) / "w.nwt"
        _archive(w, codec, coarsest).save(path)
        with nw.Archive.open(path) as archive:
            error = w.astype(np.float64) - archive["w"]
        rate = 8 * path.stat().st_size / w.size
    mse = float(np.mean(error**2))
    bound = float(scalar.rate_nats(law, mse)) / log(2)
    found = {"bits": rate, "mse": mse, "bound_bits": bound, "above_bits": rate - bound}
    if not CODERS[coder]:
        best = ecsq.best_at_rate(law, rate * log(2)).distortion
        found["ideal_above_bits"] = rate - float(scalar.rate_nats(law, best)) / log(2)
    found["above_db"] = found["above_bits"] * 20 * log2(2) * np.log10(2)
    return found


def _archive(w: Float32, codec: str, step_index: int) -> nw.Archive:
    """The weights at one step."""
    plan = nw.Plan({"w": Point(0.0, 0.0, codec, step_index)}, 0.0, sizes={"w": w.size})
    return nw.encode({"w": w}, plan, {"w": Stat()})


@contextlib.contextmanager
def _states(bits: int) -> Iterator[str]:
    """Id of the codec, with a trellis of 2^bits states while the context lasts."""
    before = Trellis.grid
    try:
        if bits:
            Trellis.grid = Grid(bits, KAPPA)
        yield "trellis" if bits else "uniform"
    finally:
        Trellis.grid = before


if __name__ == "__main__":
    from .page import finish

    finish("sources", measure, store.arguments(__doc__))
