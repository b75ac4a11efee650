"""What `explain` makes of a recorded decision: the text, and what an operator can do."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gastown_mail.cli.status import format_explanation
from gastown_mail.lifecycle.heartbeat_policy import SkipKind
from gastown_mail.mail.events import Event
from gastown_mail.status.explain import _desired_by, _from_record, _humanize, _next_steps
from gastown_mail.status.model import Daemon, DesiredBy, Explanation, Heartbeat, Host, LastRequest, Report
from tests.unit.test_status import ALIVE, DEACON, HERE, NOW, THERE, row, well

PAUSED, STOPPED = {"desired": "paused"}, {"desired": "stopped", "must_run": False}


def told(now: dict[str, Any] | None = None, **known: Any) -> Explanation:
    """Return a healthy agent with the test's changes."""
    given: dict[str, Any] = {
        "asked": NOW, "decision": "not poked: active 5s ago", "decided": NOW, "decided_ago": 9,
        "wish": DesiredBy(desired="running", by="an operator"), "town_paused": False, "daemon_runs": True,
    }  # fmt: skip
    return Explanation(now=row().model_copy(update=now or {}), **given | known)


def words(explanation: Explanation) -> str:
    """Return the explanation on one line."""
    return " ".join(" ".join(format_explanation(explanation)).split())


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        ("not poked: due in 3m", "not poked: due in 3m"),
        ("left alone: paused", "left alone: paused"),
        ("delivered", "poked: it was due, and the poke was delivered"),
        ("held: a person is attached", "not poked: it was due, but the poke was held: a person is attached"),
        ("failed: the session is gone", "not poked: it was due, but the poke failed: the session is gone"),
        ("its session has ended and it must keep running",
         "a start was asked for: its session has ended and it must keep running"),
    ],
)  # fmt: skip
def test_a_decision_becomes_a_sentence(decision: str, sentence: str) -> None:
    assert _humanize(decision) == sentence


@pytest.mark.parametrize("kind", SkipKind)
def test_a_decision_to_do_nothing_is_shown_as_it_is(kind: SkipKind) -> None:
    assert _humanize(f"{kind}: for a reason") == f"{kind}: for a reason"


DOWN = {"observed": "none", "must_run": True}
NO_WORKER = well(hosts=[Host(host=HERE, here=True, lifecycle=0, expected=2, heartbeat=1)])
NONE_THERE = well(hosts=[Host(host=THERE, here=False, lifecycle=0, heartbeat=0)])


@pytest.mark.parametrize(
    ("explanation", "report", "steps"),
    [
        (told(), well(), ["attach deacon/ shows it; gastown-mail poke deacon/ [TEXT]"]),
        (told(), well(daemon=Daemon(held=False, running=False)),
         ["the daemon does not run: gastown-mail up", "when that is done, gastown-mail poke deacon/ [TEXT]"]),
        (told(unknown={"tmux": "why"}, now={"observed": "unknown"}), well(), ["doctor"]),
        (told(), well(paused=True), ["resume --all", "when that is done, gastown-mail poke deacon/"]),
        (told(PAUSED), well(), ["resume deacon/"]),
        (told({**STOPPED, "observed": "none"}), well(), ["run deacon/"]),
        (told(DOWN), well(), ["the next sweep starts it"]),
        (told(DOWN), NONE_THERE, ["the next sweep starts it"]),
        (told(DOWN), NO_WORKER,
         ["no lifecycle worker on here: gastown-mail logs", "when that is done, the next sweep starts it"]),
        (told({"observed": "ended", "waits": "quarantine"}), well(),
         ["events --agent deacon/", "clear deacon/"]),
        (told({"observed": "foreign"}), well(), ["adopt deacon/"]),
        (told({"observed": "unknown", "state_line": "on the tmux server at /s; set tmux_socket"}), well(),
         ["nothing is started or ended until it is seen: on the tmux server at /s; set tmux_socket"]),
        (told({"observed": "elsewhere", "host": THERE}), well(), ["ask on host there"]),
        (told(last_request=LastRequest(id="i1", action="cycle", asked_by="x", status="refused")), well(),
         ["poke deacon/", "dead revive i1"]),
    ],
)  # fmt: skip
def test_every_decision_has_a_next_step(explanation: Explanation, report: Report, steps: list[str]) -> None:
    lines = list(_next_steps(explanation, report, None))

    assert len(lines) == len(steps), lines
    assert all(step in line for step, line in zip(steps, lines, strict=True)), lines


@pytest.mark.parametrize("now", [DOWN, {**STOPPED, "observed": "none"}, {"observed": "ended"}])
def test_a_start_that_cannot_succeed_is_not_promised(now: dict[str, Any]) -> None:
    steps = list(_next_steps(told(now), well(), "the work dir /t does not exist; create it"))

    assert steps == ["it cannot be started: the work dir /t does not exist; create it"]


def test_the_first_line_is_the_decision_and_its_time() -> None:
    lines = format_explanation(told())

    assert lines[0] == "deacon/: not poked: active 5s ago"
    assert "9s ago" in lines[1]
    assert max(map(len, lines)) <= 80


def test_changes_since_the_decision_are_shown() -> None:
    earlier = NOW - timedelta(hours=1)

    assert "since" not in words(told()).split("desired")[0]
    assert "its session has started since" in words(told(decided=earlier))
    assert "what is desired has changed since" in words(
        told(wish=DesiredBy(desired="paused", by="an operator", since=NOW + timedelta(seconds=1)))
    )


def test_unknown_values_are_not_made_up() -> None:
    said = words(
        Explanation(asked=NOW, now=row(record=None, session=None), unknown={"redis": "it stands still"})
    )

    assert "! redis: it stands still" in said
    for part in ("decided", "desired", "back-off", "town", "last request"):
        assert f"{part} unknown" in said


def test_this_hosts_heartbeat_does_not_explain_an_agent_of_another_host() -> None:
    report = Report(
        town="t", root="/t", asked=NOW, daemon=Daemon(held=True), heartbeat=Heartbeat(count=1, last=NOW)
    )
    decision = {"decision": "delivered"}

    assert report.decided_at(row().model_copy(update=decision)) == NOW
    assert report.decided_at(row(host=THERE).model_copy(update=decision)) is None
    assert report.decided_at(row()) is None


def event(second: int, name: str, **fields: str) -> Event:
    return Event(f"{int(NOW.timestamp() + second) * 1000}-0", {"event": name, **fields})


def test_the_desired_state_comes_from_the_latest_change() -> None:
    operator = event(1, "desired", detail="paused")
    request = event(2, "carrying", request="i1", action="shutdown")
    stopped = row().model_copy(update={"desired": "stopped"})

    assert _desired_by(DEACON, stopped, [request, operator]).by == "an operator"
    wish = _desired_by(DEACON, stopped, [operator, request, event(3, "started")])
    assert (wish.by, wish.since) == ("request i1 (shutdown)", NOW + timedelta(seconds=2))
    assert _desired_by(DEACON, stopped, []).since is None
    assert _desired_by(DEACON, row(), [operator]).by == "its settings: keep_running = true"


def test_an_open_request_has_no_end() -> None:
    record = {
        "action": "cycle",
        "from": "deacon/",
        "status": "carrying",
        "received_at": "2025-12-20T12:00:00Z",
    }

    request = _from_record("i1", record | {"finished_at": ""})

    assert (request.received, request.finished) == (datetime(2025, 12, 20, 12, tzinfo=UTC), None)
    assert "cycle by deacon/ is carrying [i1]" in words(told(last_request=request))


def test_attached_clients_are_shown() -> None:
    assert "no person is attached" in words(told())
    assert "a person is attached" in words(told({"attached": 1}))
    assert ALIVE.attached == 0
