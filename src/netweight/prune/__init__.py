"""Which weights of a network to keep: masks by every rule of the literature, patterns, and what masks cost.

kept = prune.masks(weights, 0.1, "lamp")            # 10 % of all weights, exactly
kept = prune.pattern_masks(weights, prune.Pattern.parse("2:4"))
"""

from netweight.prune.patterns import Pattern, pattern_masks
from netweight.prune.plans import plan, write_masks, write_pruned
from netweight.prune.rates import mask_bits, mask_bytes
from netweight.prune.select import METHODS, masks

__all__ = [
    "METHODS",
    "Pattern",
    "mask_bits",
    "mask_bytes",
    "masks",
    "pattern_masks",
    "plan",
    "write_masks",
    "write_pruned",
]
