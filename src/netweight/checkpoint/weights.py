"""One weight file, opened by its suffix, or by its first bytes where the suffix says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from netweight.checkpoint.safetensors_io import SafetensorsFile
from netweight.checkpoint.torch_io import LEGACY_MAGIC, ZIP_MAGIC, open_torch
from netweight.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

    from netweight.checkpoint.infos import TensorSource

__all__ = ["INDEX_SUFFIX", "SAFETENSORS_SUFFIX", "TORCH_SUFFIXES", "open_weights"]

SAFETENSORS_SUFFIX: Final = ".safetensors"
TORCH_SUFFIXES: Final = (".pt", ".pth", ".bin", ".ckpt")
INDEX_SUFFIX: Final = ".index.json"

# First bytes of files that people name as checkpoints by mistake, and what to do then.
_STRANGERS = (
    (b"\x89NWT\r\n\x1a\n", "is compressed already", "Use `netweight restore` to get its tensors."),
    (b"version https://git-lfs", "is a pointer of git LFS, not the file itself", "Run `git lfs pull`."),
    (b"GGUF", "is a GGUF file", "Convert it to safetensors."),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file", "Convert it to safetensors."),
)


def open_weights(path: Path, source: str) -> tuple[TensorSource, str]:
    """Open one weight file; its header is checked, its tensors stay on disk.

    Args:
        path: a regular file.
        source: its name in messages.

    Returns:
        Its tensors, and its name with the key under which they were found, if any: "x.ckpt[state_dict]".

    Raises:
        UsageError: it is a file of torch, which is not installed.
        FormatError: it is damaged, unsafe, or no checkpoint.
    """
    try:
        with path.open("rb") as file:
            first = file.read(32)
    except OSError as error:
        raise FormatError(f"{source} cannot be read: {error.strerror}.", "Check its permissions.") from error
    for magic, what, remedy in _STRANGERS:
        if first.startswith(magic):
            raise FormatError(f"{source} {what}.", remedy)
    if path.suffix == SAFETENSORS_SUFFIX:
        if first.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
            raise FormatError(f"{source} is a file by torch.save, not safetensors.", "Name it .pt, or convert it.")
        return SafetensorsFile(path, source), source
    if path.suffix in TORCH_SUFFIXES or first.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
        tensors, key = open_torch(path, source)
        return tensors, f"{source}[{key}]" if key else source
    if first[8:9] == b"{":
        return SafetensorsFile(path, source), source
    raise FormatError(
        f"{source} is no checkpoint: neither safetensors nor a file by torch.save.",
        f"Known suffixes are {', '.join((SAFETENSORS_SUFFIX, *TORCH_SUFFIXES, SAFETENSORS_SUFFIX + INDEX_SUFFIX))}.",
    )
