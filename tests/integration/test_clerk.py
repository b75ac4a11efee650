"""The clerk: every element becomes one request with its job, or a dead letter, and none stops it."""

import hashlib
import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import format_time, parse_time
from gastown_mail.contracts.lifecycle import MAX_ELEMENT_BYTES, RequestStatus, content_id
from gastown_mail.mail.inbox import HEAD_BYTES
from gastown_mail.mail.requests import MAX_OPEN, DeadLetters
from gastown_mail.plumbing.connections import connect
from gastown_mail.town.queues import CARRY_OUT, TownJob
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.parts import a_clerk, accept_inbox
from tests.support.town import element

MAX, WITNESS = "gastown/crew/max", "gastown/witness"


def push(town: Town, *elements: bytes) -> None:
    town.redis.rpush(town.keys.inbox, *elements)


def jobs(town: Town, host: str = "") -> list[str]:
    """Return the requests of a queue's jobs, the next one first."""
    queue = town.queues.lifecycle(host or town.host)
    return [
        str(TownJob.fetch(job_id, connection=town.redis).args[0])
        for job_id in queue.get_job_ids()
    ]  # fmt: skip


def dead(town: Town) -> list[str]:
    return DeadLetters(town.redis, town.keys).ids()


def raw(town: Town, ident: str) -> bytes:
    work = town.requests.progress(ident)
    assert work is not None
    return work.element


def nothing_is_left(town: Town) -> bool:
    return not town.redis.exists(town.keys.inbox, town.keys.taken)


def test_an_element_becomes_a_record_and_a_job(town: Town) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    push(town, element("gastown-witness", "CYCLE", id="one", to="gastown/max", reason="ünd", handoff="h"))

    accept_inbox(town)

    record = town.requests.record("one")
    assert record["status"] == "received"
    assert (record["from"], record["to"], record["agent"]) == (WITNESS, MAX, MAX)
    assert (record["action"], record["reason"]) == ("cycle", "ünd")
    assert (record["finished_at"], record["detail"]) == ("", "")
    assert before < parse_time(record["timestamp"]) <= parse_time(record["received_at"])
    assert jobs(town) == ["one"]
    assert town.requests.pending(MAX) == ["one"]
    assert list(town.requests.unsettled()) == ["one"]
    assert nothing_is_left(town)
    assert dead(town) == []


def test_the_record_is_public_and_holds_no_secret(town: Town) -> None:
    push(town, element(WITNESS, "cycle", id="one", incarnation="s3cret", handoff="private notes"))

    accept_inbox(town)

    text = json.dumps(town.requests.record("one"))
    assert "s3cret" not in text
    assert "private notes" not in text


def test_the_job_runs_our_function_and_may_be_retried(town: Town) -> None:
    push(town, element(id="one"))

    accept_inbox(town)

    (job,) = town.queues.lifecycle(town.host).jobs
    assert (job.func_name, list(job.args), job.retries_left) == (CARRY_OUT, ["one"], 3)
    assert job.timeout == 61  # the agent's stop_grace and JOB_MARGIN


def test_the_same_id_twice_is_one_request(town: Town) -> None:
    push(town, element(WITNESS, "restart", id="one"), element(WITNESS, "shutdown", id="one"))
    accept_inbox(town)
    push(town, element(MAX, "shutdown", id="one"))

    accept_inbox(town)

    assert jobs(town) == ["one"]
    assert town.requests.record("one")["action"] == "restart"
    assert town.requests.record("one")["agent"] == WITNESS
    assert nothing_is_left(town)


def test_the_same_bytes_twice_are_one_request(town: Town) -> None:
    request = element(WITNESS, "restart")
    push(town, request, request)
    accept_inbox(town)
    push(town, request)

    accept_inbox(town)

    assert jobs(town) == [content_id(request)]
    assert nothing_is_left(town)


def test_a_late_copy_of_a_settled_request_changes_nothing(town: Town) -> None:
    request = element(WITNESS, "restart", id="one")
    push(town, request)
    accept_inbox(town)

    assert town.requests.settle("one", WITNESS, RequestStatus.DONE, "so it was", datetime.now(UTC))
    settled = town.requests.record("one")
    push(town, request)

    accept_inbox(town)

    assert town.requests.record("one") == settled
    assert town.requests.pending(WITNESS) == []


def element_with(**keys: object) -> bytes:
    return json.dumps(json.loads(element()) | keys).encode()


POISON = {
    "not JSON": (b"hello", "not JSON"),
    "cut off": (element()[:-1], "not JSON"),
    "nothing": (b"", "not JSON"),
    "not UTF-8": (b"\xff\xfe" + element(), "not UTF-8"),
    "UTF-16": (element().decode().encode("utf-16"), "not UTF-8"),
    "huge": (b'{"from":"' + b"x" * MAX_ELEMENT_BYTES, f"the limit is {MAX_ELEMENT_BYTES}"),
    "a list": (b"[]", "not a JSON object"),
    "a number": (b"1e999", "not a JSON object"),
    "a bomb": (b"[" * 100_000, "nested too deeply"),
    "an object bomb": (b'{"from":' * 10_000 + b"1" + b"}" * 10_000, "nested too deeply"),
    "no sender": (b'{"action":"cycle","timestamp":"2025-12-20T10:12:21Z"}', "from"),
    "empty sender": (element_with(**{"from": ""}), "from"),
    "no action": (b'{"from":"deacon/","timestamp":"2025-12-20T10:12:21Z"}', "action"),
    "wrong action": (element_with(action="reboot"), "expected cycle, restart or shutdown"),
    "numeric action": (element_with(action=1), "action"),
    "no time": (b'{"from":"deacon/","action":"cycle"}', "timestamp"),
    "no zone": (element_with(timestamp="2025-12-20T10:12:21"), "timestamp"),
    "no such day": (element_with(timestamp="2025-02-30T10:12:21Z"), "timestamp"),
    "epoch time": (element_with(timestamp=1734689541), "timestamp"),
    "wrong id": (element_with(id="a b"), "id"),
    "long reason": (element_with(reason="r" * 1001), "reason"),
    "long handoff": (element_with(action="cycle", handoff="h" * 65_537), "handoff"),
    "handoff with restart": (element_with(handoff="h"), "handoff"),
    "unknown agent": (element_with(**{"from": "gastown/polecats/nobody"}), "there is no agent"),
    "unknown rig": (element_with(**{"from": "atlantis/witness"}), "this town has no rig atlantis"),
    "unknown target": (element_with(to="gastown/refinery"), "there is no agent"),
    "no address": (element_with(to="the boss"), "is not an address"),
    "target operator": (element_with(to="operator"), "operator is a person"),
    "not allowed": (element_with(**{"from": MAX, "to": WITNESS}), f"{MAX} may not ask for {WITNESS}"),
}


@pytest.mark.parametrize("what", POISON)
def test_an_invalid_element_becomes_a_dead_letter_with_reason_and_bytes(town: Town, what: str) -> None:
    poison, reason = POISON[what]
    push(town, poison)

    accept_inbox(town)

    (ident,) = dead(town)
    record = town.requests.record(ident)
    assert record["status"] == "refused"
    assert reason in record["detail"]
    assert "\n" not in record["detail"]
    assert record["finished_at"] == record["received_at"]
    assert raw(town, ident) == (poison[:HEAD_BYTES] if len(poison) > MAX_ELEMENT_BYTES else poison)
    assert jobs(town) == list(town.requests.unsettled()) == town.requests.pending(WITNESS) == []
    assert nothing_is_left(town)


def test_invalid_elements_delay_no_request_and_keep_the_order(town: Town) -> None:
    elements = [element(WITNESS, "restart", id=f"good-{number}") for number in range(len(POISON))]
    for good, (poison, _) in zip(elements, POISON.values(), strict=True):
        push(town, poison, good)

    accept_inbox(town)

    good_ids = [f"good-{number}" for number in range(len(POISON))]
    assert jobs(town) == town.requests.pending(WITNESS) == good_ids
    assert len(dead(town)) == len(POISON)


def test_every_depth_of_nesting_is_survived(town: Town) -> None:
    """An element that the parser barely accepts may be too deep to be described."""
    for depth in range(200, 1100):
        push(town, b'{"action":"cycle","from":' + b"[" * depth + b"]" * depth + b"}")

    accept_inbox(town)

    assert len(dead(town)) == 900
    assert nothing_is_left(town)


def test_the_largest_element_is_read(town: Town) -> None:
    request = element(id="one", padding="")
    largest = request[:-2] + b"x" * (MAX_ELEMENT_BYTES - len(request)) + request[-2:]
    assert len(largest) == MAX_ELEMENT_BYTES
    push(town, largest)

    accept_inbox(town)

    assert jobs(town) == ["one"]


@pytest.mark.parametrize(
    "bad",
    [
        element_with(id="mine", action="reboot"),
        element_with(id="mine", timestamp="now"),
        element_with(id="mine", to=1),
    ],
)
def test_a_bad_element_is_recorded_as_refused_under_its_id(town: Town, bad: bytes) -> None:
    push(town, bad)

    accept_inbox(town)

    assert town.requests.record("mine")["status"] == "refused"
    assert dead(town) == ["mine"]


def test_a_request_goes_to_the_queue_of_its_agents_host(town: Town) -> None:
    toml = TWO_AGENTS + 'host = "far-away"\n'
    (town.settings.town_root / "town.toml").write_text(toml)
    push(town, element(MAX, "restart", id="there"), element(WITNESS, "restart", id="here"))

    accept_inbox(town)

    assert (jobs(town, "far-away"), jobs(town)) == (["there"], ["here"])


def test_what_a_killed_clerk_had_taken_is_accepted_first_and_once(town: Town) -> None:
    taken = [element(id=f"taken-{number}") for number in range(3)]
    town.redis.rpush(town.keys.taken, *taken)
    push(town, taken[0], element(id="later"))

    accept_inbox(town)

    assert jobs(town) == ["taken-0", "taken-1", "taken-2", "later"]
    assert nothing_is_left(town)


def test_more_than_a_batch_is_accepted_in_order(town: Town) -> None:
    push(town, *(element(random.choice([MAX, WITNESS]), id=f"{number:04}") for number in range(450)))

    accept_inbox(town)

    assert jobs(town) == [f"{number:04}" for number in range(450)]


def test_a_clerk_that_lost_its_lease_while_stopped_accepts_nothing(town: Town) -> None:
    with a_clerk(town) as first, connect(town.redis_url, blocking=5.0) as redis:
        assert first.serve_once(0.01) == 0
        push(town, element(id="one"))
        other = Town(town.settings, town.redis_url, redis)
        town.redis.delete(town.keys.clerk)  # Like the end of the lease.
        with a_clerk(other) as second:
            assert second.serve_once(0.01) == 1
            push(town, element(id="two"))

            with pytest.raises(GastownError, match="another clerk has taken over"):
                first.serve_once(0.01)

            assert jobs(town) == ["one"]
            assert second.serve_once(0.01) == 1
            assert jobs(town) == ["one", "two"]
    assert nothing_is_left(town)


def test_only_one_of_two_clerks_reads(town: Town) -> None:
    with a_clerk(town) as first, a_clerk(town) as second:
        assert first.serve_once(0.01) == 0
        push(town, element(id="one"))

        assert second.serve_once(0.01) == 0

        assert jobs(town) == []
        assert first.serve_once(0.01) == 1


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.lists(st.integers()),
    st.sampled_from([MAX, WITNESS, "operator", "cycle", "restart", "Shutdown", "one"]),
    st.sampled_from(["2025-12-20T10:12:21Z", "2025-12-20T10:12:21.5+14:00", "9999-12-31T23:59:59Z"]),
    st.just(format_time(datetime.now(UTC))),
)  # fmt: skip
KEYS = st.sampled_from(["from", "action", "timestamp", "id", "to", "incarnation", "reason", "handoff", "x"])
NEARLY = st.dictionaries(KEYS, VALUES, max_size=4).map(lambda keys: element_with(**keys))
ODD = st.one_of(
    st.binary(max_size=60), st.dictionaries(KEYS, VALUES).map(lambda keys: json.dumps(keys).encode())
)
CUT = st.builds(
    lambda raw, at, byte: raw[:at] + byte + raw[at + 1 :],
    NEARLY,
    st.integers(0, 80),
    st.binary(max_size=1),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(NEARLY, NEARLY, ODD, CUT), min_size=10, max_size=25))
def test_every_pushed_element_is_accounted_for_and_the_clerk_continues(
    town: Town, elements: list[bytes]
) -> None:
    town.redis.flushall()
    push(town, *elements, element(id="the-last"))

    accept_inbox(town)

    assert nothing_is_left(town)
    alive, gone = set(town.requests.unsettled()), set(dead(town))
    assert "the-last" in alive
    assert set(jobs(town)) == alive
    assert len(jobs(town)) == len(alive)
    kept = {raw(town, ident) for ident in alive | gone}
    given_ids = {ident for ident in alive | gone if not ident.startswith("sha-")}
    for one in set(elements):
        assert one in kept or any(f'"{ident}"'.encode() in one for ident in given_ids)


def test_elements_of_many_megabytes_delay_the_others_and_keep_their_head(own_town: Town) -> None:
    town, huge = own_town, [b'{"from": "%d' % number + b" " * 10_000_000 for number in range(55)]
    town.redis.rpush(town.keys.inbox, *huge, element(id="after-them"))

    accept_inbox(town)

    assert town.requests.record("after-them")["status"] == "received"
    letters = DeadLetters(town.redis, town.keys)
    found = town.requests.progress_many(letters.ids())
    assert {progress.element for progress in found if progress} == {one[:HEAD_BYTES] for one in huge}
    record = town.requests.record("sha1-" + hashlib.sha1(huge[0], usedforsecurity=False).hexdigest())
    assert f"it has {len(huge[0])} bytes" in record["detail"]
    with pytest.raises(GastownError, match="kept in part"):
        letters.revive(letters.ids()[0])
    assert nothing_is_left(town)


def statuses(town: Town, ids: list[str]) -> list[str]:
    return [record["status"] for record in town.requests.records(ids)]


def test_an_agent_has_a_bounded_number_of_open_requests(town: Town) -> None:
    ids = [f"r{number}" for number in range(MAX_OPEN + 30)]
    push(town, *(element(MAX, "restart", id=ident) for ident in ids))

    accept_inbox(town)

    assert statuses(town, ids) == ["superseded"] * 30 + ["received"] * MAX_OPEN
    assert town.requests.pending(MAX) == ids[30:]
    assert f"request {ids[-1]} came later" in town.requests.record("r0")["detail"]


def test_the_bound_supersedes_no_last_shutdown_and_nothing_that_was_begun(town: Town) -> None:
    push(town, *(element(MAX, action, id=f"{action}-1") for action in ("restart", "shutdown", "cycle")))
    push(town, element(MAX, "shutdown", id="shutdown-2"))
    accept_inbox(town)
    town.redis.hset(town.keys.request("restart-1"), "status", "carrying")

    push(town, *(element(MAX, "restart", id=f"r{number}") for number in range(MAX_OPEN)))
    accept_inbox(town)

    ids = ["restart-1", "shutdown-1", "cycle-1", "shutdown-2"]
    assert statuses(town, ids) == ["carrying", "superseded", "superseded", "received"]
