"""File locks and the pid file. Only the kernel knows whether a lock is held; a file may be stale."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import GastownError, SettingsError, TownLocked
from gastown_mail.contracts.settings import Settings

_PROBE_TIMEOUT = 0.25
"""Seconds a start waits for the lock: `holder()` takes it for some microseconds to check."""

_RETRY_PAUSE = 0.01
_MAX_CONTENT = 512


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock the open file; False if another process has it locked. Raises OSError."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class LockHolder:
    """The live process that holds a lock; `pid` is None if it could not be verified."""

    pid: int | None


class TownLock:
    """The lock that allows a town only one daemon.

    The kernel releases it when its holder dies, however it dies. The file stays; the pid in it is only a
    hint. `host`: the name under which the daemon serves.
    """

    def __init__(self, path: Path, host: str = "") -> None:
        self.path, self._host = path, host
        self._fd: int | None = None

    def acquire(self) -> None:
        """Lock the town. Raises TownLocked, or SettingsError if no lock is possible there."""
        fd = _open(self.path)
        try:
            if not _lock_within(fd, _PROBE_TIMEOUT):
                holder = TownLock.holder(self.path)
                pid = holder.pid if holder else None
                known = f"pid {pid}" if pid else "its pid is not visible here"
                end = "end it with `gastown-mail stop`" if pid else "stop it where it was started"
                raise TownLocked(
                    f"another daemon holds this town ({known}, lock {self.path}); use that one, or {end}", pid
                )
            os.ftruncate(fd, 0)
            host = f"{self._host}\n" if self._host else ""
            os.pwrite(fd, f"{os.getpid()}\n{host}".encode(), 0)
        except OSError as error:
            os.close(fd)
            raise _unlockable(self.path, error) from error
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Unlock the town, even if forked children still have the file open."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.close_in_child()

    def close_in_child(self) -> None:
        """Close the lock that a forked child has inherited, so that only its parent holds the town."""
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
        """The live holder of the lock at `path`, None if there is none, whatever the file says.

        Raises SettingsError if this user may not look.
        """
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise SettingsError(
                f"{path} is not readable for this user: run this as the owner of the town"
            ) from None
        try:
            # shared, so that two processes that check do not take each other for a daemon
            if try_lock(fd, fcntl.LOCK_SH):
                return None
            return LockHolder(_verified_pid(_content(fd)[0], fd))
        finally:
            os.close(fd)


def as_served(settings: Settings) -> Settings:
    """The settings with the host name of the daemon that runs, which the machine's may no longer be."""
    try:
        fd = os.open(settings.lock_file, os.O_RDONLY)
    except OSError:
        return settings
    try:
        host = (
            ""
            if settings.daemon.host or try_lock(fd, fcntl.LOCK_SH)
            else _content(fd)[1].decode(errors="replace")
        )
    finally:
        os.close(fd)
    return settings.model_copy(update={"machine": host}) if host else settings


def _content(fd: int) -> list[bytes]:
    """The pid and the host name in an open lock file, as far as they are there."""
    return [*os.pread(fd, _MAX_CONTENT, 0).splitlines(), b"", b""][:2]


@contextmanager
def file_lock(path: Path, timeout: float) -> Iterator[None]:
    """Run the block while no other process runs one for `path`; wait at most `timeout` seconds for it.

    Raises GastownError if the file stays locked, SettingsError if no lock is possible there.
    """
    fd = _open(path)
    try:
        if not _lock_within(fd, timeout):
            raise GastownError(
                f"{path} has been locked for {timeout} s; end the process that has it open if it hangs"
            )
        yield
    finally:
        os.close(fd)


def write_pid(path: Path) -> None:
    """Write this process's pid in decimal to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"%d\n" % os.getpid())


def remove_pid(path: Path) -> None:
    """Remove the pid file if it is this process's own; a successor's stays."""
    with suppress(FileNotFoundError):
        if path.read_bytes().strip() == b"%d" % os.getpid():
            path.unlink()


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unlockable(path, error) from error


def _lock_within(fd: int, timeout: float) -> bool:
    until = time.monotonic() + timeout
    while not try_lock(fd):
        if time.monotonic() > until:
            return False
        time.sleep(_RETRY_PAUSE)
    return True


def _verified_pid(text: bytes, fd: int) -> int | None:
    """The pid in `text` if that process has the file of `fd` open; the text may be stale or a container's."""
    pid = text.strip()
    if not pid.isdigit() or int(pid) == 0:
        return None
    import psutil

    wanted = os.fstat(fd)
    try:
        files = psutil.Process(int(pid)).open_files()
    except psutil.Error:
        return None
    for file in files:
        with suppress(OSError):
            if os.path.samestat(Path(file.path).stat(), wanted) and _may_hold(int(pid), file.fd):
                return int(pid)
    return None


def _may_hold(pid: int, fd: int) -> bool:
    """False for a file that this process has open only to check its lock."""
    # a holder in another container may have the pid of this process
    info = Path(f"/proc/self/fdinfo/{fd}")
    return pid != os.getpid() or not info.exists() or "FLOCK" in info.read_text()


def _unlockable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"the lock {path} cannot be taken: {error.strerror}; put the town on a file system that supports "
        "locks, in a folder that this user can write to"
    )
