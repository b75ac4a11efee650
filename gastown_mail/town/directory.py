"""The agents that the living hosts of a town know: each host publishes its roster, none speaks for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError
from gastown_mail.town.hosts import HostEntry, Hosts
from gastown_mail.town.roster import Roster, roster_of

AGREED_AFTER = 2.0
"""Seconds after a request within which no host's report counts: its roster may be older than the request."""


class NotAgreed(AddressError):
    """This host knows no such agent, and not all others have said yet whether they do: wait."""


class _Published(BaseModel):
    """What other hosts need to know of an agent to route and to authorize a request."""

    role: str
    rig: str
    name: str
    host: str
    grace: float


_ADAPTER = TypeAdapter(dict[str, _Published])


def published(roster: Roster) -> str:
    """This roster as a host publishes it."""
    rows = {
        address: _Published(
            role=agent.role, rig=agent.rig, name=agent.name, host=agent.declared_host, grace=agent.stop_grace
        )
        for address, agent in roster.agents.items()
    }
    return _ADAPTER.dump_json(rows).decode()


@dataclass(frozen=True)
class Directory:
    """The rosters at one moment: this host's own and, where that does not do, the others'."""

    own: Roster
    host: str
    hosts: Hosts

    def resolve(self, spelling: str) -> Agent:
        """The agent that this spelling means on this host, or else on another.

        Raises AddressError with the reason; NotAgreed if there are other hosts, which may learn of it yet.
        """
        try:
            return self.own.resolve(spelling)
        except AddressError as error:
            for roster in self._others.values():
                try:
                    return roster.resolve(spelling)
                except AddressError:
                    continue
            if self._others:
                raise NotAgreed(str(error)) from None
            raise

    def others_with(self, address: str) -> list[str]:
        """The other living hosts that have this agent."""
        return [host for host, roster in self._others.items() if address in roster.agents]

    def have_agreed(self, since: float) -> bool:
        """Whether all living hosts have published their roster after that time (epoch seconds of Redis)."""
        return self.hosts.oldest_report() > since + AGREED_AFTER

    @cached_property
    def _others(self) -> Mapping[str, Roster]:
        # most hosts have the same town.toml, and so the same roster: each is read once
        read, found = {published(self.own): self.own}, {}
        for host, entry in self.hosts.live_entries().items():
            if host != self.host:
                found[host] = read.get(entry.roster) or read.setdefault(entry.roster, _read(entry, host))
        return found


def _read(entry: HostEntry, host: str) -> Roster:
    """The roster that this host has published: its agents can be found and routed to, not started."""
    try:
        rows = _ADAPTER.validate_json(entry.roster)
    except ValidationError:
        return Roster(agents={})
    return roster_of(
        Agent(
            address=address, role=row.role, rig=row.rig, name=row.name, session="", work_dir=Path(),
            command="", poke=None, keep_running=False, stop_grace=row.grace, env={}, host=row.host or host,
            declared_host=row.host or host,
        )
        for address, row in rows.items()
    )  # fmt: skip
