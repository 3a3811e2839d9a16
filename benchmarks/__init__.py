"""Rate, losslessness, speed and memory of netweight beside its rivals, measured on one machine in one run.

    python -m benchmarks.run                 everything; rewrites benchmarks/results/results.json and docs/results.md
    python -m benchmarks.rate                one section, and the page; also .lossless .overhead .sources
                                             .gap .layer_gap .speed .encode .cost .start

Run from the root of the repository, with netweight and torch installed. Each rival gets an environment of its own under
benchmarks/cache (NETWEIGHT_RIVALS overrides the folder); the networks come from `--networks`, ../shared/data or PyPI
packages.
"""
