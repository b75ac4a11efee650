"""The heartbeat and the sweep with real sessions and a real Redis."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.state import load_state, state_file
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import heartbeat
from gastown_mail.mail.events import read_latest
from gastown_mail.town import queues
from gastown_mail.town.lease import Lease
from gastown_mail.town.town import Town
from tests.support.agents import DEACON, MAX, RECORDED, WITH_DEACON, WITNESS
from tests.support.stage import Stage
from tests.support.town import identity
from tests.support.wait import eventually

IDLE = "[daemon]\nfresh_after = 0\n"
POKE = "HEARTBEAT: check your workers"


def queued(stage: Stage) -> list[tuple[str, ...]]:
    """Return function and arguments of the jobs in the town's lifecycle queue."""
    return [
        (str(job.func_name).rpartition(".")[2], *map(str, job.args))
        for job in stage.town.queues.lifecycle(stage.town.host).jobs
    ]


def run_queued(stage: Stage) -> list[str]:
    """Run the queued jobs like a worker; return their results."""
    jobs.serving.set(stage.town)
    queue = stage.town.queues.lifecycle(stage.town.host)
    waiting = queue.jobs
    stage.town.redis.delete(queue.key)
    return [str(job.func(*job.args)) for job in waiting]


def has_ended(stage: Stage, address: str) -> bool:
    session = stage.session(address)
    return session is not None and session.dead


def event_names(stage: Stage) -> list[str]:
    return [event.fields["event"] for event in read_latest(stage.town.redis, stage.town.keys, 100)]


@pytest.fixture
def idle(make_town: Callable[..., Town]) -> Stage:
    """A town in which an agent is idle as soon as it is silent."""
    return Stage(make_town(RECORDED.replace("[daemon]\n", IDLE)))


def test_an_agent_that_should_run_is_started_once_for_many_heartbeats(
    make_town: Callable[..., Town],
) -> None:
    stage = Stage(make_town(WITH_DEACON))
    heartbeat.run_heartbeat(stage.town)
    heartbeat.run_heartbeat(stage.town)
    heartbeat.run_sweep(stage.town)

    assert [(name, address) for name, address, *_ in queued(stage)] == [("start", DEACON)]
    [answer] = run_queued(stage)

    assert answer.startswith("started")
    assert len(stage.wrote("starts", DEACON).read_text().split()) == 1
    heartbeat.run_heartbeat(stage.town)
    assert queued(stage) == []


def test_an_ended_agent_is_started_again_only_if_it_should_run(
    make_town: Callable[..., Town],
) -> None:
    stage = Stage(make_town(WITH_DEACON))
    for address in (DEACON, MAX):
        session = stage.run(address)
        stage.wrote("prompt", address)
        stage.town.sessions.tmux.run("send-keys", "-t", session.pane, "C-d")
        eventually(partial(has_ended, stage, address))

    heartbeat.run_heartbeat(stage.town)
    run_queued(stage)

    assert not stage.living(DEACON).dead
    left = stage.session(MAX)
    assert left is not None
    assert left.dead
    assert "keep_running" in stage.record(MAX).decision


def test_an_idle_agent_gets_its_poke_as_one_line(idle: Stage) -> None:
    idle.run(WITNESS)
    idle.run(MAX)
    idle.wrote("prompt", WITNESS)
    idle.wait_until_quiet(WITNESS)

    heartbeat.run_heartbeat(idle.town)

    eventually(lambda: idle.wrote("lines", WITNESS).read_text() == f"{POKE}\n")
    assert not (idle.agent(MAX).work_dir / "lines").exists(), "crew members have no poke"
    record = idle.record(WITNESS)
    assert abs(datetime.now(UTC) - record.last_poke) < timedelta(seconds=30)
    assert record.decision == "delivered"
    assert idle.record(MAX).decision == "not poked: it has no poke"


def test_a_recently_poked_agent_is_not_poked_again(idle: Stage) -> None:
    idle.run(WITNESS)
    idle.wrote("prompt", WITNESS)
    idle.wait_until_quiet(WITNESS)

    for _ in range(3):
        heartbeat.run_heartbeat(idle.town)
    idle.wait_until_quiet(WITNESS)
    heartbeat.run_heartbeat(idle.town)

    assert event_names(idle).count("poke") == 1
    assert "due at" in idle.record(WITNESS).decision


def test_an_unmanaged_session_is_neither_poked_nor_replaced(make_town: Callable[..., Town]) -> None:
    stage = Stage(make_town(WITH_DEACON.replace("[daemon]\n", IDLE).replace('poke = ""', 'poke = "hello"')))
    work_dir = stage.agent(DEACON).work_dir
    name = stage.agent(DEACON).session
    stage.town.sessions.tmux.run("new-session", "-d", "-s", name, f"cat > {work_dir}/lines")
    foreign = stage.living(DEACON)

    heartbeat.run_heartbeat(stage.town)

    assert queued(stage) == []
    assert identity(stage.living(DEACON)) == identity(foreign)
    assert stage.wrote("lines", DEACON).read_text() == ""
    assert "not managed" in stage.record(DEACON).decision


def test_after_each_heartbeat_the_file_says_what_redis_says(stage: Stage) -> None:
    for number in range(1, 4):
        state = heartbeat.run_heartbeat(stage.town)

        assert state.heartbeat_count == number
        assert load_state(stage.town.settings.town_root) == stage.town.state.read() == state
        assert state.running
        assert state.pid == os.getpid()
        assert state.last_heartbeat >= state.started_at
    assert event_names(stage).count("heartbeat") == 3


def test_a_heartbeat_without_a_snapshot_is_not_counted(stage: Stage) -> None:
    session = stage.run()
    heartbeat.run_heartbeat(stage.town)
    before = state_file(stage.town.settings.town_root).read_bytes()

    with stage.tmux_stopped(session.server):
        jobs.serving.set(stage.town)
        with pytest.raises(StateUnknown):
            heartbeat.run_heartbeat(stage.town)
        assert jobs.heartbeat().startswith("failed")

    assert state_file(stage.town.settings.town_root).read_bytes() == before
    assert queued(stage) == []
    assert identity(stage.living()) == identity(session)
    assert jobs.heartbeat() == "heartbeat 2"


def test_only_one_heartbeat_runs_at_a_time(stage: Stage) -> None:
    jobs.serving.set(stage.town)
    other = Lease(stage.town.redis, stage.town.keys.heartbeat(stage.town.host), stage.town.host)
    assert other.acquire()

    assert "another" in jobs.heartbeat()

    other.release()
    assert jobs.heartbeat() == "heartbeat 1"


def lose_the_job(stage: Stage, ident: str) -> None:
    """Remove the job as if a worker had taken it from the queue and died."""
    queue = stage.town.queues.lifecycle(stage.town.host)
    job_id = stage.town.keys.job_id("request", ident)
    assert stage.town.redis.lrem(queue.key, 0, job_id) == 1


def test_the_sweep_requeues_a_request_whose_job_is_lost(stage: Stage) -> None:
    first = stage.run()
    ident = stage.ask("restart")
    lose_the_job(stage, ident)

    assert heartbeat.run_sweep(stage.town) == 1

    assert queued(stage) == [("carry_out", ident)]
    assert run_queued(stage) == ["done"]
    assert identity(stage.living()) != identity(first)


def test_the_sweep_leaves_queued_and_running_requests_alone(stage: Stage) -> None:
    waits, acted_on = stage.ask("restart"), stage.ask("restart", WITNESS)
    lose_the_job(stage, acted_on)
    other = Lease(stage.town.redis, stage.town.keys.lease(WITNESS), stage.town.host)
    assert other.acquire()

    assert heartbeat.run_sweep(stage.town) == 0
    assert queued(stage) == [("carry_out", waits)]

    other.release()
    assert heartbeat.run_sweep(stage.town) == 1
    assert sorted(queued(stage)) == sorted([("carry_out", waits), ("carry_out", acted_on)])


def test_the_sweep_expires_an_old_request_whose_agent_left_the_town(stage: Stage) -> None:
    ident = stage.ask("restart")
    lose_the_job(stage, ident)
    file: Path = stage.town.settings.town_root / "town.toml"
    file.write_text(file.read_text().replace(f'[agents."{MAX}"]', ""))
    eventually(lambda: MAX not in stage.town.roster().agents)

    heartbeat.run_sweep(stage.town)
    assert stage.status(ident) == "received", "it may come back"
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    stage.town.redis.zadd(stage.town.keys.unsettled, {ident: long_ago.timestamp()})
    heartbeat.run_sweep(stage.town)

    assert stage.status(ident) == "expired"
    assert stage.town.redis.zscore(stage.town.keys.dead, ident) is not None
    assert stage.town.requests.pending(MAX) == []


def test_an_old_request_expires_when_a_worker_takes_it(stage: Stage) -> None:
    asked = format_time(datetime.now(UTC) - timedelta(hours=2))
    ident = stage.ask("restart", timestamp=asked)
    lose_the_job(stage, ident)

    heartbeat.run_sweep(stage.town)

    assert run_queued(stage) == ["expired"]
    assert stage.status(ident) == "expired"


def test_the_towns_job_ids_are_valid_for_rq(stage: Stage) -> None:
    stage.ask("restart")
    stage.town.queues.enqueue_start(stage.agent(), "a test wants it")

    queue = stage.town.queues.lifecycle(stage.town.host)

    assert {str(job.func_name) for job in queue.jobs} == {queues.CARRY_OUT, queues.START}
    assert all(stage.town.settings.town_name in job_id for job_id in queue.job_ids)
