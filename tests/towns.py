"""Towns for tests: a folder, a town.toml, a real Valkey and a real tmux server of their own."""

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.sessions import processes
from gastown_mail.town.town import Town

ECHO_AGENT = """sh -c 'echo "$1"; while read line; do echo "got $line"; done' sh {prompt}"""
"""A harmless agent: shows its first prompt, then answers every line; it ends on SIGTERM at once."""

TWO_AGENTS = f"""
[roles.witness]
command = '''{ECHO_AGENT}'''
stop_grace = 1
[agents."gastown/witness"]
work_dir = "."
[agents."gastown/crew/max"]
command = '''{ECHO_AGENT}'''
work_dir = "."
stop_grace = 1
"""


def write_town(folder: Path, toml: str = TWO_AGENTS) -> Settings:
    """Make a town of a name nobody else has in `folder`, and return its settings."""
    root = folder / f"t{secrets.token_hex(4)}"
    root.mkdir(parents=True)
    (root / "town.toml").write_text(toml)
    return load_settings(root, environ={})


@contextmanager
def a_town(folder: Path, redis_url: str, toml: str = TWO_AGENTS) -> Iterator[Town]:
    """A town in this process: no daemon, keys in the shared server, tmux of its own, ended afterwards."""
    town = Town.open(write_town(folder, toml), redis_url, blocking=5.0)
    try:
        yield town
    finally:
        kill_sessions(town.settings)
        town.redis.close()


def kill_sessions(settings: Settings) -> None:
    """End the town's own tmux server and whatever its sessions have left."""
    socket = settings.tmux_socket
    place = ["-S", socket] if socket.startswith("/") else ["-L", socket]
    tokens = subprocess.run(
        ["tmux", *place, "list-sessions", "-F", "#{@gastown_incarnation}"],
        capture_output=True, text=True, timeout=10, check=False,
    ).stdout.split()  # fmt: skip
    subprocess.run(["tmux", *place, "kill-server"], capture_output=True, timeout=10, check=False)
    for token in tokens:
        processes.terminate_all(lambda token=token: processes.with_incarnation(token), grace=0.0)  # type: ignore[misc]


def element(sender: str = "gastown/witness", action: str = "restart", **more: object) -> bytes:
    """An inbox element asked for now, by whom and for what the test says."""
    import json

    return json.dumps(
        {"from": sender, "action": action, "timestamp": format_time(datetime.now(UTC)), **more}
    ).encode()


def clean_environ(**more: str) -> Mapping[str, str]:
    """The environment for a process of a test: the machine's, without any town's."""
    foreign = ("GASTOWN_", "GT_", "TMUX")
    kept = {
        key: value for key, value in os.environ.items() if key == "TMUX_TMPDIR" or not key.startswith(foreign)
    }
    return {**kept, **more}
