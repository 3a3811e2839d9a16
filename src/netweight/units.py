"""Sizes, rates and times in the units users read: decimal bytes, bits per weight, seconds."""

from __future__ import annotations

import operator
import re
from decimal import Decimal
from typing import SupportsIndex

from netweight.errors import UsageError

__all__ = ["format_bits", "format_bytes", "format_count", "format_seconds", "parse_size"]

_DECIMAL = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SIZE = re.compile(r"\s*(\d[\d_]*(?:\.\d+)?|\.\d+)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE | re.ASCII)
_MAX_SIZE_BYTES = 2**63 - 1


def parse_size(size: str | SupportsIndex) -> int:
    """Read a file size; decimal units as disks count, KiB, MiB, GiB ... as memory counts.

    Args:
        size: a number of bytes, or text such as "4MB", "400 kB", "1.5 GiB", "4000000".

    Returns:
        Bytes, rounded down, at least 1.

    Raises:
        UsageError: no size, not positive, or 2^63 bytes and more.

    >>> parse_size("4MB"), parse_size("400 kB"), parse_size("1 KiB"), parse_size(12)
    (4000000, 400000, 1024, 12)
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        if match is None or (match[3] and not match[2]):
            raise UsageError(
                f"{size!r} is not a size.", 'Write a number and a unit, such as "4MB", "400 kB" or "1.5 GiB".'
            )
        base = 1024 if match[3] else 1000
        value: Decimal | int = Decimal(match[1].replace("_", "")) * base ** _DECIMAL[match[2].lower()]
    else:
        try:
            value = operator.index(size)
        except TypeError:
            raise UsageError(
                f"{size!r} is not a size.", "Pass a whole number of bytes or text such as '4MB'."
            ) from None
    if not 1 <= value <= _MAX_SIZE_BYTES:
        raise UsageError(f"A size of {size!r} is out of range.", "It must be at least 1 byte and below 2^63 bytes.")
    return int(value)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    """Three significant digits and the unit that keeps the number below 1000."""
    for index in range(len(units)):
        scaled = value / 1000.0**index
        digits = 0 if index == 0 or abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
        if abs(scaled) < 999.5 or index == len(units) - 1:
            break
    return f"{scaled:.{digits}f} {units[index]}".rstrip()


def format_bytes(size_bytes: int) -> str:
    """Write a size in decimal units with three digits.

    >>> format_bytes(4_000_000), format_bytes(118_400), format_bytes(7)
    ('4.00 MB', '118 kB', '7 B')
    """
    return _scaled(size_bytes, ("B", "kB", "MB", "GB", "TB", "PB"))


def format_count(count: int) -> str:
    """Write a number of weights with three digits.

    >>> format_count(22_713_216), format_count(512)
    ('22.7 M', '512')
    """
    return _scaled(count, ("", "k", "M", "G", "T"))


def format_bits(bits_per_weight: float) -> str:
    """Write a rate; bits are those of the whole file, weights those of the original.

    >>> format_bits(3.3)
    '3.30 bits/weight'
    """
    return f"{bits_per_weight:.2f} bits/weight"


def format_seconds(duration_s: float) -> str:
    """Write a duration with three digits below a minute and whole seconds above.

    >>> format_seconds(0.0123), format_seconds(5.25), format_seconds(125)
    ('12.3 ms', '5.25 s', '2 min 05 s')
    """
    if duration_s < 0.9995:
        return f"{duration_s * 1e3:.1f} ms"
    if duration_s < 59.95:
        return f"{duration_s:.2f} s" if duration_s < 9.995 else f"{duration_s:.1f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    return f"{minutes} min {seconds:02d} s"
