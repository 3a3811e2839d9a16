"""Training with compression in the loop: pruning rounds, straight-through and ADMM projections, checkpoints.

Needs torch. The loop stays yours: these are small objects that it calls.

    pruner = train.Pruner(model, train.chooser("lamp"))
    with pruner.masks.attach(optimizer):
        for _ in range(train.rounds_to(0.95)):
            pruner.step()                       # 20 % of the weights that are left
            ...                                 # your epochs

See docs/training.md.
"""

from netweight.errors import UsageError

try:
    import torch as _torch  # noqa: F401 - to say in words that it is missing
except ImportError:
    raise UsageError(
        "The module netweight.train needs torch, which is not installed.", 'Install "netweight[torch]".'
    ) from None

from netweight.train.admm import Admm
from netweight.train.checkpoints import resume, save
from netweight.train.masks import Attached, Masks
from netweight.train.projection import CodecProjection, Projection, pruning
from netweight.train.pruner import Pruner
from netweight.train.schedule import rounds_to, sparsity
from netweight.train.select import Choose, chooser, magnitude, prunable
from netweight.train.straight import StraightThrough

__all__ = [
    "Admm",
    "Attached",
    "Choose",
    "CodecProjection",
    "Masks",
    "Projection",
    "Pruner",
    "StraightThrough",
    "chooser",
    "magnitude",
    "prunable",
    "pruning",
    "resume",
    "rounds_to",
    "save",
    "sparsity",
]
