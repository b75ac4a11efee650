"""Requests carried out on real sessions: what they leave alone, and that acts keep their order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gastown_mail.contracts.go_formats import format_time
from gastown_mail.lifecycle import carry_out
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.integration.carriers import Carriers
from tests.support.agents import DEAF_RECORDER, MAX, MAXINE, RECORDED, RECORDER, WITNESS
from tests.support.processes import gone
from tests.support.stage import Stage
from tests.support.town import element, identity
from tests.support.wait import eventually


@pytest.mark.parametrize("action", ["cycle", "restart"])
@pytest.mark.parametrize("missing", ["work dir", "program"])
def test_no_session_is_ended_when_its_successor_cannot_be_started(
    make_town: Callable[..., Town], action: str, missing: str
) -> None:
    program = "{town}/bin-{name} {prompt}"
    stage = Stage(make_town(RECORDED.replace(RECORDER, program)))
    binary = stage.town.settings.town_root / "bin-max"
    binary.write_text("#!/bin/sh\nexec sleep 600\n")
    binary.chmod(0o755)
    session = stage.run()
    if missing == "program":
        binary.unlink()
    else:
        stage.agent().work_dir.rename(stage.agent().work_dir.with_name("moved"))

    outcome, detail = stage.carry_out(action)

    assert outcome == "refused"
    assert ("bin-max" if missing == "program" else str(stage.agent().work_dir)) in detail
    assert identity(stage.living()) == identity(session)
    assert stage.town.redis.zcard(stage.town.keys.dead) == 1


def test_a_second_copy_and_a_redelivered_job_change_nothing(stage: Stage) -> None:
    first = stage.run()
    wish = element(MAX, "restart", incarnation=first.incarnation)
    ident = stage.push(wish)
    assert stage.again(ident) == "done"
    second = stage.living()

    assert stage.push(wish) == ident
    assert stage.again(ident) == "done"

    assert identity(stage.living()) == identity(second)
    assert len(stage.wrote("starts").read_text().split()) == 2
    assert stage.town.requests.unsettled() == {}


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
def test_a_late_request_of_the_predecessor_spares_the_successor(stage: Stage, action: str) -> None:
    first = stage.run()
    asked = format_time(datetime.now(UTC))
    assert stage.carry_out("restart")[0] == "done"
    second = stage.living()

    with_token, _ = stage.carry_out(action, incarnation=first.incarnation)
    without_token, _ = stage.carry_out(action, timestamp=asked)

    assert (with_token, without_token) == ("superseded", "superseded")
    assert identity(stage.living()) == identity(second)
    assert stage.record().desired is Desired.RUNNING


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
def test_a_session_that_a_person_made_is_never_touched(stage: Stage, action: str) -> None:
    tmux, name = stage.town.sessions.tmux, stage.agent().session
    tmux.run("new-session", "-d", "-s", name, "exec sleep 600")
    foreign = stage.living()

    outcome, detail = stage.carry_out(action, "operator", to=MAX)

    assert outcome == "refused"
    assert "not managed" in detail
    assert identity(stage.living()) == identity(foreign)


def test_a_session_with_the_same_name_prefix_survives(stage: Stage) -> None:
    sibling = stage.run(MAXINE)

    for action in ("shutdown", "restart", "shutdown"):
        stage.carry_out(action, "operator", to=MAX)
        assert identity(stage.living(MAXINE)) == identity(sibling)
    assert stage.session(MAX) is None


def test_while_tmux_does_not_answer_nothing_is_touched_or_lost(stage: Stage) -> None:
    first = stage.run()
    ident = stage.ask("restart")

    with stage.tmux_stopped(first.server):
        assert stage.again(ident) == carry_out.WAITING
        assert "did not answer" in stage.detail(ident)
        assert stage.status(ident) == "received"
        assert not gone(first.pid)

    assert identity(stage.living()) == identity(first)
    assert stage.again(ident) == "done"
    assert gone(first.pid)
    assert len(stage.wrote("starts").read_text().split()) == 2


def test_a_pause_between_asking_and_carrying_out_is_honoured(stage: Stage) -> None:
    session = stage.run()
    ident = stage.ask("restart")

    stage.town.desired.pause(MAX)

    assert stage.again(ident) == "refused"
    assert identity(stage.living()) == identity(session)


def test_an_old_request_expires(stage: Stage) -> None:
    session = stage.run()
    asked = format_time(datetime.now(UTC) - timedelta(hours=2))

    outcome, detail = stage.carry_out("shutdown", incarnation=session.incarnation, timestamp=asked)

    assert outcome == "expired"
    assert detail == "asked for 2h ago; revive it if still meant"
    assert identity(stage.living()) == identity(session)


def test_a_removed_agent_is_refused_and_a_removed_sender_is_not(stage: Stage) -> None:
    max_, maxine = stage.run(MAX), stage.run(MAXINE)
    for_max = stage.ask("restart", WITNESS, to=MAX)
    for_maxine = stage.ask("restart", WITNESS, to=MAXINE)
    file = stage.town.settings.town_root / "town.toml"
    for address in (WITNESS, MAXINE):
        file.write_text(file.read_text().replace(f'[agents."{address}"]', ""))
    eventually(lambda: WITNESS not in stage.town.roster().agents)

    assert stage.again(for_max) == "done"
    assert stage.again(for_maxine) == "refused"

    assert identity(stage.living(MAX)) != identity(max_)
    assert not gone(maxine.pid)


def test_the_last_of_two_simultaneous_requests_decides(stage: Stage) -> None:
    first = stage.run()
    restart, shutdown = stage.ask("restart"), stage.ask("shutdown")

    assert stage.again(shutdown) == "done"

    assert stage.status(restart) == "superseded"
    assert shutdown in stage.detail(restart)
    assert stage.session() is None
    assert len(stage.wrote("starts").read_text().split()) == 1
    assert gone(first.pid)


def test_requests_for_one_agent_keep_their_order_and_never_overlap(
    make_town: Callable[..., Town], carriers: Carriers
) -> None:
    slow = RECORDED.replace(RECORDER, DEAF_RECORDER).replace("stop_grace = 2", "stop_grace = 5")
    stage = Stage(make_town(slow))
    first = stage.run()
    restart = stage.ask("restart", "operator", to=MAX)
    one = carriers(stage.town, restart)
    two = carriers(stage.town, restart)

    one.go()
    eventually(lambda: stage.status(restart) == "carrying")
    later = stage.ask("restart", "operator", to=MAX)
    two.go()

    assert two.answer() == carry_out.WAITING
    assert not gone(first.pid)
    assert one.answer() == "done"
    waiting = stage.town.queues.lifecycle(stage.town.host).job_ids
    assert stage.town.keys.job_id("request", later) in waiting
    assert stage.again(later) == "superseded", "it was sent before the successor existed"
    assert len(stage.wrote("starts").read_text().split()) == 2


def test_two_workers_with_requests_of_one_agent_start_one_successor(stage: Stage, carriers: Carriers) -> None:
    stage.run()
    restart = stage.ask("restart", "operator", to=MAX)
    cycle = stage.ask("cycle", "operator", to=MAX, handoff="from the second")
    both = [carriers(stage.town, cycle), carriers(stage.town, restart)]

    for one in both:
        one.go()

    assert {one.answer() for one in both} <= {"done", "superseded", carry_out.WAITING}
    assert [stage.again(ident) for ident in (restart, cycle)] == ["superseded", "done"]
    assert len(stage.wrote("starts").read_text().split()) == 2
    assert stage.environ()["GASTOWN_INCARNATION"] == stage.living().incarnation
