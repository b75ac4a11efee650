"""The town's lock and the pid file: who holds the town, told by the kernel and never by a stale file."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gastown_mail.contracts.errors import GastownError, SettingsError, TownLocked

# A `holder()` looks for some microseconds through a lock of its own; a start must not fail on that.
PROBE_TIMEOUT = 0.25
PROBE_STEP = 0.01


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The living process that holds a lock; `pid` is None if it could not be told for certain."""

    pid: int | None


class TownLock:
    """The `flock` that makes a daemon the only one of its town.

    The kernel frees it when its holder dies, however it dies. The file stays; its text is only a hint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the town. Raises TownHeld (with the pid, if known) or SettingsError (no lock is possible)."""
        fd = _open(self.path)
        try:
            if not _lock_within(fd, PROBE_TIMEOUT):
                raise _held(self.path)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(fd)
            raise _unlockable(self.path, error) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Free the town, for forked children that still have the file open too."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.close_in_child()

    def close_in_child(self) -> None:
        """In a forked child: let go of the inherited lock, so that only the parent keeps the town."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "TownLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @staticmethod
    def holder(path: Path) -> LockHolder | None:
        """The living holder of the lock at `path`, or None if nobody holds it, whatever the file says."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            # Shared, so that two who look do not take each other for a daemon.
            if _try(fd, fcntl.LOCK_SH):
                return None
            return LockHolder(_verified_pid(os.pread(fd, 32, 0), fd))
        finally:
            os.close(fd)


@contextmanager
def file_lock(path: Path, timeout: float) -> Iterator[None]:
    """Run the block while no other process runs one for `path`, waiting for it at most `patience` seconds.

    Raises GastownError when the others do not come to an end, SettingsError when there can be no lock.
    """
    fd = _open(path)
    try:
        if not _lock_within(fd, timeout):
            raise GastownError(
                f"{path} has been locked for {timeout} s: see what the process that has it open does"
            )
        yield
    finally:
        os.close(fd)


def write_pid(path: Path) -> None:
    """Write this process's pid in decimal to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(f"{os.getpid()}\n", encoding="ascii")
    draft.replace(path)


def remove_pid(path: Path) -> None:
    """Remove the pid file if it is this process's own; a successor's stays."""
    try:
        if path.read_bytes().strip() == b"%d" % os.getpid():
            path.unlink()
    except FileNotFoundError:
        return


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unlockable(path, error) from error


def _lock_within(fd: int, timeout: float) -> bool:
    until = time.monotonic() + timeout
    while not _try(fd, fcntl.LOCK_EX):
        if time.monotonic() > until:
            return False
        time.sleep(PROBE_STEP)
    return True


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _verified_pid(text: bytes, fd: int) -> int | None:
    """The pid in `text`, if that very process is seen to have the file of `fd` open.

    The text alone may be a dead holder's, or a pid of another container.
    """
    pid = text.strip()
    return int(pid) if pid.isdigit() and int(pid) > 0 and _has_open(int(pid), fd) else None


def _has_open(pid: int, fd: int) -> bool:
    import psutil

    wanted = os.fstat(fd)
    try:
        files = psutil.Process(pid).open_files()
    except psutil.Error:
        return False
    return any(_is_file(file.path, wanted) for file in files)


def _is_file(path: str, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(Path(path).stat(), wanted)
    except OSError:
        return False


def _held(path: Path) -> TownLocked:
    holder = TownLock.holder(path)
    pid = holder.pid if holder else None
    who = f"pid {pid}" if pid else "its pid is not known"
    return TownLocked(
        f"another daemon holds this town ({who}, lock {path}); "
        "use that one, or end it with `gastown-mail stop`",
        pid,
    )


def _unlockable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"the town's lock {path} cannot be taken: {error.strerror}; the town must be on a file system "
        "with locks, in a folder that this user may write to"
    )
