"""What each agent should be: in its record, and in desired.json in case Redis loses it."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import StateFileError
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.private import private_file
from gastown_mail.mail.events import EventName, record_event
from gastown_mail.plumbing.clock import Clock
from gastown_mail.plumbing.connections import to_strs
from gastown_mail.plumbing.locks import file_lock
from gastown_mail.town.hosts import HostStateStore
from gastown_mail.town.records import TOWN, AgentRecord, AgentStore, Desired
from gastown_mail.town.revision import Revision

_LOCK_TIMEOUT = 5.0
"""Seconds to wait while another process writes `desired.json`."""


class _Wish(NamedTuple):
    """A desired state as the file holds it, such as `paused stopped #12 @2026-05-01T10:00:00Z`.

    `desired` is "" if the agent follows its settings again. A wish of an earlier version has the number 0.
    """

    desired: str = ""
    before: str = ""
    number: int = 0
    changed_at: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; what a person put there is taken as far as it can be read."""
        words = text.split()
        states = [word for word in words if word[0] not in "#@"]
        desired, before = [*states, "", ""][:2]
        number = next((word[1:] for word in words if word[0] == "#"), "")
        at = next((word[1:] for word in words if word[0] == "@"), "")
        return cls(desired, before, int(number) if number.isdecimal() else 0, at)

    @classmethod
    def of_record(cls, desired: str, before: str, number: str, changed_at: str) -> Self:
        """The wish of an agent's record, from the texts of its fields."""
        numbered = number.isdecimal() and int(number) > 0
        return cls(desired, before if desired else "", int(number) if numbered else 0, changed_at)

    def unless_newer(self, record: AgentRecord) -> list[AgentRecord]:
        """The changes that this wish makes to the agent's record; none if that has a newer one."""
        if self.number <= record.wish and (self.number or record.desired is not None):
            return []
        desired = Desired(self.desired) if self.desired else None
        changes = AgentRecord(desired=desired, before_pause=self.before, wish=self.number)
        with suppress(ValueError):  # a time that a person put there
            changes = changes.model_copy(update={"changed_at": parse_time(self.changed_at)})
        return [changes]

    def text(self) -> str:
        """As it stands in the file; "" for an agent of which nothing was ever wished."""
        number = f"#{self.number} @{self.changed_at}" if self.number else ""
        return " ".join(filter(None, (self.desired, self.before, number)))


@dataclass(frozen=True)
class DesiredStates:
    """What each agent of one town should be. `desired.json` is used to recover if Redis is flushed.

    The file holds the desired states by address; after `paused` comes the state before it, then the number
    and the time of the wish, as in `paused stopped #12 @2026-05-01T10:00:00Z`. The newest wish wins.
    `confirm` waits until a wish is as safe as the settings ask for.
    """

    agents: AgentStore
    town: HostStateStore
    daemon_dir: Path
    clock: Clock
    revision: Revision
    confirm: Callable[[], None]

    def set(self, address: str, desired: Desired) -> None:
        """Set the agent's desired state, which also ends a pause."""
        self._write(address, AgentRecord(desired=desired, successor_owed=False, before_pause=""))

    def pause(self, address: str) -> None:
        """Leave the agent alone until `resume`; a second pause changes nothing."""
        before = self.agents.read(address).desired
        if before is not Desired.PAUSED:
            self._write(address, AgentRecord(desired=Desired.PAUSED, before_pause=before or ""))

    def resume(self, address: str) -> None:
        """Restore the desired state from before the pause; without a pause nothing changes."""
        record = self.agents.read(address)
        if record.desired is Desired.PAUSED:
            # a value that a person put there is not restored
            before = Desired(record.before_pause) if record.before_pause in set(Desired) else None
            self._write(address, AgentRecord(desired=before, before_pause=""))

    def is_town_paused(self) -> bool:
        """Whether an operator has paused the whole town."""
        return self.agents.read(TOWN).desired is Desired.PAUSED

    def save(self, *only: str) -> None:
        """Copy the desired states from Redis to the file, those of all agents or of `only` these.

        A newer wish in the file stays. Does nothing if Redis was emptied and the file knows more. Raises
        StateFileError.
        """
        with self._lock():
            known: dict[str, str] = {}
            with suppress(StateFileError):  # a broken file is rewritten
                known = self._load()
            addresses: Sequence[str] = only if known else ()
            addresses = addresses or to_strs(self.agents.redis.smembers(self.agents.keys.agents))
            for address, texts in zip(addresses, self.agents.wish_texts(addresses), strict=True):
                wish = _Wish.of_record(*texts)
                if wish.number >= _Wish.parse(known.get(address, "")).number:
                    known[address] = wish.text()
            # asked after reading: what was read before Redis was emptied is complete
            if self.town.state_before_flush() is None:
                self._store({address: text for address, text in known.items() if text})
                self.revision.note(max((_Wish.parse(text).number for text in known.values()), default=0))

    def restore(self) -> None:
        """Put the wishes of the file back into Redis, except where Redis has newer ones."""
        with self._lock():
            for address, text in self._load().items():
                wish = _Wish.parse(text)
                if wish.desired in ("", *Desired):
                    self.agents.update(address, wish.unless_newer)

    def _write(self, address: str, changes: AgentRecord) -> None:
        def write(pipe: Any) -> None:
            number = self.revision.next_wish(pipe)
            pipe.multi()
            given = {"changed_at": self.clock.now(), "wish": number}
            self.agents.write(address, changes.model_copy(update=given), pipe=pipe)
            record_event(
                pipe,
                self.agents.keys,
                EventName.DESIRED,
                agent=address,
                detail=changes.desired or "as its settings say",
            )

        # watched, so that of two wishes at a time the one that stays has the greater number
        self.agents.redis.transaction(write, self.agents.keys.agent(address))
        self.save(address)
        self.confirm()

    @property
    def _file(self) -> Path:
        return private_file(self.daemon_dir, "desired.json")

    def _lock(self) -> AbstractContextManager[None]:
        return file_lock(private_file(self.daemon_dir, "desired.lock"), _LOCK_TIMEOUT)

    def _load(self) -> dict[str, str]:
        try:
            states = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise StateFileError(
                f"{self._file} cannot be read ({error}); move it away to continue without it"
            ) from error
        if not isinstance(states, dict):
            raise StateFileError(
                f"{self._file} does not contain a JSON object; move it away to continue without it"
            )
        return {str(address): str(desired) for address, desired in states.items()}

    def _store(self, states: Mapping[str, str]) -> None:
        """Write the file unless it has these states already."""
        text = json.dumps(dict(sorted(states.items())), indent=2).encode()
        try:
            if not self._file.exists() or self._file.read_bytes() != text:
                write_atomically(self._file, text)
        except OSError as error:
            raise StateFileError(f"{self._file} cannot be written: {error}") from error
