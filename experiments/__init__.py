"""The claims of the theory as figures: one command each, or `python -m experiments.all` for all of them.

    python -m experiments.waterfilling [--seed 0] [--out experiments/results]

Each writes NAME.csv and NAME.svg and prints one line of verdict. They need matplotlib (the extra `report`);
`laplacian_weights` also needs trained networks, given by --data, and says so when there are none.
"""
