"""A shell that runs a document's blocks; each continues where the last one ended."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import clean_environ

DEADLINE = 60.0
KEYS = {"C-c": b"\x03", "C-b d": b"\x02d"}
KEY_PAUSE = 0.05
"""Seconds between two keys: tmux takes keys that come at once for pasted text."""
AGAIN = 2.0
"""Seconds after which keys are typed again to a program that did not react."""

_KEEP = """trap 'env -0 >"$SHELL_STATE/env"; pwd >"$SHELL_STATE/folder"' EXIT; set -euo pipefail\n"""


@dataclass
class Shell:
    """A user's shell in `folder`: no town in its environment, `gastown-mail` on the PATH."""

    folder: Path
    state: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for made in (self.state, self.folder):
            made.mkdir(parents=True, exist_ok=True)
        if shutil.which("redis-cli") is None:
            self._stand_in("redis-cli", Path(__file__).with_name("redis_cli.py"))
        tools = f"{Path(sys.executable).parent}:{self.state}"
        self.environ = {
            **clean_environ(), "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(self.state),
            "SHELL_STATE": str(self.state), "TERM": "xterm", "EDITOR": "true", "PYTHONUNBUFFERED": "1",
            # the documents are written for a user who is not root
            "IS_SANDBOX": "1",
        }  # fmt: skip

    def _stand_in(self, name: str, script: Path) -> None:
        file = self.state / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        file.chmod(0o755)

    def run(self, text: str) -> str:
        """Run a block that must succeed; return its output."""
        said = self.program("bash", "-c", _KEEP + text)
        self._go_on()
        return said

    def program(self, *words: str) -> str:
        """Run a program that must succeed; return its output."""
        done = self._done(words, {})
        assert done.returncode == 0, f"exit code {done.returncode}:\n{words[-1]}\n{done.stdout}"
        return done.stdout

    def inside(self, session: Mapping[str, str], *words: str) -> str | None:
        """Run a program with a session's environment; return None when it ended with that session."""
        done = self._done(words, session)
        if done.returncode == -signal.SIGTERM:
            return None
        assert done.returncode == 0, f"exit code {done.returncode}:\n{words[-1]}\n{done.stdout}"
        return done.stdout

    def _done(self, words: Sequence[str], more: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words, cwd=self.folder, env={**self.environ, **more}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip

    def on_terminal(self, text: str, keys: str, after: str) -> str:
        """Run a block on a terminal and type `keys` once it shows `after`."""
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        place = os.ttyname(theirs)
        process = subprocess.Popen(
            # A new session owns the first terminal that it opens.
            ["bash", "-c", f"exec <>{place} >&0 2>&0\n{_KEEP}{text}"], cwd=self.folder, env=self.environ,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        try:
            said = _converse(process, ours, KEYS[keys], after)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        assert process.returncode == 0, f"exit code {process.returncode}:\n{text}\n{said}"
        self._go_on()
        return said

    def _go_on(self) -> None:
        """Keep the folder and the exported variables for the next block."""
        pairs = (self.state / "env").read_text().rstrip("\0").split("\0")
        self.environ = dict(pair.partition("=")[::2] for pair in pairs)
        self.folder = Path((self.state / "folder").read_text().rstrip("\n"))


def _converse(process: "subprocess.Popen[bytes]", terminal: int, keys: bytes, after: str) -> str:
    said, until, typed = "", time.monotonic() + DEADLINE, 0.0
    while process.poll() is None:
        assert time.monotonic() < until, f"it did not end:\n{said}"
        if select.select([terminal], [], [], 0.05)[0]:
            said += _read(terminal)
        if after in said and time.monotonic() > typed + AGAIN:
            for key in keys:
                os.write(terminal, bytes((key,)))
                time.sleep(KEY_PAUSE)
            typed = time.monotonic()
    return said


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # The other end is closed.
        return ""


def shows(output: str, expected: str) -> bool:
    """True if the output has each expected line, in this order.

    `…` stands for anything, a number for any number, an id for any id, spaces for any spaces.
    """
    lines = iter(output.splitlines())
    return all(
        any(_like(wanted).fullmatch(line.strip()) for line in lines) for wanted in expected.splitlines()
    )


def _like(line: str) -> "re.Pattern[str]":
    form = re.compile(r"(?P<id>\b[0-9a-f]{12}-[0-9a-f]{20}\b)|(?P<number>\d+)|(?P<space>\s+)|(?P<any>…)")
    wild = {"id": r"[0-9a-f]+-[0-9a-f]+", "number": r"\d+", "space": r"\s+", "any": ".*"}
    parts, end = [], 0
    for found in form.finditer(line.strip()):
        parts += [re.escape(line.strip()[end : found.start()]), wild[str(found.lastgroup)]]
        end = found.end()
    return re.compile("".join(parts) + re.escape(line.strip()[end:]))
