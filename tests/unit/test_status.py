"""What `status` makes of the collected facts: the verdict, its reasons, and the table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gastown_mail.cli.status import _clock, format_agents, format_report, note, summarize
from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.state import State
from gastown_mail.plumbing.locks import LockHolder
from gastown_mail.sessions.panes import Session, Snapshot
from gastown_mail.sessions.session import Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.status.collect import _WORKER_TIMEOUT, _daemon, _oldest_age, _WorkerInfo
from gastown_mail.status.health import format_short, with_verdict
from gastown_mail.status.model import (
    AgentStatus,
    Daemon,
    Heartbeat,
    Host,
    InboxStatus,
    Report,
)
from gastown_mail.status.rows import agent_status
from gastown_mail.town.backoff import StartHistory
from gastown_mail.town.observed import Observation
from gastown_mail.town.places import Places
from gastown_mail.town.records import AgentRecord, Desired

NOW = datetime(2025, 12, 20, 12, 0, 0, tzinfo=UTC)
HERE, THERE = "here", "there"
DEACON = Agent(
    address="deacon/", role="deacon", rig="", name="", session="gt-deacon", work_dir=Path("/t"), command="sh",
    poke="run", keep_running=True, stop_grace=5, env={}, host=HERE, declared_host=HERE,
)  # fmt: skip
ALIVE = Session(
    name="gt-deacon", id="$1", pane="%1", pid=1, incarnation="t" * 32, generation=1, agent="deacon/",
    dead=False, exit_status=None, attached=0, activity=NOW - timedelta(seconds=5),
    started_at=NOW - timedelta(minutes=2), foreground="sh", in_mode=False, server=2,
)  # fmt: skip


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


PLACES = Places(Sessions(Tmux("nowhere", environ={})), HERE, "a machine", "a boot")
NO_RECORD = AgentRecord()
READY = Observation(AgentState.READY, since=ago(minutes=4), active=ALIVE.activity)


def row(
    record: AgentRecord | None = NO_RECORD,
    session: Session | None = ALIVE,
    seen: Observation = READY,
    **of: Any,
) -> AgentStatus:
    """Return the status of a deacon that is ready; without a session it is in the state `none`."""
    session = session and replace(session, agent=of.get("address", session.agent))
    if (host := of.pop("host", HERE)) != HERE:
        of["declared_host"], session = host, None
    sessions = Snapshot({session.name: session} if session else {})
    seen = seen if session else Observation(AgentState.NONE, since=ago(hours=3))
    if host != HERE:
        seen = Observation(AgentState.ELSEWHERE, f"on host {host}")
    return agent_status(replace(DEACON, **of), sessions, seen, record, PLACES, now=NOW)


def well(**parts: Any) -> Report:
    """Return the facts of a served town with the test's changes."""
    given: dict[str, Any] = {
        "town": "t", "root": "/t", "asked": NOW,
        "daemon": Daemon(held=True, pid=7, running=True, since=ago(hours=2), state_from="redis", state_age=0),
        "heartbeat": Heartbeat(count=3, last=ago(seconds=9), age=9, next=NOW, due_in=51, interval=60),
        "hosts": [Host(host=HERE, here=True, lifecycle=2, expected=2, heartbeat=1)],
        "mail": InboxStatus(clerk=True, inbox=0, taken=0, open=0, dead=0),
        "agents": [row()],
    }  # fmt: skip
    return with_verdict(Report(**given | parts))


def heartbeat(**parts: Any) -> Heartbeat:
    beat: dict[str, Any] = {
        "count": 3,
        "last": ago(seconds=9),
        "age": 9,
        "next": NOW,
        "due_in": 51,
        "interval": 60,
    }
    return Heartbeat(**beat | parts)


def verdict(report: Report) -> str:
    """The first line of what `status` prints."""
    return format_report(report)[0]


def test_a_served_town_is_running_and_the_first_line_says_so() -> None:
    assert verdict(well()) == "t: running"


def test_a_town_whose_state_says_stopped_is_stopped_even_if_the_rest_is_unknown() -> None:
    report = well(
        daemon=Daemon(held=False, running=False), unknown={"redis": "it is gone"}, hosts=None, mail=None
    )

    assert verdict(report) == "t: stopped"
    assert report.troubles == []
    assert any("Redis does not answer: it is gone" in line for line in format_report(report))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"daemon": Daemon(held=False, running=True)}, "no daemon holds the town"),
        ({"daemon": Daemon(held=True, pid=7, frozen=True, running=True)}, "the daemon is suspended"),
        ({"daemon": Daemon(held=True, running=False)}, "the daemon is starting or stopping"),
        ({"unknown": {"redis": "why"}}, "Redis does not answer"),
        ({"unknown": {"tmux": "why"}}, "tmux does not answer"),
        ({"heartbeat": heartbeat(age=120)}, "the last heartbeat was 2m ago"),
        ({"heartbeat": heartbeat(last=None, age=None)}, "no heartbeat since the start 2h ago"),
        ({"heartbeat": heartbeat(due_in=None)}, "the heartbeat is not on the schedule"),
        ({"heartbeat": heartbeat(due_in=-11)}, "the heartbeat is overdue by 11s"),
        ({"hosts": [Host(host=HERE, here=True, lifecycle=1, expected=2, heartbeat=1)]},
         "1 of 2 lifecycle workers on here"),
        ({"hosts": [Host(host=THERE, here=False, lifecycle=0, heartbeat=0)]},
         "no lifecycle worker on there; no heartbeat worker on there"),
        ({"mail": InboxStatus(clerk=False, inbox=0, taken=0, open=0, dead=0)}, "no clerk reads the inbox"),
        ({"agents": [row(session=None)]}, "deacon/ must run and does not"),
    ],
)  # fmt: skip
def test_a_problem_degrades_the_town_and_is_named_in_the_first_line(parts: Any, reason: str) -> None:
    report = well(**parts)

    assert verdict(report) == f"t: degraded: {reason}"
    assert all(trouble.remedy for trouble in report.troubles)


@pytest.mark.parametrize(
    "parts",
    [
        {"heartbeat": heartbeat(age=119)},
        {"heartbeat": heartbeat(due_in=-9)},
        {"hosts": [Host(host=THERE, here=False, lifecycle=1, heartbeat=1)]},
        {"agents": [row(session=None, keep_running=False)]},
        {"agents": [row(AgentRecord(desired=Desired.STOPPED), None)]},
        {"agents": [row(host=THERE)]},
        {"agents": [agent_status(DEACON, None, None, AgentRecord(), PLACES, now=NOW)]},
    ],
)
def test_what_is_right_or_unknown_does_not_degrade_the_town(parts: Any) -> None:
    assert well(**parts).verdict == "running"


def test_many_down_agents_are_counted() -> None:
    down = [row(session=None, address=f"rig/crew/{name}") for name in "abcde"]

    assert verdict(well(agents=down)).endswith(
        "rig/crew/a, rig/crew/b, rig/crew/c and 2 more must run and do not"
    )


MISSING = "the work dir /t does not exist; create it, or set work_dir for rig/crew/{}"


def test_agents_with_the_same_fault_are_told_together_with_the_remedy() -> None:
    down = [
        row(AgentRecord(start_fault=MISSING.format(name)), None, address=f"rig/crew/{name}")
        for name in "abcde"
    ]
    other = row(AgentRecord(start_fault="the command 'x' is not on the PATH; install it"), None)

    first, second = well(agents=[*down, other]).troubles

    assert first.reason == (
        "rig/crew/a, rig/crew/b, rig/crew/c and 2 more must run and do not: the work dir does not exist"
    )
    assert first.remedy == "create it, or set work_dir"
    assert second.reason == "deacon/ must run and does not: the command 'x' is not on the PATH"
    assert second.remedy == "install it"


def test_one_agents_fault_is_told_in_full_and_in_its_note() -> None:
    fault = MISSING.format("a")
    down = row(AgentRecord(start_fault=fault), None, address="rig/crew/a")

    (problem,) = well(agents=[down]).troubles

    assert f"{problem.reason}; {problem.remedy}" == f"rig/crew/a must run and does not: {fault}"
    assert note(down) == "not started: the work dir does not exist; create it, or set work_dir"


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.PAUSED])
def test_an_agent_that_is_not_to_run_waits_for_nothing(desired: Desired) -> None:
    history = StartHistory(failures=2, not_before=ago(seconds=-60), failed=True)
    record = AgentRecord(desired=desired, start_history=history, start_fault="it ended at once")

    stopped = row(record, None)

    assert (stopped.waits, stopped.waits_until, note(stopped)) == (None, None, "-")
    assert row(record.model_copy(update={"desired": Desired.RUNNING}), None).waits == "back-off"


def test_suspended_workers_are_named() -> None:
    report = well(suspended=True)

    assert verdict(report) == "t: degraded: rq's workers are suspended (rq suspend)"
    assert "rq resume" in report.troubles[0].remedy


def test_a_damaged_record_is_a_problem_with_its_remedy() -> None:
    (problem,) = well(agents=[row(AgentRecord(damage="its hash is damaged; remove the field"))]).troubles

    assert problem.reason == "deacon/ is left alone: its hash is damaged"
    assert problem.remedy == "remove the field"


def test_a_paused_town_says_how_to_resume_it() -> None:
    said = format_report(well(paused=True))

    assert said[0] == "t: running (the whole town is paused)"
    assert "resume --all ends the pause" in said[2]
    assert verdict(well(paused=True, unknown={"tmux": "why"})).startswith("t: degraded: tmux does not answer")


def test_a_redis_that_came_back_older_is_said_for_a_day() -> None:
    said = format_report(well(rewound=ago(hours=23)))

    assert said[0] == "t: running"
    assert said[1] == "  ! Redis came back empty or older 23h ago: wishes and sessions were restored;"
    assert len(format_report(well(rewound=ago(hours=25)))) < len(said)


def test_a_state_that_another_process_left_does_not_count() -> None:
    left = State(running=True, pid=6, started_at=ago(hours=5))

    mine, unseen, nobody = (
        _daemon(holder, left, "redis", 0.0) for holder in (LockHolder(7), LockHolder(None), None)
    )

    assert (mine.pid, mine.running, mine.since) == (7, False, None)
    assert (unseen.pid, unseen.running, unseen.since) == (None, True, ago(hours=5))
    assert (nobody.pid, nobody.running, nobody.since) == (None, True, None)


@pytest.mark.parametrize(
    ("session", "host", "observed"),
    [
        (ALIVE, HERE, "alive"),
        (replace(ALIVE, dead=True), HERE, "ended"),
        (replace(ALIVE, incarnation=""), HERE, "foreign"),
        (None, HERE, "none"),
        (ALIVE, THERE, "elsewhere"),
    ],
)
def test_only_a_living_managed_session_on_this_host_has_an_age(
    session: Session | None, host: str, observed: str
) -> None:
    seen = row(session=session, host=host)

    assert seen.observed == observed
    assert (seen.age, seen.idle) == ((120.0, 5.0) if observed == "alive" else (None, None))


def test_without_redis_what_is_desired_is_unknown_and_what_is_observed_is_not() -> None:
    seen = row(record=None)

    assert (seen.desired, seen.must_run, seen.observed, seen.restarts) == ("unknown", None, "alive", None)


def test_a_back_off_says_which_one_and_until_when() -> None:
    later, much_later = NOW + timedelta(minutes=1), NOW + timedelta(hours=1)
    back_off = StartHistory(not_before=later, updated_at=NOW)
    both = back_off.model_copy(update={"quarantined_until": much_later})

    waiting, kept, over = (
        row(AgentRecord(start_history=gate), None)
        for gate in (back_off, both, StartHistory(not_before=NOW - timedelta(seconds=1)))
    )

    assert note(waiting) == f"back-off until {_clock(later)}"
    assert note(kept) == f"quarantine until {_clock(much_later)}"
    assert (over.waits, over.waits_until) == (None, None)


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.PAUSED])
def test_an_agent_that_should_not_start_has_no_back_off(desired: Desired) -> None:
    later = NOW + timedelta(minutes=1)
    gate = StartHistory(not_before=later, updated_at=NOW)

    assert note(row(AgentRecord(desired=desired, start_history=gate), None)) == "-"


def test_a_poke_of_the_predecessor_does_not_count_for_this_session() -> None:
    assert note(row(AgentRecord(last_poke=ago(seconds=60)))) == "poked 1m ago"
    assert note(row(AgentRecord(last_poke=ago(minutes=3)))) == "-"


def test_forty_agents_fit_eighty_columns_and_those_that_are_down_come_first() -> None:
    names = [f"some-rig/polecats/agent-{number}" for number in range(40)]
    rows = [row(address=name) for name in names[:-1]] + [row(session=None, address=names[-1])]

    lines = format_report(well(agents=rows))

    table = format_agents(rows).splitlines()
    assert lines[-41:] == table
    assert table[1].startswith(names[-1])
    assert max(map(len, lines[1:])) <= 80
    assert summarize(rows) == "40: 39 ready, 1 none; desired: 40 must run"


def test_foreign_text_cannot_control_the_terminal() -> None:
    report = well(unknown={"tmux": "a\x1b[31mred\nnews"})

    assert not any("\x1b" in line or "\n" in line for line in format_report(report))


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "-"), (0.9, "0s"), (61.5, "1m1s"), (3725, "1h2m"), (90_000, "25h")]
)
def test_durations_are_short(seconds: float | None, said: str) -> None:
    assert format_short(seconds) == said


def test_the_oldest_age_is_that_of_the_first_element_with_a_timestamp() -> None:
    wish, later = (f'{{"timestamp": "2025-12-20T11:5{minute}:00Z"}}'.encode() for minute in (5, 8))

    assert _oldest_age([b"\xff", b"[]", b'{"timestamp": 7}', wish, later], NOW) == 300
    assert _oldest_age([b"\xff", b"null"], NOW) is None


def test_a_worker_that_was_silent_for_too_long_is_not_alive() -> None:
    silent = _WorkerInfo(pid=1, machine="far", last_seen=NOW - _WORKER_TIMEOUT - timedelta(seconds=1))

    assert not silent.is_alive(NOW, same_machine=False)
    assert replace(silent, last_seen=NOW).is_alive(NOW, same_machine=True)
