"""The meaning of a line of `list-panes`, whatever programs write into its texts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.plumbing.clock import Clock
from gastown_mail.sessions.panes import PANE_FORMAT, Session, group_sessions, parse_panes

FIELDS = {
    "session_id": "$1",
    "pane_id": "%1",
    "pane_pid": "4711",
    "pane_dead": "0",
    "pane_dead_status": "",
    "pane_dead_signal": "",
    "session_attached": "0",
    "window_active_clients": "0",
    "pane_in_mode": "0",
    "window_activity": "1766225541",
    "session_created": "1766225500",
    "active": "1",
    "pid": "99",
    "start_time": "1766225400",
    "shared": "1",
    "town": "a-town",
    "home": "$1",
    "generation": "7",
    "started": "1766225500.250000",
    "agent_pane": "%1",
    "incarnation": "t0ken",
    "command": "claude",
    "agent": "mayor/",
    "session_name": "gt-mayor",
}


def at(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def row(**changes: str) -> str:
    return "|".join((FIELDS | changes).values())


def session(*rows: str) -> Session:
    (found,) = group_sessions(parse_panes("\n".join(rows) + "\n", Clock())).values()
    return found


def test_the_format_has_as_many_fields_as_are_read() -> None:
    assert PANE_FORMAT.replace("\x1f|", "").count("|") == len(FIELDS) - 1


def test_a_living_session() -> None:
    assert session(row()) == Session(
        name="gt-mayor",
        id="$1",
        pane="%1",
        pid=4711,
        incarnation="t0ken",
        generation=7,
        agent="mayor/",
        dead=False,
        exit_status=None,
        attached=0,
        activity=at(1766225541),
        started_at=at(1766225500.25),
        foreground="claude",
        in_mode=False,
        server=99,
        server_started=1766225400,
        town="a-town",
        home="$1",
    )


@pytest.mark.parametrize(
    ("status", "ended_by", "expected"), [("3", "", 3), ("", "9", 137), ("", "TERM", 143), ("", "SIGHUP", 129)]
)
def test_a_dead_pane_shows_how_its_program_ended(status: str, ended_by: str, expected: int) -> None:
    found = session(row(pane_dead="1", pane_dead_status=status, pane_dead_signal=ended_by))

    assert (found.dead, found.exit_status) == (True, expected)


def test_the_agents_pane_counts_not_the_active_one() -> None:
    found = session(row(active="0"), row(pane_id="%2", pane_pid="1234", active="1"))

    assert (found.pane, found.pid, found.dead) == ("%1", 4711, False)


def test_without_the_agents_pane_the_session_is_dead_and_has_no_pid() -> None:
    found = session(row(pane_id="%2", pane_pid="1234"))

    assert (found.pane, found.pid, found.dead, found.incarnation) == ("%1", 0, True, "t0ken")


def test_a_session_without_our_options_is_unmanaged() -> None:
    bare = {"generation": "", "started": "", "agent_pane": "", "incarnation": "", "agent": ""}
    found = session(row(active="0", **bare), row(pane_id="%2", pane_pid="1234", active="1", **bare))

    assert (found.incarnation, found.generation, found.started_at) == ("", 0, at(1766225500))
    assert (found.pane, found.pid) == ("%2", 1234)


@pytest.mark.parametrize("token", ["a b", "a" * 129, "x,#{y}", "ä"])
def test_an_invalid_token_makes_the_session_unmanaged(token: str) -> None:
    assert session(row(incarnation=token)).incarnation == ""


@pytest.mark.parametrize(
    "options", [{"generation": "soon"}, {"started": "nan"}, {"started": "-1"}, {"started": "9" * 15}]
)
def test_broken_options_of_one_session_do_not_hide_the_others(options: dict[str, str]) -> None:
    found = session(row(**options))

    assert (found.generation, found.started_at) in [(0, at(1766225500.25)), (7, at(1766225500))]


def test_a_client_of_a_grouped_session_counts_as_attached() -> None:
    assert session(row(session_attached="0", window_active_clients="2")).attached == 2


def test_sessions_are_distinguished_by_their_id() -> None:
    other = row(
        session_id="$2", home="$2", pane_id="%2", agent_pane="%2", incarnation="other",
        session_name="gt-mayor-2",
    )  # fmt: skip
    found = group_sessions(parse_panes(f"{row()}\n{other}\n", Clock()))

    assert {name: one.id for name, one in found.items()} == {"gt-mayor": "$1", "gt-mayor-2": "$2"}


def test_an_empty_listing_has_no_session() -> None:
    assert group_sessions(parse_panes("", Clock())) == {}


@pytest.mark.parametrize(
    "text", ["lost server", row(pane_pid=""), row(session_attached="many"), "|".join(["1"] * 3), row(pid="x")]
)
def test_an_unreadable_line_is_an_unknown_state(text: str) -> None:
    with pytest.raises(StateUnknown, match="unknown way"):
        parse_panes(text, Clock())


printable = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="|"))


@given(command=printable, agent=printable, name=st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_texts_arrive_unchanged(command: str, agent: str, name: str) -> None:
    (pane,) = parse_panes(row(command=command, agent=agent, session_name=name) + "\n", Clock())

    found = pane.session
    assert (found.foreground, found.agent, found.name) == (command, agent, name)
