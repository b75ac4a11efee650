"""Whether the agents of this host can be started, and whether their programs can work unattended."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.profile import Profile
from gastown_mail.lifecycle.preflight import start_obstacle
from gastown_mail.lifecycle.start import new_incarnation, session_environment
from gastown_mail.plumbing.environment import COMMAND, clean_environment, passed_environment
from gastown_mail.programs.first_contact import UnreadableFile, open_questions, prompt_taken_by
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.daemon_environment import daemon_environment
from gastown_mail.status.health import name_some
from gastown_mail.status.model import CheckResult, Report, finding, general_fault, ok, unchecked

_SHELL_DEADLINE = 10.0
"""Seconds within which a login shell must have read its files and run the command."""

_SHELLS = frozenset(("bash", "zsh", "sh", "dash", "ksh"))
_ZSH = "~/.zprofile"
_BASH = "~/.bash_profile, or ~/.profile if there is none"
_FOUND, _WORKS = "gastown-mail-found", "gastown-mail-works"
_SCRIPT = f"""command -v {COMMAND} >/dev/null 2>&1 && echo {_FOUND}
"$GASTOWN_MAIL" --version >/dev/null 2>&1 && echo {_WORKS}"""

_Results = Iterator[CheckResult]


def check_agents(collector: StatusCollector, report: Report) -> _Results:
    """Whether every agent of this host can be started."""
    town, environ = collector.town, daemon_environment(collector)
    roster, here = town.roster(), town.local_agents()
    yield from map(finding, roster.warnings)
    told = {row.agent: row.start_fault for row in report.agents or () if row.is_down}
    obstacles = {agent.address: start_obstacle(town, agent, environ) for agent in here.values()}
    faults = _Grouped()
    for agent in here.values():
        if (fault := obstacles[agent.address]) and told.get(agent.address) != fault:
            faults.add(general_fault(fault, agent.address, str(agent.work_dir)), agent)
    for fault, addresses in faults.items():
        yield finding(f"{name_some(addresses)} cannot be started: {fault}")
    if not any(obstacles.values()):
        yield ok(f"agents of this host that can be started: {len(here)}, with work dir and command")
    if elsewhere := len(roster.agents) - len(here):
        yield unchecked(f"agents that live on other hosts: {elsewhere}; run doctor there too")


class _Grouped(dict[str, list[str]]):
    """The addresses of the agents to which the same text applies, by text."""

    def add(self, text: str, agent: Agent) -> None:
        """Add the agent to those of this text."""
        self.setdefault(text, []).append(agent.address)


@dataclass(frozen=True)
class _Candidate:
    """An agent that can be started, and the whole environment that its session would have."""

    agent: Agent
    profile: Profile
    environ: Mapping[str, str]
    passed: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its program, for people."""
        return self.profile.label or self.agent.program


def check_programs(collector: StatusCollector) -> _Results:
    """Whether the programs of this host's agents find our command, get a prompt, and ask nothing first."""
    candidates = list(_candidates(collector))
    findings, unreadable, passed = _Grouped(), _Grouped(), _Grouped()
    for one in candidates:
        if option := prompt_taken_by(one.agent.command, one.profile):
            findings.add(
                f"{option} of {one.label} takes the first prompt; put -- before {{prompt}}", one.agent
            )
        for question in open_questions(one.agent, one.profile, one.environ):
            if isinstance(question, UnreadableFile):
                unreadable.add(f"it is not known what {one.label} asks: {question}", one.agent)
            else:
                answer = "gastown-mail run, then attach, and answer it once"
                findings.add(f"{one.label} {question.asks}: {answer}", one.agent)
        passed.add(f"{one.label} gets {_listed(one.passed)} of the daemon's environment", one.agent)
    for text, addresses in findings.items():
        yield finding(f"{name_some(addresses)}: {text}")
    for text, addresses in unreadable.items():
        yield unchecked(f"{name_some(addresses)}: {text}")
    yield from _check_shells(candidates)
    yield from (ok(f"{name_some(addresses)}: {text}") for text, addresses in passed.items())
    if not candidates:
        yield unchecked("no agent of this host can be started")


def _candidates(collector: StatusCollector) -> Iterator[_Candidate]:
    town, environ = collector.town, daemon_environment(collector)
    for agent in town.local_agents().values():
        if not start_obstacle(town, agent, environ):
            given = session_environment(town, agent, new_incarnation(), None, environ)
            passed = passed_environment(environ, agent.env_pass, town.redis_url)
            yield _Candidate(
                agent, town.profile_of(agent), clean_environment(environ) | given, tuple(sorted(passed))
            )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no more than the basic variables"


def _check_shells(candidates: list[_Candidate]) -> _Results:
    """Whether the shells of the programs find and run our command; each distinct one is tried once."""
    groups: dict[tuple[str | None, ...], list[_Candidate]] = {}
    for one in candidates:
        names = ("PATH", "HOME", "SHELL", "BASH_ENV", "ENV", "ZDOTDIR", "GASTOWN_MAIL")
        key = (str(one.profile.login_shell), one.label, *(one.environ.get(name) for name in names))
        groups.setdefault(key, []).append(one)
    faults = 0
    for group in groups.values():
        if fault := _shell_fault(group[0]):
            faults += 1
            yield finding(f"{name_some([one.agent.address for one in group])}: {fault}")
    if candidates and not faults:
        yield ok(f"the shells of all programs find and run {COMMAND}")


def _shell_fault(one: _Candidate) -> str | None:
    """What is wrong with our command in the shell of this agent's program; None if nothing."""
    command = one.environ.get("GASTOWN_MAIL")
    if command is None:
        return (
            f"there is no command {COMMAND} to give to sessions; install it beside the daemon's Python, "
            "or set GASTOWN_MAIL to its path in the daemon's environment"
        )
    shell = _shell_of(one)
    kind = "the login shell" if one.profile.login_shell else "the shell"
    said = _run(shell, one)
    files = _ZSH if PurePath(shell[0]).name == "zsh" else _BASH
    if said is None:
        return f"{kind} of {one.label} took more than {_SHELL_DEADLINE:g} s; see what waits in {files}"
    if _WORKS not in said:
        return f"{kind} of {one.label} cannot run {command}; install {COMMAND} there, or correct GASTOWN_MAIL"
    if _FOUND in said:
        return None
    if not one.profile.login_shell:
        return f"{kind} of {one.label} does not find {COMMAND}; put it on the PATH of the daemon"
    return (
        f"{kind} of {one.label} does not find {COMMAND}, only {command}: /etc/profile or the user's own "
        f"files set PATH anew; add {PurePath(command).parent} to PATH in {files}, or link the command into "
        "/usr/local/bin"
    )


def _shell_of(one: _Candidate) -> list[str]:
    given = one.environ.get("SHELL", "")
    shell = given if PurePath(given).name in _SHELLS else "/bin/sh"
    return [shell, "-lc", _SCRIPT] if one.profile.login_shell else ["/bin/sh", "-c", _SCRIPT]


def _run(shell: list[str], one: _Candidate) -> list[str] | None:
    """The lines that the shell printed in the session's environment; None if it did not end in time."""
    work_dir = one.agent.work_dir if one.agent.work_dir.is_dir() else Path("/")
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                shell, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL,
                cwd=work_dir, env=dict(one.environ), start_new_session=True,
            )  # fmt: skip
        except OSError:
            return []
        try:
            process.wait(_SHELL_DEADLINE)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read().decode(errors="replace").splitlines()
