"""No reading verb imports torch; a test of that test."""

import json
import subprocess
import sys

import numpy as np
import pytest

READING = {
    "inspect": ["inspect", "model.nwt"],
    "verify": ["verify", "model.nwt"],
    "verify against": ["verify", "model.nwt", "--against", "model.safetensors"],
    "restore": ["restore", "model.nwt", "-o", "back.safetensors"],
    "restore to a folder": ["restore", "model.nwt", "-o", "back/"],
    "compress": ["compress", "model.safetensors", "-o", "x.nwt", "--bits", "4"],
    "plan": ["plan", "model.safetensors", "--bits", "4"],
}


def loaded(words, folder) -> set[str]:
    """Modules in memory after the command ran."""
    script = (
        "import json, sys\nfrom netweight.cli import main\n"
        "assert main(sys.argv[1:]) == 0\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    )
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("words", READING.values(), ids=READING)
def test_no_torch_without_a_file_of_torch(words, archive):
    modules = loaded(words, archive.parent)
    assert "numpy" in modules
    assert not {"torch", "rich", "scipy", "matplotlib"} & modules


def test_the_test_above_can_fail(folder):
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.from_numpy(np.ones((64, 64), np.float32))}, folder / "m.pt")
    assert "torch" in loaded(["compress", "m.pt", "-o", "m.nwt", "--bits", "8"], folder)
