"""Whether a stop of the daemon would be cut short, or would take the agents along."""

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from gastown_mail.cli.checks import Results, finding, ok, unchecked
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.go_formats import format_duration, parse_duration
from gastown_mail.daemon.supervisor import KILL_GRACE, STOP_DEADLINE
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.town.town import Town

MAX_STOP_SECONDS = STOP_DEADLINE + 2 * KILL_GRACE
"""Seconds that the daemon may need to stop."""

QUERY_TIMEOUT = 5.0
_UNIT = re.compile(r"^(?:0:|\d+:name=systemd):(?P<path>\S*/(?P<unit>[^/\s]+\.service))$", re.MULTILINE)
QueryUnit = Callable[[str, bool], Mapping[str, str] | None]


def check_stopping(town: Town) -> Results:
    """Would a stop of the daemon, here and now, leave the agents alone and come to its end?"""
    holder = TownLock.holder(town.settings.lock_file)
    if holder is None or holder.pid is None:
        yield unchecked("the daemon does not run here, so nothing shows how it would be stopped")
        return
    try:
        server = town.sessions.tmux.server_pid()
        ours, tmux = _cgroup(holder.pid), _cgroup(server) if server else ""
    except StateUnknown:
        yield unchecked("tmux does not answer")
        return
    except OSError as error:
        yield unchecked(f"who would stop the daemon cannot be seen here ({error})")
        return
    yield from check_unit(ours, tmux, ask_systemd, contained=_in_container())


def check_unit(ours: str, tmux: str, ask: QueryUnit, *, contained: bool) -> Results:
    """What follows from the cgroups (/proc/PID/cgroup) of daemon and tmux server; "" without one."""
    found = _UNIT.search(ours)
    if found is None:
        needs = f"give it more than {MAX_STOP_SECONDS:g} s (stop_grace_period)"
        no_unit = "no systemd service runs the daemon: its stop ends no session"
        yield (
            unchecked(f"a container's time to stop is not seen from inside; {needs}")
            if contained
            else ok(no_unit)
        )
        return
    unit = found["unit"]
    said = ask(unit, "/user@" in found["path"])
    if said is None:
        yield unchecked(f"systemctl tells nothing of {unit}; see that it has KillMode=process")
        return
    other = _UNIT.search(tmux)
    mode, shared = (
        said.get("KillMode", ""),
        not tmux or (other is not None and other["path"] == found["path"]),
    )
    if shared and mode not in {"process", "none"}:
        yield finding(
            f"a stop of {unit} would end the tmux server with all agents, for its KillMode is {mode}; "
            "set KillMode=process"
        )
    else:
        yield ok(f"a stop of {unit} leaves the tmux server alone")
    yield from _limit(unit, said.get("TimeoutStopUSec", ""))


def _limit(unit: str, said: str) -> Results:
    needed = f"the daemon may need {MAX_STOP_SECONDS:g} s"
    try:
        # systemd writes 1min 30s
        limit = (
            parse_duration(said.replace("min", "m").replace(" ", "")) if said != "infinity" else float("inf")
        )
    except ValueError:
        yield unchecked(f"how long {unit} may take to stop is not known; {needed}")
        return
    if limit < MAX_STOP_SECONDS:
        yield finding(
            f"{unit} is killed {format_duration(limit)} after its stop, and {needed}; raise TimeoutStopSec"
        )
    else:
        yield ok(f"{unit} may take {said} to stop; {needed}")


def ask_systemd(unit: str, of_user: bool) -> Mapping[str, str] | None:
    """How systemd would stop this unit; None when it cannot be asked."""
    words = ["systemctl", *(["--user"] if of_user else []), "show", "-p", "KillMode,TimeoutStopUSec", unit]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=QUERY_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return said if "KillMode" in said else None


def _cgroup(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
