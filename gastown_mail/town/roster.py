"""Which agents a town has, and which one a spelling means (docs/reference/contract.md#roster)."""

import logging
import math
import os
import threading
import time
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field

from gastown_mail.contracts.address import (
    CUSTOM_ROLE,
    DEFAULT_COMMAND,
    NAME_PATTERN,
    ROLES,
    Agent,
    ParsedAddress,
    Role,
    parse_address,
    parse_hyphenated,
    render_template,
)
from gastown_mail.contracts.errors import AddressError, GastownError, SettingsError
from gastown_mail.contracts.lifecycle import OPERATOR
from gastown_mail.contracts.profile import Profile
from gastown_mail.contracts.settings import RoleSettings, Settings, load_settings
from gastown_mail.contracts.validation import quote_value, unknown_key_message
from gastown_mail.plumbing.log import log_event
from gastown_mail.programs.library import built_in, choose_program, town_profiles
from gastown_mail.town.discovery import DiscoveredTown, discover, fingerprint

log = logging.getLogger(__name__)

STOP_GRACE = 5.0
"""Seconds between TERM and KILL unless `stop_grace` says otherwise."""

_RANK = {role: rank for rank, role in enumerate((*ROLES, CUSTOM_ROLE))}
_ADDRESS_FORMS = ", ".join(role.address.replace("{", "<").replace("}", ">") for role in ROLES.values())
_NO_OVERRIDES = RoleSettings()


@dataclass(frozen=True)
class Roster:
    """The agents of a town by canonical address, its rigs, and what was left out."""

    agents: Mapping[str, Agent]
    rigs: frozenset[str] = frozenset()
    rejected: Mapping[str, str] = field(default_factory=dict)
    """By canonical address, why an agent that was found on disk is left out."""
    discovery_warnings: tuple[str, ...] = ()
    profiles: Mapping[str, Profile] = field(default_factory=built_in)
    """The program profiles of the town, by name."""
    _aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what could not be read and what was left out."""
        return (*self.discovery_warnings, *self.rejected.values())

    def resolve(self, spelling: str) -> Agent:
        """The agent that this spelling means, never a similar one. Raises AddressError with the reason."""
        canonical = spelling in self.agents or spelling in self.rejected
        addresses = (spelling,) if canonical else self._aliases.get(spelling, ())
        if not addresses:
            raise AddressError(_why_unknown(spelling, self.rigs))
        if len(addresses) > 1:
            raise AddressError(
                f"{quote_value(spelling)} can mean {' or '.join(addresses)}: write one of these"
            )
        if reason := self.rejected.get(addresses[0]):
            raise AddressError(reason)
        return self.agents[addresses[0]]

    def pick(self, spelling: str) -> Agent:
        """The agent that a person means; the last part of its address is enough if no other has it.

        Raises AddressError. What other programs write is resolved, not picked: another agent of that name
        may come at any time.
        """
        try:
            return self.resolve(spelling)
        except AddressError as error:
            same = [address for address in self.agents if address.strip("/").rpartition("/")[2] == spelling]
            if len(same) > 1:
                raise AddressError(
                    f"{quote_value(spelling)} can mean {' or '.join(same)}: write one of these"
                ) from None
            if not same:
                raise AddressError(f"{error}; gastown-mail agents lists the agents") from None
            return self.agents[same[0]]


def load_roster(settings: Settings) -> Roster:
    """The agents declared in `town.toml` and those found on disk; a declaration overrides what was found.

    One that was found is kept running only if rigs.json names its rig and its role is set to keep_running.

    Raises SettingsError for declarations that contradict each other and for a broken rigs.json.
    """
    town = discover(settings.town_root)
    declared = _declared(settings, town)
    found = {parsed.address: parsed for parsed in town.addresses if parsed.address not in declared}
    by_rank = sorted(found, key=lambda address: (_RANK[found[address].role], address))
    profiles = town_profiles(settings.programs)
    agents = [_agent(settings, profiles, address, parsed, own) for address, (parsed, own) in declared.items()]
    for address in by_rank:
        own = settings.roles.get(found[address].role, _NO_OVERRIDES)
        if not (own.keep_running and found[address].rig in town.named):
            # what was only found starts when it is asked to
            own = own.model_copy(update={"keep_running": False})
        agents.append(_agent(settings, profiles, address, found[address], own))
    rejected = _reject_clashes(agents, declared)
    return Roster(
        agents={agent.address: agent for agent in agents if agent.address not in rejected},
        rigs=frozenset(town.rigs),
        rejected=rejected,
        discovery_warnings=tuple(town.warnings),
        profiles=profiles,
        _aliases=_aliases_of(agents),
    )


def _declared(
    settings: Settings, town: DiscoveredTown
) -> dict[str, tuple[ParsedAddress | None, RoleSettings]]:
    """The declared agents by canonical address; their rigs are added to the town's."""
    by_spelling = {spelling: parse_address(spelling) for spelling in settings.agents}
    town.rigs |= {parsed.rig for parsed in by_spelling.values() if parsed and parsed.rig}
    crews = {
        parsed for parsed in (*town.addresses, *by_spelling.values()) if parsed and parsed.role == "crew"
    }
    declared: dict[str, tuple[ParsedAddress | None, RoleSettings]] = {}
    spellings: dict[str, str] = {}
    for spelling, own in settings.agents.items():
        parsed = by_spelling[spelling] or _address_in_town(spelling, town.rigs, crews)
        address = parsed.address if parsed else spelling
        if address in declared:
            both = f"{_header(spellings[address])} and {_header(spelling)}"
            raise SettingsError(f"town.toml: {both} are one agent")
        of_role = settings.roles.get(parsed.role if parsed else CUSTOM_ROLE, _NO_OVERRIDES)
        declared[address], spellings[address] = (parsed, own.merged_over(of_role)), spelling
    return declared


def _address_in_town(spelling: str, rigs: set[str], crews: set[ParsedAddress]) -> ParsedAddress | None:
    """What a short or hyphenated spelling means, given the town's rigs and crews."""
    rig, slash, name = spelling.partition("/")
    if slash and rig in rigs and NAME_PATTERN.match(name):
        crew = ParsedAddress("crew", rig, name)
        return crew if crew in crews else ParsedAddress("polecat", rig, name)
    readings = [parsed for parsed in parse_hyphenated(spelling) if parsed.rig in rigs]
    if len(readings) > 1:
        addresses = " or ".join(parsed.address for parsed in readings)
        raise SettingsError(f"town.toml: {_header(spelling)} can mean {addresses}: write one of these")
    return readings[0] if readings else None


def _header(spelling: str) -> str:
    return f"[agents.{quote_value(spelling)}]"


def _agent(
    settings: Settings,
    profiles: Mapping[str, Profile],
    address: str,
    parsed: ParsedAddress | None,
    own: RoleSettings,
) -> Agent:
    role, rig, name = parsed or ParsedAddress(CUSTOM_ROLE, "", address.strip("/").rpartition("/")[2])
    custom = Role(CUSTOM_ROLE, address, address, f"gt-{address.strip('/').replace('/', '-')}", "")
    defaults = ROLES.get(role) or custom
    if parsed is None and not own.command:
        known = f"the known forms are {_ADDRESS_FORMS}"
        raise SettingsError(
            f"town.toml: {_header(address)} needs a command, because its form is unknown; {known}"
        )
    if own.program is not None and own.program not in profiles:
        message = unknown_key_message("a profile", own.program, profiles)
        raise SettingsError(f"town.toml: {_header(address)} program = {quote_value(own.program)} {message}")
    command = own.command or DEFAULT_COMMAND
    program = own.program or choose_program(command, profiles)
    values = {"town": str(settings.town_root), "rig": rig, "name": name, "role": role}
    poke = defaults.poke if own.poke is None else own.poke
    return Agent(
        address=address,
        role=role,
        rig=rig,
        name=name,
        session=_session(address, own.session or defaults.session, {**values, "town": settings.town_name}),
        work_dir=settings.town_root / render_template(own.work_dir or defaults.work_dir, values),
        command=command,
        poke=render_template(poke, values) if poke else None,
        keep_running=defaults.keep_running if own.keep_running is None else own.keep_running,
        stop_grace=STOP_GRACE if own.stop_grace is None else own.stop_grace,
        env={key: render_template(text, values) for key, text in own.env.items()},
        host=own.host or settings.host,
        program=program,
        env_pass=profiles[program].env_pass if own.env_pass is None else own.env_pass,
        cycle_at=own.cycle_at,
        declared_host=own.host or "",
    )


def _session(address: str, template: str, values: Mapping[str, str]) -> str:
    session = render_template(template, values)
    if not NAME_PATTERN.match(session):
        reason = f"session = {quote_value(template)} gives {address} the name {quote_value(session)}"
        raise SettingsError(f"town.toml: {reason}: expected a name from A-Z a-z 0-9 _ -")
    return session


def _reject_clashes(agents: Iterable[Agent], declared: Container[str]) -> dict[str, str]:
    """Why agents that were found are left out: another agent has their session's name."""
    owners: dict[str, str] = {}
    rejected: dict[str, str] = {}
    for agent in agents:
        owner = owners.setdefault(agent.session, agent.address)
        if owner == agent.address:
            continue
        clash = f"the session {agent.session} would be that of {owner} and of {agent.address}"
        if agent.address in declared:
            raise SettingsError(f"town.toml: {clash}: give one of them another session")
        remedy = "rename it, or give it another session in town.toml"
        rejected[agent.address] = f"{agent.address} is left out: {clash}; {remedy}"
    return rejected


def roster_of(agents: Iterable[Agent]) -> Roster:
    """A roster of these agents alone."""
    listed = list(agents)
    return Roster(
        agents={agent.address: agent for agent in listed},
        rigs=frozenset(agent.rig for agent in listed if agent.rig),
        _aliases=_aliases_of(listed),
    )


def _aliases_of(agents: Collection[Agent]) -> dict[str, tuple[str, ...]]:
    """The addresses that each other spelling can mean."""
    crews = {(agent.rig, agent.name) for agent in agents if agent.role == "crew"}
    aliases: dict[str, tuple[str, ...]] = {}
    for agent in agents:
        spellings = list(agent.spellings()[1:])
        short = f"{agent.rig}/{agent.name}"
        is_polecat = agent.role == "polecat" and (agent.rig, agent.name) not in crews
        if (agent.role == "crew" or is_polecat) and parse_address(short) is None:
            spellings.append(short)
        for spelling in spellings:
            aliases[spelling] = (*aliases.get(spelling, ()), agent.address)
    return aliases


def _why_unknown(spelling: str, rigs: Collection[str]) -> str:
    if spelling == OPERATOR:
        return "operator is a person and has no session: name an agent"
    parsed = parse_address(spelling)
    rig, slash, name = spelling.partition("/")
    if parsed:
        named = {parsed.rig} - {""}
    elif slash and NAME_PATTERN.match(rig) and NAME_PATTERN.match(name):
        named = {rig}
    else:
        named = {reading.rig for reading in parse_hyphenated(spelling)}
    if named and not named & set(rigs):
        known = f"its rigs are {', '.join(sorted(rigs))}" if rigs else "it has no rigs"
        return f"{quote_value(spelling)}: this town has no rig {' or '.join(sorted(named))}; {known}"
    if named or parsed:
        return f"there is no agent {quote_value(spelling)}: it has no folder and is not declared in town.toml"
    expected = f"expected {_ADDRESS_FORMS} or what town.toml declares under [agents]"
    return f"{quote_value(spelling)} is not an address: {expected}"


_TTL = 1.0
"""Seconds for which a roster is served without checking the disk."""

_MAX_AGE = 60.0
"""Seconds after which it is read again although no file changed: a link may lead elsewhere now."""


class RosterCache:
    """The roster of a town whose files may change at any time; safe to share between threads.

    `fallback` is served while the one on disk cannot be read.
    """

    def __init__(self, settings: Settings, fallback: Roster | None = None) -> None:
        self._settings, self._roster = settings, fallback
        self._fingerprint: tuple[object, ...] | None = None
        self._checked_at = self._read_at = -math.inf
        self._lock = threading.Lock()
        self._fixed = {"daemon": settings.daemon, "machine": settings.machine}

    def current(self) -> Roster:
        """The roster, at most a second old.

        A town.toml that breaks while the daemon runs changes nothing but the log; when there is no earlier
        roster, it raises SettingsError.
        """
        with self._lock:
            now = time.monotonic()
            if self._roster is not None and now - self._checked_at < _TTL:
                return self._roster
            self._checked_at = now
            found = fingerprint(self._settings.town_root, time.time())
            unchanged = found is not None and found == self._fingerprint
            if self._roster is not None and unchanged and now < self._read_at + _MAX_AGE:
                return self._roster
            try:
                settings = load_settings(self._settings.town_root, environ=os.environ)
                roster = load_roster(settings.model_copy(update=self._fixed))
            except GastownError as error:
                if self._roster is None:
                    raise
                log_event(log, "roster_kept", level=logging.WARNING, detail=str(error))
                found, roster = None, self._roster
            # a roster that was not read in full is read again each time
            self._fingerprint, self._read_at = None if roster.discovery_warnings else found, now
            self._roster = roster
            return roster
