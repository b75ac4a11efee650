"""`requests`, `dead`, `inbox`: what they list, and how the lists can be filtered."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gastown_mail.cli import run
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.lifecycle import RequestStatus
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.parts import accept_inbox
from tests.support.town import element

MAX, WITNESS = "gastown/crew/max", "gastown/witness"


class Desk:
    """Runs commands on one town, and puts requests into it."""

    def __init__(self, town: Town, capsys: pytest.CaptureFixture[str]) -> None:
        self.town, self.capsys = town, capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command; return its exit code, stdout and stderr."""
        code = run(["--town", str(self.town.settings.town_root), *words])
        said = self.capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    def document(self, *words: str) -> Any:
        code, out, _ = self.run(*words, "--json")
        assert code == 0
        return json.loads(out)

    def ids(self, *words: str) -> list[str]:
        return [record["id"] for record in self.document(*words)]

    def book(self, ident: str, to: str = WITNESS, **more: object) -> None:
        self.town.redis.rpush(self.town.keys.inbox, element("operator", "restart", id=ident, to=to, **more))
        accept_inbox(self.town)

    def settle(self, ident: str, status: str, detail: str = "so it was", to: str = WITNESS) -> None:
        self.town.requests.settle(ident, to, RequestStatus(status), detail, datetime.now(UTC))


@pytest.fixture
def desk(make_town: Callable[..., Town], redis_url: str, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A town of two agents without a daemon."""
    return Desk(make_town(f'[daemon]\nredis_url = "{redis_url}"\n{TWO_AGENTS}'), capsys)


@pytest.fixture
def some(desk: Desk) -> Desk:
    """One open request for each agent, and settled ones."""
    for ident, to, status in (
        ("one", WITNESS, "done"), ("two", WITNESS, ""), ("three", MAX, "superseded"), ("four", MAX, ""),
        ("five", MAX, "failed"), ("six", WITNESS, "expired"),
    ):  # fmt: skip
        desk.book(ident, to)
        if status:
            desk.settle(ident, status, to=to)
    return desk


def test_requests_lists_the_open_ones_oldest_first(some: Desk) -> None:
    assert some.ids("requests") == ["two", "four"]
    code, out, _ = some.run("requests")
    assert (code, [line.split()[:4] for line in out.splitlines()[1:]]) == (
        0, [["two", "received", "restart", WITNESS], ["four", "received", "restart", MAX]],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (("--status", "done"), ["one"]),
        (("--status", "received"), ["two", "four"]),
        (("--agent", MAX), ["three", "four", "five"]),
        (("--agent", "gastown-crew-max"), ["three", "four", "five"]),
        (("--agent", "gastown/max", "--status", "failed"), ["five"]),
        (("--since", "1h"), ["one", "two", "three", "four", "five", "six"]),
        (("--since", "0s"), []),
        (("--since", "2000-01-01T00:00:00Z", "-n", "2"), ["five", "six"]),
        (("--status", "refused"), []),
    ],
)
def test_requests_can_be_filtered(some: Desk, words: tuple[str, ...], ids: list[str]) -> None:
    assert some.ids("requests", *words) == ids


def test_requests_of_another_town_are_not_listed(some: Desk, make_town: Callable[..., Town]) -> None:
    other = make_town()
    other.redis.rpush(other.keys.inbox, element(WITNESS, id="other"))
    accept_inbox(other)

    assert "other" not in some.ids("requests", "--since", "1h")


def test_the_list_says_when_there_are_more(some: Desk) -> None:
    code, out, err = some.run("requests", "-n", "1", "--json")

    assert (code, err) == (0, "the newest 1 of 2; -n 2 shows all\n")
    assert [record["id"] for record in json.loads(out)] == ["four"]


def test_one_request_is_shown_in_full_with_its_events(desk: Desk) -> None:
    desk.book("one", MAX, reason="tests are green")
    desk.settle("one", "done", "started it", to=MAX)
    desk.book("two")

    [record] = desk.document("requests", "one")
    code, out, _ = desk.run("requests", "one", "two")

    assert (record["status"], record["reason"], record["to"]) == ("done", "tests are green", MAX)
    assert [(e["event"], e["request"]) for e in record["events"]] == [("received", "one"), ("done", "one")]
    assert code == 0
    for word in (
        "id           one",
        "reason       tests are green",
        "done         gastown/crew/max",
        "id           two",
    ):
        assert word in out


def test_a_missing_request_is_named(some: Desk) -> None:
    code, out, err = some.run("requests", "two", "nobody-s")

    assert (code, out) == (1, "")
    assert "there is no request nobody-s: settled requests are kept for 168h" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("requests", "--since", "yesterday"), "'yesterday' is neither a duration such as 10m"),
        (("events", "--since", "2025-12-20"), "nor a time such as 2025-12-20T10:12:21Z"),
        (("requests", "--status", "finished"), "'finished' is not one of"),
        (("dead", "--status", "done"), "'done' is not one of"),
        (("inbox", "-n", "many"), "'many' is not a valid integer"),
        (("requests", "one", "--agent", MAX), "give IDs or filters"),
    ],
)
def test_an_invalid_filter_is_a_usage_error(desk: Desk, words: tuple[str, ...], said: str) -> None:
    code, _, err = desk.run(*words)

    assert (code, said in err) == (2, True), err


@pytest.mark.parametrize("command", ["requests", "dead", "inbox", "events"])
def test_an_unknown_agent_is_refused(desk: Desk, command: str) -> None:
    code, out, err = desk.run(command, "--agent", "gastown/crew/nobody")

    assert (code, out) == (1, "")
    assert "gastown/crew/nobody" in err


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ((), ["five", "six"]),
        (("--agent", "gastown-crew-max"), ["five"]),
        (("--status", "expired"), ["six"]),
        (("--since", "0s"), []),
        (("--since", "1h", "-n", "1"), ["six"]),
    ],
)
def test_dead_letters_can_be_filtered(some: Desk, words: tuple[str, ...], ids: list[str]) -> None:
    assert some.ids("dead", *words) == ids


def test_several_dead_letters_are_revived_despite_an_unknown_one(some: Desk) -> None:
    code, out, err = some.run("dead", "revive", "five", "nobody-s", "six")

    assert (code, out) == (1, "five: back in the inbox\nsix: back in the inbox\n")
    assert "nobody-s: there is no dead letter nobody-s" in err
    assert some.town.redis.llen(some.town.keys.inbox) == 2
    accept_inbox(some.town)
    assert some.ids("dead") == []
    assert some.town.requests.record("six")["status"] == "received"


def test_dead_letters_are_dropped(some: Desk) -> None:
    assert some.document("dead", "drop", "five") == [{"id": "five", "done": True, "detail": "dropped"}]
    assert DeadLetters(some.town.redis, some.town.keys).ids() == ["six"]
    assert some.run("dead", "drop")[0] == 2


def test_each_dead_letter_shows_its_whole_reason(desk: Desk) -> None:
    desk.town.redis.rpush(desk.town.keys.inbox, b"\xff\x1b[2J", b'{"from": "mayor/"}')
    accept_inbox(desk.town)

    code, out, _ = desk.run("dead")

    assert code == 0
    assert "it is not UTF-8: byte 0 is 0xff" in out
    assert "action is missing: expected cycle, restart or shutdown; timestamp is missing" in out
    assert "\x1b" not in out


def test_the_inbox_is_shown_as_the_clerk_will_read_it(desk: Desk) -> None:
    push = desk.town.redis.rpush
    push(
        desk.town.keys.inbox,
        element(MAX, "cycle", id="good", handoff="notes", incarnation="token", reason="full"),
    )
    push(desk.town.keys.inbox, element("operator", id="nobody", to="gastown/crew/nobody"))
    push(desk.town.keys.inbox, b"\xff\x1b[2Jgarbage")
    push(
        desk.town.keys.inbox,
        element(WITNESS, id="old", timestamp=format_time(datetime.now(UTC) - timedelta(1))),
    )

    shown = desk.document("inbox")
    code, out, _ = desk.run("inbox")

    assert shown["waiting"] == 4
    good, nobody, garbage, _ = shown["oldest"]
    assert (good["id"], good["agent"], good["action"], good["reason"]) == ("good", MAX, "cycle", "full")
    assert "there is no agent" in nobody["refusal"]
    assert (garbage["agent"], garbage["raw"][1:]) == ("", "\x1b[2Jgarbage")
    assert "notes" not in json.dumps(shown)
    assert "token" not in json.dumps(shown)
    assert (code, "\x1b" in out, out.splitlines()[0]) == (0, False, "4 waiting")
    assert [one["id"] for one in desk.document("inbox", "--agent", "gastown-witness")["oldest"]] == ["old"]
    assert [one["id"] for one in desk.document("inbox", "--since", "1h")["oldest"]] == ["good", "nobody"]
    assert [one["id"] for one in desk.document("inbox", "-n", "1")["oldest"]] == ["good"]
    assert desk.town.redis.llen(desk.town.keys.inbox) == 4


def test_the_log_is_shown_across_its_rotations(desk: Desk) -> None:
    log: Path = desk.town.settings.log_file
    log.parent.mkdir(parents=True, exist_ok=True)
    for name, numbers in (
        ("daemon.log.2", range(3)),
        ("daemon.log.1", range(3, 6)),
        ("daemon.log", range(6, 8)),
    ):
        log.with_name(name).write_text("".join(f'{{"event": "{number}"}}\n' for number in numbers))

    for count in (0, 1, 2, 3, 6, 8, 100):
        code, out, _ = desk.run("logs", "-n", str(count))

        assert code == 0
        assert [json.loads(line)["event"] for line in out.splitlines()] == [str(n) for n in range(8)][
            8 - min(count, 8) :
        ]
