"""Networks in Hugging Face folders, and calibration data from a text file or a folder of images.

Nothing is fetched: the folder must hold config, weights and tokenizer (or image processor). Code that comes with a
folder is never run.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from netweight.errors import FormatError, UsageError

__all__ = ["Network", "open_network"]

IMAGES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, slots=True)
class Network:
    """What `measure` needs.

    Attributes:
        model: the network.
        batches: its inputs as mappings.
        forward: calls it.
        loss: "kl" where it has a head, "squared" for encoders.
        samples: how many there are.
        available: how many the data offers.
    """

    model: Any
    batches: Sequence[Any]
    forward: Callable[[Any, Any], Any]
    loss: str
    samples: int
    available: int


def open_network(folder: Path, data: Path, samples: int, batch: int, length: int) -> Network:
    """Open the network in a folder, and make batches of data.

    Args:
        folder: with config.json.
        data: a text file, one sample a line, or a folder of images.
        samples: at most; evenly spaced over the data.
        batch: samples in a batch.
        length: tokens of a text at most.

    Raises:
        UsageError: a package is missing, a path is not there, or there are no samples.
        FormatError: the folder's files cannot be used.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UsageError(f"{folder} holds no config.json.", "Name a Hugging Face folder, or measure from Python.")
    if not data.exists():
        raise UsageError(f"There is no {data}.", "Name a text file or a folder of images.")
    transformers = needed("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
        kind: Any = getattr(transformers, str(names[0]), None) if names else transformers.AutoModel
        if names and not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise FormatError(
                f"{folder} is a {names[0]!r}, unknown to transformers.", "Upgrade it, or measure from Python."
            )
        model = kind.from_pretrained(str(folder), local_files_only=True)
        if data.is_dir():
            batches, available = _images(transformers, folder, data, samples, batch)
        else:
            batches, available = _texts(transformers, folder, data, samples, batch, length)
    except (OSError, ValueError, KeyError, ImportError) as error:
        fact = f"{type(error).__name__}: {error}".splitlines()[0]
        raise FormatError(
            f"The folder {folder} cannot be opened by transformers: {fact}", "Give a complete folder."
        ) from error
    count = min(samples, available)
    bare = not names or (names[0].endswith("Model") and not names[0].endswith("HeadModel"))
    forward, loss = (unit_vectors, "squared") if bare else (call, "kl")
    return Network(model.float(), batches, forward, loss, count, available)


def needed(package: str, extra: str = "") -> ModuleType:
    """Import a package that only this needs.

    Raises:
        UsageError: it is not installed.

    >>> needed("no_such_package")
    Traceback (most recent call last):
        ...
    netweight.errors.UsageError: The package no_such_package is not installed.
    Install netweight with the extra: pip install 'netweight[no_such_package]'.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(
            f"The package {package} is not installed.",
            f"Install netweight with the extra: pip install 'netweight[{extra or package}]'.",
        ) from None


def call(model: Any, batch: Any) -> Any:
    """Logits of a network with a head."""
    return model(**batch)


def unit_vectors(model: Any, batch: Any) -> Any:
    """Mean of the tokens' vectors, at unit length: the usual embedding of an encoder without a head."""
    import torch

    found = model(**batch)
    hidden = found.last_hidden_state
    if hidden.ndim == 4:  # images as [N, C, H, W]
        hidden = hidden.flatten(2).transpose(1, 2)
    mask = batch.get("attention_mask")
    weights = torch.ones(hidden.shape[:2]) if mask is None else mask
    weights = weights[..., None].to(hidden)
    return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def spread(count: int, most: int) -> list[int]:
    """Evenly spaced indices.

    >>> spread(10, 4), spread(3, 4)
    ([1, 3, 6, 8], [0, 1, 2])
    """
    most = min(count, most)
    return [(2 * j + 1) * count // (2 * most) for j in range(most)]


def _texts(
    transformers: Any, folder: Path, data: Path, samples: int, batch: int, length: int
) -> tuple[list[dict[str, Any]], int]:
    """Batches of lines, the short ones together."""
    try:
        lines = [line.strip() for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise FormatError(f"{data} is no UTF-8 text.", "Name a text file, or a folder of images.") from None
    if not lines:
        raise UsageError(f"{data} holds no line of text.", "Give one sample a line.")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    chosen = sorted((lines[j] for j in spread(len(lines), samples)), key=len)
    parts = [chosen[at : at + batch] for at in range(0, len(chosen), batch)]
    return [
        dict(tokenizer(p, return_tensors="pt", padding=True, truncation=True, max_length=length)) for p in parts
    ], len(lines)


def _images(
    transformers: Any, folder: Path, data: Path, samples: int, batch: int
) -> tuple[Sequence[dict[str, Any]], int]:
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in IMAGES and path.is_file())
    if not files:
        raise UsageError(f"{data} holds no images.", f"Known are {', '.join(IMAGES)}.")
    needed("PIL", "pillow")
    processor = transformers.AutoImageProcessor.from_pretrained(str(folder), local_files_only=True)
    chosen = [files[j] for j in spread(len(files), samples)]
    parts = [chosen[at : at + batch] for at in range(0, len(chosen), batch)]
    return _Pictures(processor, parts), len(files)


class _Pictures(Sequence[dict[str, Any]]):
    """Batches of images, read when asked for."""

    def __init__(self, processor: Any, parts: Sequence[Sequence[Path]]) -> None:
        self._processor, self._parts = processor, parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> Any:
        image = needed("PIL.Image", "pillow")
        pictures = []
        for path in self._parts[index]:
            try:
                with image.open(path) as picture:
                    pictures.append(picture.convert("RGB"))
            except OSError as error:
                raise FormatError(f"{path} is no image: {error}.", "Take it out of the folder.") from None
        return dict(self._processor(pictures, return_tensors="pt"))
