"""`netweight bound`: R(D) of a checkpoint under stated laws, beside what a file of it spends."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from netweight.allocate import Plan, allocate, steepest
from netweight.archive import Archive
from netweight.archive.header import MAGIC
from netweight.bound import MODELS, STATEMENT, UNKNOWN, Bound, TensorBound
from netweight.bound import bound as bound_of
from netweight.bound.gap import Gap, split
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.curve import sweep
from netweight.errors import UsageError
from netweight.units import format_bits, format_bytes, format_count

from .console import Console, table
from .targets import archive_in, existing, measured, threads

__all__ = ["bound"]

_RATES: Final = (1.0, 2.0, 3.0, 4.0, 6.0)  # bits/weight at which a checkpoint without a file is shown


def bound(options: Namespace, console: Console) -> int:
    """Show the bound at what the file reaches and how its gap splits, or for a checkpoint at a few rates."""
    path, model = existing(options.input), options.model or next(iter(MODELS))
    if model not in MODELS:
        raise UsageError(f"There is no law {model!r}.", f"Known are: {', '.join(MODELS)}.")
    if not _is_archive(path):
        if options.against is not None:
            raise UsageError(f"{path} is no .nwt file, so there is nothing to compare.", "Leave --against out.")
        return _checkpoint(options, console)
    if options.against is None:
        raise UsageError(
            "A file alone does not tell the weights that it was made from.", "Add --against ORIGINAL, or name that."
        )
    path = archive_in(options.input)
    with (
        Archive.open(path) as archive,
        open_checkpoint(existing(options.against)) as original,
        console.progress() as progress,
    ):
        importance = measured(options)
        found = bound_of(original, importance, archive, progress=progress)
        if importance is None and "importance" in archive.plan:
            console.warn(
                "The file was planned by a measured importance. Without --importance the loss is not its loss."
            )
    gap = split(found, model)
    console.result("bound", _data(path, found, gap), [*_lines(path, found, gap), *_details(found, model)])
    return 0


def _is_archive(path: Path) -> bool:
    """Whether an input is a compressed file, or a folder with one and no checkpoint."""
    if path.is_dir():
        return any(path.glob("*.nwt")) and not any(path.glob("*.safetensors"))
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _checkpoint(options: Namespace, console: Console) -> int:
    with (
        open_checkpoint(existing(options.input)) as checkpoint,
        threads(options.workers) as executor,
        console.progress() as progress,
    ):
        importance = measured(options)
        curves = sweep(checkpoint, importance, executor=executor, progress=progress)
        found = bound_of(checkpoint, importance, progress=progress)
        least = steepest(curves, "the least")
        plans = {bits: allocate(curves, bits=bits) for bits in _RATES if bits * least.weights > least.bits}
        rows = [_rate_row(found, bits, plan) for bits, plan in plans.items()]
        console.result("bound", _checkpoint_data(checkpoint, found, rows), _checkpoint_lines(checkpoint, found, rows))
    return 0


def _rate_row(found: Bound, bits: float, plan: Plan) -> Mapping[str, float | Mapping[str, float] | None]:
    """At one rate of the file: what our plan predicts for the modelled tensors, and R(D), D(R) there."""
    inside = [plan.choices[t.name] for t in found.modelled]
    spent, loss = sum(point.bits for point in inside), sum(point.loss for point in inside)
    return {
        "bits_per_weight": bits,
        "predicted_bits": spent,
        "predicted_loss": loss,
        "rate_bits": {model: found.rate_bits(model, loss) if loss > 0 else math.inf for model in MODELS},
        "least_loss": {model: found.least_loss(model, spent) for model in MODELS},
        "universal_bits": found.universal_bits(loss) if found.inputs and loss > 0 else None,
    }


def _checkpoint_data(
    checkpoint: Checkpoint, found: Bound, rows: Sequence[Mapping[str, object]]
) -> Mapping[str, object]:
    return {
        "input": checkpoint.source,
        "statement": STATEMENT,
        "models": {model.id: model.assumes for model in MODELS.values()},
        "weights": found.weights,
        "modelled_weights": sum(t.weights for t in found.modelled),
        "outside": {t.name: t.outside for t in found.tensors if t.outside},
        "rates": rows,
    }


def _checkpoint_lines(checkpoint: Checkpoint, found: Bound, rows: Sequence[Mapping[str, object]]) -> list[str]:
    weights = sum(t.weights for t in found.modelled)
    head = f"{checkpoint.source}  {format_count(found.weights)} weights, {len(found.modelled)} tensors with a law"
    out = [head, "", "least bits/weight at the loss that our plan predicts, tensors with a law alone"]
    cells = []
    for row in rows:
        rates = row["rate_bits"]
        assert isinstance(rates, Mapping)
        numbers = [f"{float(rates[model]) / max(1, weights):.3f}" for model in MODELS]
        if row["universal_bits"] is not None:
            numbers.append(f"{float(str(row['universal_bits'])) / max(1, weights):.3f}")
        spent, loss = (float(str(row[key])) for key in ("predicted_bits", "predicted_loss"))
        cells.append([f"{row['bits_per_weight']:g}", f"{loss:.4g}", f"{spent / max(1, weights):.3f}", *numbers])
    heads = ["file bits/weight", "loss", "ours", *(model.title for model in MODELS.values())]
    heads += ["inputs unknown"] if found.inputs else []
    return [*out, *table(heads, cells), "", *_statement(found)]


def _data(path: Path, found: Bound, gap: Gap) -> Mapping[str, object]:
    return {
        "input": str(path),
        "statement": STATEMENT,
        "models": {model.id: model.assumes for model in MODELS.values()},
        "bytes": found.nbytes,
        "weights": found.weights,
        "modelled_weights": sum(t.weights for t in found.modelled),
        "loss": found.loss,
        "modelled_bits": found.spent_bits,
        "rate_bits": {model: found.rate_bits(model) for model in MODELS},
        "least_loss": {model: found.least_loss(model) for model in MODELS},
        "universal_bits": found.universal_bits() if found.inputs else None,
        "gap": {
            "model": gap.model,
            "file_bits": gap.file_bits,
            "bound_bits": gap.bound_bits,
            "gap_bits": gap.total_bits,
            "parts": {part.id: part.bits for part in gap.parts},
        },
        "tensors": [_tensor_data(tensor) for tensor in found.tensors],
    }


def _tensor_data(tensor: TensorBound) -> Mapping[str, object]:
    reached = tensor.reached
    data: dict[str, object] = {"name": tensor.name, "weights": tensor.weights, "outside": tensor.outside}
    if reached is not None:
        data |= {"codec": reached.codec, "bits": reached.bits, "loss": reached.loss}
    return data | {"rate_bits": tensor.rate_bits, "least_loss": tensor.least_loss}


def _lines(path: Path, found: Bound, gap: Gap) -> list[str]:
    weights = max(1, sum(t.weights for t in found.modelled))
    rate = format_bits(8 * found.nbytes / max(1, found.weights))
    out = [f"{path}  {format_bytes(found.nbytes)}, {format_count(found.weights)} weights, {rate}"]
    out += [f"{len(found.modelled)} of {len(found.tensors)} tensors have a law; loss {found.loss:.4g}", ""]
    rows = []
    for model in MODELS.values():
        bits, loss = found.rate_bits(model.id), found.least_loss(model.id)
        above = (found.spent_bits - bits) / weights
        share = f"{loss / found.loss:.3f}" if found.loss else "-"
        rows.append([model.title, f"{bits / weights:.3f}", f"{above:+.3f}", f"{loss:.4g}", share])
    if found.inputs:
        bits = found.universal_bits()
        above = (found.spent_bits - bits) / weights
        rows.append(["Gaussian by row, inputs unknown", f"{bits / weights:.3f}", f"{above:+.3f}", "-", "-"])
    spent = found.spent_bits / weights
    rows.append(["this file", f"{spent:.3f}", f"{0:+.3f}", f"{found.loss:.4g}", "1.000"])
    heads = ["law", "R(D) bits/weight", "file above it", "D(R)", "D(R) / loss"]
    out += [*table(heads, rows), "", f"from R(D), {MODELS[gap.model].title}, to the file"]
    parts = [("R(D)", gap.bound_bits), *((part.title, part.bits) for part in gap.parts), ("file", gap.file_bits)]
    cells = [[title, f"{bits / 8:,.0f}", f"{bits / weights:+.4f}"] for title, bits in parts]
    return [*out, *table(["part", "bytes", "bits/weight"], cells), ""]


def _details(found: Bound, model: str) -> list[str]:
    rows = []
    for t in found.tensors:
        if t.reached is None or not t.weights:
            continue
        rate = t.reached.bits / t.weights
        least = t.rate_bits.get(model)
        cells = [t.outside or "-", "-"] if least is None else [f"{least / t.weights:.3f}", ""]
        if least is not None:
            cells[1] = f"{rate - least / t.weights:+.3f}"
        rows.append([t.name, t.reached.codec, f"{rate:.3f}", *cells])
    return [*table(["tensor", "codec", "bits/weight", "R(D)", "above"], rows), "", *_statement(found)]


def _statement(found: Bound) -> list[str]:
    laws = [f"{model.title}: weights {model.assumes}." for model in MODELS.values()]
    return [*laws, *([f"Inputs unknown: {UNKNOWN}"] if found.inputs else []), "", STATEMENT]
