"""Projections: the nearest network of a family, for the straight-through and the ADMM trainer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netweight.allocate import Plan
from netweight.codecs.registry import EXACT
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.pipeline import encode
from netweight.train.select import Arrays, Choose

# Weights by name -> their projections, for all of the names or some.
Projection = Callable[[Arrays], Mapping[str, NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class CodecProjection:
    """What a file would give back: every tensor through encode and decode of its codec at its knob.

        w' = decode(encode(w, importance, knob))

    It is the projection onto the networks that the plan's codecs can write, each codec's own trade of rate against
    distortion included. Tensors that the plan stores exactly are left alone.

    Attributes:
        plan: codec and knob by tensor.
        importance: by tensor, as for `netweight.encode`.

    Source: the compression step of LC (Idelbayev, Carreira-Perpinan 2020); ADMM's projection (Yuan et al. 2019).

    >>> import netweight as nw
    >>> w = {"w": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)}
    >>> project = CodecProjection(nw.allocate(nw.sweep(w, codecs=["uniform"]), bits=2))
    >>> once = project(w)
    >>> len(np.unique(once["w"])) < 30
    True
    """

    plan: Plan
    importance: Mapping[str, Stat] | None = None

    def __call__(self, tensors: Arrays) -> dict[str, NDArray[np.float32]]:
        """Project the tensors that the plan codes with loss.

        Raises:
            UsageError: the plan names none of them with a lossy codec, or a knob does not fit a tensor any more.
        """
        names = [name for name, point in self.plan.choices.items() if name in tensors and point.codec != EXACT]
        if not names:
            raise UsageError(
                f"The plan has a lossy codec for none of the {len(tensors)} parameters.", "Make it for this model."
            )
        # A weight that is all zero by now has nothing to code.
        live = {name: tensors[name] for name in names if tensors[name].any()}
        plan = Plan(
            {name: self.plan.choices[name] for name in live},
            self.plan.slope,
            self.plan.target,
            {name: w.size for name, w in live.items()},
        )
        archive = encode(live, plan, self.importance) if live else {}
        return {name: np.asarray(archive[name], np.float32) if name in live else tensors[name] for name in names}


def pruning(choose: Choose, density: float) -> Projection:
    """Give the projection onto networks of a density: w' = w where kept, else 0.

    Args:
        choose: which weights to keep, see `magnitude`.
        density: share of the weights to keep.

    >>> from netweight.train.select import magnitude
    >>> pruning(magnitude, 0.5)({"w": np.array([1.0, -3.0], np.float32)})
    {'w': array([ 0., -3.], dtype=float32)}
    """

    def project(tensors: Arrays) -> dict[str, NDArray[np.float32]]:
        kept = choose(tensors, density)
        return {name: np.where(kept[name], w, np.float32(0)) for name, w in tensors.items()}

    return project
