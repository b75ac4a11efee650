"""One request can be followed by its id through the log, the events and its record."""

import json
from typing import Any

import pytest

from tests.acceptance.daemons import Place
from tests.integration.stage import MAX

pytestmark = pytest.mark.timeout(300)


def told(place: Place, *words: str) -> list[dict[str, Any]]:
    """The events."""
    return [json.loads(line) for line in place.command("events", "--json", *words).stdout.splitlines()]


def logged(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.settings.log_file.read_text().splitlines()]


def test_a_request_is_followed_from_its_receipt_to_its_end(place: Place) -> None:
    place.up()
    place.run(MAX)
    before = told(place, "-n", "1000")
    ident = place.ask(MAX, "cycle", incarnation=place.living(MAX).incarnation)
    place.done(ident)

    [record] = place.document("requests", ident)
    way = [(event["event"], event["agent"]) for event in record["events"]]
    assert way == [(word, MAX) for word in ("received", "carrying", "ended", "started", "done")]
    assert record["status"] == "done"

    later = [event for event in told(place, "-n", "1000", "--agent", MAX) if event not in before]
    assert {event["event"] for event in later if event.get("request") != ident} <= {"poke"}

    mine = [line for line in logged(place) if line.get("request_id") == ident]
    assert [line["event"] for line in mine] == ["booked", "carrying", "settled"]
    assert {line["agent"] for line in mine} == {MAX}
    assert mine[-1]["outcome"] == "done"
    assert mine[-1]["took_ms"] >= 0
    assert place.living(MAX).incarnation not in place.settings.log_file.read_text()


def test_a_start_that_fails_and_a_revival_name_their_request(place: Place) -> None:
    place.up()
    place.run(MAX)
    toml = (place.root / "town.toml").read_text()
    header = f'[agents."{MAX}"]\n'
    (place.root / "town.toml").write_text(toml.replace(header, f'{header}command = "false"\n'))

    ident = place.ask(MAX, "restart")
    refused = place.command("send", "restart", "--agent", "operator", "--to", MAX, "--wait", "60")

    assert refused.returncode == 1
    [record] = place.document("requests", ident)
    assert {"start_failed", "failed"} <= {event["event"] for event in record["events"]}
    assert place.command("dead", "revive", ident).returncode == 0
    [again] = told(place, "--event", "revived")
    assert (again["request"], again["agent"]) == (ident, MAX)
