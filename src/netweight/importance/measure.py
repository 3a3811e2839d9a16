"""`measure`: from calibration data to the importance of every tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sized
from typing import TYPE_CHECKING, Any, Final

from netweight.errors import UsageError
from netweight.freed import LEAST_BYTES, give_back_freed
from netweight.importance.core import Importance
from netweight.importance.record import MODULUS, Record
from netweight.importance.stat import Stat

if TYPE_CHECKING:
    import torch

__all__ = ["measure"]

OBJECTIVES: Final = ("identity", "fisher", "gradient", "hessian", "gradient+hessian")
STRUCTURES: Final = ("kronecker", "gradient", "diagonal")
LARGEST: Final = 6144  # columns up to which their second moment is kept: 302 MB
FULL: Final = 1024  # rows up to which theirs is

Progress = Callable[[str, int, int], None]


def measure(
    model: torch.nn.Module,
    batches: Iterable[Any],
    loss: str | Callable[[torch.Tensor, Any], torch.Tensor] = "kl",
    *,
    objective: str | None = None,
    structure: str = "kronecker",
    forward: Callable[[torch.nn.Module, Any], Any] | None = None,
    mask: Callable[[Any], torch.Tensor | None] | None = None,
    names: Collection[str] | None = None,
    temperature: float = 1.0,
    cotangents: str = "auto",
    draws: int = 2,
    mu: float = 0.0,
    largest: int = LARGEST,
    full: int = FULL,
    seed: int = 0,
    progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Importance:
    """Measure how much every weight matters to the network's outputs, in one pass over calibration data.

    With x the input of a linear map and g the gradient at its output,

        I_w = G (x) A,   A = E[x x^T] over tokens or positions,   G = E[sum g g^T] over the tokens of a prediction,

    so that KL(f || f') ~ 1/2 sum over layers of tr(G E A E^T), E = W - W', in nats a prediction. Everything else
    (biases, norms, what no formula knows) gets the squared gradient of each sample, never of a mean of a batch.
    Labels are not looked at unless `loss` does.

    Args:
        model: used in evaluation mode and left as it was.
        batches: tensors, (inputs, labels..) or mappings; the first axis is that of the samples.
        loss: "kl" for a softmax head, "squared" for 1/2 |f - f'|^2 of a sample, or a function of (outputs, batch) that
            gives the loss of each sample.
        objective: "fisher" for "kl" and "squared"; of a function, "gradient" (default), "hessian" (Gauss-Newton, or
            cotangents="hutchinson") or "gradient+hessian" (with the quartic term); "identity" measures nothing.
        structure: "kronecker" as above; "gradient": A and G are the moments of the two sides of each sample's whole
            gradient, which does not take its positions for independent, and what these have apart is kept beside them,
            for samples are few; "diagonal": the squared gradient of every single weight.
        forward: calls the model on a batch and returns its output; the default is `importance.samples.model_inputs`.
        mask: from a batch to [samples, tokens], true where a token counts; the default is its "attention_mask".
        names: tensors to measure, where memory does not allow all in one pass; all if None.
        temperature: of the softmax, for networks that are too sure of themselves.
        cotangents: "exact" sums over classes, "gaussian" and "labels" draw at random; "auto" is exact for at most 16.
        draws: random vectors for each sample.
        mu: added to each sample's second derivatives.
        largest: columns up to which A is kept; a wider layer gets squared gradients.
        full: rows up to which G is a matrix; of a taller layer it is the diagonal.
        seed: of the draws, which depend on it and on the sample's content alone.
        progress: called with ("measure", batches done, batches), and ("shrink", tensors done, tensors).
        cancel: asked before each batch; if true, what was measured so far is returned.

    Returns:
        Importance; memory is that of its sums (2 x 8 bytes for each entry of the A and G on and above the diagonal, of
        A once more for whole gradients), the activations of a batch and their gradients. What is asked of a tensor is
        unfolded for it alone.

    Raises:
        UsageError: an option is unknown or does not fit another, there are no samples, the loss is none of each
            sample, or torch is missing.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> found = measure(model, [torch.randn(64, 3) for _ in range(4)])
    >>> found["weight"].inputs.shape, found["weight"].outputs.shape, found["bias"].diagonal.shape
    ((1, 3, 3), (2, 2), (2,))
    """
    try:
        import torch
    except ImportError:
        raise UsageError("The package torch is not installed.", "Install it: measuring runs the network.") from None
    from netweight.importance.cotangents import ESTIMATORS
    from netweight.importance.samples import model_inputs
    from netweight.importance.sites import untouched

    chosen = objective or ("gradient" if callable(loss) else "fisher")
    _require("objective", chosen, OBJECTIVES)
    _require("structure", structure, STRUCTURES)
    _require("cotangents", cotangents, ESTIMATORS)
    _require_fit(loss, chosen, structure, cotangents, draws, temperature, mu)
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"The model is a {type(model).__name__}.", "Pass a torch.nn.Module.")
    if chosen == "identity":
        record = Record(objective=chosen)
        return Importance({n: Stat() for n in dict(model.named_parameters()) if names is None or n in names}, record)
    wanted = (lambda name: True) if names is None else set(names).__contains__
    with untouched(model):
        collector = _collector(
            model, loss, chosen, structure, forward or model_inputs, wanted,
            (cotangents, draws, temperature, seed), mu, (largest, full),
        )  # fmt: skip
        _collect(collector, batches, mask, progress, cancel)
    if not collector.samples:
        raise UsageError("There are no samples.", "Give at least one batch.")
    record = Record(
        data=f"{collector.data % MODULUS:064x}",
        samples=collector.samples,
        predictions=collector.predictions,
        loss=loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__),
        objective=chosen,
        structure=structure,
        estimator=cotangents if cotangents in ("auto", "exact") else f"{cotangents} x{draws}",
        temperature=float(temperature),
        seed=seed,
    )
    importance = Importance(collector.sums(), record)
    del collector  # equal sums are kept once, but there
    give_back_freed(LEAST_BYTES)  # of the activations, however many those were
    for done, name in enumerate(importance):
        importance.shrinkage(name)
        if progress is not None:
            progress("shrink", done + 1, len(importance))
    return importance


def _collect(
    collector: Any, batches: Iterable[Any], mask: Any, progress: Progress | None, cancel: Callable[[], bool] | None
) -> None:
    """Pass all batches, or until somebody cancels."""
    from netweight.importance.samples import batch_of

    total = len(batches) if isinstance(batches, Sized) else 0
    for done, value in enumerate(batches):
        if cancel is not None and cancel():
            return
        collector.add(batch_of(value, mask))
        if progress is not None:
            progress("measure", done + 1, max(total, done + 1))


def _collector(
    model: Any, loss: Any, objective: str, structure: str, forward: Any, wanted: Callable[[str], bool],
    drawing: tuple[str, int, float, int], mu: float, limits: tuple[int, int],
) -> Any:  # fmt: skip
    """Choose who does the work."""
    from netweight.importance.collect import Collector
    from netweight.importance.cotangents import Head
    from netweight.importance.second import Fourth, Hutchinson

    first, curved = Head(loss, False, *drawing), Head(loss, True, *drawing)
    if objective == "gradient+hessian":
        return Fourth(model, forward, wanted, mu, first, curved)
    if drawing[0] == "hutchinson":
        return Hutchinson(model, forward, wanted, mu, first)
    head = curved if objective == "hessian" else first
    exact, whole, (largest, full) = structure == "diagonal", structure == "gradient", limits
    return Collector(model, head, forward, exact=exact, whole=whole, wanted=wanted, largest=largest, full=full, mu=mu)


def _require(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"There is no {option} {value!r}.", f"Known are: {', '.join(known)}.")


def _require_fit(
    loss: Any, objective: str, structure: str, cotangents: str, draws: int, temperature: float, mu: float
) -> None:
    """Refuse options that contradict each other, before any work."""
    supervised = objective in ("gradient", "hessian", "gradient+hessian")
    if not callable(loss):
        _require("loss", loss, ("kl", "squared"))
        if supervised:
            raise UsageError(
                f"The objective {objective!r} needs labels.", "Give a function of (outputs, batch) as the loss."
            )
    elif objective == "fisher":
        raise UsageError("The Fisher information is that of the model's own outputs.", 'Give loss="kl" or "squared".')
    if structure != "diagonal" and (objective == "gradient+hessian" or cotangents == "hutchinson" or mu):
        raise UsageError(
            "The quartic term, Hutchinson's estimate and mu are for single weights.", 'Add structure="diagonal".'
        )
    if cotangents == "hutchinson" and objective != "hessian":
        raise UsageError("Hutchinson's estimate is one of the Hessian.", 'Add objective="hessian" and a loss.')
    if draws < 1 or not temperature > 0 or mu < 0:
        raise UsageError(
            f"There are draws={draws}, temperature={temperature}, mu={mu}.",
            "Give draws >= 1, temperature > 0, mu >= 0.",
        )
