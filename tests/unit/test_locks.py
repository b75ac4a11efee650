"""Only a living process holds the town's lock; the pid file belongs to its writer."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import SettingsError, TownLocked
from gastown_mail.plumbing.locks import LockHolder, TownLock, remove_pid, write_pid
from tests.support.wait import eventually

HOLDER = """
import os, signal, sys
from pathlib import Path
from gastown_mail.plumbing.locks import TownLock
lock = TownLock(Path(sys.argv[1]))
lock.acquire()
child = os.fork() if sys.argv[2] != "alone" else None
if child == 0:
    if sys.argv[2] == "dropping":
        lock.close_in_child()
    print(os.getpid(), flush=True)
    signal.pause()
if child is None:
    print(0, flush=True)
signal.pause()
"""


@contextmanager
def daemon(path: Path, kind: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the town, with a forked child of this `kind`; both are gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), kind],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline().strip().isdigit()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "daemon" / "daemon.lock"


@contextmanager
def flocked(path: Path, kind: int) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, kind)
        yield fd
    finally:
        os.close(fd)


def test_held_then_free(path: Path) -> None:
    with TownLock(path):
        assert TownLock.holder(path) == LockHolder(os.getpid())
        assert path.read_text() == f"{os.getpid()}\n"
    assert TownLock.holder(path) is None
    assert path.exists()


def test_the_second_daemon_learns_the_pid_of_the_first(path: Path) -> None:
    with daemon(path, "alone") as first:
        assert TownLock.holder(path) == LockHolder(first.pid)
        with pytest.raises(TownLocked, match=rf"pid {first.pid}.*gastown-mail stop") as caught:
            TownLock(path).acquire()
        assert caught.value.pid == first.pid
        assert path.read_text() == f"{first.pid}\n"


def test_two_in_one_process_exclude_each_other(path: Path) -> None:
    with TownLock(path), pytest.raises(TownLocked) as caught:
        TownLock(path).acquire()
    assert caught.value.pid == os.getpid()


def test_a_refused_lock_keeps_no_file_open(path: Path) -> None:
    with daemon(path, "alone"):
        before = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(TownLocked):
            TownLock(path).acquire()
        assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_killed_holder_frees_the_town(path: Path) -> None:
    with daemon(path, "alone") as first:
        first.kill()
        first.wait()
        assert path.read_text() == f"{first.pid}\n"
        assert TownLock.holder(path) is None
        with TownLock(path):
            assert TownLock.holder(path) == LockHolder(os.getpid())


def test_a_child_that_dropped_the_lock_does_not_keep_the_town(path: Path) -> None:
    with daemon(path, "dropping") as first:
        assert TownLock.holder(path) == LockHolder(first.pid)
        first.kill()
        first.wait()
        assert TownLock.holder(path) is None


def test_a_child_that_kept_the_lock_keeps_the_town_under_its_own_pid(path: Path) -> None:
    with daemon(path, "keeping") as first:
        first.kill()
        first.wait()
        assert TownLock.holder(path) == LockHolder(None)


def test_release_frees_the_town_for_forked_children_too(path: Path) -> None:
    lock = TownLock(path)
    lock.acquire()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        lock.release()
        assert TownLock.holder(path) is None
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


@pytest.mark.parametrize("text", ["", "1\n", "rubbish", "-1", "9" * 40])
def test_a_stale_lock_file_names_no_holder(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert TownLock.holder(path) is None
    with TownLock(path):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", ["", "rubbish", "0", "-1", "9" * 40, "٣", f"{os.getppid()}"])
def test_a_held_lock_may_have_an_unknown_holder(path: Path, text: str) -> None:
    """The last text names a living process that has nothing to do with the lock."""
    path.parent.mkdir()
    path.write_text(text)
    with flocked(path, fcntl.LOCK_EX):
        assert TownLock.holder(path) == LockHolder(None)
        with pytest.raises(TownLocked, match="not visible here") as caught:
            TownLock(path).acquire()
    assert caught.value.pid is None


def test_a_process_that_asks_does_not_take_itself_for_the_holder(path: Path) -> None:
    """In another container the holder may have the pid of the process that asks."""
    with daemon(path, "alone"):
        path.write_text(f"{os.getpid()}\n")
        assert TownLock.holder(path) == LockHolder(None)
        with pytest.raises(TownLocked, match=r"not visible here.*stop it where it was started") as caught:
            TownLock(path).acquire()
    assert caught.value.pid is None


def test_a_missing_lock_file_names_no_holder_and_is_not_made(path: Path) -> None:
    assert TownLock.holder(path) is None
    assert not path.parent.exists()


def test_checking_the_lock_does_not_fail_a_start(path: Path) -> None:
    path.parent.mkdir()
    with flocked(path, fcntl.LOCK_SH) as glance:
        assert TownLock.holder(path) is None
        ending = threading.Timer(0.05, fcntl.flock, (glance, fcntl.LOCK_UN))
        ending.start()
        with TownLock(path):
            assert TownLock.holder(path) == LockHolder(os.getpid())
        ending.join()


def test_a_lock_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be taken.*can write to"):
        TownLock(tmp_path / "file" / "daemon.lock").acquire()


def test_a_started_program_does_not_inherit_the_lock(path: Path) -> None:
    lock = TownLock(path)
    lock.acquire()
    sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.close_in_child()
        eventually(lambda: TownLock.holder(path) is None)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_the_pid_file_is_written_atomically_and_removed_by_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "daemon" / "daemon.pid"
    write_pid(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert list(path.parent.iterdir()) == [path]
    remove_pid(path)
    assert not path.exists()
    remove_pid(path)


@pytest.mark.parametrize("text", ["", "1\n", "rubbish"])
def test_another_process_pid_file_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text(text)
    remove_pid(path)
    assert path.read_text() == text
    write_pid(path)
    assert path.read_text() == f"{os.getpid()}\n"
