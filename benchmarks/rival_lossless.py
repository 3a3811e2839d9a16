# mypy: ignore-errors
# (the rivals' packages are installed in their own environment only, and have no types)
"""Compress one file with ZipNN or zstd, check that every byte comes back; runs inside the lossless rivals' environment.

    python rival_lossless.py FILE (zipnn-float32 | zipnn-bfloat16 | zstd-LEVEL)

One JSON object on stdout: bytes, CPU seconds of compression and decompression. One thread.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"


def _coder(method: str):
    """The two functions of a method."""
    name, _, option = method.partition("-")
    if name == "zipnn":
        from zipnn import ZipNN

        zipnn = ZipNN(bytearray_dtype=option, input_format="byte", threads=1)
        return zipnn.compress, zipnn.decompress
    import zstandard

    return zstandard.ZstdCompressor(level=int(option)).compress, zstandard.ZstdDecompressor().decompress


def main() -> None:
    """Compress, restore, compare, report."""
    path, method = sys.argv[1:]
    original = Path(path).read_bytes()
    lent = bytes(bytearray(original))  # ZipNN reorders the bits of the caller's buffer in place
    compress, decompress = _coder(method)
    started = time.process_time()
    packed = compress(lent)
    middle = time.process_time()
    restored = decompress(packed)
    ended = time.process_time()
    if bytes(restored) != original:
        sys.exit(f"{method} did not restore {path}")
    print(json.dumps({"bytes": len(packed), "encode_cpu_s": middle - started, "decode_cpu_s": ended - middle}))


if __name__ == "__main__":
    main()
