"""The pictures of the page, each from the facts to one SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from netweight.bound import TensorBound
from netweight.report.chart import Chart
from netweight.report.facts import Against, Facts, Sample
from netweight.report.markup import Markup

__all__ = ["above_bound", "predicted", "rate_distortion", "weights_and_grid"]

MOST_STEMS = 160
BINS = 90


def rate_distortion(against: Against, model: str, slope: float) -> Markup:
    """Loss against rate of the tensors with a law: predicted curve, tangent at the slope, the file, the bound."""
    found = against.bound
    weights = max(1, sum(t.weights for t in found.modelled))
    here = (found.spent_bits / weights, found.loss)
    left = max(0.0, here[0] - 1.2)
    curve = [(bits / weights, loss) for bits, loss in against.sweeps]
    shown = [p for p in curve if left <= p[0] <= here[0] + 1.6]
    top = max([here[1] * 3.2, *(p[1] for p in shown if p[0] >= here[0] - 0.8)])
    chart = Chart(
        "Loss against bits per weight: the codecs' curve, the slope as its tangent, the file, and the bound below",
        (left, here[0] + 1.6), (0.0, top), "bits/weight, tensors with a law", "loss",
    )  # fmt: skip
    limit = [(r, found.least_loss(model, r * weights)) for r in np.linspace(left, here[0] + 1.6, 60).tolist()]
    chart.area(limit, "bound")
    chart.line(limit, "bound")
    chart.line(curve, "ours")
    if slope > 0:
        fall = slope * weights
        chart.line([(here[0] - 1.2, here[1] + 1.2 * fall), (here[0] + 1.6, here[1] - 1.6 * fall)], "tangent")
    at_rate = (here[0], found.least_loss(model, here[0] * weights))
    chart.dot(at_rate, "bound", f"D(R) at this rate: {at_rate[1]:.4g}")
    chart.dot(here, "ours", f"this file: {here[0]:.3f} bits/weight, loss {here[1]:.4g}", 5)
    chart.text(here, "this file", "ours", lift=9)
    chart.text((left + 0.03 * (here[0] + 1.6 - left), 0.0), "no code for weights of the law", "bound", lift=7)
    return chart.draw()


def above_bound(tensors: Sequence[TensorBound], model: str) -> Markup:
    """Bits per weight above R(D), one dot a tensor, by its size."""
    points = []
    for t in tensors:
        if t.reached and t.weights and model in t.rate_bits:
            points.append((float(t.weights), (t.reached.bits - t.rate_bits[model]) / t.weights, t))
    heights = sorted(y for _, y, _ in points)
    low, high = min([0.0, *heights]), max([0.1, *heights])
    if len(heights) > 8:  # a few tiny tensors would flatten all others: they are drawn at the edge
        high = max(0.3, heights[int(0.9 * len(heights))] * 1.3)
        low = min(0.0, heights[int(0.05 * len(heights))] * 1.3)
    high, low = high + 0.08 * (high - low), low - 0.05 * (high - low)
    sizes = [x for x, _, _ in points] or [1.0]
    span = (10.0 ** math.floor(math.log10(min(sizes))), 10.0 ** math.ceil(math.log10(max(sizes)) + 1e-9))
    span = span if span[0] < span[1] else (span[0], span[0] * 10)
    title = "Bits per weight above the bound, one dot a tensor"
    chart = Chart(title, span, (low, high), "weights of the tensor", "bits/weight above R(D)", log_x=True)
    chart.line([(span[0], 0.0), (span[1], 0.0)], "bound")
    for x, y, t in points:
        note = f"{t.name}: {y:+.3f} bits/weight"
        clipped = (x, min(max(y, low + 0.02 * (high - low)), high - 0.02 * (high - low)))
        chart.dot(clipped, "ours" if clipped[1] == y else "edge", note)
    return chart.draw()


def predicted(against: Against, facts: Facts) -> Markup:
    """Measured less predicted, in percent, of bytes and of loss, one dot a tensor."""
    bytes_, losses = [], []
    knobs = dict(zip((info.name for info in facts.infos), facts.archive.header.knobs, strict=True))
    for t in against.bound.tensors:
        point = against.plan.choices[t.name]
        if t.reached is None or point.codec != t.reached.codec or point.knob != knobs[t.name] or not t.weights:
            continue
        if point.bits > 0:
            bytes_.append((float(t.weights), 100 * (t.reached.bits / point.bits - 1), t.name))
        if point.loss > 0:
            losses.append((float(t.weights), 100 * (t.reached.loss / point.loss - 1), t.name))
    sizes = [x for x, _, _ in bytes_] or [1.0, 10.0]
    span = (10.0 ** math.floor(math.log10(min(sizes))), 10.0 ** math.ceil(math.log10(max(sizes)) + 1e-9))
    span = span if span[0] < span[1] else (span[0], span[0] * 10)
    reach = max([5.0, *(abs(y) for _, y, _ in bytes_ + losses)])
    reach = min(reach * 1.1, 40.0)
    title = "Measured against predicted, in percent, one dot a tensor"
    chart = Chart(title, span, (-reach, reach), "weights of the tensor", "measured − predicted, %", log_x=True)
    chart.line([(span[0], 0.0), (span[1], 0.0)], "tangent")
    for name, points, word in (("other", losses, "loss"), ("ours", bytes_, "bytes")):
        for x, y, tensor in points:
            chart.dot((x, min(max(y, -0.97 * reach), 0.97 * reach)), name, f"{tensor}: {word} {y:+.1f} %")
    return chart.draw()


def weights_and_grid(sample: Sample) -> Markup:
    """Density of the weights before, and the values they have after as stems as high as they are frequent."""
    after = sample.restored.astype(np.float64)
    before = after if sample.original is None else sample.original.astype(np.float64)
    before = before[np.isfinite(before)]
    centre, deviation = float(before.mean()), float(before.std()) or 1.0
    low = max(float(before.min()), centre - 4.5 * deviation)
    high = min(float(before.max()), centre + 4.5 * deviation)
    low, high = (low, high) if high > low else (centre - deviation, centre + deviation)
    margin = 0.02 * (high - low)
    values, counts = np.unique(after, return_counts=True)
    inside = (values >= low - margin) & (values <= high + margin)
    values, shares = values[inside], counts[inside] / after.size
    chart = Chart(
        f"Histogram of {sample.name} with its grid", (low - margin, high + margin), (0.0, 1.12), "value of the weight",
        "frequency", y_ticks=False, height=190,
    )  # fmt: skip
    if sample.original is not None:
        density, edges = np.histogram(before, bins=min(BINS, 8 + before.size // 16), range=(low, high))
        middle = (edges[1:] + edges[:-1]) / 2
        peak = max(1, int(density.max()))
        chart.area(list(zip(middle.tolist(), (density / peak).tolist(), strict=True)), "bound")
    if values.size <= MOST_STEMS:
        tallest = float(shares.max()) if shares.size else 1.0
        for value, share in zip(values.tolist(), shares.tolist(), strict=True):
            chart.stem((value, share / tallest), "ours")
    else:
        density, edges = np.histogram(after, bins=BINS, range=(low, high))
        middle = (edges[1:] + edges[:-1]) / 2
        chart.line(list(zip(middle.tolist(), (density / max(1, density.max())).tolist(), strict=True)), "ours")
    return chart.draw()
