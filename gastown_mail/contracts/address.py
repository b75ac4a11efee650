"""Addresses, roles, and what an agent consists of.

The forms: docs/reference/contract.md#towns-and-addresses.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

NAME_PATTERN = re.compile(r"\A[A-Za-z0-9_-]+\Z")
ADDRESS_PATTERN = re.compile(r"\A[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*/?\Z")
"""An address declared under `[agents]` that has none of the known forms."""

DEFAULT_COMMAND = "claude --dangerously-skip-permissions {prompt}"
CUSTOM_ROLE = "agent"
"""The role of an agent whose address has none of the known forms."""

_PLACEHOLDER = re.compile(r"\{(town|rig|name|role|prompt)\}")


@dataclass(frozen=True, slots=True)
class Role:
    """The defaults for agents of a role; templates hold `{rig}` and `{name}`."""

    name: str
    address: str
    alias: str
    session: str
    work_dir: str
    poke: str | None = None
    keep_running: bool = False


_RIG_WORK = "HEARTBEAT: check your workers"
ROLES: Mapping[str, Role] = MappingProxyType(
    {
        role.name: role
        for role in (
            Role("mayor", "mayor/", "mayor", "gt-mayor", "", "HEARTBEAT: check your rigs"),
            Role("deacon", "deacon/", "deacon", "gt-deacon", "", "HEARTBEAT: run your rounds", True),
            Role("witness", "{rig}/witness", "{rig}-witness", "gt-{rig}-witness", "{rig}", _RIG_WORK),
            Role("refinery", "{rig}/refinery", "{rig}-refinery", "gt-{rig}-refinery", "{rig}/refinery/rig"),
            Role(
                "crew", "{rig}/crew/{name}", "{rig}-crew-{name}", "gt-{rig}-crew-{name}", "{rig}/crew/{name}"
            ),
            Role(
                "polecat",
                "{rig}/polecats/{name}",
                "{rig}-polecat-{name}",
                "gt-{rig}-{name}",
                "{rig}/polecats/{name}",
            ),
        )
    }
)
"""The known roles, those of the town first, then by rank in a rig."""


class ParsedAddress(NamedTuple):
    """The parts of an address; `rig` and `name` are "" if the role has none."""

    role: str
    rig: str = ""
    name: str = ""

    @property
    def address(self) -> str:
        """The canonical spelling."""
        return render_template(ROLES[self.role].address, {"rig": self.rig, "name": self.name})


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent with everything that is needed to start, poke and end its session.

    `work_dir` is absolute; `stop_grace` is in seconds; `poke` is None if the agent is not poked.
    `program` names the profile of its program; `env_pass` names variables or their beginnings, with `*`.
    `cycle_at` is in percent. `declared_host` is `host` as town.toml has it, "" if it names none.
    """

    address: str
    role: str
    rig: str
    name: str
    session: str
    work_dir: Path
    command: str
    poke: str | None
    keep_running: bool
    stop_grace: float
    env: Mapping[str, str]
    host: str
    program: str = "other"
    env_pass: tuple[str, ...] = ()
    cycle_at: int | None = None
    declared_host: str = ""

    def spellings(self) -> tuple[str, ...]:
        """The spellings that do not depend on other agents, the canonical one first."""
        role = ROLES.get(self.role)
        if role is None:
            return (self.address,)
        return (self.address, render_template(role.alias, {"rig": self.rig, "name": self.name}))

    def command_line(self, prompt: str, town_root: Path | str) -> str:
        """The command for `/bin/sh -c`, with `prompt` and the town's root as one shell word each."""
        values = {"town": shlex.quote(str(town_root)), "prompt": shlex.quote(prompt)}
        return render_template(
            self.command, {**values, "rig": self.rig, "name": self.name, "role": self.role}
        )


def render_template(template: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders that `values` has, in one pass; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def parse_address(text: str) -> ParsedAddress | None:
    """Parse a spelling with slashes, or `mayor` and `deacon`; None for any other.

    `<rig>/<name>` and spellings with hyphens depend on the town's rigs: see `parse_hyphenated`.
    """
    match text.split("/"):
        case [("mayor" | "deacon") as role] | [("mayor" | "deacon") as role, ""]:
            return ParsedAddress(role)
        case [rig, ("witness" | "refinery") as role] if NAME_PATTERN.match(rig):
            return ParsedAddress(role, rig)
        case [rig, ("crew" | "polecats") as kind, name] if NAME_PATTERN.match(rig) and NAME_PATTERN.match(
            name
        ):
            return ParsedAddress("crew" if kind == "crew" else "polecat", rig, name)
    return None


def parse_hyphenated(text: str) -> Iterator[ParsedAddress]:
    """Every way to parse a spelling with hyphens; the town's rigs decide which is right."""
    if not NAME_PATTERN.match(text):
        return
    for role in ("witness", "refinery"):
        if text.endswith(f"-{role}") and len(text) > len(role) + 1:
            yield ParsedAddress(role, text[: -len(role) - 1])
    for role in ("crew", "polecat"):
        for match in re.finditer(f"(?=-{role}-)", text):
            rig, name = text[: match.start()], text[match.start() + len(role) + 2 :]
            if rig and name:
                yield ParsedAddress(role, rig, name)
