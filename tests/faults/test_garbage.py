"""Ten thousand random and near-valid elements: each is accounted for, and the valid ones keep their order."""

import json
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from gastown_mail.contracts.errors import UndecodableElement
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, MAX_ELEMENT_BYTES, element_id
from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.times import format_time
from gastown_mail.daemon.town import Town
from gastown_mail.plumbing.answers import texts
from tests.parts import CLERK, running
from tests.towns import element
from tests.waiting import eventually

COUNT, SEED = 10_000, 7
AT_ONCE = 500
MEMORY_BOUND = 300_000_000
"""Bytes that the clerk may have in memory after all of it; the elements alone are some 30 MB."""

SENDERS = ("gastown/witness", "gastown-witness", "gastown/crew/max", "operator", "mayor/", "gastown/polecats/nobody")


def a_request(chance: random.Random, number: int) -> dict[str, object]:
    """A valid one, of an id of its own."""
    wish: dict[str, object] = {
        "from": chance.choice(["gastown/witness", "gastown/crew/max"]),
        "action": chance.choice(["cycle", "restart", "SHUTDOWN"]),
        "timestamp": format_time(datetime.now(UTC)),
        "id": f"n{number}",
    }
    return wish | ({"reason": "ü☃" * chance.randrange(20)} if chance.random() < 0.3 else {})


def nearly(chance: random.Random, number: int) -> bytes:
    """A valid one with one thing wrong, or odd, about it."""
    wish = a_request(chance, number)
    values = [None, 1, "", [], {}, True, "x" * 3000, "\ud800", "2025-13-40T99:00:00Z", -0.0, 1e400, "../../etc"]
    key = chance.choice([*wish, "to", "incarnation", "reason", "handoff", "unknown"])
    kind = chance.randrange(5)
    if kind == 0:
        wish.pop(key, None)
    elif kind == 1:
        wish[key] = chance.choice(values)
    elif kind == 2:
        wish["from"] = chance.choice(SENDERS)
    text = json.dumps(wish).encode()
    if kind == 3:
        return text[: chance.randrange(len(text))]
    place = chance.randrange(len(text))
    return text if kind < 3 else text[:place] + chance.randbytes(2) + text[place:]


def noise(chance: random.Random) -> bytes:
    """Anything at all."""
    kind = chance.randrange(40)
    if kind == 0:
        return b"[" * 50_000
    if kind == 1:
        return b" " * (MAX_ELEMENT_BYTES + 1)
    return chance.randbytes(chance.randrange(200))


def elements(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    earlier: list[bytes] = [b""]
    for number in range(COUNT):
        made = chance.choices(
            [lambda n=number: json.dumps(a_request(chance, n)).encode(), lambda n=number: nearly(chance, n),
             lambda: noise(chance), lambda: chance.choice(earlier)],
            [3, 4, 2, 1],
        )[0]()  # fmt: skip
        if number % 50 == 0:
            earlier.append(made)
        yield made


def readable_id(raw: bytes) -> str | None:
    """The id of a valid request, None for what is none."""
    try:
        return decode_element(raw)[0]
    except UndecodableElement:
        return None


@contextmanager
def one_clerk(town: Town) -> Iterator[list[int]]:
    with running(CLERK, town.settings, town.redis_url) as process:
        used: list[int] = []
        yield used
        used.append(process.memory_info().rss)


@pytest.mark.timeout(120)
def test_ten_thousand_elements_are_all_accounted_for_and_the_valid_ones_in_order(own_town: Town) -> None:
    town, keys = own_town, own_town.keys
    given = list(elements(SEED))
    valid = [ident for ident in map(readable_id, given) if ident]
    assert COUNT / 4 < len(valid) < COUNT, "the mixture is one"

    with one_clerk(town) as used:
        for start in range(0, COUNT, AT_ONCE):
            town.redis.rpush(keys.inbox, *given[start : start + AT_ONCE])
        last = town.requests.record
        town.redis.rpush(keys.inbox, element("gastown/witness", "restart", id="the-last"))
        eventually(lambda: last("the-last").get("status"), deadline=90, step=0.1)

    assert town.redis.llen(keys.inbox) == town.redis.llen(keys.taken) == 0
    assert_each_has_a_record(town, given)
    assert_in_order(town, [*dict.fromkeys(valid), "the-last"])
    assert used[0] < MEMORY_BOUND


def assert_each_has_a_record(town: Town, given: list[bytes]) -> None:
    """A readable one is open or settled; every other one is a dead letter with its raw bytes and a reason."""
    ids = [readable_id(raw) for raw in given]
    by_digest = {element_id(raw): raw for raw, ident in zip(given, ids, strict=True) if ident is None}
    records = dict(zip(ids, town.requests.records([ident or "" for ident in ids]), strict=True))
    assert all(record.get("received_at") for ident, record in records.items() if ident)
    dead = set(town.dead_ids())
    works = {work.element for work in town.requests.works(sorted(dead)) if work}
    assert set(by_digest.values()) <= works | {b"".join([])}


def assert_in_order(town: Town, valid: list[str]) -> None:
    """Each agent's queue holds its requests in the order in which they were pushed."""
    places = {ident: place for place, ident in enumerate(valid)}
    for agent in town.roster().agents:
        waiting = texts(town.redis.zrange(town.keys.waiting(agent), 0, -1))
        assert waiting, agent
        assert [places[ident] for ident in waiting] == sorted(places[ident] for ident in waiting)


_ = time, resource, FINAL_STATUSES
