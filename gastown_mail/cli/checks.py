"""What `doctor` finds out, and the checks that need neither Redis nor a tmux server."""

import enum
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import load_state
from gastown_mail.lifecycle.start import preflight, search_path
from gastown_mail.town.roster import load_roster

MIN_FREE_DISK = 100 * 1024 * 1024
MIN_TMUX = (3, 2)
VERSION_DEADLINE = 5.0
MAX_NAMED = 3
"""How many agents with one and the same fault are named."""


class CheckStatus(enum.StrEnum):
    """What a check has come to."""

    OK = "ok"
    FINDING = "finding"
    UNCHECKED = "not checked"


@dataclass(frozen=True)
class Result:
    """One thing that was looked at; the text of a finding ends with its remedy."""

    verdict: CheckStatus
    text: str


Results = Iterator[Result]


def ok(text: str) -> Result:
    """It is as it should be."""
    return Result(CheckStatus.OK, text)


def finding(text: str) -> Result:
    """It is not as it should be; the text says what to do."""
    return Result(CheckStatus.FINDING, text)


def unchecked(text: str) -> Result:
    """It cannot be seen from here whether it is as it should be."""
    return Result(CheckStatus.UNCHECKED, text)


def check_folder(settings: Settings) -> Results:
    """Can state and log be written, and is there room? Raises StateFileError."""
    folder = settings.daemon_dir if settings.daemon_dir.is_dir() else settings.town_root
    if not os.access(folder, os.W_OK | os.X_OK):
        yield finding(f"{folder} cannot be written to; give user {os.getuid()} the right to")
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_DISK:
        least = MIN_FREE_DISK // 2**20
        yield finding(f"less than {least} MB are free at {folder}; make room for state.json and the log")
    else:
        yield ok(f"{folder}: {free // 2**20} MB are free")
    load_state(settings.town_root)


def check_agents(settings: Settings) -> Results:
    """Can every agent of this host be started? Raises SettingsError for a roster that contradicts itself."""
    roster = load_roster(settings)
    yield from map(finding, roster.warnings)
    here = [agent for agent in roster.agents.values() if agent.host == settings.host]
    faults: dict[str, list[str]] = {}
    for agent in here:
        if fault := preflight(agent, settings.town_root, search_path()):
            faults.setdefault(_of_them(fault, agent), []).append(agent.address)
    for fault, addresses in faults.items():
        yield finding(f"{_named(addresses)} cannot be started: {fault}")
    if not faults:
        yield ok(f"agents of this host that can be started: {len(here)}, with work dir and command")
    if elsewhere := len(roster.agents) - len(here):
        yield unchecked(f"agents that live on other hosts: {elsewhere}; run doctor there too")


def _of_them(fault: str, agent: Agent) -> str:
    """The fault, told alike for all agents that have it."""
    return fault.replace(f"for {agent.address}", "for them")


def _named(addresses: list[str]) -> str:
    more = f" and {len(addresses) - MAX_NAMED} more" if len(addresses) > MAX_NAMED else ""
    return ", ".join(addresses[:MAX_NAMED]) + more


def check_tmux() -> Results:
    """Is tmux there, and new enough?"""
    path = shutil.which("tmux")
    if path is None:
        yield finding("tmux is not on the PATH; install it (apt install tmux, brew install tmux)")
    elif _number(client_version()) < MIN_TMUX:
        yield finding(f"{path} is tmux {client_version()}; install 3.2 or newer")
    else:
        yield ok(f"{path}, version {client_version()}")


def client_version() -> str:
    """What `tmux -V` says of itself."""
    said = subprocess.run(
        ["tmux", "-V"], capture_output=True, text=True, timeout=VERSION_DEADLINE, check=False
    )
    return said.stdout.strip().removeprefix("tmux ")


def _number(text: str) -> tuple[int, ...]:
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    return tuple(map(int, digits))[:2] or MIN_TMUX  # "master"
