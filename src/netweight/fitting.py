"""A file of the size asked for: predictions are corrected by what encoding gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from netweight.allocate import HEADER_BITS, Plan, allocate, positive, steepest, too_small, within_bits
from netweight.archive import Archive
from netweight.curve import FLATTEST, Curve
from netweight.units import format_bytes, parse_size

__all__ = ["AIM", "fit", "foretold", "most_bytes"]

# Encodings at most to meet a size: some that correct the prediction; of small files, whose size goes up and down by ten
# bytes or so from one step to the next, then a few to both sides of where they should be.
ROUNDS, MORE_ROUNDS = 6, 14
SMALL_BYTES = 1 << 16
ASIDE = 0.002
FROM_BELOW = 0.995  # a file of at least this share of the size asked for has met it
DOUBT = (
    1.05  # a prediction above this share of the size asked for is believed without a file, but for the header's part
)
# Where in between an encoding aims: large files are mostly 0.1 % below to 0.3 % above the prediction.
FIRST_AIM, AIM = 0.9962, 0.9985


class Encoder(Protocol):
    """What makes a file of a plan (`pipeline.Coder`)."""

    def encode(self, plan: Plan) -> Archive:
        """Code every tensor."""


def fit(
    coder: Encoder,
    curves: Mapping[str, Curve],
    *,
    size: str | int | None = None,
    bits: float | None = None,
    loss: float | None = None,
    slope: float | None = None,
    spare_bytes: int = 0,
) -> tuple[Plan, Archive]:
    """Allocate and encode; a size or rate asked for is met by the file itself.

    Args:
        coder: of the checkpoint.
        curves: by `sweep`.
        size: as for `compress`, like the other targets, of which one is given.
        bits: likewise.
        loss: likewise.
        slope: likewise.
        spare_bytes: of a size or rate, for what is added to the file later.

    Raises:
        TargetError: the target is out of reach.
    """
    if size is None and bits is None:
        plan = allocate(curves, loss=loss, slope=slope)
        return plan, coder.encode(plan)
    budget_bytes = int(most_bytes(curves, size=size, bits=bits))
    target = format_bytes(budget_bytes) if size is not None else f"{bits:g} bits/weight"
    return _within(coder, curves, budget_bytes - spare_bytes, target)


def foretold(curves: Mapping[str, Curve], over: float, **target: Any) -> Plan:
    """Allocate where files are known to come out so many times as large as predicted; nothing is encoded.

    Args:
        curves: by `sweep`.
        over: bytes of a file, in those that were predicted.
        target: as for `compress`.

    Raises:
        TargetError: the target is out of reach.
    """
    plan = allocate(curves, **target)
    budget_bytes = most_bytes(curves, **target)
    if over == 1 or math.isinf(budget_bytes):
        return plan
    return within_bits(curves, max(8 * budget_bytes / over, steepest(curves, plan.target).bits), plan.target)


def most_bytes(
    curves: Mapping[str, Curve], *, size: str | int | None = None, bits: float | None = None, **_: float | None
) -> float:
    """Bytes of the largest file that meets a target, which may be another than a size: then any."""
    if size is not None:
        return parse_size(size)
    if bits is None:
        return math.inf
    return int(positive("bits", bits) * sum(curve.size for curve in curves.values()) // 8)


def _within(coder: Encoder, curves: Mapping[str, Curve], budget_bytes: int, target: str) -> tuple[Plan, Archive]:
    """Encode, compare with the size asked for, correct the prediction, encode again; keep the largest that fits.

    The correction is one ratio for all tensors: a prediction is off by a percent or so, and by nearly the same ratio
    the next time.
    """
    least = steepest(curves, target)
    if least.bits > DOUBT * 8 * budget_bytes + 2 * HEADER_BITS:
        raise too_small(curves, least, 8.0 * budget_bytes)
    budget_bits, best, least_bytes = FIRST_AIM * 8.0 * budget_bytes, None, math.inf
    above, below = math.inf, 0.0  # predicted sizes known to give too much, and to fit
    ratios: list[float] = []
    for done in range(ROUNDS + MORE_ROUNDS * int(budget_bytes < SMALL_BYTES)):
        plan = within_bits(curves, max(budget_bits, least.bits), target)
        archive = coder.encode(plan)
        ratio = 8 * archive.nbytes / plan.bits
        ratios.append(ratio)
        if archive.nbytes <= budget_bytes:
            below = max(below, plan.bits)
            best = (plan, archive) if best is None or archive.nbytes >= best[1].nbytes else best
            if archive.nbytes >= FROM_BELOW * budget_bytes or plan.slope <= 2.0**FLATTEST:
                return plan, archive
        else:
            above = min(above, plan.bits)
            least_bytes = min(least_bytes, archive.nbytes)
            if plan.choices == least.choices:
                break
        budget_bits = AIM * 8 * budget_bytes / ratio
        if done + 1 >= ROUNDS:
            aside = ASIDE * ((done + 2 - ROUNDS) // 2) * (-1) ** done
            budget_bits = AIM * 8 * budget_bytes / (sum(ratios) / len(ratios)) * (1 + aside)
        elif not below < budget_bits < above:
            budget_bits = (below + above) / 2
    if best is None:
        raise too_small(curves, least, 8.0 * budget_bytes, 8 * least_bytes)
    return best
