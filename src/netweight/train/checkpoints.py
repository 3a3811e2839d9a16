"""Stop and go on: one file with the state of everything that a loop depends on."""

import os
from typing import Any, Protocol, runtime_checkable

import torch

from netweight.atomic import atomic_file
from netweight.errors import FormatError, UsageError


@runtime_checkable
class Stateful(Protocol):
    """A model, an optimiser, a scheduler, a `Pruner`."""

    def state_dict(self) -> Any:
        """Give the state."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take the state."""


def save(path: str | os.PathLike[str], /, *, force: bool = False, **parts: Any) -> None:
    """Write the state of the parts into one file, whole or not at all.

    Args:
        path: of the file.
        force: replace an existing file.
        parts: by names of yours: things with a `state_dict`, generators of random numbers (`torch.default_generator`
            for torch's own), or plain numbers, strings, lists and tensors.

    Raises:
        UsageError: the file exists.
        OutputError: it cannot be written.

    >>> import tempfile
    >>> layer = torch.nn.Linear(1, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/x.pt", model=layer, epoch=3)
    ...     resume(f"{folder}/x.pt", model=layer)
    {'epoch': 3}
    """
    with atomic_file(path, force) as file:
        torch.save({name: _state(part) for name, part in parts.items()}, file)


def resume(path: str | os.PathLike[str], /, **parts: Any) -> dict[str, Any]:
    """Put the saved states back into the parts and give the plain values among them.

    On one machine with one number of threads, the steps that follow are those that would have followed, bit by bit.

    Args:
        path: of a file by `save`; it is read by torch's weights-only loader.
        parts: the same things by the same names, made anew.

    Raises:
        FormatError: the file is damaged or holds more than states.
        UsageError: the file is missing, or has no state of one of the names.
    """
    try:
        states = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"There is no file {os.fspath(path)!r}.", "Save one first.") from None
    except Exception as error:  # the loader raises many kinds for damaged files
        raise FormatError(
            f"{os.fspath(path)!r} is refused by the safe loader of torch ({type(error).__name__}).",
            "Take another checkpoint.",
        ) from None
    missing = sorted(set(parts) - set(states)) if isinstance(states, dict) else sorted(parts)
    if missing:
        raise UsageError(f"The checkpoint has no {', '.join(missing)}.", f"It has {', '.join(map(str, states))}.")
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(states[name])
        else:
            part.load_state_dict(states[name])
    return {name: state for name, state in states.items() if name not in parts}


def _state(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if isinstance(part, Stateful) else part
