"""Run every experiment: `python -m experiments.all [--seed 0] [--out FOLDER] [--data FOLDER]`."""

from __future__ import annotations

import time
from collections.abc import Callable

from experiments import (
    bit_accounting,
    fisher_calibration,
    importance_pruning,
    importance_quantisation,
    iterative_pruning,
    ladder_rate,
    laplacian_curves,
    laplacian_weights,
    lenet5_file,
    one_shot_pruning,
    perturbation,
    relu_centroids,
    relu_pruning,
    resnet20_file,
    scalar_references,
    successive_refinement,
    surp_rule,
    temperature,
    tightness,
    universal_price,
    waterfilling,
    zero_rate,
)
from experiments.figures import NetworkRun, Result, begun, network_report, options, write

RUNS: dict[str, Callable[[int], Result]] = {
    "waterfilling": waterfilling.run,
    "tightness": tightness.run,
    "universal_price": universal_price.run,
    "relu_pruning": relu_pruning.run,
    "relu_centroids": relu_centroids.run,
    "perturbation": perturbation.run,
    "laplacian_curves": laplacian_curves.run,
    "zero_rate": zero_rate.run,
    "surp_rule": surp_rule.run,
    "ladder_rate": ladder_rate.run,
    "scalar_references": scalar_references.run,
}

# On trained networks, in their reduced setting.
NETWORK_RUNS: dict[str, NetworkRun] = {
    "importance_pruning": importance_pruning.run,
    "importance_quantisation": importance_quantisation.run,
    "temperature": temperature.run,
    "fisher_calibration": fisher_calibration.run,
    "iterative_pruning": iterative_pruning.run,
    "lenet5_file": lenet5_file.run,
    "resnet20_file": resnet20_file.run,
    "one_shot_pruning": one_shot_pruning.run,
    "successive_refinement": successive_refinement.run,
    "bit_accounting": bit_accounting.run,
}


def main() -> int:
    """Return 1 when a claim did not hold."""
    arguments = options("all", data=True).parse_args()
    verdicts = []
    for name, run in RUNS.items():
        start, made_by = time.perf_counter(), begun()
        result = run(arguments.seed)
        write(name, result, arguments.seed, arguments.out, made_by=made_by())
        verdicts.append(result.verdict)
        print(f"{name} ({time.perf_counter() - start:.1f} s): {result.verdict}", flush=True)
    # What given networks look like is a finding, not a failure: it does not count for the exit code.
    print(f"laplacian_weights: {laplacian_weights.report(arguments.data, arguments.seed, arguments.out)}")
    for name, network_run in NETWORK_RUNS.items():
        start = time.perf_counter()
        line = network_report(name, network_run, arguments.seed, arguments.data, arguments.out)
        print(f"{name}, reduced ({time.perf_counter() - start:.1f} s): {line}", flush=True)
    return int(any(verdict.startswith("DOES NOT HOLD") for verdict in verdicts))


if __name__ == "__main__":
    raise SystemExit(main())
