"""How sparse after how many rounds: every round takes the same share of what is left."""

import math

from netweight.errors import UsageError

KEEP = 0.8  # of Isik et al. 2022 and of LAMP (Lee et al. 2021)


def sparsity(rounds: int, keep: float = KEEP) -> float:
    """Give the share of zeros after so many rounds: 1 - keep^rounds.

    Args:
        rounds: of pruning, 0 or more.
        keep: share of the weights that are left after each, between 0 and 1.

    Raises:
        UsageError: `keep` is not between 0 and 1, or `rounds` is negative.

    >>> round(sparsity(2), 2), sparsity(0)
    (0.36, 0.0)
    """
    if not 0 < keep < 1:
        raise UsageError(f"A round cannot keep a share of {keep:g}.", "Take one between 0 and 1, such as 0.8.")
    if rounds < 0:
        raise UsageError(f"There are no {rounds} rounds.", "Count from 0.")
    return 1.0 - keep**rounds


def rounds_to(wanted: float, keep: float = KEEP) -> int:
    """Give the fewest rounds after which the share of zeros is at least `wanted`.

    Args:
        wanted: share of zeros, from 0 to below 1.
        keep: share of the weights that are left after each round.

    Raises:
        UsageError: `wanted` is not in [0, 1), or `keep` is not between 0 and 1.

    >>> rounds_to(0.95), sparsity(14) >= 0.95 > sparsity(13)
    (14, True)
    """
    if not 0 <= wanted < 1:
        raise UsageError(f"No number of rounds leaves a share of zeros of {wanted:g}.", "Take one from 0 to below 1.")
    first = max(0, math.floor(math.log1p(-wanted) / math.log(keep)) - 1) if 0 < keep < 1 else 0
    while sparsity(first, keep) < wanted:
        first += 1
    return first
