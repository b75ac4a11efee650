"""Whether the living hosts of a town agree: on town.toml, on the time, and on which host has which agent."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.health import name_some
from gastown_mail.status.model import CheckResult, finding, ok
from gastown_mail.town.hosts import HostEntry
from gastown_mail.town.roster import Roster

_MAX_APART = 5.0
"""Seconds by which the clock of a host may differ from that of Redis, or from that of another host."""


def check_hosts(collector: StatusCollector) -> Iterator[CheckResult]:
    """What the living hosts say of themselves. Raises RedisError, SettingsError."""
    town = collector.town
    entries = town.hosts.live_entries()
    yield from map(finding, _differing_settings(entries))
    yield from map(finding, _wrong_clocks(entries, town.host))
    yield from map(finding, _clocks_apart(entries))
    if len(entries) > 1:
        yield from map(finding, _agents_without_host(town.roster()))
    yield ok(f"alive: {', '.join(sorted(entries)) or 'no host'}")


def _differing_settings(entries: Mapping[str, HostEntry]) -> Iterator[str]:
    groups: dict[str, list[str]] = defaultdict(list)
    for host, entry in sorted(entries.items()):
        groups[entry.town_toml].append(host)
    if unreadable := groups.pop("", None):
        yield f"town.toml cannot be read on {', '.join(unreadable)}; gastown-mail doctor there says why"
    if len(groups) > 1:
        each = " | ".join(", ".join(hosts) for hosts in groups.values())
        yield f"town.toml differs between hosts ({each}); put the same file on all, for instance by git"


def _wrong_clocks(entries: Mapping[str, HostEntry], here: str) -> Iterator[str]:
    for host, entry in sorted(entries.items()):
        # this host's own clock has a check of its own
        if host != here and abs(entry.clock_ahead) > _MAX_APART:
            way = "ahead of" if entry.clock_ahead > 0 else "behind"
            yield (
                f"the clock of host {host} is {abs(entry.clock_ahead):.0f} s {way} that of Redis; use the "
                "same time server (NTP) for both"
            )


def _clocks_apart(entries: Mapping[str, HostEntry]) -> Iterator[str]:
    """The two clocks that differ most, of those that are not wrong by themselves."""
    fine = [(one.clock_ahead, host) for host, one in entries.items() if abs(one.clock_ahead) <= _MAX_APART]
    if not fine:
        return
    (behind, slow), (ahead, fast) = min(fine), max(fine)
    if ahead - behind > _MAX_APART:
        yield (
            f"the clocks of hosts {slow} and {fast} are {ahead - behind:.0f} s apart; use the same time "
            "server (NTP) for both"
        )


def _agents_without_host(roster: Roster) -> Iterator[str]:
    loose = [agent.address for agent in roster.agents.values() if not agent.declared_host]
    if loose:
        yield (
            f"no host in town.toml for {name_some(loose)}: whichever host looks first starts them, and there "
            "they stay; with several hosts, say where each lives (host = …)"
        )
