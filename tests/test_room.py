"""Tasks over threads: everything is done, in order, and what does not fit waits."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netweight.checkpoint.infos import TensorInfo
from netweight.checkpoint.pages import give_back
from netweight.checkpoint.safetensors_io import SafetensorsFile, write_safetensors
from netweight.freed import eased
from netweight.importance.stat import BLOCK, mean_square
from netweight.room import Need, need_of_encoding, need_of_sweep, room, run


@given(needs=st.lists(st.tuples(st.integers(1, 100), st.floats(0.1, 10)), max_size=30), workers=st.integers(1, 5))
def test_all_is_done_in_order(needs, workers):
    needs = [Need(*need) for need in needs]
    with ThreadPoolExecutor(workers) as pool:
        assert list(run(pool, lambda x: 2 * x, range(len(needs)), needs)) == [2 * x for x in range(len(needs))]


def test_the_room_is_never_exceeded():
    random = np.random.default_rng(0)
    needs = [Need(int(bytes_), 1.0) for bytes_ in (100, 90, *random.integers(1, 30, 40))]
    most, now, lock = [0], [0], threading.Lock()

    def task(at):
        with lock:
            now[0] += needs[at].bytes
            most[0] = max(most[0], now[0])
        until = time.monotonic() + 10.0
        while needs[at].bytes == 100 and most[0] <= 100 and time.monotonic() < until:
            time.sleep(0.001)  # however busy the machine is, the other thread gets its turn meanwhile
        with lock:
            now[0] -= needs[at].bytes

    with ThreadPoolExecutor(2) as pool:
        list(run(pool, task, range(len(needs)), needs))
    assert most[0] <= room(needs, 2) < 190
    assert most[0] > 100  # small ones run beside the large ones


def test_a_task_that_is_eased_lets_the_next_one_begin():
    needs = [Need(100, 8.0)] * 2 + [Need(10, 1.0)] * 16
    assert room(needs, 2) < 200
    both = threading.Barrier(2)

    def task(at):
        if at < 2:
            eased(1000)  # no more than was foretold
            eased(20)
            both.wait(timeout=30)  # broken if one has to end before the other
        return at

    with ThreadPoolExecutor(2) as pool:
        assert list(run(pool, task, range(len(needs)), needs)) == list(range(len(needs)))
    eased(5)  # nobody listens


def test_layers_of_one_size_are_worked_on_in_all_threads():
    assert room([Need(100, 1.0)] * 12, 4) >= 400
    assert room([Need(100, 8.0)] + [Need(10, 1.0)] * 8, 2) == 125
    assert room([], 2) == 0


def test_an_error_ends_the_work_and_frees_the_threads():
    begun = []

    def task(at):
        begun.append(at)
        if at == 0:
            raise ValueError("no")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="no"), ThreadPoolExecutor(2) as pool:
        list(run(pool, task, range(1000), [Need(10, 1.0)] * 1000))
    assert len(begun) < 500


def test_what_is_foretold_grows_with_what_there_is():
    assert need_of_sweep(1000, 0).bytes < need_of_sweep(1000, 10**6).bytes
    assert need_of_encoding(10**8, 0).bytes == 8 * 10**8
    assert need_of_encoding(10, 5).cost < 0.001


@pytest.mark.parametrize("size", [1, 7, 129, BLOCK, BLOCK + 1, 3 * BLOCK + 11])
def test_the_mean_square_is_that_of_numpy_to_the_bit(size):
    w = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    assert mean_square(w) == float(np.mean(np.square(w, dtype=np.float64)))


def test_pages_of_a_file_are_given_back_and_read_again(tmp_path):
    w = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
    write_safetensors(tmp_path / "x.safetensors", [(TensorInfo("w", "F32", w.shape), lambda: w)])
    file = SafetensorsFile(tmp_path / "x.safetensors", "x")
    read = file.read("w")
    before = _file_bytes()
    assert np.array_equal(read, w)
    there = _file_bytes()
    give_back(read[10:990])
    give_back(read[:, ::2])  # no run of bytes: left alone
    if before is not None:
        assert there - before > 3.5e6
        assert there - _file_bytes() > 3.5e6
    assert np.array_equal(read, w)


def test_pages_that_may_be_changed_stay(tmp_path):
    (tmp_path / "x").write_bytes(bytes(1 << 16))
    own = np.memmap(tmp_path / "x", np.uint8, "c")
    own[:] = 7
    give_back(own)
    give_back(np.frombuffer(own, np.uint8))
    assert own.min() == 7


def _file_bytes():
    """Resident bytes of files, where the system tells them."""
    try:
        with open("/proc/self/status") as status:
            return 1024 * int(status.read().partition("RssFile:")[2].split()[0])
    except (OSError, IndexError):
        return None
