"""Stopped stays stopped and paused stays paused: in Redis, on disk, and when Redis was emptied."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import carry_out, heartbeat
from gastown_mail.lifecycle.heartbeat_policy import Decision, Skip, StartAgent
from gastown_mail.mail.events import read_latest
from gastown_mail.town.records import TOWN, AgentRecord, Desired
from gastown_mail.town.town import Town, recover_after_flush
from tests.support.agents import DEACON, MAX, MAXINE, WITH_DEACON, WITNESS
from tests.support.stage import Stage
from tests.support.town import identity

PAUSED, STOPPED, RUNNING = Desired.PAUSED, Desired.STOPPED, Desired.RUNNING


@pytest.fixture
def bound(make_town: Callable[..., Town]) -> Stage:
    """A town with a deacon, which must run, served by this process; nothing runs."""
    made = Stage(make_town(WITH_DEACON))
    jobs.serving.set(made.town)
    return made


def file_of(stage: Stage) -> Path:
    return stage.town.settings.daemon_dir / "private" / "desired.json"


def on_disk(stage: Stage) -> dict[str, str]:
    found: dict[str, str] = json.loads(file_of(stage).read_bytes())
    states = {address: text.partition("#")[0].strip() for address, text in found.items()}
    return {address: state for address, state in states.items() if state}


def empty_redis(stage: Stage) -> None:
    """Delete all of this town from Redis."""
    keys = list(stage.town.redis.scan_iter(match=f"gastown:{{{stage.town.keys.town}}}:*", count=1000))
    assert keys
    stage.town.redis.delete(*keys)


def wanted(stage: Stage, address: str) -> Decision:
    """Return what the heartbeat would do about the agent."""
    [act] = [act for act in heartbeat.observe(stage.town)[1] if act.agent.address == address]
    return act


def events(stage: Stage, name: str) -> list[dict[str, str]]:
    found = [dict(event.fields) for event in read_latest(stage.town.redis, stage.town.keys, 1000)]
    return [fields for fields in found if fields["event"] == name]


@pytest.mark.parametrize("before", [None, RUNNING, STOPPED])
def test_after_a_pause_the_former_desired_state_returns(bound: Stage, before: Desired | None) -> None:
    if before:
        bound.town.desired.set(MAX, before)
    bound.town.desired.pause(MAX)
    bound.town.desired.pause(MAX)
    assert bound.record().desired is PAUSED

    bound.town.desired.resume(MAX)
    assert bound.record().desired is before

    bound.town.desired.resume(MAX)
    assert bound.record().desired is before
    assert len(events(bound, "desired")) == 2 + bool(before)


def test_a_resume_without_a_pause_changes_nothing(bound: Stage) -> None:
    bound.town.desired.resume(MAX)

    assert bound.record() == AgentRecord()
    assert events(bound, "desired") == []


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
def test_a_paused_agent_is_left_alone_by_requests_and_pokes(bound: Stage, action: str) -> None:
    session = bound.run()
    bound.town.desired.pause(MAX)

    status, why = bound.carry_out(action)
    poked = jobs.poke(MAX, "hello")

    assert (status, poked) == ("refused", "held: paused")
    assert "paused" in why
    assert wanted(bound, MAX).why == "left alone: paused"
    assert identity(bound.living()) == identity(session)
    bound.town.desired.resume(MAX)
    assert bound.carry_out(action)[0] == "done"


@pytest.mark.parametrize("by", ["", "operator"])
def test_a_queued_start_does_nothing_during_a_pause(bound: Stage, by: str) -> None:
    """The pause came after the start was queued."""
    bound.town.desired.set(DEACON, RUNNING)
    bound.town.desired.pause(DEACON)

    assert jobs.start(DEACON, "it must keep running", by).startswith("left alone")

    assert bound.session(DEACON) is None
    assert wanted(bound, DEACON).why == "left alone: paused"
    bound.town.desired.resume(DEACON)
    assert isinstance(wanted(bound, DEACON), StartAgent)
    assert jobs.start(DEACON, "it must keep running", by).startswith("started")


def test_requests_wait_for_the_end_of_a_towns_pause(bound: Stage) -> None:
    session = bound.run()
    bound.town.desired.pause(TOWN)
    ident = bound.ask("restart", incarnation=session.incarnation)

    assert bound.again(ident) == carry_out.WAITING

    assert bound.status(ident) == "received"
    assert "the town is paused" in bound.detail(ident)
    assert identity(bound.living()) == identity(session)
    bound.town.desired.resume(TOWN)
    assert bound.again(ident) == "done"
    assert identity(bound.living()) != identity(session)


def test_while_the_town_is_paused_no_agent_is_started_or_poked(bound: Stage) -> None:
    bound.run(WITNESS)
    bound.town.desired.pause(TOWN)

    answers = [jobs.start(DEACON, "a test wants it", by) for by in ("", "operator")]

    assert all("the town is paused" in answer for answer in answers)
    assert bound.session(DEACON) is None
    assert jobs.poke(WITNESS) == "held: paused"
    assert all(isinstance(act, Skip) for act in heartbeat.observe(bound.town)[1])
    assert heartbeat.run_heartbeat(bound.town).heartbeat_count == 1
    bound.town.desired.resume(TOWN)
    assert not bound.town.is_paused()
    assert jobs.poke(WITNESS) == "delivered"


def test_the_pause_of_one_agent_outlives_that_of_the_town(bound: Stage) -> None:
    bound.town.desired.pause(MAX)
    bound.town.desired.pause(TOWN)

    bound.town.desired.resume(TOWN)

    assert bound.record().desired is PAUSED


def test_the_file_says_what_redis_says(bound: Stage) -> None:
    bound.run(MAXINE)
    bound.town.desired.set(MAX, STOPPED)
    bound.town.desired.pause(WITNESS)
    bound.town.desired.pause(TOWN)
    assert on_disk(bound) == {TOWN: "paused", MAX: "stopped", WITNESS: "paused"}

    ident = bound.ask("shutdown", "operator", to=MAXINE)
    assert bound.again(ident) == carry_out.WAITING
    bound.town.desired.resume(TOWN)
    bound.town.desired.resume(WITNESS)
    assert bound.again(ident) == "done"

    assert on_disk(bound) == {MAX: "stopped", MAXINE: "stopped"}


def test_a_lost_file_is_written_at_the_next_heartbeat(bound: Stage) -> None:
    bound.town.desired.pause(WITNESS)
    file_of(bound).unlink()

    heartbeat.run_heartbeat(bound.town)

    assert on_disk(bound) == {WITNESS: "paused"}


def test_an_emptied_redis_gets_back_desired_states_and_counts(bound: Stage) -> None:
    session = bound.run()
    bound.town.desired.set(DEACON, STOPPED)
    bound.town.desired.pause(WITNESS)
    heartbeat.run_heartbeat(bound.town)
    before = heartbeat.run_heartbeat(bound.town)
    empty_redis(bound)

    after = heartbeat.run_heartbeat(bound.town)

    assert (after.heartbeat_count, after.pid, after.started_at) == (3, before.pid, before.started_at)
    assert [bound.record(address).desired for address in (DEACON, WITNESS)] == [STOPPED, PAUSED]
    assert isinstance(wanted(bound, DEACON), Skip)
    assert jobs.start(DEACON, "it must keep running").startswith("left alone")
    record = bound.record()
    assert (record.incarnation, record.session) == (session.incarnation, session.name)
    assert record.started_at == session.started_at
    assert identity(bound.living()) == identity(session)
    assert len(events(bound, "restored")) == 1
    assert on_disk(bound) == {DEACON: "stopped", WITNESS: "paused"}
    assert bound.carry_out("restart", incarnation=session.incarnation)[0] == "done"


def test_the_desired_state_before_a_pause_survives_an_emptied_redis(bound: Stage) -> None:
    heartbeat.run_heartbeat(bound.town)
    bound.town.desired.set(DEACON, STOPPED)
    bound.town.desired.pause(DEACON)
    empty_redis(bound)
    heartbeat.run_heartbeat(bound.town)

    bound.town.desired.resume(DEACON)

    assert bound.record(DEACON).desired is STOPPED


def test_the_pause_of_the_whole_town_survives_an_emptied_redis(bound: Stage) -> None:
    bound.town.desired.pause(TOWN)
    empty_redis(bound)

    assert "the town is paused" in jobs.start(MAX, "a test wants it", "operator")

    assert bound.session() is None
    assert bound.town.is_paused()


def test_a_change_after_redis_was_emptied_overrides_the_file(bound: Stage) -> None:
    bound.town.desired.set(MAX, STOPPED)
    bound.town.desired.set(DEACON, STOPPED)
    empty_redis(bound)
    bound.town.desired.set(MAX, RUNNING)

    recover_after_flush(bound.town)

    assert [bound.record(address).desired for address in (MAX, DEACON)] == [RUNNING, STOPPED]
    heartbeat.run_heartbeat(bound.town)
    assert on_disk(bound) == {MAX: "running", DEACON: "stopped"}


BROKEN = [b"", b'{"gastown', b"[]", b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("content", BROKEN, ids=["empty", "cut", "list", "bytes", "deep"])
def test_a_broken_file_is_repaired_from_redis(bound: Stage, content: bytes) -> None:
    session = bound.run()
    bound.town.desired.pause(WITNESS)
    file_of(bound).write_bytes(content)

    heartbeat.run_heartbeat(bound.town)

    assert on_disk(bound) == {WITNESS: "paused"}
    assert bound.carry_out("restart", incarnation=session.incarnation)[0] == "done"


def test_a_file_that_cannot_be_written_is_reported_and_stops_nothing(
    bound: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    bound.run()
    file_of(bound).unlink(missing_ok=True)
    file_of(bound).mkdir()

    assert bound.carry_out("restart", "operator", to=MAX)[0] == "done"
    assert heartbeat.run_heartbeat(bound.town).heartbeat_count == 1

    assert "desired_not_kept" in caplog.text


@pytest.mark.parametrize("content", BROKEN, ids=["empty", "cut", "list", "bytes", "deep"])
def test_with_redis_emptied_and_a_broken_file_nothing_starts_and_the_reason_is_shown(
    bound: Stage, content: bytes
) -> None:
    """Otherwise stopped agents could be started."""
    session = bound.run()
    bound.town.desired.set(DEACON, STOPPED)
    empty_redis(bound)
    file_of(bound).write_bytes(content)
    ident = bound.ask("restart", incarnation=session.incarnation)

    assert bound.again(ident) == carry_out.WAITING
    answers = [jobs.heartbeat(), jobs.start(DEACON, "it must keep running")]

    for said in (bound.detail(ident), *answers):
        assert str(file_of(bound)) in said
        assert "move it away" in said
    assert identity(bound.living()) == identity(session)
    assert bound.session(DEACON) is None
    file_of(bound).unlink()
    assert bound.again(ident) == "done"


def test_with_redis_emptied_and_a_broken_state_file_no_session_is_ended(bound: Stage) -> None:
    session = bound.run()
    empty_redis(bound)
    (bound.town.settings.daemon_dir / "state.json").write_text("{")

    with pytest.raises(StateUnknown, match=r"state\.json"):
        heartbeat.run_heartbeat(bound.town)

    assert identity(bound.living()) == identity(session)


def test_unknown_words_in_the_file_are_ignored(bound: Stage) -> None:
    bound.town.desired.set(DEACON, STOPPED)
    empty_redis(bound)
    file_of(bound).write_text(json.dumps({DEACON: "stopped", MAX: "dancing", WITNESS: None, MAXINE: 5}))

    heartbeat.run_heartbeat(bound.town)

    found = [bound.record(address).desired for address in (DEACON, MAX, WITNESS, MAXINE)]
    assert found == [STOPPED, None, None, None]


def test_a_start_that_is_retried_after_a_shutdown_starts_nothing(bound: Stage) -> None:
    bound.run()
    assert bound.carry_out("shutdown")[0] == "done"

    answer = jobs.start(MAX, "an operator asked for it", "operator")

    assert answer == "left alone: stopped"
    assert bound.session() is None
