"""All benchmarks in one run, rivals installed first; rewrites the results file and docs/results.md."""

from __future__ import annotations

from typing import Final

from . import encode, lossless, overhead, rate, speed, start, store
from .claims import judge
from .page import PAGE, render

_SECTIONS: Final = {
    "start": start.measure,
    "speed": speed.measure,
    "encode": encode.measure,
    "overhead": overhead.measure,
    "lossless": lossless.measure,
    "rate": rate.measure,
}


def main() -> None:
    """Measure section by section; a finished section is kept whatever happens to the next."""
    options = store.arguments(__doc__)
    for section, measure in _SECTIONS.items():
        print(f"== {section}", flush=True)
        store.record(section, measure, options)
    results = store.load(options.results)
    if options.results == store.RESULTS:
        PAGE.write_text(render(results))
    for verdict in judge(results):
        print(f"{verdict.outcome:12} {verdict.promise}: {verdict.measured}")


if __name__ == "__main__":
    main()
