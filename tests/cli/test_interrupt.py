"""Ctrl-C, SIGTERM and even SIGKILL leave no file."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def big(folder):
    """Enough weights for some seconds of work."""
    random = np.random.default_rng(0)
    tensors = {f"layer{i}": random.normal(size=(1024, 1024)).astype(np.float32) for i in range(24)}
    save_file(tensors, folder / "big.safetensors")
    return folder / "big.safetensors"


def interrupted(folder, number, words, until: str) -> tuple[int, str]:
    """Start the command, wait for a line of its story, send a signal; exit code and what it said after."""
    command = [sys.executable, "-u", "-m", "netweight", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if until in line:
                break
        else:
            pytest.fail("it ended before it could be interrupted")
        time.sleep(0.05)
        begin_s = time.perf_counter()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert time.perf_counter() - begin_s < 30
        return process.returncode, err
    finally:
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_compress_interrupted(number, workers, big, listing):
    words = ["compress", "big.safetensors", "-o", "big.nwt", "--bits", "3", "-v", "--workers", workers]
    code, err = interrupted(big.parent, number, words, "sweep")
    assert code == 130
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert listing() == {"big.safetensors"}


def test_compress_killed(big, listing):
    words = ["compress", "big.safetensors", "-o", "big.nwt", "--bits", "3", "-v"]
    code, _ = interrupted(big.parent, signal.SIGKILL, words, "sweep")
    assert code == -signal.SIGKILL
    assert listing() == {"big.safetensors"}


def test_older_output_survives(big):
    (big.parent / "big.nwt").write_bytes(b"older")
    words = ["compress", "big.safetensors", "-o", "big.nwt", "--force", "--bits", "3", "-v"]
    assert interrupted(big.parent, signal.SIGINT, words, "sweep")[0] == 130
    assert (big.parent / "big.nwt").read_bytes() == b"older"


def test_interrupt_during_writing_leaves_nothing(archive, call, listing, monkeypatch):
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("os.fsync", interrupt)
    before = listing()
    for output in ("back.safetensors", "back/"):
        assert call("restore", archive, "-o", output).code == 130
        assert listing() == before
