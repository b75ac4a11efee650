"""The town of a chaos run: agents with awkward children, and bystanders that must not be touched."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gastown_mail.sessions import process_table
from gastown_mail.sessions.process_table import Process
from gastown_mail.sessions.processes import alive
from tests.support.daemon import Daemon
from tests.support.processes import clean_environ, end_tmux_server

RIG = "gastown"
CREW = {"ann": "plain", "bob": "setsid", "cal": "forked", "dee": "slow", "eve": "plain"}
"""The crew by name, and what is awkward about each."""

AGENT = """\
echo "$GASTOWN_INCARNATION" >> starts
case $1 in
    setsid) setsid sleep 100000 < /dev/null > /dev/null 2>&1 & ;;
    forked) (setsid sh -c 'sleep 100000 & sleep 100000' < /dev/null > /dev/null 2>&1 &) ;;
    slow) trap : TERM ;;
esac
while :; do
    if read -r line; then
        case $line in
            "ask "*) "$CHAOS_PYTHON" -m gastown_mail send ${line#ask } >> sent 2>> sent.errors ;;
        esac
    elif [ "$1" = slow ]; then sleep 0.1
    else exit
    fi
done
"""

TOWN = """\
[daemon]
heartbeat_interval = 3
sweep_interval = 1
fresh_after = 3600
restart_backoff = 0
crash_loop_count = 100000
[roles.crew]
work_dir = "work/{{name}}"
stop_grace = 0.5
env = {{ CHAOS_PYTHON = "{python}" }}
[agents."deacon/"]
command = "sh {{town}}/agent.sh plain"
work_dir = "work/deacon"
poke = ""
env = {{ CHAOS_PYTHON = "{python}" }}
"""

MEMBER = """\
[agents."{rig}/crew/{name}"]
command = "sh {{town}}/agent.sh {kind}"
keep_running = {keep}
"""


def town_toml() -> str:
    """Return a town.toml with five crew members, some of which should run, and the deacon."""
    members = (
        MEMBER.format(rig=RIG, name=name, kind=kind, keep=str(name in ("ann", "bob")).lower())
        for name, kind in CREW.items()
    )
    return TOWN.format(python=sys.executable) + "".join(members)


@dataclass(frozen=True)
class Bystander:
    """A process that does not belong to the town, and what it is."""

    what: str
    process: Process

    def lives(self) -> bool:
        return alive(self.process)


@contextmanager
def bystanders(daemon: Daemon) -> Iterator[list[Bystander]]:
    """Things that look like the town's: a person's session in its tmux server, another server, a process."""
    users_socket = f"user-{secrets.token_hex(4)}"
    names = [agent.session for agent in daemon.town.roster().agents.values()]
    environ = clean_environ(
        GASTOWN_TOWN=str(daemon.root), GASTOWN_AGENT=f"{RIG}/crew/ann", GASTOWN_INCARNATION="0" * 32
    )
    process = subprocess.Popen(["sleep", "100000"], env=environ, start_new_session=True)
    try:
        found = [_of("a process with another incarnation", process.pid)]
        found += [_session(users_socket, name, "a user's own tmux") for name in names]
        found.append(_session(daemon.settings.tmux_socket, f"{names[0]}-person", "a person in our tmux"))
        found.append(_of("our tmux server", daemon.tmux_pid()))
        yield found
    finally:
        process.kill()
        process.wait(60)
        end_tmux_server(users_socket, clean_environ())


def _session(socket: str, name: str, what: str) -> Bystander:
    environ = clean_environ()
    made = subprocess.run(
        ["tmux", "-L", socket, "-f", "/dev/null", "new-session", "-d", "-P", "-F", "#{pane_pid}",
         "-s", name, "sleep 100000"],
        capture_output=True, text=True, timeout=60, check=True, env=environ, cwd=os.sep,
    )  # fmt: skip
    return _of(f"{what}: {name}", int(made.stdout))


def _of(what: str, pid: int) -> Bystander:
    row = process_table.read_process(pid)
    assert row is not None, f"{what} has no process {pid}"
    return Bystander(what, row)
