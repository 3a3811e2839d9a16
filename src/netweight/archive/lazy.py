"""Stand-ins for tensors that decode when they are indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netweight.archive.core import Archive


class LazyTensor:
    """One tensor of an archive, decoded into a torch tensor by `[...]`.

    Duck-typed for loaders that slice what they are given: it has shape, dtype, ndim, is_floating_point() and `[...]`.
    """

    __slots__ = ("_archive", "_name")

    def __init__(self, archive: Archive, name: str) -> None:
        self._archive = archive
        self._name = name

    @property
    def shape(self) -> Any:
        """torch.Size."""
        import torch

        return torch.Size(self._archive.infos[self._name].shape)

    @property
    def dtype(self) -> Any:
        """Torch dtype."""
        from netweight.checkpoint.torch_tensors import dtype_of

        return dtype_of(self._archive.infos[self._name].dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._archive.infos[self._name].shape)

    def get_shape(self) -> list[int]:
        """Give the shape as safetensors' slices do."""
        return list(self._archive.infos[self._name].shape)

    def get_dtype(self) -> str:
        """Give the dtype code as safetensors' slices do."""
        return self._archive.infos[self._name].dtype

    def is_floating_point(self) -> bool:
        """Whether the dtype is a real float."""
        return bool(self.dtype.is_floating_point)

    def __getitem__(self, index: Any) -> Any:
        return self._archive.tensor(self._name)[index]
