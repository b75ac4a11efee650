"""What is wanted and known of each agent and of the town, in Redis, and its mirror `state.json`.

What should be: running, stopped or paused. In Redis, and on disk for the day that Redis is emptied."""

import enum
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis

from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import StateFileError
from gastown_mail.contracts.go_formats import ZERO_TIME, format_time, parse_time
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.state import State, load_state, save_state
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.connections import read_hash, to_fields, to_str_dict, to_strs
from gastown_mail.plumbing.locks import file_lock
from gastown_mail.town.backoff import NO_HISTORY, StartHistory

STATE_LOCK_TIMEOUT = 5.0
"""Seconds to wait for another process that writes `state.json`."""


class Desired(enum.StrEnum):
    """What should be, whatever is observed."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


@dataclass(frozen=True)
class AgentRecord:
    """What Redis holds of an agent. `desired` is None as long as nobody has said; times may be ZERO_TIME.

    `owed`: a request has ended its session, and the successor has not come up yet. `before_pause`: what was
    desired when it was paused.
    """

    desired: Desired | None = None
    session: str = ""
    incarnation: str = ""
    started_at: datetime = ZERO_TIME
    changed_at: datetime = ZERO_TIME
    host: str = ""
    last_poke: datetime = ZERO_TIME
    last_activity: datetime = ZERO_TIME
    misses: int = 0
    restarts: int = 0
    decision: str = ""
    before_pause: str = ""
    owed: bool = False
    gate: StartHistory = NO_HISTORY

    @classmethod
    def from_mapping(cls, text: Mapping[str, str]) -> "AgentRecord":
        """Read the hash `agent:<address>`; fields that are not there keep their defaults."""
        moments = {name: parse_time(text[name]) for name in _MOMENTS if text.get(name)}
        counts = {name: int(text[name]) for name in ("misses", "restarts") if text.get(name)}
        words = {name: text[name] for name in _WORDS if name in text}
        desired = Desired(text["desired"]) if text.get("desired") else None
        owed, gate = text.get("owed") == "true", StartHistory.from_mapping(text)
        return cls(desired=desired, owed=owed, gate=gate, **moments, **counts, **words)  # type: ignore[arg-type]


_WORDS = ("session", "incarnation", "host", "decision", "before_pause")
_MOMENTS = ("started_at", "changed_at", "last_poke", "last_activity")


def nothing(*_: object) -> None:
    """Write nothing more."""


@dataclass(frozen=True)
class AgentStore:
    """The agents' records of one town."""

    redis: Redis
    keys: Keys

    def read(self, address: str) -> AgentRecord:
        """One agent's record."""
        return AgentRecord.from_mapping(read_hash(self.redis, self.keys.agent(address)))

    def read_all(self, addresses: Sequence[str]) -> list[AgentRecord]:
        """Many agents' records, in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for address in addresses:
                pipe.hgetall(self.keys.agent(address))
            return [AgentRecord.from_mapping(to_str_dict(answer)) for answer in pipe.execute()]

    def desired_texts(self, addresses: Sequence[str]) -> list[tuple[str, str]]:
        """What is desired of each, and what was before its pause, as text; in one round trip."""
        with self.redis.pipeline(transaction=False) as pipe:
            for address in addresses:
                pipe.hmget(self.keys.agent(address), ["desired", "before_pause"])
            return [(desired, before) for desired, before in map(to_strs, pipe.execute())]

    def write(self, address: str, *, pipe: Redis | None = None, **values: str | int | datetime) -> None:
        """Write fields through; on a pipeline they become part of the transaction."""
        texts = {name: format_time(v) if isinstance(v, datetime) else v for name, v in values.items()}
        target = self.redis if pipe is None else pipe
        target.hset(self.keys.agent(address), mapping=to_fields(texts))
        target.sadd(self.keys.agents, address)

    def write_gate(self, address: str, gate: StartHistory) -> None:
        """Write the agent's start history through."""
        self.redis.hset(self.keys.agent(address), mapping=to_fields(gate.to_mapping()))

    def next_generation(self, address: str) -> int:
        """A number for the next start, greater than every one before it (see `Sessions.start`)."""

        def advance(pipe: Any) -> Any:
            return self.bump_generation(pipe, address)

        following: Any = self.redis.transaction(advance, self.keys.agent(address), value_from_callable=True)
        return int(following)

    def bump_generation(self, pipe: Any, address: str, also: Callable[[Any], object] = nothing) -> int:
        """The next generation, on a pipeline that watches the agent's key; `also` writes on the same one.

        It follows the clock in milliseconds: tmux remembers the last one, an emptied Redis does not.
        """
        key = self.keys.agent(address)
        following = max(int(pipe.hget(key, "generation") or 0) + 1, time.time_ns() // 10**6)
        pipe.multi()
        pipe.hset(key, "generation", following)
        also(pipe)
        return following


@dataclass(frozen=True)
class TownStateStore:
    """The town's state: the hash in Redis is the original, `state.json` under `root` its mirror."""

    redis: Redis
    keys: Keys
    root: Path

    def read(self) -> State:
        """The state as Redis has it; the zero state when it has none."""
        return State.from_mapping(read_hash(self.redis, self.keys.state))

    def mark_started(self, pid: int, now: datetime) -> None:
        """A daemon has begun: the count begins with it."""
        self._write(State(running=True, pid=pid, started_at=now, heartbeat_count=0).to_mapping())

    def state_before_flush(self) -> State | None:
        """What `state.json` still knows and Redis does not, because it was emptied; None when it was not."""
        # started_at alone tells: other fields are written again before all is brought back.
        if self.redis.hexists(self.keys.state, "started_at"):
            return None
        state = load_state(self.root)
        return None if state == State() else state

    def restore(self, state: State) -> None:
        """Bring back what `state.json` still knows after Redis was emptied."""
        self.redis.hset(self.keys.state, mapping=to_fields(state.to_mapping()))

    def mark_stopping(self) -> None:
        """The daemon is about to end: no act is begun any more."""
        self.redis.hset(self.keys.state, "running", "false")

    def mark_stopped(self) -> None:
        """The daemon has ended as it should."""
        self._write({"running": "false"})

    def count_heartbeat(self, now: datetime) -> State:
        """One more heartbeat is complete; returns the state that is now in both places."""
        with self.redis.pipeline() as pipe:
            pipe.hincrby(self.keys.state, "heartbeat_count", 1)
            pipe.hset(self.keys.state, "last_heartbeat", format_time(now))
            pipe.execute()
        return self.write_state_file()

    def write_state_file(self) -> State:
        """Make `state.json` say what Redis says, unless that was emptied."""
        with file_lock(self.root / "daemon" / "state.lock", STATE_LOCK_TIMEOUT):
            state = self.read()
            if self.state_before_flush() is None:
                save_state(self.root, state)
        return state

    def _write(self, values: Mapping[str, str]) -> None:
        self.redis.hset(self.keys.state, mapping=to_fields(values))
        self.write_state_file()


FILE = "desired.json"
LOCK, LOCK_DEADLINE = "desired.lock", 5.0

TOWN = "*"
"""Whose record says whether the town as a whole is paused."""


@dataclass(frozen=True)
class DesiredStates:
    """What should be of each agent of one town."""

    agents: AgentStore
    daemon_dir: Path

    def set(self, address: str, desired: Desired) -> None:
        """From now on this should be, until somebody says otherwise."""
        self._write(address, desired.value, {"owed": "false", "before_pause": ""})

    def pause(self, address: str) -> None:
        """Leave it alone, whatever is asked for, until `resume`; pausing twice changes nothing."""
        before = self.agents.read(address).desired
        if before is not Desired.PAUSED:
            self._write(address, Desired.PAUSED.value, {"before_pause": before.value if before else ""})

    def resume(self, address: str) -> None:
        """What was desired before the pause is desired again; without a pause nothing changes."""
        record = self.agents.read(address)
        if record.desired is Desired.PAUSED:
            self._write(address, record.before_pause, {"before_pause": ""})

    def is_town_paused(self) -> bool:
        """Has an operator paused the whole town?"""
        return self.agents.read(TOWN).desired is Desired.PAUSED

    def save(self, *only: str) -> None:
        """Make the file say what Redis says (of these agents alone, if any are named).

        Nothing is done when Redis was emptied and the file knows more.
        """
        with file_lock(self.daemon_dir / LOCK, LOCK_DEADLINE):
            known = self._read_file() if only else {}
            addresses = only if known else to_strs(self.agents.redis.smembers(self.agents.keys.agents))
            found = zip(addresses, self.agents.desired_texts(addresses), strict=True)
            wanted = known | {a: " ".join(words).strip() if words[0] else "" for a, words in found}
            # Asked after the reading: what was read before Redis was emptied is whole.
            town = TownStateStore(self.agents.redis, self.agents.keys, self.daemon_dir.parent)
            if town.state_before_flush() is None:
                save_desired(self.daemon_dir, {a: words for a, words in wanted.items() if words})

    def _read_file(self) -> dict[str, str]:
        """What the file says; nothing when it is broken or missing, and has to be written whole."""
        try:
            return load_desired(self.daemon_dir)
        except StateFileError:
            return {}

    def restore(self) -> None:
        """Bring the wishes back into an emptied Redis, where nobody has said anything new yet."""
        with file_lock(self.daemon_dir / LOCK, LOCK_DEADLINE):
            for address, words in load_desired(self.daemon_dir).items():
                desired, _, before = words.partition(" ")
                if self.agents.read(address).desired is None and desired in set(Desired):
                    self.agents.write(address, desired=desired, before_pause=before)

    def _write(self, address: str, desired: str, more: Mapping[str, str]) -> None:
        with self.agents.redis.pipeline() as pipe:
            now = datetime.now(UTC)
            self.agents.write(address, pipe=pipe, desired=desired, changed_at=now, **more)
            record_event(
                pipe, self.agents.keys, "desired", agent=address, detail=desired or "as its settings say"
            )
            pipe.execute()
        self.save(address)


def load_desired(daemon_dir: Path) -> dict[str, str]:
    """The desired states by address, empty when there is no file. Raises StateFileError.

    For what is paused, what was desired before the pause follows it: `paused stopped`.
    """
    path = daemon_dir / FILE
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StateFileError(f"{path} cannot be read ({error}); move it away to go on without it") from error
    if not isinstance(read, dict):
        raise StateFileError(f"{path} holds no object; move it away to go on without it")
    return {str(address): str(desired) for address, desired in read.items()}


def save_desired(daemon_dir: Path, desired: Mapping[str, str]) -> None:
    """Write the desired states unless the file says them already. Raises StateFileError."""
    text = json.dumps(dict(sorted(desired.items())), indent=2).encode()
    path = daemon_dir / FILE
    try:
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)
    except OSError as error:
        raise StateFileError(f"{path} cannot be written: {error}") from error
