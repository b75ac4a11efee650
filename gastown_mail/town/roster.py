"""Which agents the town has, and whom a spelling means (CONTRACTS section 1)."""

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
from gastown_mail.contracts.errors import AddressError, SettingsError
from gastown_mail.contracts.lifecycle import OPERATOR
from gastown_mail.contracts.settings import RoleSettings, Settings
from gastown_mail.contracts.validation import quote_value
from gastown_mail.town.discovery import DiscoveredTown, discover

STOP_GRACE = 5.0
"""Seconds between TERM and KILL unless `stop_grace` says otherwise."""

_RANK = {role: rank for rank, role in enumerate((*ROLES, CUSTOM_ROLE))}
_ADDRESS_FORMS = ", ".join(role.address.replace("{", "<").replace("}", ">") for role in ROLES.values())
_NO_OVERRIDES = RoleSettings()


@dataclass(frozen=True)
class Roster:
    """The agents of a town by canonical address, the rigs it has, and sentences on what was left out."""

    agents: Mapping[str, Agent]
    rigs: frozenset[str] = frozenset()
    rejected: Mapping[str, str] = field(default_factory=dict)
    """By canonical address, why an agent that was found is not taken."""
    discovery_warnings: tuple[str, ...] = ()
    _aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _sessions: Mapping[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Plain sentences on what was found and left out."""
        return (*self.discovery_warnings, *self.rejected.values())

    def resolve(self, spelling: str) -> Agent:
        """The agent that this spelling means, never a similar one. Raises AddressError with the reason."""
        canonical = spelling in self.agents or spelling in self.rejected
        meant = (spelling,) if canonical else self._aliases.get(spelling, ())
        if not meant:
            raise AddressError(_why_unknown(spelling, self.rigs))
        if len(meant) > 1:
            raise AddressError(f"{quote_value(spelling)} can mean {' or '.join(meant)}: write one of these")
        if reason := self.rejected.get(meant[0]):
            raise AddressError(reason)
        return self.agents[meant[0]]

    def by_session(self, name: str) -> Agent | None:
        """The agent whose tmux session has this name."""
        address = self._sessions.get(name)
        return None if address is None else self.agents[address]


def load_roster(settings: Settings) -> Roster:
    """The agents declared in `town.toml` and those found on disk; a declaration wins over what was found.

    Raises SettingsError for declarations that contradict each other and for a broken rigs.json.
    """
    found_town = discover(settings.town_root)
    declared = _declared(settings, found_town)
    found = [form for form in found_town.addresses if form.address not in declared]
    agents = [_agent(settings, address, form, said) for address, (form, said) in declared.items()]
    agents += [
        _agent(settings, form.address, form, settings.roles.get(form.role, _NO_OVERRIDES))
        for form in sorted(found, key=_by_rank)
    ]
    sessions, left_out = _assign_sessions(agents, declared)
    return Roster(
        agents={agent.address: agent for agent in agents if agent.address not in left_out},
        rigs=frozenset(found_town.rigs),
        rejected=left_out,
        discovery_warnings=tuple(found_town.warnings),
        _aliases=_aliases_of(agents),
        _sessions=sessions,
    )


def _by_rank(form: ParsedAddress) -> tuple[int, str]:
    return _RANK[form.role], form.address


def _declared(
    settings: Settings, found_town: DiscoveredTown
) -> dict[str, tuple[ParsedAddress | None, RoleSettings]]:
    forms = {spelling: parse_address(spelling) for spelling in settings.agents}
    found_town.rigs |= {form.rig for form in forms.values() if form and form.rig}
    crews = {form for form in (*found_town.addresses, *forms.values()) if form and form.role == "crew"}
    declared: dict[str, tuple[ParsedAddress | None, RoleSettings]] = {}
    spelled: dict[str, str] = {}
    for spelling, said in settings.agents.items():
        form = forms[spelling] or _address_in_town(spelling, found_town.rigs, crews)
        address = form.address if form else spelling
        if address in declared:
            raise SettingsError(
                f"town.toml: {_header(spelled[address])} and {_header(spelling)} are one agent"
            )
        of_role = settings.roles.get(form.role if form else CUSTOM_ROLE, _NO_OVERRIDES)
        declared[address], spelled[address] = (form, said.merged_over(of_role)), spelling
    return declared


def _address_in_town(spelling: str, rigs: set[str], crews: set[ParsedAddress]) -> ParsedAddress | None:
    rig, slash, name = spelling.partition("/")
    if slash and rig in rigs and NAME_PATTERN.match(name):
        crew = ParsedAddress("crew", rig, name)
        return crew if crew in crews else ParsedAddress("polecat", rig, name)
    readings = [form for form in parse_hyphenated(spelling) if form.rig in rigs]
    if len(readings) > 1:
        meant = " or ".join(form.address for form in readings)
        raise SettingsError(f"town.toml: {_header(spelling)} can mean {meant}: write one of these")
    return readings[0] if readings else None


def _header(spelling: str) -> str:
    return f"[agents.{quote_value(spelling)}]"


def _agent(settings: Settings, address: str, form: ParsedAddress | None, overrides: RoleSettings) -> Agent:
    role, rig, name = form or ParsedAddress(CUSTOM_ROLE, "", address.strip("/").rpartition("/")[2])
    defaults = ROLES.get(role) or _other_role(address)
    words = {"town": str(settings.town_root), "rig": rig, "name": name, "role": role}
    poke = defaults.poke if overrides.poke is None else overrides.poke
    return Agent(
        address=address,
        role=role,
        rig=rig,
        name=name,
        session=_session(
            address, overrides.session or defaults.session, {**words, "town": settings.town_name}
        ),
        work_dir=settings.town_root / render_template(overrides.work_dir or defaults.work_dir, words),
        command=overrides.command or _default_command(address, form),
        poke=render_template(poke, words) if poke else None,
        keep_running=defaults.keep_running if overrides.keep_running is None else overrides.keep_running,
        stop_grace=STOP_GRACE if overrides.stop_grace is None else overrides.stop_grace,
        env={key: render_template(text, words) for key, text in overrides.env.items()},
        host=overrides.host or settings.host,
    )


def _other_role(address: str) -> Role:
    return Role(CUSTOM_ROLE, address, address, f"gt-{address.strip('/').replace('/', '-')}", "")


def _default_command(address: str, form: ParsedAddress | None) -> str:
    if form is None:
        known = f"the known forms are {_ADDRESS_FORMS}"
        raise SettingsError(f"town.toml: {_header(address)} needs a command, being of no known form; {known}")
    return DEFAULT_COMMAND


def _session(address: str, template: str, words: Mapping[str, str]) -> str:
    session = render_template(template, words)
    if not NAME_PATTERN.match(session):
        reason = f"session = {quote_value(template)} gives {address} the name {quote_value(session)}"
        raise SettingsError(f"town.toml: {reason}: expected a name out of A-Z a-z 0-9 _ -")
    return session


def _assign_sessions(
    agents: Iterable[Agent], declared: Container[str]
) -> tuple[dict[str, str], dict[str, str]]:
    holders: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for agent in agents:
        holder = holders.setdefault(agent.session, agent.address)
        if holder == agent.address:
            continue
        clash = f"the session {agent.session} would be that of {holder} and of {agent.address}"
        if agent.address in declared:
            raise SettingsError(f"town.toml: {clash}: give one of them another session")
        remedy = "rename it, or give it another session in town.toml"
        left_out[agent.address] = f"{agent.address} is left out: {clash}; {remedy}"
    return holders, left_out


def _aliases_of(agents: Collection[Agent]) -> dict[str, tuple[str, ...]]:
    crews = {(agent.rig, agent.name) for agent in agents if agent.role == "crew"}
    meanings: dict[str, tuple[str, ...]] = {}
    for agent in agents:
        for spelling in (*agent.spellings()[1:], *_short_spelling(agent, crews)):
            meanings[spelling] = (*meanings.get(spelling, ()), agent.address)
    return meanings


def _short_spelling(agent: Agent, crews: Container[tuple[str, str]]) -> tuple[str, ...]:
    short = f"{agent.rig}/{agent.name}"
    means_it = agent.role == "crew" or (agent.role == "polecat" and (agent.rig, agent.name) not in crews)
    return (short,) if means_it and parse_address(short) is None else ()


def _why_unknown(spelling: str, rigs: Collection[str]) -> str:
    if spelling == OPERATOR:
        return "operator is a person and has no session: name an agent"
    readings = _rigs_read(spelling)
    if readings and not readings & set(rigs):
        there = f"its rigs are {', '.join(sorted(rigs))}" if rigs else "it has no rigs"
        return f"{quote_value(spelling)}: this town has no rig {' or '.join(sorted(readings))}; {there}"
    if readings or parse_address(spelling):
        return f"there is no agent {quote_value(spelling)}: it has no folder and is not declared in town.toml"
    expected = f"expected {_ADDRESS_FORMS} or what town.toml declares under [agents]"
    return f"{quote_value(spelling)} is no address: {expected}"


def _rigs_read(spelling: str) -> set[str]:
    if form := parse_address(spelling):
        return {form.rig} - {""}
    rig, slash, name = spelling.partition("/")
    if slash and NAME_PATTERN.match(rig) and NAME_PATTERN.match(name):
        return {rig}
    return {form.rig for form in parse_hyphenated(spelling)}
