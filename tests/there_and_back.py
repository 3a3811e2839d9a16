"""A network there and back by the installed command, without a compiler and without torch; run by no_compiler.sh."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import netweight
from netweight import kernels


def main(folder: Path) -> None:
    """Compress, verify, restore; raise if anything is not as promised."""
    package = Path(netweight.__file__).parent
    assert not list(package.glob("_kernels*")), "the library was built although no compiler works"
    assert kernels.backend() == "numpy"
    assert importlib.util.find_spec("torch") is None, "reading and planning need no torch; this environment has it"

    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(64, 96)).astype(np.float32), "n": np.arange(7)}
    save_file(weights, folder / "in.safetensors", metadata={"who": "test"})
    for words in (
        ["compress", "in.safetensors", "-o", "out.nwt", "--bits", "4"],
        ["verify", "out.nwt", "--against", "in.safetensors"],
        ["inspect", "out.nwt"],
        ["restore", "out.nwt", "-o", "back.safetensors"],
    ):
        subprocess.run(["netweight", *words], cwd=folder, check=True)
    back = load_file(folder / "back.safetensors")
    assert np.array_equal(back["n"], weights["n"])
    error = float(np.mean((back["w"] - weights["w"]) ** 2))
    assert 0 < error < 0.02, f"mean squared error {error} of a Gaussian at 4 bits"
    bits = 8 * (folder / "out.nwt").stat().st_size / (64 * 96 + 7)
    assert bits <= 4, bits
    print(f"without a compiler: {bits:.2f} bits/weight, mean squared error {error:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
