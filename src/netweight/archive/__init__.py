"""Stage 7, bytes <-> file: header, sections, checksums; a lazy mapping from names to tensors."""

from netweight.archive.core import Archive
from netweight.archive.header import Group, Header, Section

__all__ = ["Archive", "Group", "Header", "Section"]
