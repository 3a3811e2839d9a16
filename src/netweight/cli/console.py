"""stdout is data, stderr is story."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from netweight.errors import OutputError

__all__ = ["Console", "Progress", "printable", "table"]

Progress = Callable[[str, int, int], None]


class Console:
    """Where a verb speaks.

    Args:
        json: print the result as one JSON object instead of tables.
        quiet: no story, only errors.
        verbose: more story, and tracebacks of unexpected errors.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose

    def result(self, verb: str, data: Mapping[str, object], lines: Iterable[str]) -> None:
        """Print the answer to stdout: the object under --json, the same as text otherwise."""
        if self.json:
            lines = [json.dumps({"schema": f"netweight.{verb}/1", **_finite_object(data)}, allow_nan=False)]
        try:
            for line in lines:
                print(line)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader (head, less) has enough
            _discard_stdout()
        except OSError as error:
            _discard_stdout()
            fact = f"Standard output cannot be written: {error.strerror}."
            raise OutputError(fact, "Free some space, or write elsewhere.") from error

    def story(self, text: str) -> None:
        """Say on stderr what happens."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Say on stderr what the user should know."""
        self.story(f"netweight: warning: {text}")

    def error(self, fact: str, remedy: str = "") -> None:
        """Say on stderr why there is no result, whatever -q says: one line of fact, one of remedy."""
        lines = [f"netweight: {printable(fact)}"] + ([f"  {printable(remedy)}"] if remedy else [])
        with contextlib.suppress(OSError):
            print("\n".join(lines), file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Give the callback that draws bars on a terminal, or tells the stages under -v, or nothing."""
        if self.quiet:
            yield lambda _stage, _done, _total: None
        elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            with _bars() as callback:
                yield callback
        else:
            yield self._stages()

    def _stages(self) -> Progress:
        told: set[str] = set()

        def tell(stage: str, _done: int, total: int) -> None:
            if self.verbose and stage not in told:
                told.add(stage)
                self.story(f"{stage} ({total})")

        return tell


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    """Bars by rich, gone when done; rich itself respects NO_COLOR."""
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=RichConsole(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def draw(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield draw


def _discard_stdout() -> None:
    """Point stdout at nothing, so that Python's own flush at exit has no more to say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    r"""Lay out rows under a head: the first column to the left, the others to the right if they begin with a digit.

    >>> print("\n".join(table(["codec", "bytes"], [["trellis", "1,234"], ["exact", "7"]])))
    codec    bytes
    trellis  1,234
    exact        7
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(head, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [index > 0 and all(_is_number(cell) for cell in column[1:]) for index, column in enumerate(columns)]

    def line(row: Sequence[str]) -> str:
        parts = (
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        return "  ".join(parts).rstrip()

    return [line(head), *map(line, cells)]


def _is_number(cell: str) -> bool:
    return cell in ("", "-", "inf") or cell.lstrip("-+~")[:1].isdigit()


def printable(text: str) -> str:
    r"""Escape what a terminal would obey: names come from files, and files from anywhere.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _finite_object(data: Mapping[str, object]) -> dict[str, object]:
    return {key: _finite(value) for key, value in data.items()}


def _finite(value: object) -> object:
    """JSON has no infinity and no NaN: null stands for both."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return _finite_object(value)
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
