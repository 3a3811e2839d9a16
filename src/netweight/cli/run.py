"""From arguments to an exit code: every way a run can end, in one place."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from netweight.errors import NetweightError

from .console import Console
from .parser import build_parser

__all__ = ["run"]

EXIT_USAGE: Final = 2
EXIT_UNREADABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

# Verb to module; the function in it is the verb.
_HOME: Final = {
    "compress": "compress",
    "plan": "compress",
    "measure": "measure",
    "restore": "restore",
    "inspect": "inspect",
    "verify": "verify",
    "bound": "bound",
    "report": "report",
}


def run(argv: Sequence[str] | None) -> int:
    """Run one verb.

    Args:
        argv: arguments without the program's name; those of the process if None.

    Returns:
        The exit code, as the package's docstring lists them.

    >>> run(["inspect", "-"])
    2
    """
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as end:  # argparse has printed help, or its error
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    console = Console(json=arguments.json, quiet=arguments.quiet, verbose=arguments.verbose)
    with _signals(), _plain_warnings(console):
        code = _run(arguments.verb, arguments, console)
    if code == EXIT_INTERRUPTED and argv is None:
        os._exit(code)  # worker threads that still compute are not waited for; no file of theirs is open
    return code


def _run(verb: str, arguments: object, console: Console) -> int:
    """Call the verb, and turn whatever comes out of it into a message and a code."""
    try:
        function = getattr(importlib.import_module(f"{__package__}.{_HOME[verb]}"), verb)
        return int(function(arguments, console))
    except NetweightError as error:
        console.error(error.fact, error.remedy)
        return error.exit_code
    except KeyboardInterrupt:
        console.error("Interrupted; nothing was written.")
        return EXIT_INTERRUPTED
    except MemoryError:
        console.error("Out of memory.", "Use fewer --workers, or a machine with more.")
        return EXIT_UNREADABLE
    except Exception as error:
        if console.verbose:
            traceback.print_exc()
        fact = f"Unexpected {type(error).__name__}: {error}".splitlines()[0]
        console.error(fact, "This is a fault of netweight: please report it, with the traceback that -v shows.")
        return EXIT_UNREADABLE


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that all unwinds and no file is left."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    for name in names:
        with contextlib.suppress(ValueError):  # not the main thread: the caller's signals are the caller's
            before[name] = signal.signal(getattr(signal, name), interrupt)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@contextlib.contextmanager
def _plain_warnings(console: Console) -> Iterator[None]:
    """Show a warning as one line of the story, without Python's file and line."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_, **__: console.warn(str(message).splitlines()[0])
        yield
