"""A town whose tmux server and agents run on the host, served by workers in containers."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compose.stack import Stack, a_stack, free_port
from tests.support.wait import eventually

pytestmark = pytest.mark.timeout(400)

SESSION, AGENT = "gt-demo-crew-max", "demo/crew/max"
FILES = ("docker-compose.yml", "docker/compose.host-agents.yml")


@dataclass
class Host:
    """The host's tmux server, run by the town's user, and the containers that serve its agents."""

    stack: Stack
    socket: Path

    def tmux(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self.socket), *words],
            capture_output=True, text=True, timeout=20, check=check, user=self.stack.uid, cwd="/",
        )  # fmt: skip
        return done.stdout

    def session(self) -> dict[str, str]:
        """Return the agent's token and its program's pid; empty strings without a session."""
        form = "#{session_name} #{@gastown_incarnation} #{pane_pid} #{pane_dead}"
        rows = [line.split() for line in self.tmux("list-panes", "-a", "-F", form, check=False).splitlines()]
        return next(({"token": row[1], "pid": row[2]} for row in rows if row[0] == SESSION), {})


@pytest.fixture
def host(engine: None) -> Iterator[Host]:
    """Containers without a town of their own, and a tmux server here; nothing is left afterwards."""
    # Not in pytest's folder: it is private to the user of the tests, and the town's may be another.
    with tempfile.TemporaryDirectory(prefix="gastown-host-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with _containers(folder) as stack, _tmux_server(Host(stack, folder / "tmux/gastown")) as host:
            yield host


def _containers(folder: Path) -> AbstractContextManager[Stack]:
    return a_stack(
        folder, *FILES, GASTOWN_TMUX_DIR=str(folder / "tmux"), GASTOWN_REDIS_PORT=str(free_port()),
        HOME=str(folder), DOCKER_CONFIG=os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker"),
    )  # fmt: skip


@contextmanager
def _tmux_server(host: Host) -> Iterator[Host]:
    host.socket.parent.mkdir(mode=0o700)
    os.chown(host.socket.parent, host.stack.uid, -1)
    start = ("start-server", ";", "set-option", "-s", "exit-empty", "off", ";", "display-message", "-p")
    pid = int(host.tmux(*start, "#{pid}"))
    try:
        yield host
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def test_workers_in_containers_serve_agents_on_the_host(host: Host) -> None:
    host.stack.up()
    # Given: the sample's agent lives here, outside any container, with a URL that works here.
    first = eventually(host.session, deadline=30.0, step=0.2)
    environ = Path(f"/proc/{first['pid']}/environ").read_bytes().decode().split("\0")
    url = next(entry for entry in environ if entry.startswith("GASTOWN_REDIS_URL="))
    assert url.startswith("GASTOWN_REDIS_URL=redis://agent:")
    assert url.endswith(f"@127.0.0.1:{host.stack.more['GASTOWN_REDIS_PORT']}/0")
    # When: its session is cycled.
    host.stack.send("cycle", AGENT, "--wait", "20", service="worker")
    # Then: the whole tree of the old one is gone, and the new one is here too.
    second = host.session()
    assert second["token"] != first["token"]
    assert not Path(f"/proc/{first['pid']}").exists()
    host.stack.compose("restart", "worker", "scheduler", timeout=100)
    assert host.session() == second


def test_a_worker_starts_no_tmux_server(host: Host) -> None:
    host.tmux("kill-server")
    host.stack.up()
    for _ in range(2):
        said = host.stack.inside("worker", "sh", "-c", f"gastown-mail run {AGENT} 2>&1", check=False)
        assert "no server running on" in said
