"""Everything the documents show is run: code blocks of README and docs, and the examples of every docstring."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import netweight

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# ```python and ```sh blocks are run, in order, in one folder; a comment "not run: why" before a block excepts it.
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n+)?^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONAL = {"torch", "matplotlib"}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the blocks to run."""
    return [(language, code) for excepted, language, code in BLOCK.findall(text) if not excepted]


def modules() -> list[str]:
    found = pkgutil.walk_packages(netweight.__path__, "netweight.")
    return ["netweight", *(module.name for module in found if not module.name.endswith(("__main__", "._kernels")))]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the documents speak of, and the model they belong to."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 48))
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return {"model": model, "np": np, "torch": torch, "__name__": "__main__"}


def run_python(code: str, names: dict[str, object], where: str) -> None:
    if ">>>" not in code:
        exec(compile(code, where, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(code, names, where, where, 0)
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    assert result.failed == 0, "".join(report)


def run_shell(code: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", code], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_code_blocks_run(document, workplace):
    for number, (language, code) in enumerate(blocks(document.read_text(encoding="utf-8")), 1):
        if language == "python":
            run_python(code, workplace, f"{document.name}, block {number}")
        else:
            run_shell(code)


def test_readme_has_blocks_of_both_kinds():
    languages = {language for language, _ in blocks((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert languages == {"python", "sh"}


def test_the_runner_of_blocks_can_fail(workplace):
    with pytest.raises(NameError):
        run_python("kompress()\n", workplace, "here")
    with pytest.raises(AssertionError, match="Got:"):
        run_python(">>> 1 + 1\n3\n", workplace, "here")
    with pytest.raises(AssertionError, match="exit 1"):
        run_shell("exit 1")


def test_links_lead_somewhere():
    broken = [
        f"{document.name}: {link}"
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8"))
        if not (document.parent / link).exists()
    ]
    assert not broken


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_docstring_examples_are_found():
    counts = {name: doctest.testmod(importlib.import_module(name)).attempted for name in ("netweight.units",)}
    assert counts["netweight.units"] >= 5
