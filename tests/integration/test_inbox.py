"""The inbox list: elements move to `taken`, oldest first, and leave it only when they are accepted."""

import hashlib
import threading
import time

import pytest

from gastown_mail.contracts.lifecycle import MAX_ELEMENT_BYTES
from gastown_mail.mail.inbox import BATCH_BYTES, BATCH_SIZE, HEAD_BYTES, CutElement, Inbox
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

    assert not inbox.take(0.2)

    assert time.monotonic() - begun >= 0.15


def test_an_element_that_comes_during_the_wait_is_taken(town: Town, inbox: Inbox) -> None:
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(inbox.take(5.0)))
    waiting.start()
    eventually(lambda: town.redis.info("clients")["blocked_clients"])

    fill(town, 1)

    waiting.join(60)
    assert (taken, inbox.unfinished()) == ([True], [b"0"])


def test_the_oldest_elements_are_taken_in_order_and_stay_in_taken(town: Town, inbox: Inbox) -> None:
    elements = fill(town, 5)

    assert inbox.take(1.0)

    assert inbox.unfinished() == elements
    assert inbox.length() == 0


def test_no_more_than_a_batch_is_taken_at_once(town: Town, inbox: Inbox) -> None:
    elements = fill(town, BATCH_SIZE + 50)

    assert inbox.take(1.0)
    assert inbox.take(1.0)

    assert inbox.unfinished() == elements[:BATCH_SIZE]
    assert inbox.length() == 50


def test_no_more_bytes_than_a_batch_may_have_are_taken_and_read(town: Town, inbox: Inbox) -> None:
    element = b"x" * MAX_ELEMENT_BYTES
    fits = BATCH_BYTES // MAX_ELEMENT_BYTES
    town.redis.rpush(town.keys.inbox, *[element] * (2 * fits))

    assert inbox.take(1.0)

    assert town.redis.llen(town.keys.taken) == fits + 1
    assert inbox.unfinished() == [element] * fits


def test_of_an_element_that_is_too_long_only_the_head_is_read(town: Town, inbox: Inbox) -> None:
    long = b"abc" * MAX_ELEMENT_BYTES
    town.redis.rpush(town.keys.inbox, b"1", long, b"2")

    assert inbox.take(1.0)

    one, cut, two = inbox.unfinished()
    assert isinstance(cut, CutElement)
    assert (one, bytes(cut), two) == (b"1", long[:HEAD_BYTES], b"2")
    assert (cut.length, cut.digest) == (len(long), hashlib.sha1(long, usedforsecurity=False).hexdigest())
    assert not isinstance(one, CutElement)


def test_peeking_changes_nothing(town: Town, inbox: Inbox) -> None:
    elements = fill(town, 3)

    assert inbox.peek(2) == elements[:2]

    assert (inbox.length(), inbox.unfinished()) == (3, [])
