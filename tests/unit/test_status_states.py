"""How agent states are shown, which of them are problems, and what a person is advised to do."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gastown_mail.cli.output import table
from gastown_mail.cli.status import _clock, format_agents, format_explanation, format_report, note, summarize
from gastown_mail.contracts.go_formats import format_local
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.status.explain import _next_steps
from gastown_mail.status.health import person_step
from gastown_mail.status.model import AgentStatus, Daemon, Explanation
from gastown_mail.status.rows import agent_status
from gastown_mail.town.backoff import StartHistory
from gastown_mail.town.observed import Observation
from gastown_mail.town.records import AgentRecord, Desired
from tests.unit.test_status import ALIVE, DEACON, NOW, PLACES, ago, row, well

ASKS, DRAFT, LIMITED = AgentState.ASKS, AgentState.DRAFT, AgentState.LIMITED
ENDED, READY, UNKNOWN = AgentState.ENDED, AgentState.READY, AgentState.UNKNOWN
LINE = "Overwrite? [y/N]"
LATER = NOW + timedelta(hours=2)
WAITED = 720.0
DEAD = replace(ALIVE, dead=True, exit_status=1)


def seen(state: AgentState, line: str = LINE, **known: Any) -> Observation:
    return Observation(state, line, **{"since": ago(seconds=WAITED), **known})


def of(state: AgentState, record: AgentRecord | None = None, **more: Any) -> AgentStatus:
    """Return an agent that has been in this state for 12 minutes, with LINE."""
    return row(record or AgentRecord(), seen=seen(state), **more)


def cells(shown: AgentStatus) -> list[str]:
    """What the table shows of the agent's state, and the note."""
    _, line = format_agents([shown]).splitlines()
    words = [cell.strip() for cell in line.split("  ") if cell.strip()]
    return [words[2], words[-1]]


@pytest.mark.parametrize(
    ("shown", "state", "remark"),
    [
        (of(READY), "ready 12m", "-"),
        (of(ASKS), "asks 12m", LINE),
        (of(DRAFT), "draft 12m", LINE),
        (of(UNKNOWN), "unknown 12m", LINE),
        (row(seen=seen(LIMITED, until=LATER)), "limited 12m", f"until {_clock(LATER)}, {LINE}"),
        (row(session=DEAD, seen=seen(ENDED, "exit 1: no paper")), "ended 12m", "exit 1: no paper"),
        (row(seen=seen(READY, "", since=ago(seconds=59))), "ready 59s", "-"),
        (row(seen=seen(READY, "", since=ago(hours=26))), "ready 26h", "-"),
        (row(seen=seen(READY, "", since=None)), "ready", "-"),
        (row(seen=seen(READY, "", context=83)), "ready 12m", "context 83 %"),
        (row(session=None), "none 3h", "-"),
    ],
)
def test_the_table_shows_the_state_and_the_line_that_tells_of_it(
    shown: AgentStatus, state: str, remark: str
) -> None:
    assert cells(shown) == [state, remark]


def test_a_note_has_everything_that_matters() -> None:
    attached = replace(ALIVE, attached=1)
    kept_down = AgentRecord(start_history=StartHistory(quarantined_until=LATER, updated_at=NOW))

    assert note(row(session=attached, seen=seen(ASKS))) == f"a person is attached, {LINE}"
    assert note(row(AgentRecord(last_poke=ago(seconds=60)), seen=seen(ASKS))) == LINE
    assert note(row(kept_down, DEAD, seen(ENDED, "exit 1"))) == f"quarantine until {_clock(LATER)}, exit 1"
    assert note(row(host="there")) == "lives on there"
    assert note(row(session=replace(ALIVE, incarnation=""))) == "not managed; adopt it"


def test_a_long_line_is_cut_to_the_terminal_and_others_are_wrapped() -> None:
    cut = table(("A", "NOTE"), [("one", "word " * 40)], 60, cut=True).splitlines()
    narrow = table(("A" * 50, "NOTE"), [("one", "word " * 40)], 60, cut=True).splitlines()
    wrapped = table(("A", "NOTE"), [("one", "word " * 40)], 60).splitlines()

    assert (len(cut), len(narrow)) == (2, 3)
    assert cut[-1].endswith("…")
    assert narrow[-1].endswith("…")
    assert max(map(len, cut + narrow)) <= 60
    assert len(wrapped) > 3


def test_agents_that_need_a_person_come_after_those_that_are_down() -> None:
    names = {"busy": of(AgentState.BUSY, address="busy"), "asks": of(ASKS, address="asks")}
    down = row(session=None, address="down")

    lines = format_agents([*names.values(), down]).splitlines()[1:]

    assert [line.split()[0] for line in lines] == ["down", "asks", "busy"]
    assert summarize([*names.values(), down]).startswith("3: 1 busy, 1 asks, 1 none; ")


def problems(*rows: AgentStatus, **parts: Any) -> list[str]:
    report = well(agents=list(rows), **{"asks_after": 600.0, **parts})
    return [problem.reason for problem in report.troubles]


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (of(ASKS), f"deacon/ has been asking for 12m: {LINE}"),
        (of(ASKS, keep_running=False, poke=None), f"deacon/ has been asking for 12m: {LINE}"),
        (of(ENDED), f"deacon/ must run and has not worked for 12m: {LINE}"),
        (of(UNKNOWN), f"deacon/ has shown a screen without a known meaning for 12m: {LINE}"),
        (row(seen=seen(ASKS, "x" * 200)), f"deacon/ has been asking for 12m: {'x' * 80}…"),
    ],
)
def test_an_agent_that_needs_a_person_for_too_long_is_a_problem(shown: AgentStatus, reason: str) -> None:
    report = well(agents=[shown], asks_after=600.0)
    [problem] = report.troubles

    assert (report.verdict, problem.reason) == ("degraded", reason)
    assert problem.remedy == person_step(shown)
    assert "gastown-mail attach deacon/" in problem.remedy
    assert any(reason[:20] in line for line in format_report(report)[1:])


@pytest.mark.parametrize(
    "shown",
    [
        *(of(state) for state in (READY, AgentState.BUSY, AgentState.STARTING, DRAFT, LIMITED)),
        of(ASKS, AgentRecord(desired=Desired.PAUSED)),
        of(ENDED, keep_running=False),
        of(ENDED, AgentRecord(desired=Desired.STOPPED)),
        of(UNKNOWN, poke=None),
        row(seen=seen(ASKS, since=ago(seconds=599))),
        row(None, seen=seen(ASKS)),
        of(UNKNOWN, session=replace(ALIVE, incarnation=""), keep_running=False),
    ],
)
def test_other_states_and_a_short_time_are_no_problem(shown: AgentStatus) -> None:
    assert problems(shown) == []


def test_a_time_of_zero_reports_every_question_and_a_stopped_town_none() -> None:
    asks = row(seen=seen(ASKS, since=NOW))

    assert problems(asks, asks_after=0.0) == [f"deacon/ has been asking for 0s: {LINE}"]
    assert problems(asks, asks_after=0.0, daemon=Daemon(held=False, running=False)) == []
    assert problems(asks, asks_after=None) == []


def test_the_agents_that_wait_longest_are_named_first_and_the_others_together() -> None:
    rows = [
        row(seen=seen(ASKS, since=ago(hours=hours)), address=f"a/crew/{hours}") for hours in (1, 2, 3, 4, 5)
    ]

    said = problems(*rows)

    assert [reason.split()[0] for reason in said[:3]] == ["a/crew/5", "a/crew/4", "a/crew/3"]
    assert said[3:] == ["a/crew/2, a/crew/1 need a person too"]


def steps(shown: AgentStatus, **parts: Any) -> str:
    explanation = Explanation(asked=NOW, decision="x", now=shown, town_paused=False, daemon_runs=True)
    return "; ".join(_next_steps(explanation, well(**parts), None))


AFTER = format_local(LATER)
TOWN_PAUSED = "the whole town is paused: "


@pytest.mark.parametrize(
    ("shown", "step"),
    [
        (of(READY), "attach deacon/ shows it; gastown-mail poke deacon/ [TEXT] pokes it"),
        (of(AgentState.BUSY), "attach deacon/ shows it; it can be poked when it is ready"),
        (of(AgentState.STARTING), "attach deacon/ shows it; it can be poked when it is ready"),
        (of(ASKS), "attach deacon/ and answer; no poke is typed until then"),
        (of(DRAFT), "attach deacon/ and press Enter or clear the line; no poke is typed until then"),
        (of(ENDED), "gastown-mail send restart --agent operator --to deacon/ starts it anew"),
        (of(UNKNOWN, program="codex"), "gastown-mail programs codex tells how its screen is read"),
        (
            row(seen=seen(LIMITED, until=LATER)),
            f"the first heartbeat after {AFTER} pokes it, unless a person",
        ),
        (row(seen=seen(LIMITED, until=LATER), poke=None), f"attach deacon/ and continue it after {AFTER}"),
        (of(LIMITED), "it can be poked when its usage limit has ended"),
    ],
)
def test_each_state_has_a_step(shown: AgentStatus, step: str) -> None:
    assert step in steps(shown)


def test_no_poke_is_promised_while_the_town_is_paused() -> None:
    limited = row(seen=seen(LIMITED, until=LATER))

    assert f"when that is done, the first heartbeat after {AFTER}" in steps(limited, paused=True)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (
            of(ASKS),
            f"asks for 12m, session gt-deacon for 2m, last activity 5s ago, no person is attached: {LINE}",
        ),
        (row(seen=seen(LIMITED, until=LATER)), f"limited for 12m until {_clock(LATER)}, session"),
        (row(seen=seen(READY, "", context=40)), "no person is attached, context 40 % full"),
        (row(session=DEAD, seen=seen(ENDED, "exit 1: no paper")), "now ended for 12m: exit 1: no paper"),
        (row(session=None), "now no session for 3h"),
        (row(host="there"), "lives on there"),
    ],
)
def test_explain_tells_the_state_with_its_line(shown: AgentStatus, words: str) -> None:
    lines = format_explanation(Explanation(asked=NOW, now=shown))

    assert words in " ".join(" ".join(lines).split())


def test_a_status_line_is_no_activity() -> None:
    assert row(seen=seen(READY, active=ago(seconds=90))).idle == 90


def test_without_an_answer_of_tmux_the_state_is_unknown() -> None:
    status = agent_status(DEACON, None, None, AgentRecord(), PLACES, now=NOW)
    far = agent_status(replace(DEACON, declared_host="far"), None, None, AgentRecord(), PLACES, now=NOW)

    assert (status.state, status.state_line, status.state_since) == (UNKNOWN, None, None)
    assert (far.state, far.observed) == (AgentState.ELSEWHERE, "elsewhere")


def test_without_redis_the_state_is_known_but_not_since_when() -> None:
    status = row(None, seen=seen(LIMITED, until=LATER))

    assert (status.state, status.state_line) == (LIMITED, LINE)
    assert (status.state_since, status.state_age, status.limited_until) == (None, None, None)


def test_only_a_program_that_has_ended_has_an_exit_status() -> None:
    assert row(session=DEAD, seen=seen(ENDED)).exit_status == 1
    assert row(session=replace(ALIVE, exit_status=1)).exit_status is None
