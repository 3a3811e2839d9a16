"""What netweight promises, judged by what was measured: one verdict a promise, PASS, FAIL or NOT MEASURED."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import cost, layer_gap
from .nats import PROMISES

__all__ = ["Verdict", "judge"]

Record = Mapping[str, Any]
Records = Sequence[Record]

_KILOBYTE: Final = 1000
_AS_ZIPNN_BITS: Final = 0.1  # what the promise leaves between 26.3 and ZipNN's 26.21 bits/weight, rounded


@dataclass(frozen=True, slots=True)
class Verdict:
    """A promise, what was measured for it, and PASS, FAIL or NOT MEASURED."""

    section: str
    promise: str
    measured: str
    outcome: str


def judge(results: Mapping[str, Any]) -> list[Verdict]:
    """Compare each promise with the records of its section.

    >>> [verdict.outcome for verdict in judge({})][:2]
    ['NOT MEASURED', 'NOT MEASURED']
    """
    verdicts = []
    for section, promise, check in _PROMISES:
        records = results.get(section, {}).get("records", [])
        found = check(records)
        outcome = "NOT MEASURED" if found is None else "PASS" if found[0] else "FAIL"
        verdicts.append(Verdict(section, promise, found[1] if found else "-", outcome))
    return verdicts


_Finding = tuple[bool, str] | None


def _points(records: Records, network: str, scope: str) -> list[Record]:
    return [r for r in records if r["network"] == network and r["scope"] == scope]


def _comparable(record: Record) -> bool:
    """Whether the file found has the rival's SNR or a better one."""
    own = record["netweight"]
    return bool(own["how"] != "nearest" or own["snr_db"] >= record["nncodec"]["snr_db"])


def _bits(record: Record, coder: str) -> float:
    return float(8 * record[coder]["bytes"] / record["weights"])


def _resnet_matrices(records: Records) -> _Finding:
    near = [
        r
        for r in _points(records, "resnet20", "matrices")
        if abs(r["nncodec"]["snr_db"] - 22.3) < 0.1 and _comparable(r)
    ]
    if not near:
        return None
    own, rival, snr = _bits(near[0], "netweight"), _bits(near[0], "nncodec"), near[0]["nncodec"]["snr_db"]
    return own <= 3.45, f"{own:.3f} at {snr:.2f} dB (NNCodec {rival:.3f})"


def _resnet_complete(records: Records) -> _Finding:
    near = [r for r in _points(records, "resnet20", "complete") if r["nncodec"]["qp"] == -24 and _comparable(r)]
    if not near:
        return None
    own, rival = near[0]["netweight"]["bytes"] / _KILOBYTE, near[0]["nncodec"]["bytes"] / _KILOBYTE
    return own <= 118, f"{own:.1f} kB (NNCodec {rival:.1f} kB)"


def _two_percent_below(network: str) -> Callable[[Records], _Finding]:
    """Whether it holds at three points at least; all that were measured are listed."""

    def check(records: Records) -> _Finding:
        points = [r for r in _points(records, network, "matrices") if 2 <= _bits(r, "nncodec") <= 5 and _comparable(r)]
        if len(points) < 3:
            return None
        below = [100 * (1 - r["netweight"]["bytes"] / r["nncodec"]["bytes"]) for r in points]
        rates = ", ".join(f"{b:.2f} % at {_bits(r, 'nncodec'):.2f}" for b, r in zip(below, points, strict=True))
        return sum(b >= 2 for b in below) >= 3, f"below NNCodec by {rates} bits"

    return check


def _lossless(dtype: str, limit_bits: float) -> Callable[[Records], _Finding]:
    def check(records: Records) -> _Finding:
        bits = {r["method"]: r["bits_per_weight"] for r in records if r["dtype"] == dtype}
        if "netweight exact" not in bits:
            return None
        others = ", ".join(f"{name} {bits[name]:.2f}" for name in ("ZipNN", "lmzip") if name in bits)
        own = float(bits["netweight exact"])
        return own <= limit_bits, f"{bits['netweight exact']:.3f} ({others})"

    return check


def _margin_over_zstd(records: Records) -> _Finding:
    texts, good = [], True
    for dtype in ("F32", "BF16"):
        bits = {r["method"]: r["bits_per_weight"] for r in records if r["dtype"] == dtype}
        if not {"netweight exact", "ZipNN", "zstd -19"} <= set(bits):
            return None
        own, zipnn = bits["zstd -19"] - bits["netweight exact"], bits["zstd -19"] - bits["ZipNN"]
        good = good and own >= zipnn - _AS_ZIPNN_BITS
        texts.append(f"{dtype} {own:.2f} (ZipNN {zipnn:.2f})")
    return good, ", ".join(texts)


def _overhead(records: Records) -> _Finding:
    if not records:
        return None
    worst = max(records, key=lambda r: float(r["coded_bytes"] / r["model_bytes"]))
    percent, over_entropy = (100 * (worst["coded_bytes"] / worst[key] - 1) for key in ("model_bytes", "entropy_bytes"))
    where = f"{worst['tensor']}, {worst['codec']} at {worst['asked_bits']:g} bits"
    return percent <= 0.5, f"at most {percent:.3f} %, on {where} ({over_entropy:.3f} % over the entropy)"


def _above(coder: str, limit_bits: float) -> Callable[[Records], _Finding]:
    """Whether a coder is near R(D) at 3 bits, on every law."""

    def check(records: Records) -> _Finding:
        found = {r["law"]: float(r["above_bits"]) for r in records if r["coder"] == coder and r["asked_bits"] == 3}
        if not found:
            return None
        return max(found.values()) <= limit_bits, ", ".join(f"{law} {bits:.3f}" for law, bits in found.items())

    return check


def _sum_of_parts(records: Records) -> _Finding:
    if {r["network"] for r in records} != {"resnet20", "minilm"}:
        return None
    worst = 0.0
    for r in records:
        gap_bits = 8 * r["file_bytes"] - r["rate_bits"]["gaussian-kernels"]
        worst = max(worst, abs(sum(r["parts"].values()) - gap_bits) / abs(gap_bits))
    return worst <= 0.01, f"off by at most {100 * worst:.4f} %"


def _speeds(records: Records, kind: str = "") -> dict[str, dict[float, float]]:
    """Weights a second by coder and rate; of CPU time, which a busy machine disturbs less than wall time."""
    found: dict[str, dict[float, float]] = {}
    for r in records:
        speed = r.get(f"{kind}weights_per_cpu_s", r["weights_per_s"])
        found.setdefault(r["coder"], {})[r.get("asked_bits", 0.0)] = speed
    return found


def _uniform_against_limit(memory: str, kind: str) -> Callable[[Records], _Finding]:
    def check(records: Records) -> _Finding:
        speeds = _speeds(records, kind)
        limit = speeds.get(f"limit, {memory} memory", {}).get(0.0)
        if limit is None or "uniform" not in speeds:
            return None
        shares = {bits: speed / limit for bits, speed in speeds["uniform"].items()}
        text = ", ".join(f"{100 * share:.1f} % at {bits:g} bits" for bits, share in shares.items())
        return min(shares.values()) >= 0.2, f"{text}; limit {limit / 1e9:.2f} G weights/s"

    return check


def _against_nncodec(codec: str, times: float) -> Callable[[Records], _Finding]:
    def check(records: Records) -> _Finding:
        speeds = _speeds(records)
        if codec not in speeds or "NNCodec" not in speeds:
            return None
        ratios = {bits: speeds[codec][bits] / speed for bits, speed in speeds["NNCodec"].items()}
        return min(ratios.values()) >= times, ", ".join(
            f"{ratio:.1f}x at {bits:g} bits" for bits, ratio in ratios.items()
        )

    return check


def _pairs(records: Records) -> dict[float, dict[str, Record]]:
    found: dict[float, dict[str, Record]] = {}
    for r in records:
        found.setdefault(r["asked_bits"], {})[r["coder"]] = r
    return {bits: pair for bits, pair in found.items() if len(pair) == 2}


def _encode_time(records: Records) -> _Finding:
    pairs = _pairs(records)
    if not pairs:
        return None
    texts, slowest = [], float("inf")
    for bits, pair in pairs.items():
        own_s, rival_s = (float(pair[coder]["wall_s"]) for coder in ("netweight", "NNCodec"))
        slowest = min(slowest, rival_s / own_s)
        texts.append(f"{rival_s / own_s:.2f}x at {bits:g} bits ({own_s:.1f} s, NNCodec {rival_s:.1f} s)")
    return slowest >= 2, ", ".join(texts)


def _encode_memory(records: Records) -> _Finding:
    pairs = _pairs(records)
    if not pairs:
        return None
    own, rival = (
        max(float(p[coder]["peak_bytes"] / p[coder]["input_bytes"]) for p in pairs.values())
        for coder in ("netweight", "NNCodec")
    )
    return own < 3, f"{own:.2f}x the input (NNCodec {rival:.2f}x)"


def _help(records: Records) -> _Finding:
    seconds = {r["command"]: r["median_s"] for r in records}
    if "netweight --help" not in seconds:
        return None
    return seconds["netweight --help"] < 0.3, f"{seconds['netweight --help']:.3f} s"


_PROMISES: Final[tuple[tuple[str, str, Callable[[Records], _Finding]], ...]] = (
    ("rate", "ResNet-20 matrices at 22.3 dB: at most 3.45 bits/weight", _resnet_matrices),
    (
        "rate",
        "MobileNetV2 matrices, three points from 2 to 5 bits: at least 2 % below NNCodec",
        _two_percent_below("mobilenet_v2"),
    ),
    (
        "rate",
        "all-MiniLM-L6-v2 matrices, three points from 2 to 5 bits: at least 2 % below NNCodec",
        _two_percent_below("minilm"),
    ),
    ("rate", "complete ResNet-20 at the SNR of NNCodec's qp -24: at most 118 kB", _resnet_complete),
    ("lossless", "all-MiniLM-L6-v2 float32: at most 26.3 bits/weight", _lossless("F32", 26.3)),
    ("lossless", "all-MiniLM-L6-v2 cast to BF16: at most 10.6 bits/weight", _lossless("BF16", 10.6)),
    ("lossless", "ahead of zstd -19 by ZipNN's margin, to 0.1 bits/weight", _margin_over_zstd),
    ("overhead", "the coder adds at most 0.5 % to its own model's ideal cost on 1 M weights and more", _overhead),
    ("sources", "scalar codec, 3 bits/weight: at most 0.27 bit above R(D)", _above("scalar", 0.27)),
    ("sources", "trellis of 8 states, 3 bits/weight: at most 0.17 bit above R(D)", _above("trellis, 8 states", 0.17)),
    ("sources", "best trellis, 3 bits/weight: at most 0.09 bit above R(D)", _above("trellis, 256 states", 0.09)),
    ("gap", "parts of the gap between file and R(D) sum to it within 1 %", _sum_of_parts),
    (
        "speed",
        "uniform decodes at 20 % or more of the conversion limit, one thread, into memory written before",
        _uniform_against_limit("warm", "warm_"),
    ),
    ("speed", "... into new arrays, of the conversion into new memory", _uniform_against_limit("fresh", "")),
    ("speed", "uniform decodes at 20x NNCodec or more, one thread", _against_nncodec("uniform", 20)),
    ("speed", "trellis decodes at 10x NNCodec or more, one thread", _against_nncodec("trellis", 10)),
    ("encode", "all-MiniLM-L6-v2 end to end, two threads: at least 2x faster than NNCodec's trellis", _encode_time),
    ("encode", "... in under 3x the input's bytes of peak memory", _encode_memory),
    ("start", "netweight --help: under 0.3 s", _help),
    *PROMISES,
    *cost.PROMISES,
    *layer_gap.PROMISES,
)
