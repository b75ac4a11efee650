"""One agent, the forms of addresses, and what follows from a role (CONTRACTS section 1)."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

NAME_PATTERN = re.compile(r"\A[A-Za-z0-9_-]+\Z")
ADDRESS_PATTERN = re.compile(r"\A[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*/?\Z")
"""What an address declared under `[agents]` may look like when it is of no known form."""

DEFAULT_COMMAND = "claude --dangerously-skip-permissions {prompt}"
CUSTOM_ROLE = "agent"
"""The role of an agent whose address is of no known form."""

_PLACEHOLDER = re.compile(r"\{(town|rig|name|role|prompt)\}")


@dataclass(frozen=True, slots=True)
class Role:
    """What an agent of a role has unless `town.toml` says otherwise; templates hold `{rig}` and `{name}`."""

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
    """What an address says: a role, and the rig and name it has in it ("" where the role has none)."""

    role: str
    rig: str = ""
    name: str = ""

    @property
    def address(self) -> str:
        """The canonical spelling."""
        return render_template(ROLES[self.role].address, {"rig": self.rig, "name": self.name})


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent of the town with everything that is needed to start, poke and end its session.

    `work_dir` is absolute; `stop_grace` is in seconds; `poke` is None for an agent that is not poked.
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

    def spellings(self) -> tuple[str, ...]:
        """Every spelling that needs no look at other agents, the canonical one first."""
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
    """Replace the placeholders that `values` has, in one pass; all other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def parse_address(text: str) -> ParsedAddress | None:
    """What a spelling with slashes, or `mayor` and `deacon`, says by itself; None for any other.

    `<rig>/<name>` and the spellings with hyphens mean something only in a town: see `hyphen_forms`.
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
    """Every way to read a spelling with hyphens; which ones hold depends on the rigs of the town."""
    if not NAME_PATTERN.match(text):
        return
    for role in ("witness", "refinery"):
        if text.endswith(f"-{role}") and len(text) > len(role) + 1:
            yield ParsedAddress(role, text[: -len(role) - 1])
    for role in ("crew", "polecat"):
        for found in re.finditer(f"(?=-{role}-)", text):
            rig, name = text[: found.start()], text[found.start() + len(role) + 2 :]
            if rig and name:
                yield ParsedAddress(role, rig, name)
