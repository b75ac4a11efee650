"""The records of agents and of the town in Redis."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field
from redis import Redis

from gastown_mail.contracts.errors import Postponed, StateUnknown
from gastown_mail.contracts.go_formats import ZERO_TIME
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.validation import Flag, RedisHash, Timestamp, one_line_error, stored_as
from gastown_mail.plumbing.clock import redis_time
from gastown_mail.plumbing.connections import read_hash, read_hashes, to_fields, to_str, to_str_dict, to_strs
from gastown_mail.town.backoff import NO_HISTORY, StartHistory

TOWN = "*"
"""The address of the record that says whether the whole town is paused."""

_LOCK_TIMEOUT = 5.0
"""Seconds to wait while another process writes `state.json` or `desired.json`."""


class Desired(enum.StrEnum):
    """What an agent should be, whatever is observed."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


class Place(RedisHash):
    """Where an agent lives: the fields of its record that say so, all empty if it lives nowhere.

    `machine` is that of the host's identity.json, `boot` the kernel's id of the boot, `tmux_server` the
    server's pid and its start in epoch seconds.
    """

    machine: str = ""
    boot: str = ""
    host: str = ""
    tmux_server: str = ""
    tmux_socket: str = ""


class AgentRecord(Place):
    """What Redis holds of an agent. `desired` is None if it follows the settings; times may be ZERO_TIME.

    `successor_owed`: a request has ended its session, and the successor is not up yet. `unanswered`: how many
    pokes in a row got no answer. `before_pause`: what `desired` was before the pause. `wish`: the number of
    the wish that set `desired`, greater than that of every earlier wish. `state` and what goes with it is
    what was last seen; `screen` is a fingerprint. `cycle_asked`: the incarnation for which the
    daemon has asked for a cycle. `generation` grows with each start. `assigned`: the host to which an
    operator moved it. `start_fault`: why its last start failed, "" if it came up. `damage`: why the stored
    record cannot be read; such an agent is left alone.
    """

    desired: Desired | None = None
    session: str = ""
    incarnation: str = ""
    started_at: Timestamp = ZERO_TIME
    changed_at: Timestamp = ZERO_TIME
    generation: int = 0
    assigned: str = ""
    last_poke: Timestamp = ZERO_TIME
    last_activity: Timestamp = ZERO_TIME
    state: AgentState = AgentState.UNKNOWN
    state_since: Timestamp = ZERO_TIME
    state_line: str = ""
    screen: str = ""
    limited_until: Timestamp = ZERO_TIME
    cycle_asked: str = ""
    unanswered: int = stored_as("misses", 0)
    restarts: int = 0
    decision: str = ""
    before_pause: str = ""
    wish: int = 0
    successor_owed: Flag = stored_as("owed", False)
    start_history: StartHistory = NO_HISTORY
    start_fault: str = ""
    damage: str = Field(default="", exclude=True)

    def generation_after(self, now: float) -> int:
        """The next generation, at `now` (epoch seconds).

        It follows the clock in milliseconds: tmux remembers the last one, and an emptied Redis does not.
        """
        return max(self.generation + 1, int(now * 1000))

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Self:
        """Read the hash `agent:<address>`, which holds the fields of the start history too."""
        given = {name: text for name, text in fields.items() if text and name != "damage"}
        try:
            history = StartHistory.from_mapping(given)
        except ValueError:  # better without back-off than without the agent
            history = NO_HISTORY
        return super().from_mapping(given).model_copy(update={"start_history": history})


NOWHERE = Place(**dict.fromkeys(Place.model_fields, ""))
"""The place of an agent that lives nowhere any more."""


def nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class AgentStore:
    """The agents' records of one town."""

    redis: Redis
    keys: Keys

    def read(self, address: str) -> AgentRecord:
        """The record of an agent; the empty one if Redis has none. Raises StateUnknown if it is damaged."""
        return self._parse(address, read_hash(self.redis, self.keys.agent(address)))

    def read_all(self, addresses: Sequence[str]) -> list[AgentRecord]:
        """The records of these agents, in one round trip; of one that is damaged only how."""
        hashes = read_hashes(self.redis, map(self.keys.agent, addresses))
        return [self._parse_or_damaged(*pair) for pair in zip(addresses, hashes, strict=True)]

    def _parse_or_damaged(self, address: str, fields: Mapping[str, str]) -> AgentRecord:
        try:
            return self._parse(address, fields)
        except StateUnknown as error:
            return AgentRecord(damage=str(error))

    def _parse(self, address: str, fields: Mapping[str, str]) -> AgentRecord:
        try:
            return AgentRecord.from_mapping(fields)
        except ValueError as error:
            why = one_line_error(error, AgentRecord)
            raise StateUnknown(
                f"{self.keys.agent(address)} in Redis is damaged: {why}; remove the field with redis-cli HDEL"
            ) from None

    def incarnations(self, addresses: Sequence[str]) -> dict[str, str]:
        """The tokens of these agents' sessions by address, "" where there is none, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for address in addresses:
                pipe.hget(self.keys.agent(address), "incarnation")
            return dict(zip(addresses, to_strs(pipe.execute()), strict=True))

    def places(self, addresses: Sequence[str]) -> list[AgentRecord]:
        """Only what says where these agents live, in one round trip; other fields may be damaged."""
        names = ("machine", "host", "incarnation", "assigned")
        with self.redis.pipeline(transaction=False) as pipe:
            for address in addresses:
                pipe.hmget(self.keys.agent(address), names)
            found = pipe.execute()
        return [AgentRecord.model_validate(dict(zip(names, to_strs(texts), strict=True))) for texts in found]

    def wish_texts(self, addresses: Sequence[str]) -> list[list[str]]:
        """The stored `desired`, `before_pause`, `wish` and `changed_at` of these agents, as texts."""
        with self.redis.pipeline(transaction=False) as pipe:
            for address in addresses:
                pipe.hmget(self.keys.agent(address), ["desired", "before_pause", "wish", "changed_at"])
            return [to_strs(texts) for texts in pipe.execute()]

    def write(self, address: str, *changes: Place, pipe: Redis | None = None) -> None:
        """Write the fields that `changes` were made with; on a pipeline as part of its transaction."""
        target = self.redis if pipe is None else pipe
        fields = {name: text for change in changes for name, text in change.given_fields().items()}
        target.hset(self.keys.agent(address), mapping=to_fields(fields))
        target.sadd(self.keys.agents, address)

    def update(self, address: str, change: Callable[[AgentRecord], Sequence[Place]]) -> None:
        """Write what `change` makes of the record, all at once; it is asked again if the record changes."""
        key = self.keys.agent(address)

        def act(pipe: Any) -> None:
            changes = change(self._parse(address, to_str_dict(pipe.hgetall(key))))
            pipe.multi()
            if changes:
                self.write(address, *changes, pipe=pipe)

        self.redis.transaction(act, key)

    def note_start_fault(self, address: str, fault: str) -> bool:
        """Write why a start has failed; return False if it is what the record says already."""
        if to_str(self.redis.hget(self.keys.agent(address), "start_fault")) == fault:
            return False
        self.write(address, AgentRecord(start_fault=fault))
        return True

    def write_start_history(self, address: str, history: StartHistory) -> None:
        """Replace the agent's start history."""
        self.redis.hset(self.keys.agent(address), mapping=to_fields(history.to_mapping()))

    def next_generation(self, address: str) -> int:
        """A number for the next start, greater than every one before it (see `Sessions.start`)."""

        def advance(pipe: Any) -> Any:
            return self.bump_generation(pipe, address)

        generation: Any = self.redis.transaction(advance, self.keys.agent(address), value_from_callable=True)
        return int(generation)

    def bump_generation(
        self, pipe: Any, address: str, also: Callable[[Any], object] = nothing,
        place: Place | None = None, left: AgentRecord | None = None,
    ) -> int:  # fmt: skip
        """The same on a pipeline that watches the agent's key; `also` adds to the transaction.

        With `place`, the agent lives there from now on. `left` is the record by which its place was found to
        be empty or dead; raises Postponed if it has moved since.
        """
        key = self.keys.agent(address)
        before, machine, token = to_strs(pipe.hmget(key, ["generation", "machine", "incarnation"]))
        taken = place and left and machine not in (left.machine, place.machine)
        if left is not None and (taken or token != left.incarnation):
            raise Postponed(f"{address} was started or moved just now; this start looks again")
        generation = AgentRecord(generation=int(before or 0)).generation_after(redis_time(pipe))
        pipe.multi()
        pipe.hset(key, "generation", generation)
        if place is not None:
            self.write(address, place, pipe=pipe)
        also(pipe)
        return generation
