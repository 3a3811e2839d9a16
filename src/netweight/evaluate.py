"""Stage 8: the restored network beside the original, on data of the user's."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from netweight.archive import Archive
from netweight.archive.header import MAGIC
from netweight.checkpoint import open_checkpoint
from netweight.checkpoint.torch_tensors import tensor_of
from netweight.errors import UsageError
from netweight.importance.naming import pair_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Evaluation", "evaluate"]

BLOCK: Final = 1 << 24  # outputs compared at a time
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How far a restored network is from its original on the same inputs.

    Standard errors are paired: of the differences, sample by sample. NaN is what was not asked for or has no meaning.

    Attributes:
        nats: mean over predictions of KL(f || f'), or over samples of 1/2 |f - f'|^2.
        nats_error: its standard error.
        agreement: share of predictions with the same largest output; NaN where outputs are no scores of classes.
        agreement_error: its standard error.
        original: the user's metric of the original, the mean over samples.
        restored: of the restored network.
        difference: restored - original.
        difference_error: its standard error.
        samples: inputs.
        predictions: what `nats` is a mean over.
    """

    nats: float
    nats_error: float
    agreement: float
    agreement_error: float
    original: float
    restored: float
    difference: float
    difference_error: float
    samples: int
    predictions: float

    def to_json(self) -> dict[str, float | None]:
        """Give a dictionary for JSON; null for NaN."""
        return {key: value if math.isfinite(value) else None for key, value in asdict(self).items()}


def evaluate(
    model: torch.nn.Module,
    archive: Any,
    metric: Callable[[Tensor, Any], Any] | None = None,
    *,
    batches: Iterable[Any],
    loss: str = "kl",
    forward: Callable[[torch.nn.Module, Any], Any] | None = None,
    mask: Callable[[Any], Tensor | None] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare the network restored from a file with the original, on inputs that nothing was chosen on.

        nats = mean of KL(f || f') = mean of sum_c f_c ln(f_c / f'_c)     ("kl")
        nats = mean of 1/2 |f - f'|^2                                     ("squared")

    Args:
        model: the original, with its weights; left as it is. A copy gets the restored ones.
        archive: an Archive, the path of a `.nwt` file or of any checkpoint, or a mapping of tensors.
        metric: function of (outputs, batch) that gives a value for each sample, such as 1 where the class is right,
            or one value for the batch.
        batches: as for `netweight.measure`; each is run once by either network.
        loss: "kl" where the outputs are logits, "squared" for embeddings and regression.
        forward: as for `netweight.measure`.
        mask: likewise.
        progress: called with ("evaluate", batches done, batches).

    Raises:
        UsageError: the file is of another network, the loss is unknown, there are no batches, or torch is missing.
        FormatError: the file is damaged.

    >>> import torch
    >>> from netweight.pipeline import compress
    >>> model = torch.nn.Linear(32, 4)
    >>> found = evaluate(model, compress(model, slope=1e-7), batches=[torch.randn(100, 32)])
    >>> found.samples, found.nats < 1e-3, found.agreement > 0.95
    (100, True, True)
    """
    try:
        import torch
    except ImportError:
        raise UsageError("The package torch is not installed.", "Install it: evaluating runs the network.") from None
    from netweight.importance.samples import batch_of, model_inputs, output_of

    if loss not in ("kl", "squared"):
        raise UsageError(f"There is no loss {loss!r}.", "Known are: kl, squared.")
    run = forward or model_inputs
    other = copy.deepcopy(model).eval()
    _load(other, archive)
    training = [(module, module.training) for module in model.modules()]
    total = len(batches) if isinstance(batches, Sized) else 0
    tally = _Tally()
    try:
        model.eval()
        with torch.inference_mode():
            for done, value in enumerate(batches):
                batch = batch_of(value, mask)
                both = [output_of(run(network, value)) for network in (model, other)]
                tally.compare(both[0], both[1], batch.mask, loss)
                if metric is not None:
                    tally.judge(metric(both[0], value), metric(both[1], value))
                tally.samples += batch.count
                if progress is not None:
                    progress("evaluate", done + 1, max(total, done + 1))
    finally:
        for module, flag in training:
            module.training = flag
    if not tally.samples:
        raise UsageError("There are no batches.", "Give at least one.")
    return tally.result()


class _Tally:
    """Values sample by sample."""

    def __init__(self) -> None:
        self.samples = 0
        self._nats: list[NDArray[np.float64]] = []
        self._same: list[NDArray[np.float64]] = []
        self._counts: list[NDArray[np.float64]] = []
        self._metric: list[NDArray[np.float64]] = []

    def compare(self, z: Tensor, other: Tensor, mask: Tensor | None, loss: str) -> None:
        """Add a batch of outputs."""
        import torch

        from netweight.importance.cotangents import class_last

        if loss == "kl":
            z, other = class_last(z), class_last(other)
        masked = mask is not None and z.ndim == 3 and z.shape[:2] == mask.shape
        size = max(1, BLOCK // max(1, z[0].numel()))
        for at in range(0, len(z), size):
            a, b = z[at : at + size].double(), other[at : at + size].double()
            keep = torch.ones(a.shape[:-1], dtype=torch.float64, device=a.device)
            if masked and mask is not None:
                keep = mask[at : at + size].to(keep)
            if loss == "kl":
                p, q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
                nats = (p.exp() * (p - q)).sum(-1).clamp_min(0)
                same = (a.argmax(-1) == b.argmax(-1)).double()
                self._same.append(_rows(same * keep))
                self._counts.append(_rows(keep))
            else:
                nats = 0.5 * (a - b).square().sum(-1)
                self._counts.append(np.ones(len(a)))
            self._nats.append(_rows(nats * keep))

    def judge(self, original: Any, restored: Any) -> None:
        """Add the user's metric of a batch: of each sample, or one value."""
        pair = [
            np.atleast_1d(np.asarray(v.double().cpu() if hasattr(v, "cpu") else v, float)) for v in (original, restored)
        ]
        self._metric.append(np.stack([v.reshape(len(v), -1).mean(1) for v in pair]))

    def result(self) -> Evaluation:
        """Means and standard errors."""
        counts = np.concatenate(self._counts)
        nats, nats_error = _ratio(np.concatenate(self._nats), counts)
        same, same_error = _ratio(np.concatenate(self._same), counts) if self._same else (math.nan, math.nan)
        original = restored = difference = error = math.nan
        if self._metric:
            pairs = np.concatenate(self._metric, axis=1)
            original, restored = (float(v) for v in pairs.mean(axis=1))
            difference, error = _ratio(pairs[1] - pairs[0], np.ones(pairs.shape[1]))
        return Evaluation(
            nats, nats_error, same, same_error, original, restored, difference, error, self.samples, float(counts.sum())
        )


def _rows(t: Tensor) -> NDArray[np.float64]:
    """Sums over all axes but the first."""
    return np.asarray(t.reshape(len(t), -1).sum(1).cpu().numpy(), np.float64)


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of samples that weigh differently, and its standard error; NaN for a single one."""
    total = max(float(counts.sum()), 1.0)
    mean, n = float(sums.sum()) / total, len(sums)
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(float(np.sum((sums - mean * counts) ** 2)) * n / (n - 1)) / total


def _load(model: torch.nn.Module, source: Any) -> None:
    """Give a model the tensors of a file; all of its parameters must be there.

    Raises:
        UsageError: one is missing or has another shape.
    """
    import torch

    names, read = _tensors(source)
    state = model.state_dict()
    pairs = pair_names(state, names)
    missing = [name for name, _ in model.named_parameters() if name not in pairs]
    if missing:
        raise UsageError(
            f"The file lacks {len(missing)} parameters of the model: {missing[0]!r}.", "Give the file of this network."
        )
    with torch.no_grad():
        for name, other in pairs.items():
            found = read(other)
            if found.shape != state[name].shape:
                shapes = f"{list(found.shape)} in the file, {list(state[name].shape)} in the model"
                raise UsageError(
                    f"Tensor {name!r} has the shape {shapes}.",
                    "Give the file of this network.",
                )
            state[name].copy_(found)


def _tensors(source: Any) -> tuple[list[str], Callable[[str], Tensor]]:
    """Names in an archive, a file, or a mapping, and what reads one of them."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        first = b""
        if path.is_file():
            with path.open("rb") as file:
                first = file.read(len(MAGIC))
        source = Archive.open(path) if first == MAGIC else path
    if isinstance(source, Archive):
        return list(source), source.tensor
    if isinstance(source, Mapping) and not source:
        return [], source.__getitem__
    checkpoint = open_checkpoint(source)

    def read(name: str) -> Tensor:
        info = checkpoint.infos[checkpoint.ties.get(name, name)]
        found: Tensor = tensor_of(np.array(checkpoint.read(name)), info.dtype, info.shape)
        return found

    return list(checkpoint.names), read
