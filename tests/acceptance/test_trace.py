"""One request can be followed by its id through the log, the events and its record."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.agents import MAX, TOWN
from tests.support.daemon import Daemon, a_daemon

pytestmark = pytest.mark.timeout(300)


def told(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    """Return the events."""
    return [json.loads(line) for line in daemon.command("events", "--json", *words).stdout.splitlines()]


def logged(daemon: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.settings.log_file.read_text().splitlines()]


def test_a_request_is_followed_from_its_receipt_to_its_end(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    before = told(daemon, "-n", "1000")
    ident = daemon.ask("cycle", incarnation=daemon.living(MAX).incarnation)
    daemon.done(ident)

    [record] = daemon.document("requests", ident)
    way = [(event["event"], event["agent"]) for event in record["events"]]
    assert way == [(word, MAX) for word in ("received", "carrying", "ended", "started", "done")]
    assert record["status"] == "done"

    later = [event for event in told(daemon, "-n", "1000", "--agent", MAX) if event not in before]
    assert {event["event"] for event in later if event.get("request") != ident} <= {"poke"}

    mine = [line for line in logged(daemon) if line.get("request_id") == ident]
    assert [line["event"] for line in mine] == ["booked", "carrying", "settled"]
    assert {line["agent"] for line in mine} == {MAX}
    assert mine[-1]["outcome"] == "done"
    assert mine[-1]["took_ms"] >= 0
    assert daemon.living(MAX).incarnation not in daemon.settings.log_file.read_text()


@pytest.fixture
def breakable() -> Iterator[Daemon]:
    """A town whose agent max can no longer be started once its work dir holds the file `broken`."""
    agent = "sh -c '[ -e broken ] && exit 1; exec sleep 600'"
    header = f'[agents."{MAX}"]\n'
    with a_daemon(TOWN.replace(header, f'{header}command = "{agent}"\n')) as daemon:
        yield daemon


def test_a_start_that_fails_and_a_revival_name_their_request(breakable: Daemon) -> None:
    daemon = breakable
    daemon.up()
    daemon.run(MAX)
    daemon.work("broken").touch()

    ident = daemon.ask("restart")
    refused = daemon.command("send", "restart", "--agent", "operator", "--to", MAX, "--wait", "60")

    assert refused.returncode == 1
    [record] = daemon.document("requests", ident)
    assert {"start_failed", "failed"} <= {event["event"] for event in record["events"]}
    assert daemon.command("dead", "revive", ident).returncode == 0
    [again] = told(daemon, "--event", "revived")
    assert (again["request"], again["agent"]) == (ident, MAX)
