"""Parts of a long experiment, kept in a folder: a run that was stopped goes on, and one that ended is read again."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from experiments.networks import Score

Arrays = dict[str, NDArray[Any]]


def stamp(*settings: object) -> str:
    """Eight digits of settings with a stable text: parts that were kept under other settings are not these.

    >>> stamp(0.1, 20) == stamp(0.1, 20), stamp(0.1, 20) == stamp(0.1, 21)
    (True, False)
    """
    return f"{zlib.crc32(repr(settings).encode()):08x}"


def kept(folder: Path | None, key: str, make: Callable[[Path | None], Arrays]) -> Arrays:
    """Arrays of a part.

    Args:
        folder: of parts and checkpoints; None for neither.
        key: of the part, with the `stamp` of all that it depends on.
        make: it, given the path of a checkpoint to write and to go on from.
    """
    if folder is None:
        return make(None)
    path = folder / f"{key}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = path.with_suffix(".pt")
        save_file(make(checkpoint), path)
        checkpoint.unlink(missing_ok=True)
    return load_file(path)


def arrays_of(scores: Mapping[str, Score]) -> Arrays:
    """Scores as arrays with names."""
    losses: Arrays = {f"{key} losses": score.losses_nats for key, score in scores.items()}
    return {**losses, **{f"{key} hits": score.hits for key, score in scores.items()}}


def scores_of(arrays: Mapping[str, Any]) -> dict[str, Score]:
    """Scores from arrays or tensors with names, in any order."""
    keys = [name.removesuffix(" losses") for name in arrays if name.endswith(" losses")]
    return {key: Score(np.asarray(arrays[f"{key} losses"]), np.asarray(arrays[f"{key} hits"])) for key in keys}
