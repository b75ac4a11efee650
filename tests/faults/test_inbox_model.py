"""Inbox and records compared with a model; deaths and stalls of clerks are steps like any other."""

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, RequestStatus, content_id
from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.settings import Settings
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.mail.requests import DeadLetters, RequestStore
from gastown_mail.town.roster import Roster
from gastown_mail.town.town import Town
from tests.support.town import element, write_town

SHORT = 0.01
AGENTS = ("gastown/witness", "gastown/crew/max")
SENDERS = (*AGENTS, "operator", "gastown/polecats/nobody")


Lay = Callable[[Callable[[], None], Clerk], None]
"""Makes something happen at a point in a clerk's work."""


class Died(BaseException):
    """Stands for SIGKILL: the program cannot handle it and does nothing after it."""


class HookedRequests(RequestStore):
    """Lets something happen in the middle of accepting, after the clerk has looked for known ids."""

    meanwhile: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    def are_known(self, ids: Sequence[str]) -> list[bool]:
        found = super().are_known(ids)
        HookedRequests.meanwhile()
        return found


class HookedTown(Town):
    """Lets something happen after the clerk has taken elements and before it accepts them."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def roster(self) -> Roster:
        self.meanwhile()
        return super().roster()


@dataclass
class Accepted:
    """What the model knows of an accepted request."""

    raw: bytes
    agent: str
    status: str
    place: int
    final: dict[str, str] | None = None


@dataclass
class Model:
    """Elements in flight, in order, and the accepted requests."""

    queue: list[bytes] = field(default_factory=list)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    dead: dict[str, None] = field(default_factory=dict)
    places: Iterator[int] = field(default_factory=itertools.count)

    def accept(self, count: int) -> None:
        """Accept the first `count` elements, as a clerk has done."""
        batch, self.queue = self.queue[:count], self.queue[count:]
        for raw in batch:
            ident, agent, status = expected(raw)
            if ident not in self.accepted:
                self.accepted[ident] = Accepted(raw, agent, status, next(self.places))
                if status == "refused":
                    self.dead[ident] = None

    def open(self) -> list[str]:
        return [ident for ident, accepted in self.accepted.items() if accepted.status not in FINAL_STATUSES]


def expected(raw: bytes) -> tuple[str, str, str]:
    """Return the id, the agent and the first status of an element, by the contract."""
    try:
        ident, request = decode_element(raw)
    except GastownError:
        return content_id(raw), "", "refused"
    known = request.target in AGENTS and request.sender in (*AGENTS, "operator")
    allowed = request.sender in ("operator", "gastown/witness", request.target)
    return ident, request.target if known and allowed else "", "received" if known and allowed else "refused"


in_flight = precondition(lambda self: self.model.queue)
"""Without work a clerk would only wait, which is slow."""


class Machine(RuleBasedStateMachine):
    """Everything that can happen to a town's inbox and records, one step at a time."""

    folder: ClassVar[Path]
    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.settings: Settings = write_town(self.folder)
        self.model, self.pushed = Model(), list[bytes]()
        self.town, self.other_worker = self.open_town(), self.open_town()
        self.letters = DeadLetters(self.town.redis, self.town.keys)
        self.clerk, self.has_lost = self.new_clerk(), list[Clerk]()

    def open_town(self) -> HookedTown:
        town = HookedTown.open(self.settings, self.url, blocking=1.0)
        assert isinstance(town, HookedTown)
        town.requests = HookedRequests(town.redis, town.keys)
        return town

    def new_clerk(self) -> Clerk:
        return Clerk(self.open_town())

    def teardown(self) -> None:
        self.town.redis.delete(self.town.keys.clerk)
        for town in (self.town, self.other_worker, self.clerk.town, *(clerk.town for clerk in self.has_lost)):
            town.redis.close()

    def push(self, raw: bytes) -> None:
        self.town.redis.rpush(self.town.keys.inbox, raw)
        self.pushed.append(raw)
        self.model.queue.append(raw)

    @rule(sender=st.sampled_from(SENDERS), to=st.sampled_from(AGENTS), has_id=st.booleans())
    def push_new(self, sender: str, to: str, has_id: bool) -> None:
        more = {"id": secrets.token_hex(6)} if has_id else {"reason": secrets.token_hex(6)}
        self.push(element(sender, "restart", to=to, **more))

    @precondition(lambda self: self.pushed)
    @rule(data=st.data())
    def push_the_same_bytes(self, data: st.DataObject) -> None:
        self.push(data.draw(st.sampled_from(self.pushed)))

    @precondition(lambda self: self.pushed)
    @rule(data=st.data(), action=st.sampled_from(["cycle", "shutdown"]))
    def push_other_bytes_of_the_same_id(self, data: st.DataObject, action: str) -> None:
        ident = expected(data.draw(st.sampled_from(self.pushed)))[0]
        self.push(element("operator", action, to=AGENTS[0], id=ident))

    @rule(raw=st.one_of(st.binary(max_size=20), st.sampled_from([b"{}", b"null", b'{"from": 1}', b""])))
    def push_garbage(self, raw: bytes) -> None:
        self.push(raw)

    @in_flight
    @rule()
    def a_clerk_accepts(self) -> None:
        self.model.accept(self.clerk.serve_once(SHORT))

    @in_flight
    @rule()
    def a_clerk_dies_after_it_has_taken(self) -> None:
        self.die_at(lambda hook, clerk: setattr(clerk.town, "meanwhile", hook))

    @in_flight
    @rule()
    def a_clerk_dies_while_it_accepts(self) -> None:
        self.die_at(lambda hook, _: setattr(HookedRequests, "meanwhile", staticmethod(hook)))

    @in_flight
    @rule()
    def a_clerk_dies_after_it_has_accepted(self) -> None:
        self.model.accept(self.clerk.serve_once(SHORT))
        self.bury()

    @in_flight
    @rule()
    def a_clerk_stalls_after_it_has_taken_and_another_takes_over(self) -> None:
        self.stall_at(lambda hook, clerk: setattr(clerk.town, "meanwhile", hook))

    @in_flight
    @rule()
    def a_clerk_stalls_while_it_accepts_and_another_takes_over(self) -> None:
        self.stall_at(lambda hook, _: setattr(HookedRequests, "meanwhile", staticmethod(hook)))

    @precondition(lambda self: self.has_lost and self.model.queue)
    @rule(data=st.data())
    def a_clerk_that_was_replaced_resumes(self, data: st.DataObject) -> None:
        self.model.accept(self.clerk.serve_once(SHORT))
        self.push(element("operator", "restart", to=AGENTS[1]))
        self.accepts_nothing(data.draw(st.sampled_from(self.has_lost)))

    def accepts_nothing(self, replaced: Clerk) -> None:
        """Check that a replaced clerk waits or fails when it wants to write."""
        with contextlib.suppress(GastownError):
            assert replaced.serve_once(SHORT) == 0

    def die_at(self, lay: Lay) -> None:
        def die() -> None:
            raise Died

        lay(die, self.clerk)
        try:
            assert self.clerk.serve_once(SHORT) == 0
        except Died:
            pass
        finally:
            self.clear_hooks()
        self.bury()

    def bury(self) -> None:
        """Drop the dead clerk's lease and start its successor."""
        self.clerk.town.redis.close()
        self.town.redis.delete(self.town.keys.clerk)
        self.clerk = self.new_clerk()

    def stall_at(self, lay: Lay) -> None:
        """Stall the clerk there until its lease is over and its successor has accepted."""
        stalled, self.clerk = self.clerk, self.new_clerk()

        def meanwhile() -> None:
            self.clear_hooks(stalled)
            self.town.redis.delete(self.town.keys.clerk)
            self.model.accept(self.clerk.serve_once(SHORT))

        self.has_lost.append(stalled)
        lay(meanwhile, stalled)
        try:
            self.accepts_nothing(stalled)
        finally:
            self.clear_hooks(stalled)

    def clear_hooks(self, *clerks: Clerk) -> None:
        HookedRequests.meanwhile = staticmethod(lambda: None)
        for clerk in (self.clerk, *clerks):
            clerk.town.meanwhile = lambda: None  # type: ignore[attr-defined]

    @precondition(lambda self: self.model.open())
    @rule(
        data=st.data(),
        first=st.sampled_from(sorted(FINAL_STATUSES)),
        second=st.sampled_from(sorted(FINAL_STATUSES)),
    )
    def two_workers_settle(self, data: st.DataObject, first: str, second: str) -> None:
        ident = data.draw(st.sampled_from(self.model.open()))
        accepted, now = self.model.accepted[ident], datetime.now(UTC)

        assert self.town.requests.settle(ident, accepted.agent, RequestStatus(first), "the first", now)
        assert not self.other_worker.requests.settle(
            ident, accepted.agent, RequestStatus(second), "too late", now
        )

        accepted.status = first
        if first in DEAD_STATUSES:
            self.model.dead[ident] = None

    @precondition(lambda self: self.model.dead)
    @rule(data=st.data())
    def an_operator_revives(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from(list(self.model.dead)))
        self.letters.revive(ident)
        del self.model.dead[ident]
        self.model.queue.append(self.model.accepted.pop(ident).raw)

    @precondition(lambda self: self.model.dead)
    @rule(data=st.data())
    def an_operator_drops(self, data: st.DataObject) -> None:
        ident = data.draw(st.sampled_from(list(self.model.dead)))
        self.letters.drop(ident)
        del self.model.dead[ident]

    @invariant()
    def each_element_is_in_flight_or_accepted(self) -> None:
        redis, keys = self.town.redis, self.town.keys
        assert redis.lrange(keys.taken, 0, -1) + redis.lrange(keys.inbox, 0, -1) == self.model.queue
        ids = {expected(raw)[0] for raw in self.pushed}
        assert ids == self.model.accepted.keys() | {expected(raw)[0] for raw in self.model.queue}

    @invariant()
    def the_records_say_what_the_model_says(self) -> None:
        ids = {expected(raw)[0] for raw in self.pushed}
        for ident, record in zip(ids, self.town.requests.records(list(ids)), strict=True):
            accepted = self.model.accepted.get(ident)
            assert record.get("status", "") == (accepted.status if accepted else "")

    @invariant()
    def what_is_final_never_changes(self) -> None:
        for ident, accepted in self.model.accepted.items():
            if accepted.status in FINAL_STATUSES:
                record = self.town.requests.record(ident)
                accepted.final = accepted.final or record
                assert record == accepted.final

    @invariant()
    def the_lists_say_what_the_records_say(self) -> None:
        assert set(self.town.requests.unsettled()) == set(self.model.open())
        assert set(self.letters.ids()) == self.model.dead.keys()
        for agent in AGENTS:
            mine = [ident for ident in self.model.open() if self.model.accepted[ident].agent == agent]
            ordered = sorted(mine, key=lambda ident: self.model.accepted[ident].place)
            assert self.town.requests.pending(agent) == ordered, "oldest first"


@pytest.mark.timeout(300)
def test_each_element_is_accounted_for_exactly_once_despite_deaths_and_stalls(
    tmp_path: Path, redis_url: str
) -> None:
    Machine.folder, Machine.url = tmp_path, redis_url
    wanted = settings(
        max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    run_state_machine_as_test(Machine, settings=wanted)
