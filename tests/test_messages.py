"""Errors are one line of fact and one line of remedy: the form of all, the text of those users meet most."""

import ast
from pathlib import Path

import pytest

import netweight
from netweight.cli import main
from netweight.errors import FormatError, NetweightError, OutputError, TargetError, UsageError

PACKAGE = Path(netweight.__file__).parent
ERRORS = {"NetweightError", "UsageError", "OutputError", "TargetError", "FormatError"}


def calls() -> list[tuple[str, ast.Call]]:
    """Every place where an error of ours is made."""
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS
    ]


def literal(node: ast.expr) -> str | None:
    """Text of a literal, with {} for what is filled in; None if it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


@pytest.mark.parametrize("call", [pytest.param(call, id=where) for where, call in calls()])
def test_every_error_has_a_fact_and_a_remedy(call):
    assert not call.keywords
    assert len(call.args) == 2, "a fact and a remedy"
    for text in filter(None, map(literal, call.args)):
        assert "\n" not in text
        assert text[0].isupper() or text[0] in "{*'\"`" or text.split()[0].endswith("()"), f"begins small: {text}"
        assert text[-1] in ".}", f"ends without a full stop: {text}"


def test_errors_are_found():
    assert len(calls()) > 40


def test_exit_codes_of_the_tree():
    codes = {kind: kind.exit_code for kind in (UsageError, OutputError, TargetError, FormatError)}
    assert codes == {UsageError: 2, OutputError: 2, TargetError: 1, FormatError: 3}
    assert all(issubclass(kind, NetweightError) for kind in codes)


TEXTS = [
    (
        "inspect -",
        "netweight: argument IN.nwt: a pipe cannot be mapped: name a file\n  See netweight inspect --help.\n",
    ),
    ("inspect nothing.nwt", "netweight: There is no nothing.nwt.\n  Check the name.\n"),
    (
        "compress m.safetensors -o m.nwt",
        "netweight: No target is given.\n  Add one of --size 4MB, --bits 2.5, --loss 0.01, --slope 1e-9.\n",
    ),
    (
        "compress m.safetensors --bits 3",
        "netweight: No output is named.\n  Add -o OUT.nwt, or --dry-run to see the plan.\n",
    ),
    (
        "compress m.safetensors -o m.nwt --bits 3 --size 1MB",
        "netweight: argument --size: not allowed with argument --bits\n  See netweight compress --help.\n",
    ),
    (
        "compress m.safetensors -o m.nwt --size 4XB",
        "netweight: argument --size: '4XB' is not a size.\n  See netweight compress --help.\n",
    ),
    (
        "compress m.safetensors -o m.nwt --plan p.json --codec exact",
        "netweight: Options --codec and --plan exclude each other: a plan names codecs.\n  Leave one of them out.\n",
    ),
    (
        "restore m.nwt -o m.pt",
        "netweight: m.pt ends neither with .safetensors nor with a slash.\n  Name a .safetensors file or a folder/.\n",
    ),
]


@pytest.mark.parametrize(("words", "text"), TEXTS, ids=[words for words, _ in TEXTS])
def test_text(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("m.safetensors", "m.nwt", "p.json"):
        Path(name).write_bytes(b"")
    assert main(words.split()) == 2
    assert capsys.readouterr().err == text
