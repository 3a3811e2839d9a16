"""A file appears whole or not at all: on both paths, for every way to fail."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from netweight import atomic
from netweight.atomic import atomic_file, check_target
from netweight.errors import NetweightError, OutputError, UsageError


def tmpfile_works(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
    except (AttributeError, OSError):
        return False
    return True


@pytest.fixture(params=["nameless", "named"])
def way(request, monkeypatch, tmp_path):
    """Both ways to write: O_TMPFILE, and a hidden temporary."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not tmpfile_works(tmp_path):
        pytest.skip("no O_TMPFILE in this folder")
    return request.param


def names(folder):
    return sorted(os.listdir(folder))


def test_the_name_appears_with_the_content(way, tmp_path):
    path = tmp_path / "x.bin"
    with atomic_file(path) as file:
        file.write(b"a" * 3_000_000)
        file.write(b"end")
        assert "x.bin" not in names(tmp_path)
        assert names(tmp_path) == [] or way == "named"
    assert names(tmp_path) == ["x.bin"]
    assert path.read_bytes() == b"a" * 3_000_000 + b"end"


def test_the_mode_is_that_of_an_ordinary_new_file(way, tmp_path):
    (tmp_path / "ordinary").write_bytes(b"")
    with atomic_file(tmp_path / "x.bin"):
        pass
    assert (tmp_path / "x.bin").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("old", [None, b"old"])
def test_after_an_exception_all_is_as_before(way, tmp_path, kind, old):
    path = tmp_path / "x.bin"
    if old is not None:
        path.write_bytes(old)

    def fail_halfway():
        with atomic_file(path, force=True) as file:
            file.write(b"half")
            raise kind("the user's own")

    with pytest.raises(kind, match="the user's own"):
        fail_halfway()
    assert names(tmp_path) == ([] if old is None else ["x.bin"])
    assert old is None or path.read_bytes() == old


def test_an_existing_file_is_kept_unless_forced(way, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with pytest.raises(UsageError) as caught, atomic_file(path):
        pytest.fail("the body must not run")
    assert str(caught.value) == (
        f"{path} exists already.\nChoose another name, or allow replacing it with --force (force=True)."
    )
    assert path.read_bytes() == b"old"
    with atomic_file(path, force=True) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x.bin"]


def test_who_came_first_keeps_the_name(way, tmp_path):
    path = tmp_path / "x.bin"

    def come_late():
        with atomic_file(path) as file:
            file.write(b"late")
            path.write_bytes(b"first")

    with pytest.raises(UsageError, match="exists already"):
        come_late()
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["x.bin"]


def test_without_hard_links_the_temporary_is_renamed(monkeypatch, tmp_path):
    def no_links(*_args, **_options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(os, "link", no_links)
    with atomic_file(tmp_path / "x.bin") as file:
        file.write(b"content")
    assert names(tmp_path) == ["x.bin"]
    with pytest.raises(UsageError, match="exists already"), atomic_file(tmp_path / "y.bin"):
        (tmp_path / "y.bin").write_bytes(b"first")
    assert names(tmp_path) == ["x.bin", "y.bin"]


def test_a_failing_rename_leaves_nothing(way, monkeypatch, tmp_path):
    def refuse(*_args, **_options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "x.bin").write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Input/output error"), atomic_file(tmp_path / "x.bin", force=True) as file:
        file.write(b"new")
    assert names(tmp_path) == ["x.bin"]
    assert (tmp_path / "x.bin").read_bytes() == b"old"


def test_only_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("folder", "is a folder"),
        ("pipe", "is not a regular file"),
        ("/dev/null", "is not a regular"),
    ):
        with pytest.raises(UsageError, match=words), atomic_file(tmp_path / name, force=True):
            pytest.fail("the body must not run")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError) as caught, atomic_file(tmp_path / "no" / "x.bin"):
        pytest.fail("the body must not run")
    assert str(caught.value) == (
        f"The folder {tmp_path / 'no'} does not exist.\nCreate it first, or choose another one."
    )


def test_a_link_is_replaced_not_followed(way, tmp_path):
    (tmp_path / "far").write_bytes(b"far")
    (tmp_path / "x.bin").symlink_to("far")
    with pytest.raises(UsageError, match="exists already"), atomic_file(tmp_path / "x.bin"):
        pytest.fail("the body must not run")
    with atomic_file(tmp_path / "x.bin", force=True) as file:
        file.write(b"new")
    assert (tmp_path / "far").read_bytes() == b"far"
    assert (tmp_path / "x.bin").read_bytes() == b"new"
    assert not (tmp_path / "x.bin").is_symlink()


def read_only_folder(tmp_path):
    """A folder this user cannot write to, whoever it is."""
    if os.geteuid() == 0:
        if not Path("/sys/kernel").is_dir():
            pytest.skip("root may write everywhere here")
        return Path("/sys/kernel")
    tmp_path.chmod(0o500)
    return tmp_path


def test_a_read_only_folder_gives_one_clear_line(tmp_path):
    folder = read_only_folder(tmp_path)
    with pytest.raises(OutputError) as caught, atomic_file(folder / "x.bin"):
        pytest.fail("the body must not run")
    assert caught.value.fact.startswith(f"{folder} cannot be written to: ")
    assert caught.value.remedy == "Choose a folder you may write to."


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("size_bytes", [10, 5_000_000])
def test_a_full_disk_gives_one_clear_line(monkeypatch, tmp_path, size_bytes):
    class Full:
        def __init__(self, _target):
            pass

        def open(self):
            return os.open("/dev/full", os.O_WRONLY)

        def publish(self, *_):
            pytest.fail("what was not written must not be published")

        def discard(self):
            pass

    monkeypatch.setattr(atomic, "_temporary", Full)
    with pytest.raises(OutputError) as caught, atomic_file(tmp_path / "x.bin") as file:
        file.write(b"x" * size_bytes)
    assert str(caught.value) == (
        f"{tmp_path / 'x.bin'} cannot be written: No space left on device after 0 bytes.\n"
        "Free some space, or choose another folder; no part was left."
    )


def run_writer(folder: Path, setup: str, body: str, **options) -> subprocess.CompletedProcess:
    code = textwrap.dedent(f"""
        import os, resource, signal, sys, time
        from netweight.atomic import atomic_file
        from netweight.errors import OutputError
        {setup}
        try:
            with atomic_file({str(folder / "x.bin")!r}) as file:
                {body}
        except OutputError as error:
            print(error)
            sys.exit(error.exit_code)
    """)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_a_real_limit_of_the_system_is_met(tmp_path):
    setup = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    done = run_writer(tmp_path, setup, "for _ in range(100): file.write(bytes(50_000))")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'x.bin'} cannot be written: File too large after 100,000 bytes.",
        "Free some space, or choose another folder; no part was left.",
    ]
    assert names(tmp_path) == []


def test_a_full_file_system_is_met(tmp_path):
    mount = ["unshare", "--user", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
    inside = f"mount -t tmpfs -o size=64k none {tmp_path}"
    with contextlib.suppress(OSError):
        if subprocess.run([*mount, "sh", "-c", inside], capture_output=True, check=False).returncode == 0:
            body = (
                "from netweight.atomic import atomic_file\nwith atomic_file('x.bin') as file: file.write(bytes(10**6))"
            )
            shell = f'{inside} && cd {tmp_path} && {sys.executable} -c "$CODE"; ls -A {tmp_path}'
            done = subprocess.run(
                [*mount, "sh", "-c", shell],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "CODE": body},
            )
            assert "No space left on device after 65,536 bytes" in done.stderr
            assert done.stdout == ""
            return
    pytest.skip("no file system may be mounted here")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files without a name")
def test_a_killed_process_leaves_nothing(tmp_path):
    if not tmpfile_works(tmp_path):
        pytest.skip("no O_TMPFILE in this folder")
    done = run_writer(tmp_path, "", "file.write(bytes(3_000_000)); file.flush(); os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == []


@pytest.mark.parametrize("hide", ["", "del os.O_TMPFILE"])
def test_a_terminated_process_that_raises_leaves_nothing(tmp_path, hide):
    if hide and not hasattr(os, "O_TMPFILE"):
        hide = ""
    setup = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); {hide}"
    done = run_writer(tmp_path, setup, "file.write(b'x'); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)")
    assert (done.returncode, done.stderr) == (143, "")
    assert names(tmp_path) == []


def test_a_failure_of_reading_is_not_blamed_on_writing(way, tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "x.bin"):
        (tmp_path / "input").read_bytes()
    assert names(tmp_path) == []


def test_a_target_can_be_checked_before_the_work(tmp_path):
    check_target(tmp_path / "x.bin")
    (tmp_path / "x.bin").write_bytes(b"old")
    check_target(tmp_path / "x.bin", force=True)
    for path in (tmp_path / "x.bin", tmp_path, tmp_path / "no" / "x.bin", tmp_path / "x.bin" / "y"):
        with pytest.raises(NetweightError) as caught:
            check_target(path)
        assert caught.value.exit_code == 2
        assert len(str(caught.value).splitlines()) == 2


def test_content_then_name_then_folder_reach_the_disk(way, monkeypatch, tmp_path):
    """In another order a crash could leave a name without its content."""
    synced, sync = [], os.fsync

    def spy(descriptor):
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "x.bin").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with atomic_file(tmp_path / "x.bin") as file:
        file.write(b"content")
    assert synced == [(False, False), (True, True)]


def test_relative_names_work(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_file("x.bin") as file:
        file.write(b"here")
    assert names(tmp_path) == ["x.bin"]


def test_a_name_as_long_as_the_system_allows_works(way, tmp_path):
    name = "x" * 255
    for force in (False, True):
        with atomic_file(tmp_path / name, force) as file:
            file.write(b"long")
    assert names(tmp_path) == [name]
