"""Bars, tables and lists of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from netweight.bound import MODELS, Bound, TensorBound
from netweight.bound.gap import Gap
from netweight.report.facts import Against, Facts
from netweight.report.markup import Markup, Node, element, join
from netweight.units import format_bytes

__all__ = ["bars", "definitions", "gap_bars", "key", "models_table", "plan_table", "table"]

MOST_ROWS = 1000


def bars(rows: Iterable[tuple[Node, str, float]], most: int = 12, rest: str = "others") -> Markup:
    """One bar a row, the longest first; what is beyond `most` is summed up.

    Args:
        rows: name, value as text, value.
        most: rows with a bar of their own.
        rest: what the sum of the others is called.
    """
    ordered = sorted(rows, key=lambda row: -abs(row[2]))
    beyond = sum(value for _, _, value in ordered[most:])
    if len(ordered) > most:
        name = f"{len(ordered) - most} {rest}"
        ordered = [*ordered[:most], (name, format_bytes(round(abs(beyond))), beyond)]
    top = max((abs(value) for _, _, value in ordered), default=0.0) or 1.0
    return element("ul", *(_bar(name, text, 0.0, value / top) for name, text, value in ordered), class_="bars")


def _bar(name: Node, text: str, start: float, stop: float, kind: str = "", below: str = "") -> Markup:
    """A bar from one share of the width to another."""
    low, high = sorted((100 * start, 100 * stop)) if stop >= 0 else (0.0, 100 * abs(stop))
    picture = element(
        "svg",
        element("rect", x=0, y=0, width=100, height=1, class_="back"),
        element("rect", x=low, y=0, width=max(0.3, high - low), height=1, class_=kind or None),
        viewBox="0 0 100 1", preserveAspectRatio="none", aria_hidden="true",
    )  # fmt: skip
    words = element("div", element("span", name), element("span", text, class_="value"))
    return element("li", words, picture, element("p", below, class_="soft") if below else "")


def gap_bars(gap: Gap, weights: int) -> Markup:
    """From R(D) to the file, part by part: each bar begins where the one before ended."""
    steps = [0.0]
    for part in gap.parts:
        steps.append(steps[-1] + part.bits)
    low, high = min(steps), max(steps)
    span = (high - low) or 1.0
    rows = []
    for part, start in zip(gap.parts, steps, strict=False):
        share = ((start - low) / span, (start + part.bits - low) / span)
        text = f"{part.bits / 8:+,.0f} B · {part.bits / max(1, weights):+.4f} bit".replace("-", "−")
        rows.append(_bar(part.title, text, *share, "less" if part.bits < 0 else "", part.explains))
    return element("ul", *rows, class_="bars")


def key(*entries: tuple[str, str]) -> Markup:
    """What the colours mean: class and words."""
    return element("div", *(element("span", element("i", class_=name), words) for name, words in entries), class_="key")


def table(head: Sequence[Node], rows: Iterable[Sequence[Node]]) -> Markup:
    """A table that scrolls within its card where it is too wide."""
    top = element("thead", element("tr", *(element("th", cell) for cell in head)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    return element("div", element("table", top, body), class_="scroll", tabindex=0)


def definitions(rows: Iterable[tuple[Node, Node]]) -> Markup:
    """Terms and what they are."""
    return element("dl", *(join([element("dt", term), element("dd", words)]) for term, words in rows))


def models_table(found: Bound) -> Markup:
    """Every law: R(D) at our loss, D(R) at our rate."""
    weights = max(1, sum(t.weights for t in found.modelled))
    rows: list[list[Node]] = []
    for model in MODELS.values():
        bits, loss = found.rate_bits(model.id) / weights, found.least_loss(model.id)
        share = f"{100 * loss / found.loss:.1f} %" if found.loss else "–"
        rows.append([model.title, f"{bits:.3f}", f"{found.spent_bits / weights - bits:+.3f}", share])
    if found.inputs:
        bits = found.universal_bits() / weights
        rows.append(
            ["Gaussian by row, inputs unknown", f"{bits:.3f}", f"{found.spent_bits / weights - bits:+.3f}", "–"]
        )
    rows.append(["this file", f"{found.spent_bits / weights:.3f}", "", "100 %"])
    return table(["law of the weights", "R(D)", "file above", "D(R)/loss"], rows)


def plan_table(facts: Facts, model: str) -> Markup:
    """One line a tensor: what was done to it, and what came of it."""
    spent, against = facts.account.tensors, facts.against
    bounds = {t.name: t for t in against.bound.tensors} if against else {}
    head = ["tensor", "dtype", "shape", "codec", "knob", "bytes", "bits/weight"]
    head += ["R(D)", "above", "SNR dB", "loss", "predicted bytes", "predicted loss"] if against else []
    rows: list[list[Node]] = []
    for info, knob in list(zip(facts.infos, facts.archive.header.knobs, strict=True))[:MOST_ROWS]:
        own = spent[info.name]
        rate = f"{own.spent / info.size:.3f}" if info.size else "–"
        shape = "×".join(map(str, info.shape)) or "scalar"
        row: list[Node] = [info.name, info.dtype, shape, own.codec, str(knob), f"{own.spent / 8:,.0f}", rate]
        rows.append(row + (_measured(bounds[info.name], against, model) if against else []))
    return table(head, rows)


def _measured(tensor: TensorBound, against: Against, model: str) -> list[Node]:
    point, reached = against.plan.choices[tensor.name], tensor.reached
    assert reached is not None
    least = tensor.rate_bits.get(model)
    weights = max(1, tensor.weights)
    bound = [f"{least / weights:.3f}", f"{(reached.bits - least) / weights:+.3f}"] if least is not None else ["–", "–"]
    snr = 10 * math.log10(reached.signal / reached.error) if reached.error > 0 and reached.signal > 0 else math.inf
    noise = f"{snr:.1f}" if math.isfinite(snr) else "exact"
    return [*bound, noise, f"{reached.loss:.3g}", f"{point.bits / 8:,.0f}", f"{point.loss:.3g}"]
