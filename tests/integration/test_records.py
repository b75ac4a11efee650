"""The records of agents and of the town, and the copy in `state.json`."""

import fcntl
import json
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gastown_mail.contracts.errors import GastownError, StateUnknown
from gastown_mail.contracts.go_formats import ZERO_TIME, parse_time
from gastown_mail.contracts.state import State, load_state, state_file
from gastown_mail.plumbing.connections import connect, read_hash
from gastown_mail.town.records import AgentRecord, AgentStore, Desired
from gastown_mail.town.town import Town
from tests.support.wait import eventually

MAX = "gastown/crew/max"
NOW = datetime(2025, 12, 20, 10, 12, 21, 123456, tzinfo=timezone(timedelta(hours=-8)))


def test_an_unknown_agent_has_an_empty_record(town: Town) -> None:
    assert town.agents.read(MAX) == AgentRecord()
    assert town.agents.read(MAX).started_at == ZERO_TIME


def test_what_is_written_of_an_agent_is_read_again(town: Town) -> None:
    first = AgentRecord(desired=Desired.PAUSED, session="gt-max", incarnation="t0k", started_at=NOW)
    town.agents.write(MAX, first)
    town.agents.write(
        MAX,
        AgentRecord(last_poke=NOW, last_activity=NOW, changed_at=NOW, unanswered=3, restarts=7, host="h"),
    )

    record = town.agents.read(MAX)

    assert record == AgentRecord(
        desired=Desired.PAUSED, session="gt-max", incarnation="t0k", started_at=NOW, last_poke=NOW,
        last_activity=NOW, changed_at=NOW, unanswered=3, restarts=7, host="h",
    )  # fmt: skip
    assert town.redis.smembers(town.keys.agents) == {MAX.encode()}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("desired", "bogus"),
        ("restarts", "many"),
        ("last_poke", "yesterday"),
    ],
)
def test_a_damaged_record_is_named_with_its_field_and_a_remedy(town: Town, field: str, value: str) -> None:
    town.redis.hset(town.keys.agent(MAX), field, value)

    with pytest.raises(StateUnknown) as caught:
        town.agents.read(MAX)
    damaged, sound = town.agents.read_all([MAX, "gastown/witness"])

    assert re.search(r"is damaged: .*; remove the field with redis-cli HDEL", str(caught.value))
    assert town.keys.agent(MAX) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert (damaged.damage, sound) == (str(caught.value), AgentRecord())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e20", "1766000000000", "soon"])
@pytest.mark.parametrize("field", ["starts", "not_before", "quarantined_until", "judged_at"])
def test_a_damaged_start_history_is_an_empty_one(town: Town, field: str, value: str) -> None:
    town.redis.hset(town.keys.agent(MAX), mapping={"session": "gt-max", field: value})

    assert town.agents.read(MAX) == AgentRecord(session="gt-max")


def test_a_state_before_the_pause_that_is_none_is_not_restored(town: Town) -> None:
    town.redis.hset(town.keys.agent(MAX), mapping={"desired": "paused", "before_pause": "bogus"})

    town.desired.resume(MAX)

    assert town.agents.read(MAX).desired is None


def test_a_write_on_a_pipeline_is_part_of_its_transaction(town: Town) -> None:
    with town.redis.pipeline() as pipe:
        town.agents.write(MAX, AgentRecord(session="gt-max"), pipe=pipe)
        assert town.agents.read(MAX) == AgentRecord()

        pipe.execute()

    assert town.agents.read(MAX).session == "gt-max"


def test_many_agents_are_read_in_order(town: Town) -> None:
    town.agents.write("deacon/", AgentRecord(unanswered=1))
    town.agents.write(MAX, AgentRecord(unanswered=2))

    found = town.agents.read_all([MAX, "nobody/", "deacon/"])

    assert [record.unanswered for record in found] == [2, 0, 1]


def test_generations_always_increase(town: Town) -> None:
    found = [town.agents.next_generation(MAX) for _ in range(50)]
    town.redis.hset(town.keys.agent(MAX), "generation", 10**15)  # A clock was far ahead.

    found += [town.agents.next_generation(MAX) for _ in range(3)]

    assert found == sorted(set(found))
    assert found[-3:] == [10**15 + 1, 10**15 + 2, 10**15 + 3]


def test_generations_increase_even_when_redis_was_emptied(town: Town) -> None:
    """tmux remembers the last generation."""
    last = town.agents.next_generation(MAX)
    eventually(lambda: time.time_ns() // 10**6 > last)
    town.redis.delete(town.keys.agent(MAX))

    assert town.agents.next_generation(MAX) > last


def test_no_generation_is_given_twice(town: Town) -> None:
    given: list[int] = []

    def take_some() -> None:
        with connect(town.redis_url) as redis:
            given.extend(AgentStore(redis, town.keys).next_generation(MAX) for _ in range(30))

    takers = [threading.Thread(target=take_some) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(30)

    assert len(set(given)) == 120


def test_without_a_daemon_the_state_is_zero(town: Town) -> None:
    assert town.state.read() == State() == load_state(town.settings.town_root)


def test_a_started_town_counts_from_zero_in_redis_and_in_the_file(town: Town) -> None:
    town.state.mark_started(4711, NOW)
    town.state.count_heartbeat(NOW)

    town.state.mark_started(4712, NOW)

    state = town.state.read()
    assert (state.running, state.pid, state.started_at, state.heartbeat_count) == (True, 4712, NOW, 0)
    assert load_state(town.settings.town_root) == state


def test_after_each_heartbeat_the_file_says_what_redis_says(town: Town) -> None:
    town.state.mark_started(4711, NOW)
    for count in range(1, 4):
        beat = NOW + timedelta(minutes=count)

        state = town.state.count_heartbeat(beat)

        assert (state.heartbeat_count, state.last_heartbeat) == (count, beat)
        assert town.state.read() == load_state(town.settings.town_root) == state


def test_the_file_and_the_hash_have_the_same_words(town: Town) -> None:
    town.state.mark_started(4711, NOW)
    town.state.count_heartbeat(NOW)

    in_file = json.loads(state_file(town.settings.town_root).read_text())
    in_redis = read_hash(town.redis, town.keys.state_of(town.host))

    assert read_hash(town.redis, town.keys.state) == in_redis
    assert list(in_file) == ["running", "pid", "started_at", "last_heartbeat", "heartbeat_count"]
    assert in_redis == {
        "running": "true", "pid": "4711", "started_at": in_file["started_at"],
        "last_heartbeat": in_file["last_heartbeat"], "heartbeat_count": "1",
    }  # fmt: skip
    assert parse_time(in_file["started_at"]) == NOW
    assert in_file["started_at"].endswith("-08:00")


def test_a_stopped_town_keeps_its_count(town: Town) -> None:
    town.state.mark_started(4711, NOW)
    town.state.count_heartbeat(NOW)

    town.state.mark_stopped()

    state = load_state(town.settings.town_root)
    assert (state.running, state.pid, state.heartbeat_count) == (False, 4711, 1)
    assert town.state.read() == state


BEATER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from gastown_mail.contracts.keys import Keys
from gastown_mail.town.hosts import HostStateStore
from gastown_mail.plumbing.connections import connect
record = HostStateStore(connect(sys.argv[1]), Keys(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
for _ in range(int(sys.argv[5])):
    record.count_heartbeat(datetime.now(UTC))
    record.write_state_file()
"""


def test_the_file_is_always_whole_and_finally_right(town: Town) -> None:
    root = town.settings.town_root
    town.state.mark_started(4711, NOW)
    given = [town.redis_url, town.keys.town, str(root), town.host]
    beaters = [subprocess.Popen([sys.executable, "-c", BEATER, *given, "40"]) for _ in range(3)]
    seen = []
    while any(beater.poll() is None for beater in beaters):
        seen.append(State.decode(state_file(root).read_text()).heartbeat_count)

    assert [beater.returncode for beater in beaters] == [0, 0, 0]
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert load_state(root) == town.state.read()
    assert load_state(root).heartbeat_count == 120
    assert sorted(path.name for path in (root / "daemon").iterdir()) == ["private", "state.json"]


def test_a_hanging_writer_is_reported(town: Town) -> None:
    town.state.mark_started(4711, NOW)
    with (town.settings.town_root / "daemon" / "private" / "state.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(GastownError, match=r"state\.lock has been locked for"):
            town.state.write_state_file()

    assert town.state.write_state_file().pid == 4711


def test_times_keep_their_instant_in_any_zone(town: Town) -> None:
    town.agents.write(MAX, AgentRecord(started_at=NOW))

    assert town.agents.read(MAX).started_at == NOW.astimezone(UTC)
