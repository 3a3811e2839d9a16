"""Sensitivities at the working point: what a plan's errors really do to the outputs, layer by layer.

The Fisher information is the curvature of the loss at the trained weights. Below some 2.5 bits a weight errors are
large, and a layer's real divergence can be many times the prediction 1/2 e^T I e: an allocation that believes it
starves that layer. So every layer is quantised alone as the plan says, its divergence KL_l is measured by one forward
pass over a few inputs, and its curve is bent to go through what was measured,

    loss_l -> KL_l(loss_l),   a line through (ln loss_l, ln KL_l) of all plans tried (`working`),

the secant of the loss instead of its tangent; then the bits are allocated anew. At last all layers are quantised
together, and one factor for all makes the predicted sum the measured one; what the inputs say that took no part in the
rounds is noted beside it. Where the importance was measured on these very inputs, errors that were shaped to it cost
more on new ones, and what is measured counts that much more (`working.on_new_inputs`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from netweight.allocate import Plan
from netweight.archive import Archive
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.codecs.registry import EXACT
from netweight.curve import Curve, Progress, Source, sweep
from netweight.errors import UsageError
from netweight.fitting import AIM, foretold, most_bytes
from netweight.importance.core import Importance
from netweight.importance.given import stats_of
from netweight.importance.record import MODULUS
from netweight.pipeline import Coder
from netweight.settling import LEAST_NATS, NOTE_BYTES, Secant, settled
from netweight.state import State
from netweight.trial import Nats, Trial, mean
from netweight.working import Found

if TYPE_CHECKING:
    import torch

__all__ = ["Secant", "secant"]

ROUNDS: Final = 4  # two leave layers starved below 2 bits a weight, where the first plan is far off


def secant(
    model: torch.nn.Module,
    batches: Sequence[Any],
    importance: Importance,
    source: Source | None = None,
    *,
    divergence: str | Nats = "kl",
    forward: Callable[[torch.nn.Module, Any], Any] | None = None,
    curves: Mapping[str, Curve] | None = None,
    codecs: Sequence[str] | None = None,
    rounds: int = ROUNDS,
    executor: Executor | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
    **target: Any,
) -> Secant:
    """Allocate bits by sensitivities that were measured at the working point, and check the sum on other inputs.

    Args:
        model: the network, left as it was.
        batches: calibration inputs without labels, in any number of batches above one: every third is held out of the
            rounds, the others measure layers; 60 to 200 inputs are enough for that, more foretell the sum better. Those
            that `measure` had, all of them, or others.
        importance: of the network, by `measure`.
        source: its checkpoint; the model's own weights without.
        divergence: "kl" of softmax outputs, "squared" for 1/2 |f - f'|^2, or a function of original and changed
            outputs that gives nats for each sample.
        forward: calls the model on a batch; see `measure`.
        curves: by `sweep` with this importance, if they are there already.
        codecs: ids to allow; those tried by default if None.
        rounds: of measuring and allocating; 0 only checks the sum.
        executor: anything with `map`.
        device: of torch, on which codecs compute; see `sweep`. The network stays where it is.
        progress: called with ("secant", done, total).
        cancel: asked before each pass; if true, what was found so far is used.
        target: exactly one of size, bits, loss (nats) and slope.

    Raises:
        UsageError: fewer than two batches, names of the model and its checkpoint that differ, or no target.
        TargetError: the target is out of reach.
    """
    checkpoint = open_checkpoint(model if source is None else source)
    if len(batches) < 2:
        raise UsageError(f"There are {len(batches)} batches.", "Give two or more: one is held out for the last check.")
    importance = _measured(checkpoint, importance)
    if curves is None:
        curves = sweep(checkpoint, importance, codecs=codecs, executor=executor, device=device, progress=progress)
    held = list(batches[2::3] or batches[1:])
    known = [batch for j, batch in enumerate(batches) if j % 3 != 2] if len(batches) > 2 else [batches[0]]
    coder = Coder(checkpoint, importance, executor, None, device)
    trial = Trial(model, checkpoint, divergence, forward)
    state = State(curves, _are_measured(importance, batches))
    over = 1.0  # of a file of some kilobytes a tenth may not be foretold; what is measured should be what is sent
    most = most_bytes(curves, **target) - NOTE_BYTES
    for done in range(rounds):
        plan = foretold(state.curves(), over, **target)
        archive = coder.encode(plan)
        over = 8 * (archive.nbytes + NOTE_BYTES) / (AIM * plan.bits)
        state = state.after(checkpoint, importance, archive, plan)
        meets = archive.nbytes <= most < math.inf  # plans of one loss or slope have other sizes: the last one counts
        state = _round(trial, known, archive, plan, state, progress, (done, rounds), cancel, meets)
    return settled(trial, (known, held), coder, importance, state, target)


def _are_measured(importance: Importance, batches: Sequence[Any]) -> bool:
    """Whether these are the inputs that the importance is of."""
    from netweight.importance.samples import batch_of

    return sum(batch_of(batch, None).data for batch in batches) % MODULUS == int(importance.record.data, 16)


def _measured(checkpoint: Checkpoint, importance: Importance) -> Importance:
    found = stats_of(checkpoint, importance)
    if not isinstance(found, Importance):
        raise UsageError(
            f"The importance is a {type(importance).__name__}.", "Give what `measure` or `Importance.open` gave."
        )
    return found


def _round(
    trial: Trial, batches: Sequence[Any], archive: Archive, plan: Plan, state: State,
    progress: Progress | None, place: tuple[int, int], cancel: Callable[[], bool] | None, meets: bool,
) -> State:  # fmt: skip
    """Quantise each layer alone, then all together; give what the next allocation should know."""
    everything = [name for name, point in plan.choices.items() if point.codec != EXACT]
    groups = trial.groups(everything)
    passes = itertools.count(1)

    def stop() -> bool:
        if cancel is not None and cancel():
            return True
        if progress is not None:
            whole = len(groups) * len(batches)
            progress("secant", place[0] * whole + next(passes), place[1] * whole)
        return False

    found, tried, alone = dict(state.found), dict(state.tried), 0.0
    for names, measured in zip(groups, trial.alone(batches, archive, groups, stop), strict=True):
        losses = {name: state.loss(name, plan.choices[name].loss) for name in names}
        predicted = sum(losses.values())
        if measured is None or predicted <= LEAST_NATS:
            alone += state.here(plan, names) / state.whole
            continue
        alone += measured
        ratio = max(state.more(plan, names) * measured, LEAST_NATS) / predicted
        for name in names:
            if losses[name] > 0:
                found[name] = found.get(name, Found()).also(losses[name], ratio * losses[name])
                tried[name] = [*tried.get(name, ()), replace(plan.choices[name], loss=losses[name])]
    together = mean(trial.nats(batches, archive, everything))[0]
    state = state.also(plan, archive, together) if meets else state
    whole = together / alone if alone > 0 and together > LEAST_NATS else 1.0
    return replace(state, found=found, tried=tried, whole=whole)
