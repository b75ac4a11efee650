"""Every event of the catalogue is recorded somewhere, with no field that the catalogue does not name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import gastown_mail
from gastown_mail.cli.events import format_event, format_events
from gastown_mail.contracts.lifecycle import RequestStatus
from gastown_mail.mail.events import FIELDS, Event, EventName

TREES = [ast.parse(file.read_text()) for file in Path(gastown_mail.__file__).parent.rglob("*.py")]
STATUSES = {EventName(status) for status in RequestStatus}
CATALOGUE = {f"EventName.{event.name}": event for event in EventName}


def calls(name: str) -> Iterator[ast.Call]:
    """Every call of a function or method of that name."""
    for node in (node for tree in TREES for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and name == getattr(node.func, "id", getattr(node.func, "attr", "")):
            yield node


def recorded() -> Iterator[tuple[str, set[str]]]:
    """The source of the name of each event that is recorded, with the fields that it is given."""
    for call in calls("record_event"):
        yield ast.unparse(call.args[2]), {word.arg for word in call.keywords if word.arg}


def handed_on() -> set[str]:
    """The sources of the names that go through `SessionStart._record`."""
    return {ast.unparse(call.args[0]) for call in calls("_record") if call.args}


def test_every_event_of_the_catalogue_is_recorded() -> None:
    named = {CATALOGUE[name] for name in {name for name, _ in recorded()} | handed_on() if name in CATALOGUE}

    assert named | STATUSES == set(EventName)


def test_an_event_that_is_not_named_at_the_call_is_a_requests_status_or_handed_on() -> None:
    computed = {name for name, _ in recorded() if name not in CATALOGUE}

    assert computed == {"EventName(status)", "EventName(record['status'])", "event"}


def test_the_catalogue_names_every_field() -> None:
    for name, fields in recorded():
        for event in handed_on() if name == "event" else {name} & set(CATALOGUE):
            assert fields <= set(CATALOGUE[event].fields), event


def test_a_status_is_recorded_with_the_fields_of_the_catalogue() -> None:
    given = [fields for name, fields in recorded() if name.startswith("EventName(")]

    assert given
    for event in STATUSES - {EventName.CARRYING}:
        assert [fields for fields in given if fields != set(event.fields)] == [], event


def test_every_field_of_the_catalogue_is_explained() -> None:
    used = {field for event in EventName for field in event.fields}

    assert used | {"event"} == set(FIELDS)


def test_the_same_event_again_and_again_is_one_line_with_its_count() -> None:
    times = range(1_766_000_000_000, 1_766_000_005_000, 1000)
    same = [Event(f"{at}-0", {"event": "postponed", "agent": "deacon/", "detail": "why"}) for at in times]
    other = Event("1766000009000-0", {"event": "started", "agent": "deacon/"})

    lines = list(format_events([*same, other, same[0]]))

    assert len(lines) == 3
    assert "(5 times since " in lines[0]
    assert lines[0].startswith(format_event(same[-1]))
    assert lines[1:] == [format_event(other), format_event(same[0])]
