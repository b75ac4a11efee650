"""Back-off and quarantine with real sessions: an agent that keeps dying is not started again and again."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import heartbeat
from gastown_mail.lifecycle.heartbeat_policy import Skip, StartAgent
from gastown_mail.mail.events import read_latest
from gastown_mail.town.backoff import NO_HISTORY, record_start
from gastown_mail.town.town import Town
from tests.support.agents import DEACON, MAX, RECORDER, WITH_DEACON, WITNESS
from tests.support.stage import Stage
from tests.support.town import identity
from tests.support.wait import eventually

LONG = 3600
"""Seconds: longer than any test."""

FRAGILE = RECORDER.replace("sh -c '", "sh -c 'test ! -e broken || exit 3; ", 1)
"""A recorder that ends at once while its work dir contains a file `broken`."""

LOOPING = {"restart_backoff": 0, "crash_loop_count": 2, "crash_loop_window": LONG}


@pytest.fixture
def staged(make_town: Callable[..., Town]) -> Callable[..., Stage]:
    """Makes a town whose deacon should run, with these settings of its daemon."""

    def make(**daemon: object) -> Stage:
        said = "".join(f"{key} = {value}\n" for key, value in daemon.items())
        toml = WITH_DEACON.replace("[daemon]\nrestart_backoff = 0\n", f"[daemon]\n{said}")
        made = Stage(make_town(toml.replace(RECORDER, FRAGILE)))
        jobs.serving.set(made.town)
        return made

    return make


def start(stage: Stage, address: str = DEACON, by: str = "") -> str:
    return jobs.start(address, "a test wants it", by)


def die(stage: Stage, address: str = DEACON) -> None:
    """End the agent's command after it came up, as a crash would."""
    session = stage.living(address)
    os.kill(session.pid, signal.SIGKILL)
    eventually(lambda: (found := stage.session(address)) is None or found.dead)


def crash(stage: Stage, times: int) -> None:
    for _ in range(times):
        assert start(stage).startswith("started")
        die(stage)


def events(stage: Stage, name: str) -> list[dict[str, str]]:
    found = [dict(event.fields) for event in read_latest(stage.town.redis, stage.town.keys, 1000)]
    return [fields for fields in found if fields["event"] == name]


def break_down(stage: Stage, address: str = MAX) -> Path:
    """Make each start of the agent fail until the file is gone."""
    broken = stage.agent(address).work_dir / "broken"
    broken.touch()
    return broken


def wanted(stage: Stage, address: str) -> Any:
    """Return what the heartbeat would do about the agent."""
    [act] = [act for act in heartbeat.observe(stage.town)[1] if act.agent.address == address]
    return act


def test_an_agent_that_died_is_not_started_again_before_its_back_off_is_over(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(restart_backoff=LONG, restart_backoff_max=LONG)
    crash(stage, 1)

    answer = start(stage)

    assert answer.startswith("left alone: in back-off until ")
    assert stage.record(DEACON).start_history.failures == 1
    act = wanted(stage, DEACON)
    assert isinstance(act, Skip)
    assert "in back-off" in act.why
    assert len(events(stage, "started")) == 1


def test_an_agent_is_started_after_its_back_off_and_each_longer_one_is_recorded_once(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(restart_backoff=0.2)
    crash(stage, 1)

    eventually(lambda: start(stage).startswith("started"))

    assert stage.record(DEACON).start_history.failures == 2
    assert [event["agent"] for event in events(stage, "back_off")] == [DEACON]


def test_a_crash_loop_is_quarantined_and_recorded_once(staged: Callable[..., Stage]) -> None:
    stage = staged(**LOOPING, quarantine=LONG)
    crash(stage, 2)

    answers = {start(stage) for _ in range(4)}

    [answer] = answers
    assert answer.startswith("left alone: in quarantine until ")
    [event] = events(stage, "quarantined")
    assert event["agent"] == DEACON
    assert event["detail"] in answer
    assert "quarantine" in wanted(stage, DEACON).why
    assert len(events(stage, "started")) == 2
    assert start(stage, WITNESS, "operator").startswith("started")


def test_a_quarantine_ends_with_one_trial_then_the_next_begins(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(**LOOPING, quarantine=1)
    crash(stage, 2)
    assert "in quarantine" in start(stage)

    eventually(lambda: start(stage).startswith("started"))
    assert stage.record(DEACON).start_history.probation
    die(stage)

    assert "in quarantine" in start(stage)
    assert len(events(stage, "quarantined")) == 2
    assert len(events(stage, "started")) == 3


def test_a_restarted_daemon_knows_the_quarantine(staged: Callable[..., Stage]) -> None:
    stage = staged(**LOOPING, quarantine=LONG)
    crash(stage, 2)
    before = start(stage)
    reborn = Town.open(stage.town.settings, stage.town.redis_url)

    jobs.serving.set(reborn)
    after = start(stage)
    reborn.redis.close()

    assert after == before
    assert len(events(stage, "quarantined")) == 1


def test_starts_that_fail_are_a_crash_loop_too(staged: Callable[..., Stage]) -> None:
    stage = staged(**LOOPING, quarantine=LONG)
    break_down(stage, DEACON)

    answers = [start(stage) for _ in range(3)]

    assert [answer.partition(":")[0] for answer in answers] == ["failed", "failed", "left alone"]
    assert "in quarantine" in answers[-1]
    assert len(events(stage, "back_off")) == 2


def test_an_operator_may_start_an_agent_in_back_off(staged: Callable[..., Stage]) -> None:
    stage = staged(restart_backoff=LONG, restart_backoff_max=LONG)
    crash(stage, 1)
    history = stage.record(DEACON).start_history
    assert start(stage).startswith("left alone")

    assert start(stage, by="operator").startswith("started")

    stage.living(DEACON)
    assert stage.record(DEACON).start_history == history


def test_after_a_failed_start_no_cycle_begins_until_the_back_off_is_cleared(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(restart_backoff=LONG, restart_backoff_max=LONG)
    stage.run()
    broken = break_down(stage)
    status, why = stage.carry_out("cycle", "operator", to=MAX, handoff="mine")
    assert (status, stage.session()) == ("failed", None), why
    assert stage.record().start_history.failed
    tries = len(events(stage, "start_failed"))
    broken.unlink()

    status, why = stage.carry_out("cycle", "operator", to=MAX, handoff="other")

    assert status == "refused"
    assert "gastown-mail clear" in why
    assert len(events(stage, "carrying")) == 1
    assert len(events(stage, "start_failed")) == tries
    assert stage.town.redis.get(stage.town.keys.handoff(MAX)) == b"mine"
    stage.town.agents.write_start_history(MAX, NO_HISTORY)
    assert stage.carry_out("cycle", "operator", to=MAX, handoff="third")[0] == "done"
    assert not stage.record().start_history.failed


@pytest.mark.parametrize("action", ["cycle", "restart"])
def test_a_living_session_is_not_ended_for_a_successor_that_has_just_failed(
    staged: Callable[..., Stage], action: str
) -> None:
    stage = staged(restart_backoff=LONG, restart_backoff_max=LONG)
    session = stage.run()
    now = session.started_at + timedelta(seconds=1)
    stage.town.agents.write_start_history(
        MAX, record_start(NO_HISTORY, now, stage.town.settings.daemon, failed=True)
    )

    status, why = stage.carry_out(action, incarnation=session.incarnation)

    assert status == "refused"
    assert "the last start of gastown/crew/max failed" in why
    assert identity(stage.living()) == identity(session)
    assert events(stage, "carrying") == []
    stage.town.agents.write_start_history(MAX, NO_HISTORY)
    assert stage.carry_out(action, incarnation=session.incarnation)[0] == "done"


def test_a_shutdown_is_carried_out_during_a_back_off(staged: Callable[..., Stage]) -> None:
    stage = staged(restart_backoff=LONG, restart_backoff_max=LONG)
    session = stage.run()
    now = session.started_at + timedelta(seconds=1)
    gate = record_start(NO_HISTORY, now, stage.town.settings.daemon, failed=True)
    stage.town.agents.write_start_history(MAX, gate)

    assert stage.carry_out("shutdown", incarnation=session.incarnation)[0] == "done"

    assert stage.session() is None


def test_a_successor_that_did_not_start_is_started_later_with_its_handoff(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(restart_backoff=0)
    session = stage.run()
    assert not stage.agent().keep_running
    stage.wait_for_incarnation(session)
    broken = break_down(stage)

    assert stage.carry_out("cycle", handoff="go on with #7")[0] == "failed"

    assert stage.record().successor_owed
    act = wanted(stage, MAX)
    assert isinstance(act, StartAgent)
    assert "a request ended it" in act.why
    broken.unlink()
    stage.forget_what_was_written()
    assert start(stage, MAX).startswith("started")
    file = stage.town.handoff_file(stage.agent())
    assert stage.environ()["GASTOWN_HANDOFF"] == str(file)
    assert file.read_text() == "go on with #7"
    assert not stage.record().successor_owed
    die(stage, MAX)
    assert isinstance(wanted(stage, MAX), Skip)


def test_a_heartbeat_forgets_the_history_of_a_session_that_is_stable(staged: Callable[..., Stage]) -> None:
    stage = staged(restart_backoff=0, crash_loop_window=1)
    crash(stage, 1)
    assert start(stage).startswith("started")
    assert stage.record(DEACON).start_history != NO_HISTORY

    def forgotten() -> bool:
        heartbeat.run_heartbeat(stage.town)
        return stage.record(DEACON).start_history == NO_HISTORY

    eventually(forgotten)
    heartbeat.run_heartbeat(stage.town)
    assert [event["agent"] for event in events(stage, "recovered")] == [DEACON]


def test_a_heartbeat_remembers_the_history_of_a_session_that_is_young_or_dead(
    staged: Callable[..., Stage],
) -> None:
    stage = staged(restart_backoff=0, crash_loop_window=LONG)
    assert start(stage).startswith("started")
    history = stage.record(DEACON).start_history

    heartbeat.run_heartbeat(stage.town)
    die(stage)
    heartbeat.run_heartbeat(stage.town)

    assert stage.record(DEACON).start_history == history != NO_HISTORY
