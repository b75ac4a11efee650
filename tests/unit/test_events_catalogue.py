"""Every event that is told is in the catalogue, with all its fields, and the catalogue has no other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import gastown_mail
from gastown_mail.contracts.lifecycle import RequestStatus
from gastown_mail.mail.events import EVENTS, FIELDS

PACKAGE = Path(gastown_mail.__file__).parent
STATUSES = {status.value for status in RequestStatus}
TELLERS = {"record_event": 2, "_record": 0}
"""The functions that tell an event, and which of their arguments is its name."""


def calls() -> Iterator[tuple[ast.Call, ast.expr]]:
    """Every call that tells an event, with the expression of its name."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and (name := _event_of(node)):
                yield node, name


def _event_of(call: ast.Call) -> ast.expr | None:
    place = TELLERS.get(getattr(call.func, "id", getattr(call.func, "attr", "")))
    return None if place is None or place >= len(call.args) else call.args[place]


def literal_calls() -> Iterator[tuple[str, set[str]]]:
    """The events whose name stands in the source, with the fields that are named there, or where it goes."""
    handed_on = {word for call, name in calls() if ast.unparse(name) == "event" for word in _fields(call)}
    for call, name in calls():
        if isinstance(name, ast.Constant):
            direct = getattr(call.func, "id", "") == "record_event"
            yield str(name.value), _fields(call) if direct else handed_on


def _fields(call: ast.Call) -> set[str]:
    return {word.arg for word in call.keywords if word.arg}


def test_the_catalogue_has_every_event_that_is_told_and_no_other() -> None:
    told = {event for event, _ in literal_calls()}

    assert told | STATUSES == set(EVENTS)


def test_an_event_that_has_no_literal_name_is_a_requests_status_or_handed_on() -> None:
    computed = {ast.unparse(name) for _, name in calls() if not isinstance(name, ast.Constant)}

    assert computed == {"status.value", "record['status']", "event"}


def test_the_catalogue_names_every_field() -> None:
    unnamed = {event: fields - set(EVENTS[event].fields) for event, fields in literal_calls()}

    assert {event: fields for event, fields in unnamed.items() if fields} == {}


def test_a_status_is_told_with_the_fields_of_the_catalogue() -> None:
    said = [
        {word.arg for word in call.keywords}
        for call, name in calls()
        if ast.unparse(name) in ("status.value", "record['status']")
    ]

    assert said
    for event in STATUSES - {RequestStatus.CARRYING.value}:
        assert [fields for fields in said if fields != set(EVENTS[event].fields)] == [], event


def test_every_field_of_the_catalogue_is_explained() -> None:
    used = {field for kind in EVENTS.values() for field in kind.fields}

    assert used | {"event"} == set(FIELDS)
