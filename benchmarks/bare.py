"""Bare tmux: the same server as the town's, one subprocess a call, and nothing around it."""

import shutil
import subprocess
from collections.abc import Iterable

from benchmarks.bell import Bell
from gastown_mail.town.town import Town

DEADLINE = 30.0


class Bare:
    """What a shell script could do to the town's tmux server."""

    def __init__(self, town: Town, bell: Bell) -> None:
        tmux = shutil.which("tmux") or "tmux"
        self._command = [tmux, "-S", town.settings.tmux_socket, "-u", "-f", "/dev/null"]
        self._environ = town.sessions.tmux.environ
        self._bell = bell

    def run(self, *words: str) -> str:
        """Run one tmux process; return what it prints."""
        return self._run(words, None)

    def script(self, lines: Iterable[str]) -> str:
        """Run all these lines in one tmux process."""
        return self._run(("source-file", "-"), "\n".join(lines) + "\n")

    def new(self, name: str) -> None:
        """Start a session of the agents' program."""
        self.run("new-session", "-d", "-s", name, "sh", "-c", f"echo {name} > {self._bell.path}; {PROGRAM}")

    def kill(self, name: str) -> None:
        self.run("kill-session", "-t", f"={name}")

    def replace(self, names: Iterable[str]) -> None:
        """Kill and start one session after the other; return when the last program runs."""
        waited = list(names)
        for name in waited:
            self.kill(name)
            self.new(name)
        self._bell.wait(waited)

    def _run(self, words: Iterable[str], stdin: str | None) -> str:
        return subprocess.run(
            [*self._command, *words], input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
            env=self._environ, cwd="/", capture_output=True, text=True, timeout=DEADLINE, check=True,
        ).stdout  # fmt: skip


PROGRAM = "exec cat > /dev/null"
"""What an agent does after it has rung: it reads lines, and ends on SIGTERM and SIGHUP at once."""
