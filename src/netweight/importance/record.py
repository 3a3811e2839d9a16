"""Where an importance comes from: data, counts and estimator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from netweight import __version__
from netweight.errors import FormatError, UsageError

__all__ = ["Record"]

MODULUS: Final = 1 << 256


@dataclass(frozen=True, slots=True)
class Record:
    """Where an importance comes from.

    Attributes:
        data: fingerprint of the samples: the sum of their SHA-256 modulo 2^256, so neither order nor batches matter.
        samples: inputs.
        predictions: softmaxes (images, tokens) or vectors whose mean loss is meant.
        loss: "kl", "squared", or the name of the user's function.
        objective: "identity", "fisher", "gradient", "hessian", "gradient+hessian".
        structure: "kronecker", "gradient" or "diagonal".
        estimator: how gradients of the loss were drawn.
        temperature: of the softmax.
        seed: of the draws.
        by: what measured it.
    """

    data: str = "0" * 64
    samples: int = 0
    predictions: float = 0.0
    loss: str = ""
    objective: str = ""
    structure: str = ""
    estimator: str = ""
    temperature: float = 1.0
    seed: int = 0
    by: str = f"netweight {__version__}"

    def to_json(self) -> dict[str, Any]:
        """Give a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """Read what `to_json` gave; unknown keys are ignored.

        Raises:
            FormatError: an entry is of another type.
        """
        kept = {}
        for field in fields(cls):
            if field.name in value:
                default = getattr(cls(), field.name)
                found = value[field.name]
                if isinstance(default, float) and type(found) is int:
                    found = float(found)
                if type(found) is not type(default):
                    raise FormatError(
                        f"The record of the importance has the {field.name} {found!r}.", "Measure it again."
                    )
                kept[field.name] = found
        return cls(**kept)

    def __add__(self, other: Record) -> Record:
        """Record of the samples of both."""
        for field in ("loss", "objective", "structure", "estimator", "temperature"):
            a, b = getattr(self, field), getattr(other, field)
            if a != b:
                raise UsageError(f"The two importances have the {field} {a!r} and {b!r}.", "Measure both alike.")
        data = f"{(int(self.data, 16) + int(other.data, 16)) % MODULUS:064x}"
        samples, predictions = self.samples + other.samples, self.predictions + other.predictions
        return replace(self, data=data, samples=samples, predictions=predictions)
