"""The command line: parse, call the library, print; no arithmetic here.

    run       signals, errors and exit codes
    parser    verbs, options and their help
    console   what goes to stdout, what to stderr
    targets   which options name the target, which files and folders are meant
    compress, restore, inspect, verify   one verb (or two that share their work) a file

Exit codes: 0 done; 1 done, and the answer is no (a difference found, the target missed); 2 wrong usage, or the output
cannot be written; 3 the input is unreadable (damaged, unsafe, of a newer format), or netweight itself failed on it;
130 interrupted. Only what a verb needs is imported: help needs neither NumPy nor rich, reading needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: arguments without the program's name; those of the process if None.

    Returns:
        The exit code, as above.
    """
    try:
        from .run import run  # here, so that Ctrl-C is heard from the first moment on

        return run(argv)
    except KeyboardInterrupt:
        return 130
