"""A whole town in containers: a copy of the repository in a folder and a project of its own."""

import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.wait import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = (
    "Dockerfile", ".dockerignore", "docker-compose.yml", "docker", "pyproject.toml", "constraints.txt",
    "README.md", "LICENSE", "worker.py", "scheduler.py", "gastown_mail",
)  # fmt: skip
SOCKET = "/run/tmux/s"
SLOW = "demo/crew/slow"
SLOW_AGENT = f"""
# Ignores SIGTERM: ending it takes its whole grace. Tests that need it start it.
[agents."{SLOW}"]
command = "trap '' TERM; while true; do sleep 1; done"
work_dir = "."
keep_running = false
stop_grace = "4s"
"""


@dataclass
class Stack:
    """`docker compose` in one folder."""

    folder: Path
    project: str
    files: Sequence[str] = ()
    more: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *words: str, timeout: float = 120, check: bool = True) -> str:
        """Run `docker compose WORDS` and return what it prints; with `check`, it must succeed."""
        files = [word for file in self.files for word in ("-f", file)]
        done = subprocess.run(
            ["docker", "compose", *files, *words],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{self.logs()}\n{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def logs(self) -> str:
        """Return the containers' latest output."""
        return self.compose("logs", "--tail", "40", check=False)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a user's shell, without a town's variables except the test's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GASTOWN_", "COMPOSE_", "GT_"))}
        named = {"COMPOSE_PROJECT_NAME": self.project, "GASTOWN_IMAGE": self.project}
        mine = {} if os.getuid() == 0 else {"GASTOWN_UID": str(self.uid), "GASTOWN_GID": str(os.getgid())}
        return {**kept, **named, **mine, "PWD": str(self.folder), **self.more}

    @property
    def uid(self) -> int:
        """The uid of the containers: the host user's, or the default for root."""
        return os.getuid() or 1000

    def up(self, *words: str) -> None:
        self.compose("up", "-d", "--wait", *words, timeout=300)

    def inside(self, service: str, *words: str, check: bool = True, timeout: float = 60) -> str:
        """Run a program in a service's container, as `docker compose exec` does."""
        return self.compose("exec", "-T", service, *words, check=check, timeout=timeout)

    def mail(self, *words: str) -> Any:
        """Return the document that `gastown-mail WORDS --json` prints in a worker."""
        return json.loads(self.inside("worker", "gastown-mail", *words, "--json"))

    def send(self, action: str, agent: str, *words: str, service: str = "town") -> str:
        """Send a request as an operator; return its id."""
        asked = ("gastown-mail", "send", action, "--agent", "operator", "--to", agent, *words)
        return self.inside(service, *asked).strip()

    def status(self, request_id: str) -> str:
        """Return the status of a request."""
        return str(self.mail("requests", request_id)[0].get("status"))

    def incarnations(self) -> dict[str, str]:
        """Return the token of each live session in the town container by its name."""
        form = "#{session_name} #{@gastown_incarnation} #{pane_dead}"
        listed = self.inside("town", "tmux", "-S", SOCKET, "list-sessions", "-F", form, check=False)
        rows = [line.split() for line in listed.splitlines()]
        return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "0"}

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).split()

    @property
    def state(self) -> Any:
        """The host's `./town/daemon/state.json`."""
        return json.loads((self.folder / "town/daemon/state.json").read_text())

    def state_line(self, key: str) -> str:
        """Return the line of `state.json` with this key."""
        lines = (self.folder / "town/daemon/state.json").read_text().splitlines()
        return next(line for line in lines if f'"{key}"' in line)

    def password(self, user: str) -> str:
        """Return a password from where the documentation says it is."""
        service = "worker" if user == "daemon" else "town"
        return self.inside(service, "cat", f"/run/gastown/{user}/password").strip()

    def url(self, user: str) -> str:
        """Return the URL of a Redis user for programs on the host."""
        address = self.compose("port", "redis", "6379").strip()
        return f"redis://{user}:{self.password(user)}@{address}"


@contextmanager
def a_stack(folder: Path, *files: str, **more: str) -> Iterator[Stack]:
    """A copy of the repository; everything started from it is gone afterwards, and its image too."""
    for part in PARTS:
        copy: Callable[..., object] = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy
        options = {"ignore": shutil.ignore_patterns("__pycache__")} if copy is shutil.copytree else {}
        copy(REPOSITORY / part, folder / part, **options)
    stack = Stack(folder, f"gastown-test-{secrets.token_hex(4)}", files, more)
    try:
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--remove-orphans", check=False, timeout=200)
        _remove_images(stack.project)


def _remove_images(project: str) -> None:
    for name in (project, f"{project}-dashboard"):
        subprocess.run(["docker", "image", "rm", name], capture_output=True, timeout=60, check=False)


def works(*words: str) -> bool:
    """True if this program is there and succeeds."""
    try:
        return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def all_alive(stack: Stack, *agents: str) -> None:
    """Wait until these agents have a living session."""

    def alive() -> bool:
        rows = {row["agent"]: row["observed"] for row in stack.mail("agents")}
        return all(rows.get(agent) == "alive" for agent in agents)

    eventually(alive, deadline=30.0, step=0.5)
