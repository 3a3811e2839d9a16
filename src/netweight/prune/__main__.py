"""`python -m netweight.prune`: choose what to keep of a network, as a plan for `netweight compress --plan`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from netweight.atomic import atomic_file
from netweight.checkpoint import Checkpoint, open_checkpoint
from netweight.errors import NetweightError, UsageError
from netweight.importance.core import Importance
from netweight.importance.stat import Stat
from netweight.prune.patterns import Pattern, pattern_masks
from netweight.prune.plans import plan, prunable, write_masks, write_pruned
from netweight.prune.select import METHODS, Bools, masks


def main(argv: Sequence[str] | None = None) -> int:
    """Write the plan, and the masks if asked for.

    Args:
        argv: arguments; those of the process if None.

    Returns:
        0, or the exit code of what is wrong.
    """
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except NetweightError as error:
        sys.stderr.write(f"netweight.prune: {error.fact}\n  {error.remedy}\n")
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    with open_checkpoint(options.input) as checkpoint:
        known = _importance(options, checkpoint)
        density = 1 - options.sparsity
        if not 0 < density <= 1:
            raise UsageError(f"The sparsity is {options.sparsity:g}.", "Take one from 0 to 1, less than 1.")
        text = ""
        if options.pattern is None:
            text = plan(checkpoint, density, options.method, known, fineness=options.fineness).to_json()
        kept = _masks(options, checkpoint, density, known)
        if options.masks:
            write_masks(options.masks, kept, force=options.force)
        if options.pruned:
            write_pruned(options.pruned, checkpoint, kept, force=options.force)
    if options.output is not None:
        with atomic_file(options.output, options.force) as file:
            file.write(text.encode())
    else:
        sys.stdout.write(text)


def _masks(
    options: argparse.Namespace, checkpoint: Checkpoint, density: float, known: Mapping[str, Stat] | None
) -> dict[str, Bools]:
    """The masks, where a file of them or of the pruned network is asked for."""
    wanted = options.masks or options.pruned
    if options.pattern is None:
        return masks(prunable(checkpoint), density, options.method, known) if wanted else {}
    if options.output is not None or not wanted:
        raise UsageError("A pattern makes no plan: the codec sparse has none.", "Write --masks or --pruned.")
    return pattern_masks(prunable(checkpoint), Pattern.parse(options.pattern), density, known)


def _importance(options: argparse.Namespace, checkpoint: Checkpoint) -> Mapping[str, Stat] | None:
    """What was measured; only methods that use it take it, since encoding must know whether it was used."""
    if options.importance is None:
        return None
    if options.pattern is None and options.method not in ("importance", "slope"):
        raise UsageError(f"The method {options.method} takes no importance.", "Leave the file out.")
    return Importance.open(options.importance).matched(checkpoint)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m netweight.prune",
        description="Choose the weights of a network to keep, as a plan of the codec sparse.",
        epilog="Carry it out with `netweight compress IN -o OUT.nwt --plan PLAN.json`, with the same --importance.",
        allow_abbrev=False,
    )
    parser.add_argument("input", metavar="IN", help="checkpoint, as for netweight compress")
    parser.add_argument("--method", choices=METHODS, default="lamp", help="rule (default: lamp)")
    parser.add_argument("--pattern", metavar="2:4", help="N:M, blocks such as 4x1, or channel, instead of a rule")
    parser.add_argument("--sparsity", metavar="0.9", type=float, required=True, help="share of the weights to prune")
    parser.add_argument("--fineness", metavar="6", type=int, default=6, help="half bits for each magnitude, 0 .. 12")
    parser.add_argument("--importance", metavar="FILE", help="for importance and slope: by `netweight.measure`")
    parser.add_argument("-o", "--output", metavar="PLAN.json", help="the file to write; stdout without it")
    parser.add_argument("--masks", metavar="FILE", help="write the masks too, as safetensors of booleans")
    parser.add_argument("--pruned", metavar="FILE", help="write the pruned network too, for exact values")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
