"""Compress trained networks into small, checked files by rate-distortion theory.

One line for most people:

    import netweight as nw

    nw.compress("model.safetensors", "model.nwt", size="4MB")    # or bits=2.5, loss=0.01, slope=1e-9
    model.load_state_dict(nw.load("model.nwt"))

The same, stage by stage:

    curves = nw.sweep("model.safetensors")                       # what each tensor would cost, and lose
    plan = nw.allocate(curves, size="4MB")                       # one slope for all tensors
    archive = nw.encode("model.safetensors", plan)               # integers, then bytes
    archive.save("model.nwt")

Every tensor gets the representation w' that minimises rate(w') + distortion(w, w') / slope, with one slope
for the whole network: at the optimum one more bit buys the same loss everywhere.

Importing this package imports nothing else: each name is fetched when it is first used, and torch only by
those that need it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .allocate import Plan as Plan
    from .allocate import allocate as allocate
    from .archive import Archive as Archive
    from .bound import bound as bound
    from .codecs.base import Codec as Codec
    from .curve import Curve as Curve
    from .curve import sweep as sweep
    from .errors import FormatError as FormatError
    from .errors import NetweightError as NetweightError
    from .evaluate import evaluate as evaluate
    from .importance.core import Importance as Importance
    from .importance.measure import measure as measure
    from .pipeline import compress as compress
    from .pipeline import encode as encode
    from .pipeline import load as load

__version__ = "0.1.0"

_HOME = {
    "compress": "pipeline",
    "load": "pipeline",
    "measure": "importance.measure",
    "sweep": "curve",
    "allocate": "allocate",
    "encode": "pipeline",
    "evaluate": "evaluate",
    "bound": "bound",
    "Importance": "importance.core",
    "Curve": "curve",
    "Plan": "allocate",
    "Archive": "archive",
    "Codec": "codecs.base",
    "NetweightError": "errors",
    "FormatError": "errors",
}

__all__ = [  # noqa: RUF022 - in the order of the flow
    "compress", "load", "measure", "sweep", "allocate", "encode", "evaluate", "bound",
    "Importance", "Curve", "Plan", "Archive", "Codec",
    "NetweightError", "FormatError",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Fetch a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package as a module whose public verbs win over submodules of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        # Python binds a submodule to its package after importing it: the module `allocate` would hide the verb.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
