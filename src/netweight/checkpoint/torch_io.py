"""Files by `torch.save`, opened by the weights-only, memory-mapping loader and by nothing else."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from netweight.checkpoint.header import damaged, short
from netweight.checkpoint.memory import HeldTensors, is_tensor
from netweight.errors import FormatError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LEGACY_MAGIC", "ZIP_MAGIC", "open_torch"]

ZIP_MAGIC: Final = b"PK\x03\x04"
LEGACY_MAGIC: Final = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20"
_NESTS: Final = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "ema")
_TWO_WAYS_OUT: Final = "Convert it to safetensors, or load it yourself and pass the dictionary of tensors."
_EXPANDED_BYTES: Final = 1 << 26
_LOG = logging.getLogger("netweight")


def open_torch(path: Path, source: str) -> tuple[HeldTensors, str]:
    """Open a `.pt`, `.pth`, `.bin` or `.ckpt` file by `torch.load(weights_only=True, mmap=True)`.

    Args:
        path: a regular file.
        source: its name in messages.

    Returns:
        Its tensors, read from the map when their turn comes, and the key under which they were found ("" at the top).

    Raises:
        UsageError: torch is not installed.
        FormatError: the file is damaged, holds more than tensors, or is of the old format that cannot be mapped.
    """
    _require_plain_zip(path, source)
    loaded = _load(path, source)
    key, tensors = _find_tensors(loaded, source)
    if key:
        others = ", ".join(short(other) for other in list(loaded)[:8] if other != key) or "nothing"
        _LOG.info("%s: taking the tensors under %r; beside it: %s", source, key, others)
    limit_bytes = max(_EXPANDED_BYTES, path.stat().st_size)
    return HeldTensors(tensors, f"{source}[{key}]" if key else source, limit_bytes), key


def _require_plain_zip(path: Path, source: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(LEGACY_MAGIC))
    except OSError as error:
        raise FormatError(
            f"{source} cannot be read: {error.strerror or error}.", "Check the file and its disk."
        ) from error
    if magic == LEGACY_MAGIC:
        raise FormatError(
            f"{source} is in the format of torch before 1.6, which cannot be memory-mapped.",
            "Load it yourself and save it again, as safetensors or by torch.save, or pass the dictionary of tensors.",
        )
    if not magic.startswith(ZIP_MAGIC):
        raise damaged(f"{source} begins with {magic[:4]!r}, but a file by torch.save begins with {ZIP_MAGIC!r}.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # zipfile raises many kinds for damaged files
        raise damaged(f"{source} of {path.stat().st_size:,} bytes has no sound table of contents.") from None
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise FormatError(f"{source} is a TorchScript program, not a dictionary of tensors.", _TWO_WAYS_OUT)
    packed = next((entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:  # torch.save never packs; a few bytes could unpack to terabytes, and cannot be mapped
        raise FormatError(
            f"{source} holds a packed part of {packed.file_size:,} bytes, which cannot be memory-mapped.",
            "Save it again by torch.save, or convert it to safetensors.",
        )


def _load(path: Path, source: str) -> Any:
    try:
        import torch
    except ImportError:
        raise UsageError(
            f"{source} is a file of torch, which is not installed.",
            'Install it ("netweight[torch]"), or convert the file to safetensors.',
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # the loader raises many kinds for damaged files; none may reach the user
        kind, text = type(error).__name__, str(error)
    unsafe = re.search(r"GLOBAL ([\w.]+)", text)
    if unsafe:
        raise FormatError(f"{source} holds {unsafe[1]}, which could run code when loaded.", _TWO_WAYS_OUT)
    reason = re.search(r"WeightsUnpickler error:\s*(.+)", text) or re.search(r"(\S.*)", text)
    why = f"{kind}: {reason[1].strip()[:160]}" if reason else kind
    raise FormatError(f"{source} is refused by the safe loader of torch ({why}).", _TWO_WAYS_OUT)


def _find_tensors(loaded: Any, source: str) -> tuple[str, Mapping[str, Any]]:
    """The dictionary of tensors: the object itself, or what it holds under one of the usual names."""
    if not isinstance(loaded, Mapping):
        raise FormatError(
            f"{source} holds one {type(loaded).__name__}, not a dictionary of tensors.",
            "Load it yourself and pass {name: tensor}.",
        )
    if all(map(is_tensor, loaded.values())):
        return "", loaded
    for key in _NESTS:
        inner = loaded.get(key)
        if isinstance(inner, Mapping) and all(map(is_tensor, inner.values())):
            return key, inner
    where, mapping = "", loaded
    for key in _NESTS:
        if isinstance(loaded.get(key), Mapping):
            where, mapping = f" under {key!r}", loaded[key]
            break
    odd = next(key for key, value in mapping.items() if not is_tensor(value))
    raise FormatError(
        f"{source} holds other things than tensors{where}, such as {short(odd)} of type {type(mapping[odd]).__name__}.",
        "Load it yourself and pass the dictionary of tensors.",
    )
