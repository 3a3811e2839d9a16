"""docs/results.md, written from the results file and from nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from . import cost, device, layer_gap, nats, store
from .claims import judge
from .networks import NETWORKS

__all__ = ["PAGE", "finish", "render"]

PAGE: Final = Path(__file__).parents[1] / "docs" / "results.md"
_Section = Mapping[str, Any]


def finish(section: str, measure: Callable[[argparse.Namespace], store.Records], options: argparse.Namespace) -> None:
    """Measure one section, store it, write the page again and print the verdicts."""
    store.record(section, measure, options)
    results = store.load(options.results)
    if options.results == store.RESULTS:
        PAGE.write_text(render(results))
    for verdict in judge(results):
        if verdict.section == section:
            print(f"{verdict.outcome:12} {verdict.promise}: {verdict.measured}")


def render(results: Mapping[str, _Section]) -> str:
    """The whole page.

    Args:
        results: what `store.load` gives.

    Returns:
        Markdown.
    """
    parts = [_INTRODUCTION, _verdicts(results)]
    parts += [write(results[name]) for name, write in _WRITERS.items() if name in results]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _stamp(section: _Section) -> str:
    machine = section["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in section["versions"].items())
    memory = machine["memory_bytes"] / 1e9
    return (
        f"Measured {section['date']} on {machine['cores']} cores of {machine['processor']}, {memory:.0f} GB, "
        f"{machine['system']}; load average {section['load_before']} before, {section['load_after']} after. {versions}."
    )


def _verdicts(results: Mapping[str, _Section]) -> str:
    rows = [(v.promise, v.measured, v.outcome) for v in judge(results)]
    return "## Promises\n\n" + _table(("promise", "measured", "verdict"), rows)


def _rate(section: _Section) -> str:
    parts = [_RATE, _stamp(section)]
    for key, network in NETWORKS.items():
        for scope, title in (("matrices", "matrices alone"), ("complete", "complete checkpoint")):
            points = [r for r in section["records"] if r["network"] == key and r["scope"] == scope]
            if points:
                parts.append(f"### {network.title}, {title}: {points[0]['weights']:,} weights")
                parts.append(_table(_RATE_HEAD, [_rate_row(point) for point in points]))
    return "\n\n".join(parts)


_RATE_HEAD: Final = (
    "NNCodec qp", "SNR dB", "NNCodec bytes", "bits/weight",
    "netweight bytes", "bits/weight", "against NNCodec", "found", "codecs",
)  # fmt: skip


def _rate_row(point: Mapping[str, Any]) -> list[str]:
    rival, own = point["nncodec"], point["netweight"]
    bits = [f"{8 * coder['bytes'] / point['weights']:.3f}" for coder in (rival, own)]
    change = f"{100 * (own['bytes'] / rival['bytes'] - 1):+.2f} %"
    found = own["how"] if own["how"] != "nearest" else f"nearest, {own['snr_db'] - rival['snr_db']:+.2f} dB"
    codecs = ", ".join(f"{name} {count}" for name, count in own["codecs"].items())
    sizes = [f"{rival['bytes']:,}", bits[0], f"{own['bytes']:,.0f}", bits[1]]
    return [str(rival["qp"]), f"{rival['snr_db']:.2f}", *sizes, change, found, codecs]


def _lossless(section: _Section) -> str:
    rows = [
        [r["dtype"], r["method"], f"{r['bytes']:,}", f"{r['bits_per_weight']:.3f}",
         f"{r['encode_cpu_s']:.2f}", f"{r['decode_cpu_s']:.2f}"]
        for r in sorted(section["records"], key=lambda r: (-ord(r["dtype"][0]), r["bytes"]))
    ]  # fmt: skip
    table = _table(("dtype", "method", "bytes", "bits/weight", "encode CPU s", "decode CPU s"), rows)
    return "\n\n".join([_LOSSLESS, _stamp(section), table, _still_better(section["records"])])


def _still_better(records: Iterable[Mapping[str, Any]]) -> str:
    """Say which rival still writes fewer bytes, or that none does."""
    records = list(records)
    sentences = []
    for dtype in sorted({r["dtype"] for r in records}, reverse=True):
        own = next((r for r in records if r["dtype"] == dtype and r["method"] == "netweight exact"), None)
        if own is None:
            continue
        ahead = [r for r in records if r["dtype"] == dtype and r["bytes"] < own["bytes"]]
        names = ", ".join(f"{r['method']} by {100 * (1 - r['bytes'] / own['bytes']):.2f} %" for r in ahead)
        sentences.append(f"{dtype}: smaller than netweight: {names or 'none'}.")
    return " ".join(sentences)


def _overhead(section: _Section) -> str:
    rows = []
    for r in section["records"]:
        over = [f"{100 * (r['coded_bytes'] / r[key] - 1):+.3f} %" for key in ("model_bytes", "entropy_bytes")]
        sizes = [f"{r[key]:,}" for key in ("model_bytes", "entropy_bytes", "coded_bytes")]
        rows.append([r["tensor"], f"{r['weights']:,}", r["codec"], f"{r['asked_bits']:g}", *sizes, *over])
    head = ("tensor", "weights", "codec", "asked bits/weight", "model bytes", "entropy bytes", "file bytes")
    return "\n\n".join([_OVERHEAD, _stamp(section), _table((*head, "over the model", "over the entropy"), rows)])


def _sources(section: _Section) -> str:
    records = section["records"]
    bits = sorted({r["asked_bits"] for r in records})
    rows = []
    for law, coder in dict.fromkeys((r["law"], r["coder"]) for r in records):
        line = {r["asked_bits"]: r for r in records if (r["law"], r["coder"]) == (law, coder)}
        rows.append([law, coder, *(f"{line[b]['above_bits']:.3f} at {line[b]['bits']:.2f}" for b in bits)])
        if coder == "scalar":
            ideal = (f"{line[b]['ideal_above_bits']:.3f}" for b in bits)
            rows.append([law, "*ideal scalar quantiser*", *ideal])
    rows += [["any", f"*{name}*", *["" for _ in bits[1:]], text] for name, text in _HIGH_RATE]
    return "\n\n".join([_SOURCES, _stamp(section), _table(("law", "coder", *(f"{b:g} bits" for b in bits)), rows)])


def _gap(section: _Section) -> str:
    parts = [_GAP, _stamp(section)]
    for key, about in dict.fromkeys((r["network"], r["measured"]) for r in section["records"]):
        records = [r for r in section["records"] if (r["network"], r["measured"]) == (key, about)]
        weights = records[0]["modelled_weights"]

        def cells(bits: Iterable[float], count: int = weights) -> list[str]:
            return [f"{b / 8:,.0f}, {b / count:+.4f}" for b in bits]

        rows = [["R(D)", *cells(r["rate_bits"]["gaussian-kernels"] for r in records)]]
        rows += [[part, *cells(r["parts"][part] for r in records)] for part in records[0]["parts"]]
        rows.append(["**file**", *cells(8 * r["file_bytes"] for r in records)])
        head = ("bytes, bits/weight", *(f"file of {8 * r['file_bytes'] / r['weights']:.2f} bits" for r in records))
        laws = [[law, *(f"{(r['modelled_bits'] - r['rate_bits'][law]) / weights:+.3f}" for r in records)]
                for law in records[0]["rate_bits"]]  # fmt: skip
        if about:
            bits = [(r["modelled_bits"] - r["universal_bits"]) / weights for r in records]
            laws.append(["*gaussian-rows, inputs unknown*", *(f"{b:+.3f}" for b in bits)])
            laws.append(["loss of the file, nats by the quadratic form", *(f"{r['loss']:.3g}" for r in records)])
        loss = f"loss in nats, measured on {about}" if about else "squared error"
        parts += [f"### {NETWORKS[key].title}, {weights:,} weights with a law, {loss}", _table(head, rows)]
        parts.append(_table(("tensors with a law above R(D), bits/weight", *head[1:]), laws))
    return "\n\n".join(parts)


def _speed(section: _Section) -> str:
    keys = ("weights_per_s", "weights_per_cpu_s", "warm_weights_per_s", "warm_weights_per_cpu_s")
    rows = [
        [r["coder"], f"{r['asked_bits']:g}" if "asked_bits" in r else "", f"{r['bytes']:,}" if "bytes" in r else "",
         *(f"{r[key] / 1e6:,.1f}" if key in r else "" for key in keys)]
        for r in section["records"]
    ]  # fmt: skip
    head = ("coder", "about bits/weight", "bytes", "M weights/s, wall", "CPU", "into arrays there, wall", "CPU")
    return "\n\n".join([_SPEED, _stamp(section), _table(head, rows)])


def _encode(section: _Section) -> str:
    rows = [
        [r["coder"], f"{r['asked_bits']:g}", f"{8 * r['bytes'] / r['weights']:.3f}", str(r["workers"]),
         f"{r['wall_s']:.2f}", f"{r['cpu_s']:.2f}", f"{r['peak_bytes'] / 1e6:,.0f}",
         f"{r['peak_bytes'] / r['input_bytes']:.2f}"]
        for r in section["records"]
    ]  # fmt: skip
    head = ("coder", "asked bits/weight", "bits/weight", "threads", "wall s", "CPU s", "peak MB", "peak / input")
    return "\n\n".join([_ENCODE, _stamp(section), _table(head, rows), _idle(section["records"])])


def _idle(records: Iterable[Mapping[str, Any]]) -> str:
    idle = max((r["idle_peak_bytes"] / 1e6 for r in records if "idle_peak_bytes" in r), default=0.0)
    return f"Of NNCodec's peak, {idle:,.0f} MB are its process with torch and the input loaded, before it encodes."


def _start(section: _Section) -> str:
    rows = [
        [r["command"], str(r["runs"]), *(f"{r[key]:.3f}" for key in ("median_s", "fastest_s", "slowest_s"))]
        for r in section["records"]
    ]
    table = _table(("command", "runs", "median s", "fastest s", "slowest s"), rows)
    return "\n\n".join([_START, _stamp(section), table])


_WRITERS: Final[Mapping[str, Callable[[_Section], str]]] = {
    "rate": _rate,
    "lossless": _lossless,
    "overhead": _overhead,
    "sources": _sources,
    "gap": _gap,
    "layer_gap": lambda section: layer_gap.write(section, _table, _stamp),
    "speed": _speed,
    "encode": _encode,
    "start": _start,
    "cost": lambda section: cost.write(section, _table, _stamp),
    "device": lambda section: device.write(section, _table, _stamp),
    "calibrated": lambda section: nats.write(section, _table, _stamp),
}
_INTRODUCTION: Final = """\
# Results

Written by `python -m benchmarks.run` from `benchmarks/results/results.json`; do not edit. A verdict is computed from
the records below it, and a promise that is missed says FAIL here. The papers' experiments on trained networks
have a page of their own, [experiments.md](experiments.md)."""
_RATE: Final = """\
## Rate without data

Whole files at equal weight SNR, 10 log10(sum w² / sum (w - w')²) over all float weights coded, the same tensors on both
sides, no calibration data. For each qp of NNCodec (trellis on) the file of netweight with the same SNR is searched over
`--bits`. *equal*: one file within 0.02 dB; *between*: a line between two files around it, at most 0.3 dB apart;
*nearest*: neither was found. Bits/weight are 8 x file bytes / float weights; netweight's file also holds integer
tensors, names and checksums."""
_LOSSLESS: Final = """\
## Lossless

The whole file of all-MiniLM-L6-v2 as it is, and cast to BF16; one thread each; every method's output was compared with
the input. CPU seconds of netweight and lmzip include the start of their process and the files, those of ZipNN and zstd
do not."""
_OVERHEAD: Final = """\
## What the coder adds to its own model

Bytes of a file that holds one tensor alone, header, index, levels, tables and all, against the ideal cost of its
integers: the sum of -log2 of the probabilities in the file's own tables (*model*), and, stricter, their empirical
entropy given the tables that code them, as if the best distributions were known for nothing (*entropy*)."""
_HIGH_RATE: Final = (
    ("high-rate theory, scalar (Gish and Pierce 1968)", "0.255"),
    ("high-rate theory, lattice of the 8-state trellis", "0.075"),
    ("high-rate theory, lattice of the 256-state trellis", "0.035"),
    ("published, trellis of 256 states, uniform source (Marcellin and Fischer 1990)", "0.035"),
)
_SOURCES: Final = """\
## Above R(D) on known sources

10⁶ independent weights of unit variance; bits a weight of the whole file above R(D) of the law at the error measured
after reading it back, and the rate that the file has. The Laplacian's R(D) is numerical, to 0.0003 bit. *Ideal scalar
quantiser*: the best uniform one with a dead zone, entropy without any table, at the same rate. High-rate figures of
trellises are simulated (`netweight.theory.trellis`)."""
_GAP: Final = """\
## From R(D) to the file

Complete checkpoints, first under squared error, as without data, then by what `netweight.measure` found on calibration
data: R(D) knows the second moments of every layer's inputs and of its gradients. R(D) is the least rate at the file's
loss if rows were independent Gaussian with their own variances, kernels correlated by one covariance a tensor; the
parts are explained by `netweight bound`. It is no bound for these trained weights as they are: one network has no
rate-distortion function, and under other laws, below, the same file is nearer to R(D), or under it. *Inputs unknown* is
the rate of the best Gaussian codebook whose decoder does not know those moments."""
_SPEED: Final = """\
## Decoding speed, one thread

Matrices of all-MiniLM-L6-v2, from an opened file to new float32 arrays, checksums included; the quickest of several
rounds in which the coders took turns. The limit is a C loop that multiplies int8 by a scale into float32: *warm memory*
writes where was written before, *fresh memory* into new pages, as a decoder that returns new arrays does."""
_ENCODE: Final = """\
## Encoding, end to end

all-MiniLM-L6-v2 complete. netweight: the whole command `netweight compress --bits`, sweep, allocation, encoding,
reading and writing; NNCodec: its encode call alone. Quickest of three runs that took turns; memory is the peak resident
set of the process."""
_START: Final = """\
## Start"""
