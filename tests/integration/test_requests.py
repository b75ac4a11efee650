"""Records of requests: their one final status, and the dead letters."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, RequestStatus
from gastown_mail.mail import events
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.plumbing.connections import connect
from gastown_mail.town.queues import TownJob
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.parts import accept_inbox
from tests.support.town import element

WITNESS = "gastown/witness"
WEEK = 7 * 24 * 3600


@pytest.fixture
def ask(town: Town) -> Callable[..., str]:
    """Have a request accepted; return its id."""

    def book(ident: str = "one", sender: str = WITNESS, **more: object) -> str:
        town.redis.rpush(town.keys.inbox, element(sender, "restart", id=ident, **more))
        accept_inbox(town)
        return ident

    return book


@pytest.fixture
def dead(town: Town) -> DeadLetters:
    return DeadLetters(town.redis, town.keys)


def settle(town: Town, ident: str, status: RequestStatus, detail: str = "so it was") -> bool:
    return town.requests.settle(ident, WITNESS, status, detail, datetime.now(UTC))


def told(town: Town) -> list[str]:
    return [event.fields["event"] for event in events.read_latest(town.redis, town.keys, 100)]


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_a_request_gets_its_final_status_and_is_no_longer_pending(
    town: Town, ask: Callable[..., str], status: RequestStatus
) -> None:
    ask("one")
    ask("two")

    assert settle(town, "one", status)

    record = town.requests.record("one")
    assert (record["status"], record["detail"]) == (status.value, "so it was")
    assert record["finished_at"] >= record["received_at"]
    assert town.requests.pending(WITNESS) == list(town.requests.unsettled()) == ["two"]
    assert told(town)[-1] == status.value


@pytest.mark.parametrize("first", sorted(FINAL_STATUSES))
@pytest.mark.parametrize("second", sorted(FINAL_STATUSES))
def test_a_final_status_is_final(
    town: Town, ask: Callable[..., str], first: RequestStatus, second: RequestStatus
) -> None:
    ask()
    settle(town, "one", first)
    before = town.requests.record("one"), told(town)

    assert not settle(town, "one", second, "something else")

    assert (town.requests.record("one"), told(town)) == before


def test_only_one_of_many_settles_a_request(town: Town, ask: Callable[..., str]) -> None:
    ask()
    won: list[str] = []
    start = threading.Barrier(5)

    def race(status: RequestStatus) -> None:
        with connect(town.redis_url) as redis:
            mine = Town(town.settings, town.redis_url, redis)
            start.wait(60)
            if settle(mine, "one", status, status.value):
                won.append(status.value)

    racers = [threading.Thread(target=race, args=(status,)) for status in FINAL_STATUSES]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(20)

    record = town.requests.record("one")
    assert won == [record["status"]] == [record["detail"]]
    assert len(told(town)) == 2  # `received`, and the one final status.


def test_an_unknown_request_cannot_be_settled(town: Town) -> None:
    assert not settle(town, "nobody-asked", RequestStatus.DONE)
    assert town.requests.record("nobody-asked") == {}
    assert told(town) == []


def test_a_settled_request_is_kept_for_a_week_and_an_open_one_forever(
    town: Town, ask: Callable[..., str]
) -> None:
    ask("open")
    ask("settled")
    settle(town, "settled", RequestStatus.DONE)

    for key in (town.keys.request("settled"), town.keys.progress("settled")):
        assert WEEK - 60 < town.redis.ttl(key) <= WEEK
    for key in (town.keys.request("open"), town.keys.progress("open")):
        assert town.redis.ttl(key) == -1


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_refused_expired_and_failed_are_dead_letters(
    town: Town, ask: Callable[..., str], dead: DeadLetters, status: RequestStatus
) -> None:
    ask()

    settle(town, "one", status)

    assert dead.ids() == (["one"] if status in DEAD_STATUSES else [])


def test_dead_letters_are_listed_oldest_first_and_for_a_week(
    town: Town, ask: Callable[..., str], dead: DeadLetters
) -> None:
    now, kept = datetime.now(UTC), timedelta(days=7)
    for ident, age in (("gone", kept + timedelta(1)), ("old", kept - timedelta(1)), ("new", timedelta(0))):
        ask(ident)
        town.requests.settle(ident, WITNESS, RequestStatus.FAILED, "", now - age)

    assert dead.ids() == ["old", "new"]
    assert town.redis.zcard(town.keys.dead) == 2


def test_a_revived_letter_becomes_a_new_request(
    town: Town, ask: Callable[..., str], dead: DeadLetters
) -> None:
    ask(to="gastown/crew/max", reason="why")
    settle(town, "one", RequestStatus.EXPIRED)
    before = datetime.now(UTC)

    dead.revive("one")
    accept_inbox(town)

    record, work = town.requests.record("one"), town.requests.progress("one")
    assert (record["status"], record["agent"], record["reason"]) == ("received", "gastown/crew/max", "why")
    assert record["detail"] == record["finished_at"] == ""
    assert work
    assert work.revived_at
    assert work.revived_at >= before
    assert (work.attempts, work.started_at) == (0, None)
    assert dead.ids() == []
    assert town.requests.pending("gastown/crew/max") == ["one"]
    assert town.redis.ttl(town.keys.request("one")) == town.redis.ttl(town.keys.progress("one")) == -1
    assert TownJob.exists(town.keys.job_id("request", "one"), connection=town.redis)
    assert "revived" in told(town)


def test_a_letter_without_an_id_keeps_its_digest_when_revived(town: Town, dead: DeadLetters) -> None:
    town.redis.rpush(town.keys.inbox, b'{"from":"gastown/witness"}')
    accept_inbox(town)
    (ident,) = dead.ids()

    dead.revive(ident)
    accept_inbox(town)

    assert dead.ids() == [ident]
    assert town.requests.record(ident)["status"] == "refused"


def test_a_letter_refused_for_a_missing_agent_is_carried_out_once_the_agent_exists(
    town: Town, ask: Callable[..., str], dead: DeadLetters
) -> None:
    ask(sender="gastown/crew/new", to="gastown/crew/new")
    assert dead.ids() == ["one"]
    file = town.settings.town_root / "town.toml"
    file.write_text(file.read_text() + '[agents."gastown/crew/new"]\n')

    dead.revive("one")
    with connect(town.redis_url, blocking=5.0) as redis:
        accept_inbox(Town(town.settings, town.redis_url, redis))

    assert town.requests.pending("gastown/crew/new") == ["one"]


def test_two_simultaneous_revivals_revive_once(
    town: Town, ask: Callable[..., str], dead: DeadLetters
) -> None:
    ask()
    settle(town, "one", RequestStatus.FAILED)
    start, refused = threading.Barrier(4), []

    def race() -> None:
        with connect(town.redis_url) as redis:
            mine = DeadLetters(redis, town.keys)
            start.wait(60)
            try:
                mine.revive("one")
            except GastownError as error:
                refused.append(str(error))

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(20)

    assert town.redis.llen(town.keys.inbox) == 1
    assert len(refused) == 3


def test_a_dropped_letter_is_off_the_list_and_its_record_stays(
    town: Town, ask: Callable[..., str], dead: DeadLetters
) -> None:
    ask()
    settle(town, "one", RequestStatus.FAILED)

    dead.drop("one")

    assert dead.ids() == []
    assert town.requests.record("one")["status"] == "failed"
    assert told(town)[-1] == "dropped"


@pytest.mark.parametrize("act", [DeadLetters.revive, DeadLetters.drop])
@pytest.mark.parametrize("ident", ["open", "done", "unknown"])
def test_only_a_dead_letter_can_be_revived_or_dropped(
    town: Town,
    ask: Callable[..., str],
    dead: DeadLetters,
    act: Callable[[DeadLetters, str], None],
    ident: str,
) -> None:
    ask("open")
    ask("done")
    settle(town, "done", RequestStatus.DONE)

    with pytest.raises(GastownError, match=f"there is no dead letter {ident}"):
        act(dead, ident)

    assert town.redis.llen(town.keys.inbox) == 0


def test_a_letter_without_its_bytes_says_so(town: Town, ask: Callable[..., str], dead: DeadLetters) -> None:
    ask()
    settle(town, "one", RequestStatus.FAILED)
    town.redis.delete(town.keys.progress("one"))

    with pytest.raises(GastownError, match="no longer kept; send a new request"):
        dead.revive("one")


def test_many_records_are_read_in_their_order(town: Town, ask: Callable[..., str]) -> None:
    ask("one", reason="1")
    ask("two", reason="2")

    found = town.requests.records(["two", "unknown", "one"])

    assert [record.get("reason") for record in found] == ["2", None, "1"]


def test_settled_requests_are_kept_as_long_as_configured(make_town: Callable[..., Town]) -> None:
    for said, seconds in (('requests_kept = "2h"', 7200), ('requests_kept = "1m"', 3600)):
        town = make_town(f"[daemon]\n{said}\n{TWO_AGENTS}")
        town.redis.rpush(town.keys.inbox, element(id="one"))
        accept_inbox(town)
        settle(town, "one", RequestStatus.FAILED)

        for key in (town.keys.request("one"), town.keys.progress("one")):
            assert seconds - 60 < town.redis.ttl(key) <= seconds, (
                "within max_request_age an id is one request"
            )
