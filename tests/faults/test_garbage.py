"""Ten thousand random and near-valid elements: each is accounted for, and the valid ones keep their order."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from gastown_mail.contracts.errors import InvalidRequest
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.lifecycle import MAX_ELEMENT_BYTES
from gastown_mail.contracts.request import decode_element
from gastown_mail.mail.inbox import HEAD_BYTES
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.town.town import Town
from tests.support.parts import CLERK, running
from tests.support.town import element
from tests.support.wait import eventually

COUNT, SEED = 10_000, 7
AT_ONCE = 500
MEMORY_BOUND = 300_000_000
"""Bytes that the clerk may use in the end; the elements alone are about 30 MB."""

SENDERS = (
    "gastown/witness",
    "gastown-witness",
    "gastown/crew/max",
    "operator",
    "mayor/",
    "gastown/polecats/nobody",
)


ODD: tuple[object, ...] = (
    None, 1, "", [], {}, True, "x" * 3000, "\ud800", "2025-13-40T99:00:00Z", -0.0, 1e400, "../../etc"
)  # fmt: skip
"""Values of the wrong type or form."""


def a_request(chance: random.Random, number: int) -> dict[str, object]:
    """Return a valid element with a unique id."""
    wish: dict[str, object] = {
        "from": chance.choice(["gastown/witness", "gastown/crew/max"]),
        "action": chance.choice(["cycle", "restart", "SHUTDOWN"]),
        "timestamp": format_time(datetime.now(UTC)),
        "id": f"n{number}",
    }
    return wish | ({"reason": "ü☃" * chance.randrange(20)} if chance.random() < 0.3 else {})


def nearly(chance: random.Random, number: int) -> bytes:
    """Return a valid element with one thing wrong or odd."""
    wish = a_request(chance, number)
    key = chance.choice([*wish, "to", "incarnation", "reason", "handoff", "unknown"])
    kind = chance.randrange(5)
    if kind == 0:
        wish.pop(key, None)
    elif kind == 1:
        wish[key] = chance.choice(ODD)
    elif kind == 2:
        wish["from"] = chance.choice(SENDERS)
    text = json.dumps(wish).encode()
    if kind == 3:
        return text[: chance.randrange(len(text))]
    place = chance.randrange(len(text))
    return text if kind < 3 else text[:place] + chance.randbytes(2) + text[place:]


def noise(chance: random.Random) -> bytes:
    """Return random bytes."""
    kind = chance.randrange(40)
    if kind == 0:
        return b"[" * 50_000
    if kind == 1:
        return b" " * (MAX_ELEMENT_BYTES + 1)
    return chance.randbytes(chance.randrange(200))


def a_kind(kind: str, chance: random.Random, number: int) -> bytes:
    if kind == "valid":
        return json.dumps(a_request(chance, number)).encode()
    if kind == "nearly":
        return nearly(chance, number)
    return noise(chance) if kind == "noise" else b""


def elements(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    earlier: list[bytes] = [b""]
    for number in range(COUNT):
        kind = chance.choices(("valid", "nearly", "noise", "again"), (3, 4, 2, 1))[0]
        made = a_kind(kind, chance, number) or chance.choice(earlier)
        if number % 50 == 0:
            earlier.append(made)
        yield made


def readable_id(raw: bytes) -> str | None:
    """Return the id of a valid request, None for an invalid element."""
    try:
        return decode_element(raw)[0]
    except InvalidRequest:
        return None


@pytest.mark.timeout(120)
def test_ten_thousand_elements_are_all_accounted_for_and_the_valid_ones_in_order(own_town: Town) -> None:
    town, given = own_town, list(elements(SEED))
    valid = [ident for ident in map(readable_id, given) if ident]
    assert COUNT / 4 < len(valid) < COUNT * 3 / 4, "there are both valid and invalid elements"

    with running(CLERK, town.settings, town.redis_url) as clerk:
        for start in range(0, COUNT, AT_ONCE):
            town.redis.rpush(town.keys.inbox, *given[start : start + AT_ONCE])
        town.redis.rpush(town.keys.inbox, element("gastown/witness", "restart", id="the-last"))
        eventually(lambda: town.requests.record("the-last"), deadline=90, step=0.1)
        used = clerk.memory_info().rss

    assert used < MEMORY_BOUND
    assert town.redis.llen(town.keys.inbox) == town.redis.llen(town.keys.taken) == 0
    garbage = {raw for raw in given if readable_id(raw) is None}
    assert_accounted_for(town, set(valid), garbage)
    assert_in_order(town, [*dict.fromkeys(valid), "the-last"])


def assert_accounted_for(town: Town, valid: set[str], garbage: set[bytes]) -> None:
    """Check that each valid id has one record and each other element a dead letter with bytes and reason."""
    assert all(record.get("status") for record in town.requests.records(sorted(valid)))
    dead = DeadLetters(town.redis, town.keys).ids()
    works = zip(town.requests.progress_many(dead), town.requests.records(dead), strict=True)
    kept = {work.element: record["detail"] for work, record in works if work}
    heads = {raw[:HEAD_BYTES] if len(raw) > MAX_ELEMENT_BYTES else raw for raw in garbage}
    assert heads <= kept.keys()
    assert all(kept[raw] for raw in heads)
    pattern = town.keys.request("*").replace("{", "[{]").replace("}", "[}]")
    assert sum(1 for _ in town.redis.scan_iter(pattern, count=5000)) == len(valid) + len(garbage) + 1


def assert_in_order(town: Town, valid: list[str]) -> None:
    """Check that each agent's requests wait in the order they were pushed."""
    places = {ident: place for place, ident in enumerate(valid)}
    for agent in town.roster().agents:
        waiting = [places[ident] for ident in town.requests.pending(agent)]
        assert len(waiting) > COUNT / 20, agent
        assert waiting == sorted(waiting), agent
