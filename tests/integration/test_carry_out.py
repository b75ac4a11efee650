"""Requests carried out on real sessions: what a cycle, a restart and a shutdown do."""

import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import heartbeat
from gastown_mail.lifecycle.heartbeat_policy import StartAgent
from gastown_mail.plumbing.environment import own_command
from gastown_mail.sessions.processes import with_incarnation
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.integration.tmux_world import python
from tests.support.agents import MAX, MAXINE, RECORDED, RECORDER, WITNESS
from tests.support.parts import accept_inbox
from tests.support.processes import gone
from tests.support.stage import Stage
from tests.support.town import element
from tests.support.wait import eventually

NOTES = "tests are green\nnext: merge #12 & 'tidy up' — ¿sí? 🙂\n"


def test_a_cycle_hands_the_notes_over_to_a_fresh_session(stage: Stage) -> None:
    first = stage.run()
    stage.forget_what_was_written()

    outcome, detail = stage.carry_out("cycle", handoff=NOTES, reason="context is full")

    second = stage.living()
    assert outcome == "done"
    assert str(second.pid) in detail
    assert second.incarnation != first.incarnation
    assert gone(first.pid)
    file = stage.town.settings.handoff_dir / f"{first.name}.md"
    assert file.read_text() == NOTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stage.town.redis.get(stage.town.keys.handoff(MAX)) == NOTES.encode()
    assert stage.environ()["GASTOWN_HANDOFF"] == str(file)
    prompt = stage.wrote("prompt").read_text()
    for word in (str(file), MAX, "context is full"):
        assert word in prompt


def test_a_cycle_without_notes_hands_over_the_screen_the_sender_and_the_reason(stage: Stage) -> None:
    first = stage.run()
    stage.town.sessions.tmux.run("send-keys", "-t", first.pane, "-l", "was deep in the parser")
    eventually(lambda: "parser" in stage.town.sessions.capture_screen(first))

    outcome, _ = stage.carry_out("cycle", WITNESS, to=MAX, reason="stuck for an hour")

    assert outcome == "done"
    handoff = (stage.town.settings.handoff_dir / f"{first.name}.md").read_text()
    for word in ("was deep in the parser", WITNESS, "stuck for an hour"):
        assert word in handoff


def test_a_restart_is_a_clean_start_without_any_handoff(stage: Stage) -> None:
    first = stage.run()
    assert stage.carry_out("cycle", handoff=NOTES)[0] == "done"
    stage.forget_what_was_written()

    outcome, _ = stage.carry_out("restart")

    assert outcome == "done"
    assert stage.living().incarnation != first.incarnation
    assert "GASTOWN_HANDOFF" not in stage.environ()
    assert "handoff" not in stage.wrote("prompt").read_text()
    assert list(stage.town.settings.handoff_dir.iterdir()) == []
    assert stage.town.redis.get(stage.town.keys.handoff(MAX)) is None


def test_an_agent_that_was_shut_down_stays_down(make_town: Callable[..., Town]) -> None:
    stage = Stage(make_town(RECORDED.replace("stop_grace = 2", "stop_grace = 2\nkeep_running = true")))
    first = stage.run()

    outcome, _ = stage.carry_out("shutdown")

    assert outcome == "done"
    assert stage.session() is None
    assert gone(first.pid)
    assert stage.record().desired is Desired.STOPPED
    heartbeat.run_heartbeat(stage.town)
    heartbeat.run_sweep(stage.town)
    assert not any(MAX in job.args for job in stage.town.queues.lifecycle(stage.town.host).jobs)
    assert jobs.start(MAX, "a job that was queued before").startswith("left alone")
    assert stage.carry_out("restart") == ("superseded", "its session is gone")
    assert stage.session() is None


def test_a_session_finds_its_town_and_itself_in_its_environment_and_nothing_else(
    make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GASTOWN_AGENT", "GASTOWN_INCARNATION", "GT_ROLE", "GASTOWN_HOST", "TMUX", "MY_SECRET"):
        monkeypatch.setenv(name, "the-daemons-own")
    toml = RECORDED.replace(f'[agents."{MAX}"]', f'[agents."{MAX}"]\nenv = {{ MODEL = "big $HOME" }}')
    monkeypatch.delenv("GASTOWN_HOST")
    stage = Stage(make_town(toml))
    stage.run(WITNESS)

    session = stage.run()

    found, town = stage.environ(), stage.town.settings
    assert {name: found[name] for name in found if name.startswith(("GASTOWN_", "GT_"))} == {
        "GASTOWN_TOWN": str(town.town_root),
        "GASTOWN_TOWN_NAME": town.town_name,
        "GASTOWN_REDIS_URL": stage.town.redis_url,
        "GASTOWN_AGENT": MAX,
        "GASTOWN_INCARNATION": session.incarnation,
        "GASTOWN_MAIL": own_command(),
        "GT_ROLE": "crew",
    }
    assert found["MODEL"] == "big $HOME"
    assert "the-daemons-own" not in found.values()
    option = stage.town.sessions.tmux.run("show-options", "-v", "-t", session.id, "@gastown_incarnation")
    assert option.strip() == session.incarnation
    record = stage.record()
    assert (record.session, record.incarnation, record.host) == (
        session.name, session.incarnation, stage.town.host,
    )  # fmt: skip


RUNAWAYS = """
import os, subprocess, sys, time
def note(pid): print(pid, file=open('pids', 'a'), flush=True)
note(os.getpid())
note(subprocess.Popen(['sleep', '600']).pid)
note(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)
deaf = 'trap "" TERM HUP; while :; do sleep 1; done'
note(subprocess.Popen(['sh', '-c', deaf], start_new_session=True).pid)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note(os.getpid())
        open('ready', 'w')
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


@pytest.fixture
def bystander() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process.pid
        process.kill()


def test_the_whole_tree_of_a_session_ends_and_nothing_else(
    make_town: Callable[..., Town], bystander: int
) -> None:
    stage = Stage(make_town(RECORDED.replace(RECORDER, python(RUNAWAYS).removeprefix("exec "))))
    first, other = stage.run(), stage.run("gastown/crew/maxine")
    stage.wrote("ready")
    pids = [int(word) for word in stage.wrote("pids").read_text().split()]

    outcome, _ = stage.carry_out("shutdown")

    assert outcome == "done"
    assert len(pids) == 5
    assert all(map(gone, pids))
    assert with_incarnation(first.incarnation) == set()
    assert len(with_incarnation(other.incarnation)) >= 4
    assert not gone(bystander)


def test_a_command_that_ends_at_once_fails_with_its_last_output(make_town: Callable[..., Town]) -> None:
    once = "sh -c 'echo $$ >> starts; [ -e broken ] && echo out of tokens && sleep 0.1 && exit 3; sleep 600'"
    stage = Stage(make_town(RECORDED.replace(RECORDER, once)))
    first = stage.run()
    (stage.agent().work_dir / "broken").touch()

    outcome, detail = stage.carry_out("restart")

    assert outcome == "failed"
    assert "status 3" in detail
    assert "out of tokens" in detail
    assert len(stage.wrote("starts").read_text().split()) == 1 + 3
    assert gone(first.pid)
    assert stage.session() is None
    assert stage.record().desired is Desired.RUNNING
    assert stage.town.redis.zcard(stage.town.keys.dead) == 1


def test_a_failed_cycle_leaves_its_notes_for_the_start_that_works(make_town: Callable[..., Town]) -> None:
    once = RECORDER.replace("sh -c '", "sh -c '[ -e broken ] && exit 3; ", 1)
    stage = Stage(make_town(RECORDED.replace(RECORDER, once)))
    stage.run()
    stage.forget_what_was_written()
    broken = stage.agent().work_dir / "broken"
    broken.touch()
    assert stage.carry_out("cycle", handoff=NOTES)[0] == "failed"
    broken.unlink()

    [due] = [act for act in heartbeat.observe(stage.town)[1] if isinstance(act, StartAgent)]
    jobs.start(due.agent.address, due.why)

    assert due.agent.address == MAX
    assert Path(stage.environ()["GASTOWN_HANDOFF"]).read_text() == NOTES


def test_many_requests_of_one_agent_leave_nothing_in_the_way_of_another(stage: Stage) -> None:
    stage.run(MAX)
    town, ids = stage.town, [f"r{number}" for number in range(300)]
    for ident in ids:
        town.redis.rpush(town.keys.inbox, element(MAX, "restart", id=ident))
    town.redis.rpush(town.keys.inbox, element("gastown/witness", "restart", id="another", to=MAXINE))
    accept_inbox(town)

    assert stage.again(ids[0]) == "superseded"

    statuses = [record["status"] for record in town.requests.records(ids)]
    assert statuses == ["superseded"] * 299 + ["done"]
    first = town.queues.request_job_id(ids[0])
    last = town.queues.request_job_id(ids[-1])
    left = set(town.queues.lifecycle(town.host).get_job_ids()) - {first, last}
    assert left == {town.queues.request_job_id("another")}
