"""What each Redis user may do, and what an agent can find out about the daemon."""

import re
import subprocess
from collections.abc import Iterator

import pytest
import redis

from gastown_mail.contracts.keys import Keys
from tests.compose.stack import Stack, all_alive

pytestmark = pytest.mark.timeout(400)

KEYS = Keys("town")
MAX = KEYS.agent("demo/crew/max")
FORBIDDEN = [
    ("HGETALL", MAX),
    ("HGET", MAX, "incarnation"),
    ("HSET", MAX, "desired", "stopped"),
    ("HGETALL", KEYS.state),
    ("HGETALL", KEYS.progress("x")),
    ("LRANGE", KEYS.inbox, "0", "-1"),
    ("LPOP", KEYS.inbox),
    ("DEL", KEYS.inbox),
    ("LPUSH", KEYS.inbox, "x"),
    ("RPUSH", KEYS.taken, "x"),
    ("RPUSH", KEYS.request("x"), "x"),
    ("HGETALL", KEYS.inbox),
    ("HSET", KEYS.request("x"), "status", "done"),
    ("XRANGE", KEYS.events, "-", "+"),
    ("RPUSH", f"rq:queue:{KEYS.lifecycle_queue('town')}", "x"),
    ("HGETALL", "rq:job:town_heartbeat_town"),
    ("SMEMBERS", "rq:workers"),
    ("PUBLISH", "rq:pubsub:x", "x"),
    ("SCAN", "0"),
    ("KEYS", "*"),
    ("EVAL", "return 1", "0"),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("ACL", "WHOAMI"),
    ("INFO",),
    ("CLIENT", "LIST"),
    ("MONITOR",),
    ("FLUSHALL",),
    ("SHUTDOWN", "NOSAVE"),
]


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_the_agents_redis_user_may_not_do_this(
    stack: Stack, agent: redis.Redis, command: tuple[str, ...]
) -> None:
    with pytest.raises(redis.exceptions.NoPermissionError):
        agent.execute_command(*command)  # type: ignore[no-untyped-call]


def test_the_agents_redis_user_may_send_and_read_statuses(stack: Stack, agent: redis.Redis) -> None:
    assert agent.rpush(KEYS.inbox, b"not a request") >= 1
    assert agent.hgetall(KEYS.request("never-was")) == {}


def test_the_daemons_redis_user_may_not_administer(stack: Stack) -> None:
    with redis.Redis.from_url(stack.url("daemon")) as daemon:
        assert daemon.hgetall(MAX)
        for command in ("CONFIG GET *", "ACL LIST", "FLUSHALL", "SHUTDOWN NOSAVE", "GET other", "MONITOR"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                daemon.execute_command(*command.split())


def test_redis_refuses_clients_without_a_password(stack: Stack) -> None:
    place = stack.compose("port", "redis", "6379").strip()
    assert place.startswith("127.0.0.1:")
    for credentials in ("", "default:@", "default:x@", "agent:x@"):
        with (
            redis.Redis.from_url(f"redis://{credentials}{place}") as anybody,
            pytest.raises((redis.AuthenticationError, redis.exceptions.AuthenticationWrongNumberOfArgsError)),
        ):
            anybody.ping()


def test_sessions_have_only_the_agents_url(stack: Stack) -> None:
    all_alive(stack, "demo/crew/max", "demo/crew/ada", "demo/witness")
    found = stack.inside(
        "town", "sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -a redis://", check=False
    )
    assert set(found.split()) == {f"GASTOWN_REDIS_URL=redis://agent:{stack.password('agent')}@redis:6379/0"}


def test_an_agent_reaches_neither_the_daemons_environment_nor_its_files(stack: Stack) -> None:
    workers = stack.inside("town", "pgrep", "-f", "/opt/gastown/bin/worker").split()
    assert len(workers) >= 4
    for pid in workers:
        for place in ("environ", "mem", "root/run/gastown/daemon/password", "fd/0"):
            seen = stack.inside(
                "town", "sh", "-c", f"head -c 1 /proc/{pid}/{place} && echo seen", check=False
            )
            assert "seen" not in seen, f"/proc/{pid}/{place}"
    assert stack.inside("town", "sh", "-c", "ls /run/gastown").split() == ["agent"]


def test_no_service_runs_as_root_or_under_a_shell(stack: Stack) -> None:
    for service, program in (("worker", "worker"), ("scheduler", "scheduler"), ("town", "tmux")):
        container = stack.containers(service)[0]
        rows = _processes(container)
        first = next(words for _, words in rows if program in words)
        assert not re.search(r"\b(ba|da|)sh\b", first.split()[0])
        assert {user for user, words in rows if "docker-init" not in words} == {str(stack.uid)}, rows


def _processes(container: str) -> list[tuple[str, str]]:
    listed = subprocess.run(
        ["docker", "top", container, "-eo", "pid,uid,args"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout.splitlines()[1:]
    rows = (line.split(maxsplit=2) for line in listed)
    return [(user, words) for _, user, words in rows]


@pytest.fixture(scope="module")
def agent(stack: Stack) -> Iterator[redis.Redis]:
    """Connect from the host as the agents' Redis user."""
    with redis.Redis.from_url(stack.url("agent")) as user:
        yield user
