"""What should be: running, stopped or paused. In Redis, and on disk for the day that Redis is emptied."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import StateFileError
from gastown_mail.daemon.record import AgentStore, Desired, TownStateStore
from gastown_mail.mail.events import record_event
from gastown_mail.plumbing.answers import to_strs
from gastown_mail.plumbing.files import file_lock

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
