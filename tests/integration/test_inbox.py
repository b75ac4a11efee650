"""The inbox list: elements move to `taken`, oldest first, and leave it only when they are accepted."""

import threading
import time

import pytest

from gastown_mail.mail.requests import BATCH_SIZE, Inbox
from gastown_mail.town.town import Town
from tests.support.wait import eventually


@pytest.fixture
def inbox(town: Town) -> Inbox:
    return Inbox(town.redis, town.keys)


def fill(town: Town, count: int) -> list[bytes]:
    elements = [b"%d" % number for number in range(count)]
    town.redis.rpush(town.keys.inbox, *elements)
    return elements


def test_an_empty_inbox_is_reported_after_the_wait(inbox: Inbox) -> None:
    begun = time.monotonic()

    assert inbox.take(0.2) == []

    assert time.monotonic() - begun >= 0.15


def test_an_element_that_comes_during_the_wait_is_taken(town: Town, inbox: Inbox) -> None:
    taken: list[bytes] = []
    waiting = threading.Thread(target=lambda: taken.extend(inbox.take(5.0)))
    waiting.start()
    eventually(lambda: town.redis.info("clients")["blocked_clients"])

    fill(town, 1)

    waiting.join(10)
    assert taken == [b"0"]


def test_the_oldest_elements_are_taken_in_order_and_stay_in_taken(town: Town, inbox: Inbox) -> None:
    elements = fill(town, 5)

    assert inbox.take(1.0) == elements

    assert inbox.unfinished() == elements
    assert inbox.length() == 0


def test_no_more_than_a_batch_is_taken_at_once(town: Town, inbox: Inbox) -> None:
    elements = fill(town, BATCH_SIZE + 50)

    first, second = inbox.take(1.0), inbox.take(1.0)

    assert (first, second) == (elements[:BATCH_SIZE], elements[BATCH_SIZE:])
    assert inbox.unfinished() == elements[:BATCH_SIZE]


def test_peeking_changes_nothing(town: Town, inbox: Inbox) -> None:
    elements = fill(town, 3)

    assert inbox.peek(2) == elements[:2]

    assert (inbox.length(), inbox.unfinished()) == (3, [])
    assert inbox.take(1.0) == elements
