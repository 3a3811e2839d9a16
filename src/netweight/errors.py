"""What can go wrong, as the user meets it.

    NetweightError          base; exit code 1
    ├── UsageError          wrong arguments, missing input, existing output      exit 2
    ├── OutputError         the result cannot be written (full, read-only)       exit 2
    ├── TargetError         done, and the answer is no (target out of reach)     exit 1
    └── FormatError         input damaged, unsafe or of a newer format           exit 3

Every message is one line of fact, with the numbers, and one line of remedy.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["FormatError", "NetweightError", "OutputError", "TargetError", "UsageError"]


class NetweightError(Exception):
    """Base of all errors raised on purpose.

    Args:
        fact: what is the case, with the numbers; one line.
        remedy: what to do about it; one line, empty if nothing can be done.

    >>> print(NetweightError("The file has 10 bytes, 12 are announced.", "Download it again."))
    The file has 10 bytes, 12 are announced.
    Download it again.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(fact, remedy)
        self.fact = _one_line(fact)
        self.remedy = _one_line(remedy)

    def __str__(self) -> str:
        return f"{self.fact}\n{self.remedy}" if self.remedy else self.fact


def _one_line(text: str) -> str:
    """Text whose unprintable characters are escaped: names from files may hold line breaks or terminal commands."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UsageError(NetweightError):
    """The request itself is wrong: bad value, missing input, output that exists already."""

    exit_code = 2


class OutputError(NetweightError):
    """The result cannot be written: disk full, folder read-only or missing."""

    exit_code = 2


class TargetError(NetweightError):
    """The work was done and the answer is no: the target cannot be met."""

    exit_code = 1


class FormatError(NetweightError):
    """The input cannot be trusted or understood: damaged, unsafe, or of a newer format."""

    exit_code = 3
