"""Whether a stop of the daemon is cut short, or takes the agents along."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.go_formats import format_duration, parse_duration
from gastown_mail.daemon.supervisor import KILL_GRACE, STOP_DEADLINE
from gastown_mail.status.collect import StatusCollector
from gastown_mail.status.model import CheckResult, finding, ok, unchecked

_MAX_STOP_SECONDS = STOP_DEADLINE + 2 * KILL_GRACE
"""Seconds that the daemon may need to stop."""

_QUERY_TIMEOUT = 5.0
_UNIT = re.compile(r"^(?:0:|\d+:name=systemd):(?P<path>\S*/(?P<unit>[^/\s]+\.service))$", re.MULTILINE)
_QueryUnit = Callable[[str, bool], Mapping[str, str] | None]


def check_stopping(collector: StatusCollector) -> Iterator[CheckResult]:
    """Whether a stop of the daemon that runs here would leave the agents alone and finish in time."""
    holder = collector.holder
    if holder is None or holder.pid is None:
        yield unchecked("the daemon does not run here, so it is not known how it would be stopped")
        return
    try:
        server = collector.town.sessions.tmux.server_pid()
        own, tmux = _cgroup(holder.pid), _cgroup(server) if server else ""
    except StateUnknown:
        yield unchecked("tmux does not answer")
        return
    except OSError as error:
        yield unchecked(f"it is not visible here what would stop the daemon ({error})")
        return
    contained = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    yield from check_unit(own, tmux, _query_systemd, contained=contained)


def check_unit(own: str, tmux: str, query: _QueryUnit, *, contained: bool) -> Iterator[CheckResult]:
    """The results that follow from the cgroups of the daemon and of the tmux server ("" if there is none).

    Both are texts of /proc/PID/cgroup.
    """
    match = _UNIT.search(own)
    if match is None:
        needs = f"give it more than {_MAX_STOP_SECONDS:g} s (stop_grace_period)"
        no_unit = "no systemd service runs the daemon: stopping it ends no session"
        hidden = f"the time that a container gets to stop is not visible inside it; {needs}"
        yield unchecked(hidden) if contained else ok(no_unit)
        return
    unit = match["unit"]
    properties = query(unit, "/user@" in match["path"])
    if properties is None:
        yield unchecked(f"systemctl says nothing about {unit}; make sure that it has KillMode=process")
        return
    other = _UNIT.search(tmux)
    shared = not tmux or (other is not None and other["path"] == match["path"])
    mode = properties.get("KillMode", "")
    if shared and mode not in {"process", "none"}:
        yield finding(
            f"a stop of {unit} would end the tmux server with all agents, because its KillMode is {mode}; "
            "set KillMode=process"
        )
    else:
        yield ok(f"a stop of {unit} leaves the tmux server alone")
    yield _check_time_limit(unit, properties.get("TimeoutStopUSec", ""))


def _check_time_limit(unit: str, limit: str) -> CheckResult:
    needed = f"the daemon may need {_MAX_STOP_SECONDS:g} s"
    try:
        # systemd writes 1min 30s
        duration = limit.replace("min", "m").replace(" ", "")
        seconds = float("inf") if limit == "infinity" else parse_duration(duration)
    except ValueError:
        return unchecked(f"it is not known how long {unit} may take to stop; {needed}")
    if seconds < _MAX_STOP_SECONDS:
        after = format_duration(seconds)
        return finding(f"{unit} is killed {after} after its stop, and {needed}; raise TimeoutStopSec")
    return ok(f"{unit} may take {limit} to stop; {needed}")


def _query_systemd(unit: str, of_user: bool) -> Mapping[str, str] | None:
    """How systemd would stop this unit; None if it cannot be asked."""
    words = ["systemctl", *(["--user"] if of_user else []), "show", "-p", "KillMode,TimeoutStopUSec", unit]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_QUERY_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    properties = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return properties if "KillMode" in properties else None


def _cgroup(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()
