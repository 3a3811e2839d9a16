"""Verbs, options and their help. Only argparse is imported here, so that help is there at once."""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import Final, NoReturn

from netweight.errors import NetweightError

__all__ = ["build_parser"]

_PROGRAM: Final = "netweight"
_ABOUT: Final = "Compress trained networks into small, checked files, and restore them."
_EXIT_CODES: Final = """\
exit codes:
  0    done
  1    done, and the answer is no: a difference found, the target missed
  2    wrong usage, or the output cannot be written
  3    the input is unreadable: damaged, unsafe or of a newer format (or netweight itself failed on it)
  130  interrupted"""

_EXAMPLES: Final = {
    "": """\
examples:
  netweight compress model.safetensors -o model.nwt --size 4MB
  netweight verify model.nwt --against model.safetensors
  netweight restore model.nwt -o restored.safetensors""",
    "compress": """\
examples:
  netweight compress model.safetensors -o model.nwt --size 4MB
  netweight compress model.safetensors -o model.nwt --bits 2.5 --dry-run
  netweight compress model.safetensors -o model.nwt --loss 0.01 --importance model.imp      nats on your data
  netweight compress model.safetensors -o model.nwt --codec exact     lossless
  netweight compress folder/ -o small/ --bits 3                       weights to small/model.nwt, other files copied""",
    "measure": """\
examples:
  netweight measure folder/ -o model.imp --data sentences.txt
  netweight measure folder/ -o model.imp --data photographs/ --samples 512
  netweight compress folder/ -o small/ --loss 0.01 --importance model.imp""",
    "plan": """\
examples:
  netweight plan model.safetensors --bits 3 > plan.json
  netweight compress model.safetensors -o model.nwt --plan plan.json""",
    "restore": """\
examples:
  netweight restore model.nwt -o model.safetensors
  netweight restore model.nwt -o folder/            the files of the source: shards and their index
  netweight restore small/ -o folder/               ... and the other files copied
  netweight restore model.nwt -o coarse.safetensors --max-bytes 100kB""",
    "inspect": """\
examples:
  netweight inspect model.nwt
  netweight inspect model.nwt --json | python -m json.tool""",
    "verify": """\
examples:
  netweight verify model.nwt
  netweight verify model.nwt --against model.safetensors""",
    "bound": """\
examples:
  netweight bound model.nwt --against model.safetensors
  netweight bound model.nwt --against model.safetensors --importance model.imp      in nats of what was measured
  netweight bound model.safetensors                 the bound at a few rates, beside what a plan predicts""",
    "report": """\
examples:
  netweight report model.nwt -o page.html
  netweight report model.nwt --against model.safetensors -o page.html""",
}


_Layout: Final = argparse.RawDescriptionHelpFormatter


class _Parser(argparse.ArgumentParser):
    """argparse with messages of one fact and one remedy."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is; exit 2."""
        self.exit(2, f"{_PROGRAM}: {message}\n  See {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs.

    >>> build_parser().parse_args(["inspect", "model.nwt"]).input
    'model.nwt'
    """
    parser = _Parser(
        prog=_PROGRAM, description=_ABOUT, epilog=_closing(""), formatter_class=_Layout, allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    _add_compress(_verb(verbs, "compress", "compress a checkpoint to a size, a rate or a loss"))
    _add_measure(_verb(verbs, "measure", "measure on data which weights matter, for compress --importance"))
    _add_restore(_verb(verbs, "restore", "write the network back as safetensors"))
    _add_inspect(_verb(verbs, "inspect", "account for every byte of a file"))
    _add_verify(_verb(verbs, "verify", "check every checksum, decode everything, compare with the original"))
    _add_plan(_verb(verbs, "plan", "choose codec and knob of every tensor, and stop there"))
    _add_bound(_verb(verbs, "bound", "show R(D) of the weights under stated laws, beside what a file spends"))
    _add_report(_verb(verbs, "report", "write one HTML page about a file"))
    return parser


def _verb(verbs: argparse._SubParsersAction[_Parser], name: str, about: str) -> argparse.ArgumentParser:
    sentence = about[0].upper() + about[1:] + "."
    verb = verbs.add_parser(
        name, help=about, description=sentence, epilog=_closing(name), formatter_class=_Layout, allow_abbrev=False
    )
    verb.add_argument("--json", action="store_true", help='print one JSON object with a "schema" key on stdout')
    volume = verb.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="say nothing on stderr but errors")
    volume.add_argument("-v", "--verbose", action="store_true", help="say more, and show where an unexpected error is")
    return verb


def _closing(verb: str) -> str:
    return f"{_EXAMPLES[verb]}\n\n{_EXIT_CODES}"


def _add_compress(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN", "checkpoint: .safetensors, its index.json, a folder, .pt, .bin or .ckpt")
    _add_output(verb, "OUT.nwt", "the file to write, or a folder for a folder", required=False)
    target = _add_target(verb)
    target.add_argument("--plan", metavar="FILE", help="a plan from `netweight plan`, edited or not")
    _add_effort(verb)
    verb.add_argument("--dry-run", action="store_true", help="print the plan and the predicted size, write nothing")
    _add_force(verb)


def _add_measure(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "FOLDER", "Hugging Face folder: config, weights, tokenizer or image processor")
    _add_output(verb, "FILE", "the importance file to write", required=True)
    verb.add_argument(
        "--data", metavar="DATA", type=_path, required=True, help="text file, one sample a line, or folder of images"
    )
    verb.add_argument("--samples", metavar="N", type=_count, default=256, help="samples at most, evenly spaced (256)")
    verb.add_argument("--batch", metavar="N", type=_count, default=8, help="samples at a time (8)")
    verb.add_argument("--length", metavar="N", type=_count, default=128, help="tokens of a sample at most (128)")
    verb.add_argument("--loss", choices=("kl", "squared"), help="default: kl with a head, squared without")
    verb.add_argument(
        "--structure",
        choices=("kronecker", "gradient", "diagonal"),
        default="kronecker",
        help="second moments of inputs and gradients, of each sample's whole gradient, or single weights",
    )
    verb.add_argument("--temperature", metavar="T", type=_positive, default=1.0, help="of the softmax (1)")
    verb.add_argument("--draws", metavar="N", type=_count, default=2, help="random vectors for each sample (2)")
    verb.add_argument("--seed", metavar="N", type=_count, default=1, help="of the draws, from 1 (1)")
    _add_force(verb)


def _add_plan(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN", "checkpoint, as for compress")
    _add_output(verb, "PLAN.json", "the file to write; stdout without it", required=False)
    _add_target(verb)
    _add_effort(verb)
    _add_force(verb)


def _add_restore(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN.nwt", "compressed file, or the folder compress wrote")
    _add_output(verb, "OUT", "a .safetensors file, or a folder for the files of the source", required=True)
    about = "use only the first bytes of a file that refines (compress --codec surp): a coarser network"
    verb.add_argument("--max-bytes", metavar="100kB", type=_size, help=about)
    _add_force(verb)


def _add_inspect(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN.nwt", "compressed file")


def _add_verify(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN.nwt", "compressed file")
    verb.add_argument("--against", metavar="ORIGINAL", type=_path, help="the checkpoint it was made from")


def _add_bound(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN", "compressed file, or a checkpoint as for compress")
    verb.add_argument("--against", metavar="ORIGINAL", type=_path, help="the checkpoint that the file was made from")
    _add_importance(verb)
    _add_model(verb)
    _add_workers(verb)


def _add_report(verb: argparse.ArgumentParser) -> None:
    _add_input(verb, "IN.nwt", "compressed file, or the folder compress wrote")
    _add_output(verb, "PAGE.html", "the page to write", required=True)
    verb.add_argument("--against", metavar="ORIGINAL", type=_path, help="the checkpoint that the file was made from")
    _add_importance(verb)
    _add_model(verb)
    _add_workers(verb)
    _add_force(verb)


def _add_importance(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--importance", metavar="FILE", type=_path, help="what was measured on data; losses are then in its nats"
    )


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", metavar="LAW", default="", help="law of the weights whose bound is split by cause")


def _add_input(verb: argparse.ArgumentParser, metavar: str, about: str) -> None:
    verb.add_argument("input", metavar=metavar, type=_path, help=about)


def _add_output(verb: argparse.ArgumentParser, metavar: str, about: str, *, required: bool) -> None:
    verb.add_argument("-o", "--output", metavar=metavar, type=_path, required=required, help=about)


def _add_target(verb: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    group = verb.add_argument_group("target", "exactly one; with --codec exact alone, none")
    target = group.add_mutually_exclusive_group()
    target.add_argument("--size", metavar="4MB", type=_size, help="bytes of the file, from below; decimal units")
    target.add_argument("--bits", metavar="2.5", type=_positive, help="bits of the file for each weight")
    target.add_argument(
        "--loss", metavar="0.01", type=_positive, help="loss, 1/2 of the squared error (nats with importance)"
    )
    target.add_argument("--slope", metavar="S", type=_positive, help="loss that one more bit must save")
    return target


def _add_effort(verb: argparse.ArgumentParser) -> None:
    _add_importance(verb)
    verb.add_argument(
        "--codec", metavar="NAME", action="append", help="allow this codec only; may be given again (default: all)"
    )
    _add_workers(verb)
    verb.add_argument("--device", metavar="NAME", help="of torch, such as cuda: measured layers are computed there")


def _add_workers(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--workers", metavar="N", type=_count, default=None, help="threads (default: all cores)")


def _add_force(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--force", action="store_true", help="replace an existing output")


def _path(text: str) -> str:
    if text == "-":
        raise argparse.ArgumentTypeError("a pipe cannot be mapped: name a file")
    if not text:
        raise argparse.ArgumentTypeError("the name of the file is empty")
    return os.fspath(text)


def _size(text: str) -> int:
    from netweight.units import parse_size

    try:
        return parse_size(text)
    except NetweightError as error:
        raise argparse.ArgumentTypeError(error.fact) from None


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 4096")
    return int(text)


class _Version(argparse.Action):
    """Print the version; a class of its own so that the package is not asked before."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from netweight import __version__

        sys.stdout.write(f"{_PROGRAM} {__version__}\n")
        parser.exit()
