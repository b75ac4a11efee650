"""The events stream: one entry per fact, in order, capped."""

import time
from collections.abc import Callable

from gastown_mail.mail.events import EventName, last_id, read_after, read_latest, record_event
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS


def test_an_event_is_recorded_with_its_fields(town: Town) -> None:
    before = time.time()

    record_event(town.redis, town.keys, EventName.POKE, agent="deacon/", number=3, detail="", outcome="ütf")

    (event,) = read_latest(town.redis, town.keys, 10)
    assert event.fields == {"event": "poke", "agent": "deacon/", "number": "3", "outcome": "ütf"}
    assert before - 1 < event.epoch < time.time() + 1


def test_events_after_an_id_are_read_oldest_first(town: Town) -> None:
    assert last_id(town.redis, town.keys) == "0-0"
    record_event(town.redis, town.keys, EventName.STARTED)
    place = last_id(town.redis, town.keys)
    for number in range(5):
        record_event(town.redis, town.keys, EventName.HEARTBEAT, number=number)

    found = read_after(town.redis, town.keys, place)

    assert [event.fields.get("number") for event in found] == ["0", "1", "2", "3", "4"]
    assert read_after(town.redis, town.keys, found[-1].id) == []
    assert [event.fields["number"] for event in read_after(town.redis, town.keys, place, most=2)] == [
        "0",
        "1",
    ]


def test_the_latest_are_the_newest_in_order(town: Town) -> None:
    for number in range(5):
        record_event(town.redis, town.keys, EventName.HEARTBEAT, number=number)

    assert [event.fields["number"] for event in read_latest(town.redis, town.keys, 2)] == ["3", "4"]


def test_the_stream_keeps_about_as_many_as_the_settings_say(make_town: Callable[..., Town]) -> None:
    town, kept = make_town(f"[daemon]\nevents_kept = 2000\n{TWO_AGENTS}"), 2000
    with town.redis.pipeline(transaction=False) as pipe:
        for number in range(kept + 1000):
            record_event(pipe, town.keys, EventName.HEARTBEAT, number=number)
        pipe.execute()

    length = town.redis.xlen(town.keys.events)
    assert kept <= length < kept + 500
    assert read_latest(town.redis, town.keys, 1)[0].fields["number"] == str(kept + 999)


def test_an_event_of_a_failed_transaction_is_not_recorded(town: Town) -> None:
    with town.redis.pipeline() as pipe:
        record_event(pipe, town.keys, EventName.STARTED)
        pipe.reset()

    assert read_latest(town.redis, town.keys, 10) == []
