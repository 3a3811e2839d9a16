"""Checkpoints in: files, shards, folders, state dicts and modules, all read tensor by tensor.

    infos            TensorInfo: name, dtype, shape
    header           the safetensors header and its rules
    safetensors_io   safetensors files, in and out
    torch_tensors    torch tensors as NumPy storage
    torch_io         files by torch.save, through the weights-only loader
    memory           mappings of arrays and tensors; ties
    weights          one file of either kind
    folder           which files of a folder are weights
    core             Checkpoint, open_checkpoint

Nothing here imports torch unless a file of torch is opened.
"""

from __future__ import annotations

from netweight.checkpoint.core import Checkpoint, open_checkpoint
from netweight.checkpoint.infos import TensorInfo
from netweight.checkpoint.safetensors_io import write_safetensors

__all__ = ["Checkpoint", "TensorInfo", "open_checkpoint", "write_safetensors"]
