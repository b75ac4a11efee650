"""The process that carries out a request may be killed at any instruction; the next one resumes."""

import os
import random
import subprocess
from collections.abc import Callable
from functools import partial

import pytest

from gastown_mail.contracts.errors import Postponed
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import carry_out, heartbeat
from gastown_mail.lifecycle.start import SessionStart
from gastown_mail.sessions import processes
from gastown_mail.town.lease import Lease, hold_lease
from gastown_mail.town.records import AgentRecord
from gastown_mail.town.town import Town
from tests.integration.carriers import Carriers
from tests.support.agents import DEAF_RECORDER, MAX, RECORDED, RECORDER
from tests.support.processes import gone
from tests.support.stage import Stage
from tests.support.town import identity
from tests.support.wait import eventually

ROUNDS = 8
LONGEST = 0.7
"""Seconds that a restart of the recorder takes at most on an idle machine; the kills are spread over it."""

SLOW_TO_STOP = RECORDED.replace(RECORDER, DEAF_RECORDER)


def starts(stage: Stage) -> int:
    return len(stage.wrote("starts").read_text().split())


def has_been_tried(stage: Stage, ident: str, times: int) -> bool:
    work = stage.town.requests.progress(ident)
    return work is not None and work.attempts == times


def finish(stage: Stage, ident: str) -> str:
    """Carry the request out again and again, as the sweep would, until it is settled."""
    eventually(lambda: stage.again(ident) != carry_out.WAITING, deadline=30)
    return stage.status(ident)


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
@pytest.mark.parametrize("seed", [1, 2])
def test_after_kills_at_random_moments_each_request_is_done_and_one_session_lives(
    stage: Stage, carriers: Carriers, action: str, seed: int
) -> None:
    chance = random.Random(f"{action}{seed}")
    for _ in range(ROUNDS // 2):
        before = stage.session() or stage.run()
        begun = starts(stage)
        handoff = {"handoff": str(chance.random())} if action == "cycle" else {}
        ident = stage.ask(action, incarnation=before.incarnation, **handoff)
        carrier = carriers(stage.town, ident)

        carrier.go()
        carrier.die_after(chance.uniform(0, LONGEST))
        outcome = finish(stage, ident)

        assert outcome == "done"
        assert processes.with_incarnation(before.incarnation) == set()
        assert gone(before.pid)
        if action == "shutdown":
            assert stage.session() is None
        else:
            after = stage.living()
            stage.wait_for_incarnation(after)
            assert begun < starts(stage) <= begun + 2, "one successor, and at most one that the kill cut off"
            assert stage.record().incarnation == after.incarnation
        if action == "cycle":
            assert (stage.town.settings.handoff_dir / f"{before.name}.md").read_text() == handoff["handoff"]


def test_a_kill_while_the_agent_is_slow_to_stop_costs_nothing(
    make_town: Callable[..., Town], carriers: Carriers
) -> None:
    stage = Stage(make_town(SLOW_TO_STOP))
    first = stage.run()
    ident = stage.ask("cycle", handoff="kept")
    killed = carriers(stage.town, ident)
    killed.go()
    eventually(lambda: stage.status(ident) == "carrying")

    killed.kill()

    assert identity(stage.living()) == identity(first)
    assert finish(stage, ident) == "done"
    assert gone(first.pid)
    assert starts(stage) == 2
    assert stage.environ()["GASTOWN_INCARNATION"] == stage.living().incarnation


@pytest.mark.parametrize("action", ["cycle", "shutdown"])
def test_abandoned_work_is_finished_only_by_its_own_request(
    make_town: Callable[..., Town], carriers: Carriers, action: str
) -> None:
    stage = Stage(make_town(SLOW_TO_STOP.replace("stop_grace = 2", "stop_grace = 2\nkeep_running = true")))
    first = stage.run()
    ident = stage.ask(action)
    killed = carriers(stage.town, ident)
    killed.go()
    eventually(lambda: stage.status(ident) == "carrying")
    killed.kill()
    stage.town.sessions.end(first, grace=0.0)

    answer = jobs.start(MAX, "it must run")

    assert answer.startswith("left alone"), answer
    assert finish(stage, ident) == "done"
    if action == "cycle":
        assert starts(stage) == 2
        assert "GASTOWN_HANDOFF" in stage.environ()
    else:
        assert stage.session() is None


def test_processes_of_the_predecessor_end_before_the_successor_starts(
    make_town: Callable[..., Town], carriers: Carriers
) -> None:
    stage = Stage(make_town(SLOW_TO_STOP))
    first = stage.run()
    ident = stage.ask("restart")
    killed = carriers(stage.town, ident)
    killed.go()
    eventually(lambda: stage.status(ident) == "carrying")
    killed.kill()
    runaway = {**os.environ, "GASTOWN_INCARNATION": first.incarnation}
    with subprocess.Popen(["sleep", "600"], env=runaway, start_new_session=True) as process:
        stage.town.sessions.tmux.run("kill-session", "-t", first.id)

        assert finish(stage, ident) == "done"

        assert process.wait(60) != 0
    assert processes.with_incarnation(first.incarnation) == set()


def test_a_request_whose_worker_always_dies_fails_and_blocks_no_other(
    make_town: Callable[..., Town], carriers: Carriers
) -> None:
    stage = Stage(make_town(SLOW_TO_STOP))
    stage.run()
    ident = stage.ask("restart")
    for tries in range(1, carry_out.MAX_ATTEMPTS + 1):
        carrier = carriers(stage.town, ident)
        carrier.go()
        eventually(partial(has_been_tried, stage, ident, tries))
        carrier.kill()

    assert stage.again(ident) == "failed"

    assert "given up" in stage.detail(ident)
    assert stage.town.requests.pending(MAX) == []
    next_one = stage.ask("shutdown", "operator", to=MAX)
    assert stage.again(next_one) == "done"


def test_the_successor_is_found_when_only_its_record_was_lost(stage: Stage) -> None:
    first = stage.run()
    ident = stage.ask("restart")
    assert stage.again(ident) == "done"
    second = stage.living()
    work, record = stage.town.keys.progress(ident), stage.town.keys.request(ident)
    stage.town.redis.hset(record, "status", "carrying")
    stage.town.redis.zadd(stage.town.keys.pending(MAX), {ident: 1})
    stage.town.agents.write(MAX, AgentRecord(incarnation=first.incarnation))
    assert stage.town.redis.hget(work, "begun_at")

    assert stage.again(ident) == "done"

    assert identity(stage.living()) == identity(second)
    assert starts(stage) == 2
    assert stage.record().incarnation == second.incarnation
    assert heartbeat.run_sweep(stage.town) == 0


def test_a_successor_announced_too_late_does_not_replace_earlier_ones(stage: Stage) -> None:
    town, agent, key = stage.town, stage.agent(), stage.town.keys.lease(MAX)
    work = town.keys.progress("one")
    town.redis.hset(work, "element", "{}")

    def launch(right: Lease) -> SessionStart:
        return SessionStart(
            town, right, agent, "a test wants it", None, stage.record(),
            on_new_token=lambda pipe, tokens: pipe.hset(work, "successors", " ".join(tokens)),
        )  # fmt: skip

    with hold_lease(town.redis, key, town.host) as frozen:
        assert frozen is not None
        town.redis.delete(key)
        with hold_lease(town.redis, key, town.host) as follower:
            assert follower is not None
            session = launch(follower).run()

            with pytest.raises(Postponed, match="has taken over"):
                launch(frozen).run()

    known = town.requests.progress("one")
    assert known is not None
    assert known.successors == (session.incarnation,)
    assert stage.living() == session
