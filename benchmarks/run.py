"""All benchmarks in one run, rivals installed first; rewrites the results file and docs/results.md as it goes."""

from __future__ import annotations

from typing import Final

from . import cost, device, encode, gap, layer_gap, lossless, overhead, rate, rivals, sources, speed, start, store
from .page import finish

_SECTIONS: Final = {
    "start": start.measure,
    "sources": sources.measure,
    "gap": gap.measure,
    "layer_gap": layer_gap.measure,
    "overhead": overhead.measure,
    "lossless": lossless.measure,
    "rate": rate.measure,
    "speed": speed.measure,
    "encode": encode.measure,
    "cost": cost.measure,
    "device": device.measure,
}


def main() -> None:
    """Measure section by section; what is finished is kept whatever happens to the next."""
    options = store.arguments(__doc__)
    for rival in (rivals.NNCODEC, rivals.LOSSLESS):
        rivals.environment(rival)
    for section, measure in _SECTIONS.items():
        print(f"== {section}", flush=True)
        finish(section, measure, options)


if __name__ == "__main__":
    main()
