"""The rivals, each in an environment of its own that is made when it is first asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LOSSLESS", "NNCODEC", "Rival", "cache_folder", "environment"]


@dataclass(frozen=True, slots=True)
class Rival:
    """What to install, at which versions, and whether against the environment's own build tools (`alone`)."""

    name: str
    requires: tuple[str, ...]
    alone: tuple[str, ...] = ()


NNCODEC: Final = Rival(
    "nncodec-2.1.3",
    (
        # It asks for torchvision and more to code a dict of arrays; these are the ones it really imports.
        "torch==2.13.0", "numpy==1.26.4", "safetensors==0.8.0", "opencv-python-headless==4.11.0.86", "h5py", "pandas",
        "scikit-learn", "scipy", "psutil", "tqdm", "ptflops", "torchmetrics", "transformers",
        "pybind11", "setuptools", "wheel",
    ),
    ("nncodec==2.1.3",),
)  # fmt: skip
LOSSLESS: Final = Rival(
    "lossless-1",
    ("torch==2.13.0", "numpy==2.4.6", "safetensors==0.8.0", "zipnn==0.5.4", "lmzip==1.3.0", "zstandard==0.25.0"),
)


def cache_folder() -> Path:
    """Folder of environments and downloads: NETWEIGHT_RIVALS, or benchmarks/cache."""
    return Path(os.environ.get("NETWEIGHT_RIVALS") or Path(__file__).parent / "cache")


def environment(rival: Rival) -> Path:
    """Python of the rival's environment, installing it first if need be (minutes; one of them compiles C++)."""
    home = cache_folder() / rival.name
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (home / "ready").exists():
        print(f"installing {rival.name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *rival.requires], check=True, stdout=sys.stderr)
        if rival.alone:
            subprocess.run([*pip, "--no-deps", "--no-build-isolation", *rival.alone], check=True, stdout=sys.stderr)
        (home / "ready").touch()
    return python
