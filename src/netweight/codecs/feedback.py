"""Successive quantisation with the second moment of a layer's inputs: feedback, a ridge, and steps by water-filling.

    w'_oj = r_oj s_oj,   s_oj = scale T[e mod 4] 2^(e div 4),   e = -(row step level o + column step level j)

The loss of a layer is half of tr(G E A E^T). Columns are quantised one after the other, and each takes what those
before it left into account (`ridge`, `successive`): the noise is white where the loss is measured, which is what
reverse water-filling asks for, and the decoder need know neither A nor G. The knob is the whitened step c: equal knobs
lose the same for a bit in every layer. The scale is refitted, so that tr(G W' A (W - W')^T) = 0, golden rule 1 of Gao
et al. 2019 in the metric of the loss; by row and by column it does not hold, since the ridge has already shrunk what
cannot be told from noise, and a gain for each would shrink it twice.

Sources: Frantar et al. 2022 (feedback), Lifar et al. 2026 (steps), Conzelmann and Bamler 2025 (ridge), Fischer and
Wang 1992 (entropy-coded trellis).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netweight.codecs.base import Codec, Parts, Point, step_of
from netweight.codecs.lattice import Grid
from netweight.codecs.machine import HOST, Machine, machine_of
from netweight.codecs.matrix import Matrix, matrix_of
from netweight.codecs.preview import preview
from netweight.codecs.ridge import Spectrum
from netweight.codecs.steps import step_table
from netweight.codecs.successive import FEW, Found, Problem, first_rates, learnt_rates, quantise, spread
from netweight.codecs.trellis import BITS
from netweight.codecs.trellis import KAPPA as TRELLIS_KAPPA
from netweight.codecs.uniform import KAPPA as SCALAR_KAPPA
from netweight.codecs.whitened import FAR, RUN, Weights, gain, prepare, theta_of, weights_of
from netweight.entropy.layout import Layout, Levels
from netweight.entropy.stream import IntStream
from netweight.errors import UsageError
from netweight.freed import eased, give_back_freed
from netweight.importance.stat import Stat, largest_of
from netweight.kernels import LANES, Float32

LESSON, TAUGHT = 64, 1 << 14  # rows that teach the tables, and weights, at least


def search(problem: Problem, grid: Grid, machine: Machine) -> Found:
    """Quantise some rows, or all of them in haste, to learn the tables, then all of them."""
    if len(problem.m) == 1 and problem.down is None:
        rows = max(LESSON, TAUGHT // problem.layout.places)
        lesson = problem.of_rows(spread(problem.layout.rows, problem.layout.columns, rows))
    else:
        lesson = replace(problem, x=problem.x.copy())
    first = quantise(lesson, grid, first_rates(grid, problem.layout), FEW, machine)
    return quantise(problem, grid, learnt_rates(first.counts(lesson), grid, problem.layout), machine=machine)


class Feedback(Codec):
    """Successive trellis-coded quantisation under the second moment of the inputs."""

    id: ClassVar[str] = "feedback"
    version: ClassVar[int] = 1
    reals: ClassVar[tuple[str, ...]] = ("scale",)
    structured: ClassVar[bool] = True
    grid = Grid(BITS, TRELLIS_KAPPA)
    machine: Machine = HOST

    def on(self, device: str | None) -> "Feedback":
        """Give the one that computes on a device; its integers differ by ties, where sums are rounded otherwise."""
        found = type(self)()
        found.machine = machine_of(device)
        return found

    def layout(self, shape: tuple[int, ...]) -> Layout:
        """Down the columns."""
        return Layout.down(shape)

    def sweep(self, w: Float32, stat: Stat) -> Sequence[Point]:
        """Predict steps up to some six bits a weight from a sample of rows.

        None for tensors of whose inputs nothing is known, or that cannot be dealt to lanes.
        """
        matrix = self._matrix(w, stat)
        return [] if matrix is None else preview(self.id, matrix, self.grid)

    def _matrix(self, w: Float32, stat: Stat) -> Matrix | None:
        matrix = matrix_of(w, stat, self.machine)
        return matrix if matrix is None or matrix.layout.lanes == LANES or not self.grid.bits else None

    def encode(self, w: Float32, stat: Stat, knob: int) -> Parts:
        """Quantise column by column at the whitened step of `knob`.

        Raises:
            UsageError: nothing is known of the inputs, or the step is so fine that indices leave 16 bits.
        """
        matrix = self._matrix(w, stat)
        if matrix is None:
            raise UsageError(
                f"The codec {self.id} cannot take a tensor of shape {list(w.shape)}: it needs the second moment of its"
                " inputs, and for a trellis a multiple of 32 weights at each kernel position.",
                "Take another codec, or measure the importance.",
            )
        step = step_of(knob)
        problem = prepare(matrix.layout, Spectrum.of(matrix).target(theta_of(step, self.grid)), step)
        give_back_freed(problem.x.nbytes + problem.m.nbytes)
        eased(2 * (problem.x.nbytes + problem.m.nbytes + matrix.a.nbytes))  # as measured
        largest = largest_of(problem.x)
        if not largest < FAR:
            raise UsageError(
                f"The {self.id} step of knob {knob} is too fine: a target is {largest:.3g} steps.",
                "Take a larger knob.",
            )
        found, levels = search(problem, self.grid, self.machine), problem.levels
        v = Weights(found, levels) if len(matrix.w) == 1 else weights_of(found, problem).reshape(matrix.w.shape)
        del problem  # as large as the tensor
        scale, k = np.float32(gain(matrix, v)), found.integers(matrix.layout)
        stream = IntStream(k, matrix.layout, levels, 0, RUN)
        return Parts({"k": stream}, {"scale": np.array([scale], np.float32)}, {}, self.grid.bits)

    def decode(self, parts: Parts, fine: Mapping[str, NDArray[np.signedinteger]], shape: tuple[int, ...]) -> Float32:
        """Multiply the fine indices by the step of their row and column."""
        layout, levels = self.layout(shape), parts.streams["k"].levels
        r = layout.unscan(fine["k"].astype(np.float32), (layout.rows, layout.columns, layout.positions))
        return (r * steps_of(parts.reals["scale"][0], layout, levels)).reshape(shape)


class FeedbackScalar(Feedback):
    """The same with plain rounding: for tensors that cannot be dealt to the lanes of a trellis."""

    id: ClassVar[str] = "feedback-scalar"
    instead_of: ClassVar[str] = Feedback.id
    grid = Grid(0, SCALAR_KAPPA)


def steps_of(scale: np.float32, layout: Layout, levels: Levels) -> Float32:
    """Step of each weight: float32 [O, I, K], or [1, I, K] where the rows have none of their own.

    Raises:
        ValueError: a step is not finite.
    """
    row = np.zeros((1, 1, 1), np.int16) if levels.row_step is None else levels.row_step[:, None, None]
    column = np.zeros(layout.places, np.int16) if levels.column_step is None else levels.column_step
    cube = column.reshape(layout.positions, layout.columns).T[None]
    with np.errstate(over="ignore"):
        steps: Float32 = step_table(scale)[254 + row + cube]
    if not np.isfinite(steps).all():
        raise ValueError("a step is not finite")
    return steps
