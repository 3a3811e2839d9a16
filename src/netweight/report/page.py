"""One page that stands alone: what a file is, what it costs, what it lost and what was possible."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from netweight import __version__
from netweight.archive import Archive
from netweight.bound import MODELS, STATEMENT, UNKNOWN
from netweight.curve import Progress, Source
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.report import figures, tables
from netweight.report.facts import Against, Facts, gather, number_of
from netweight.report.markup import Markup, Node, element, escape, join
from netweight.report.style import STYLE
from netweight.units import format_bits, format_bytes, format_count

__all__ = ["report"]

# No script, no network, no form, whatever a name tried: the browser is told so, too.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def report(
    archive: Archive | str | os.PathLike[str],
    original: Source | None = None,
    *,
    model: str = "",
    importance: Mapping[str, Stat] | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> str:
    """Write the page of a file.

    Args:
        archive: a `.nwt` file, or an open one.
        original: the checkpoint it was made from; without it the page tells what the file alone can.
        model: id of the law that the bound is drawn for; the first of `netweight.bound.MODELS` if empty.
        importance: what was measured, so that losses are in its nats; squared error without.
        executor: for the sweep that predicts the curve.
        progress: called with (stage, done, total).

    Returns:
        HTML with its style and pictures inside: no script, and nothing to load.

    Raises:
        UsageError: an unknown model, or an original with other tensors.
        FormatError: file or original is damaged.
    """
    chosen = model or next(iter(MODELS))
    if chosen not in MODELS:
        raise UsageError(f"There is no law {chosen!r}.", f"Known are: {', '.join(MODELS)}.")
    opened = archive if isinstance(archive, Archive) else Archive.open(archive)
    facts = gather(opened, original, model=chosen, importance=importance, executor=executor, progress=progress)
    return str(_page(facts, chosen))


def _page(facts: Facts, model: str) -> Markup:
    against = facts.against
    cards = [_curve(against, model), _gap(against, model)] if against else []
    cards += [_bytes(facts), *([_above(against, model)] if against else []), _codecs(facts)]
    cards += [_predicted(facts), _histograms(facts), _provenance(facts)]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{facts.title} – netweight report"),
        element("style", STYLE),
    )
    body = element(
        "body", _head(facts), element("main", element("div", *cards, class_="cards"), _plan(facts, model)), _foot(facts)
    )
    return join([Markup("<!doctype html>\n"), element("html", head, body, lang="en"), Markup("\n")])


def _card(title: str, *content: Node) -> Markup:
    return element("section", element("h2", title), *content)


def _soft(words: Node) -> Markup:
    return element("p", words, class_="soft")


def _head(facts: Facts) -> Markup:
    archive, against = facts.archive, facts.against
    source_bytes = number_of(archive.header.source, "bytes")
    tiles = [
        (format_bytes(archive.nbytes), f"file, of {format_bytes(int(source_bytes))}" if source_bytes else "file"),
        (format_bits(8 * archive.nbytes / max(1, facts.weights)), f"{format_count(facts.weights)} weights"),
    ]
    if source_bytes:
        tiles.append((f"{source_bytes / archive.nbytes:.2f}×", "smaller than the source"))
    warning: Node = ""
    if against:
        found = against.bound
        floats = [t.reached for t in found.tensors if t.reached]
        signal, error = sum(r.signal for r in floats), sum(r.error for r in floats)
        snr = f"{10 * math.log10(signal / error):.2f} dB" if signal > 0 and error > 0 else "exact"
        weights = max(1, sum(t.weights for t in found.modelled))
        tiles.append((snr, "signal to error, all weights"))
        above = (found.spent_bits - against.gap.bound_bits) / weights
        tiles.append((f"{above:+.3f} bit", "a weight above R(D) of the law below"))
        if not against.same:
            warning = element("p", "The original given is not the one that the file was made from.", class_="warn")
    else:
        tiles.append((f"{number_of(archive.plan, 'loss'):.4g}", "loss, predicted"))
    boxes = (element("div", element("b", number), element("span", words), class_="tile") for number, words in tiles)
    about = f"{len(facts.infos)} tensors, {len(archive.ties)} of the names tied" if archive.ties else (
        f"{len(facts.infos)} tensors"
    )  # fmt: skip
    top = element("h1", facts.title)
    return element("header", top, _soft(about), warning, element("div", *boxes, class_="tiles"))


def _loss_is(against: Against) -> str:
    if against.measured:
        return "the quadratic form of the measured importance, in its nats"
    return "half the squared error of the weights, that of vectors weighted by the energy of rows"


def _curve(against: Against, model: str) -> Markup:
    law = MODELS[model]
    slope = against.plan.slope
    key = tables.key(("ours", "netweight, predicted"), ("tangent", "the slope"), ("bound", f"D(R), {law.title}"))
    words = f"At slope {slope:.3g} one more bit saves that much loss in every tensor. Loss is {_loss_is(against)}. "
    words += "R(D) is in bits a weight at our loss, D(R) at our rate."
    if not against.comparable:
        words += " The file was planned for a loss of another kind; the slope is that of R(D) at this one."
    if against.bound.inputs:
        words += f" Inputs unknown: {UNKNOWN}"
    picture = figures.rate_distortion(against, model, slope) if against.bound.modelled else _soft("No lossy tensor.")
    return _card("Rate and distortion", key, picture, _soft(words), tables.models_table(against.bound))


def _gap(against: Against, model: str) -> Markup:
    found, gap = against.bound, against.gap
    weights = max(1, sum(t.weights for t in found.modelled))
    total = sum(part.bits for part in gap.parts)
    words = (
        f"R(D) of the law “{MODELS[model].title}” is {format_bytes(round(gap.bound_bits / 8))} at this loss; the file "
        f"has {format_bytes(round(gap.file_bits / 8))}. The parts add up to the difference, {total / 8:+,.0f} bytes; "
        "bits are for each weight that has a law."
    )
    return _card("From R(D) to the file", _soft(words), tables.gap_bars(gap, weights))


def _bytes(facts: Facts) -> Markup:
    rows = [(name, _share(spent.spent, facts), spent.spent / 8) for name, spent in facts.account.tensors.items()]
    rows.append(("(header: names, shapes, checksums)", _share(facts.account.header, facts), facts.account.header / 8))
    return _card("Bytes by tensor", tables.bars(rows))


def _share(bits: float, facts: Facts) -> str:
    return f"{format_bytes(round(bits / 8))} · {100 * bits / (8 * facts.archive.nbytes):.1f} %"


def _above(against: Against, model: str) -> Markup:
    rows = []
    for t in against.bound.modelled:
        assert t.reached is not None
        bits = t.reached.bits - t.rate_bits[model]
        rows.append((t.name, f"{bits / 8:+,.0f} B · {bits / t.weights:+.3f} bit".replace("-", "−"), bits / 8))
    words = "Each tensor by its own R(D) at its own loss. Below zero its weights have structure that the law lacks."
    return _card(
        "Bits above the bound by tensor",
        figures.above_bound(against.bound.modelled, model),
        _soft(words),
        tables.bars([row for row in rows if row[2] > 0], most=6),
    )


def _codecs(facts: Facts) -> Markup:
    sums: dict[str, list[float]] = {}
    for info in facts.infos:
        spent = facts.account.tensors[info.name]
        entry = sums.setdefault(spent.codec, [0, 0, 0.0])
        entry[0] += 1
        entry[1] += info.size
        entry[2] += spent.spent
    rows = [
        [name, f"{n:,.0f}", format_count(int(weights)), format_bytes(round(bits / 8)),
         f"{bits / weights:.3f}" if weights else "–"]
        for name, (n, weights, bits) in sorted(sums.items(), key=lambda item: -item[1][2])
    ]  # fmt: skip
    return _card("Codecs", tables.table(["codec", "tensors", "weights", "bytes", "bits/weight"], rows))


def _predicted(facts: Facts) -> Markup:
    archive, against = facts.archive, facts.against
    bits, loss = (number_of(archive.plan, name) for name in ("bits", "loss"))
    measured = None
    if against and against.comparable:
        measured = sum(t.reached.loss for t in against.bound.tensors if t.reached)
    rows = [["bytes", f"{bits / 8:,.0f}", f"{archive.nbytes:,}", _percent(archive.nbytes, bits / 8)]]
    rows.append(["loss", f"{loss:.5g}", "–" if measured is None else f"{measured:.5g}", _percent(measured, loss)])
    rows += _heldout(archive.plan, loss)
    content: list[Node] = [tables.table(["", "predicted", "measured", "difference"], rows)]
    if against and not against.comparable:
        content.append(_soft("The file was planned for a loss of another kind than the one measured here."))
    elif against:
        content += [tables.key(("ours", "bytes"), ("other", "loss")), figures.predicted(against, facts)]
        content.append(_soft("A dot is a tensor, as the plan saw it and as it came out."))
    else:
        content.append(_soft("The loss is measured with the original: netweight report … --against ORIGINAL."))
    return _card("Predicted beside measured", *content)


def _heldout(plan: Mapping[str, Any], predicted: float) -> list[list[str]]:
    """What was measured on data that the importance never saw, if the file tells."""
    found = plan.get("heldout")
    if not isinstance(found, Mapping):
        return []
    nats, samples = (number_of(found, key) for key in ("nats", "samples"))
    spread = number_of(found, "se") or number_of(found, "nats_error")  # of `secant`, of `Evaluation`
    words = f"{nats:.5g} ± {spread:.2g}" if spread else f"{nats:.5g}"
    return [[f"nats on {samples:,.0f} held-out samples", f"{predicted:.5g}", words, _percent(nats, predicted)]]


def _percent(measured: float | None, predicted: float) -> str:
    return f"{100 * (measured / predicted - 1):+.2f} %" if measured is not None and predicted > 0 else "–"


def _histograms(facts: Facts) -> Markup:
    content: list[Node] = []
    for sample in facts.samples:
        values = int(np.unique(sample.restored).size)
        content += [element("h3", sample.name), _soft(f"{sample.codec}, {values:,} values")]
        content.append(figures.weights_and_grid(sample))
    if not content:
        content = [_soft("No tensor is stored with loss.")]
    before = [("bound", "weights of the original")] if facts.against else []
    key = tables.key(*before, ("ours", "values in the file, as high as they are frequent"))
    return _card("Weights and grid", key, *content)


def _provenance(facts: Facts) -> Markup:
    header, against = facts.archive.header, facts.against
    rows: list[tuple[Node, Node]] = [
        ("file", f"{facts.title}, {facts.archive.nbytes:,} bytes"),
        ("written by", header.by),
        ("report by", f"netweight {__version__}, {facts.when}"),
        ("source sha256", element("code", str(header.source.get("sha256", "unknown")))),
        ("source bytes", str(header.source.get("bytes", "unknown"))),
    ]
    if against:
        verdict = "the same: the file was made from it" if against.same else "different"
        rows.append(("original given", join([element("code", against.sha256), f" – {verdict}"])))
    rows += _importance(facts.archive.plan)
    rows += [(f"plan: {name}", str(value)) for name, value in facts.archive.plan.items() if name != "importance"]
    rows += [(f"weight file {n}", f"{g.file}, {g.tensors} tensors") for n, g in enumerate(facts.archive.layout, 1)]
    rows += [(f"metadata: {name}", text) for name, text in facts.archive.metadata.items()]
    return _card("Provenance", tables.definitions(rows))


def _importance(plan: Mapping[str, Any]) -> list[tuple[Node, Node]]:
    """The calibration record."""
    record = plan.get("importance")
    if isinstance(record, Mapping):
        return [(f"importance: {key}", str(value)) for key, value in record.items()]
    none = "not measured: squared error for matrices, vectors by the energy of rows"
    return [("importance", none if record is None else str(record))]


def _plan(facts: Facts, model: str) -> Markup:
    many = len(facts.infos) - tables.MOST_ROWS
    note = [_soft(f"The first {tables.MOST_ROWS:,} tensors; {many:,} more are in the file.")] if many > 0 else []
    summary = element("summary", f"All {len(facts.infos):,} tensors")
    details = element("details", summary, tables.plan_table(facts, model), open="")
    return _card("Plan", *note, details)


def _foot(facts: Facts) -> Markup:
    if not facts.against:
        return element("footer", _soft("Made without the original: what was lost, and what was possible, needs it."))
    laws = (element("p", element("b", model.title), f": weights {model.assumes}.") for model in MODELS.values())
    title = element("h2", "What the bound is, and what it is not")
    return element("footer", title, element("p", escape(STATEMENT)), element("div", *laws, class_="soft"))
