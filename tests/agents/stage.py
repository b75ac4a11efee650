"""A stage for recording screens: a fresh home, a program in a terminal, the mock server beside it."""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.agents.driver import Terminal
from tests.agents.programs import Place, Program

SCREENS = Path(__file__).parent / "screens"
_PORT = 8123
_RESTLESS = ("busy", "starting")


class Stage:
    """Where one scene plays: `begin` starts a program, `terminal` is its pane, `save` records a screen."""

    def __init__(self, name: str, program: Program | None, version: str) -> None:
        self._name, self._program, self._version = name, program, version
        self._home = Path(tempfile.mkdtemp(prefix="home-"))
        self._terminal: Terminal | None = None
        self.place = Place(self._home, self._home / "project", _PORT)
        self.place.work.mkdir()

    @property
    def terminal(self) -> Terminal:
        """The pane of the program that was begun last."""
        if self._terminal is None:
            raise RuntimeError("nothing was begun on this stage")
        return self._terminal

    def prepare(self) -> None:
        """Write the files that keep first-run boxes away."""
        if self._program is not None:
            self._program.prepare(self.place)

    def begin(self, *argv: str, width: int = 200, height: int = 50, **environment: str) -> Terminal:
        """Start the program with these arguments; without a program `argv` is the whole command."""
        self.end()
        command, env = list(argv), {"HOME": str(self.place.home), "PATH": "/usr/bin:/bin"}
        env |= {"LANG": "C.UTF-8", "TERM": "screen-256color"}
        if self._program is not None:
            command, env = self._program.command(*argv), self._program.full_environment(self.place)
        self._terminal = Terminal(command, env | environment, self.place.work, width=width, height=height)
        return self._terminal

    def end(self) -> None:
        """End the program, if one runs."""
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def close(self) -> None:
        """End the program and remove its home."""
        self.end()
        shutil.rmtree(self._home, ignore_errors=True)

    def save(self, name: str, note: str, wanted: str | None = None, seconds: float = 20) -> None:
        """Record the screen as `name`, of which the first word is the state.

        It is a screen that has come to rest, after `wanted` was seen if that is given. A program that is busy
        or starting does not rest: there it is the first screen that shows `wanted`.
        """
        screen = self.terminal.wait(wanted, seconds) if wanted else None
        if screen is None or name.partition("-")[0] not in _RESTLESS:
            screen = self.terminal.settled(seconds=seconds)
        folder = SCREENS / self._name
        folder.mkdir(parents=True, exist_ok=True)
        text = screen.record(self._name, self._version, name.partition("-")[0], note)
        (folder / f"{name}.screen").write_text(text)

    def send(self, text: str) -> None:
        """Paste a line and press Enter, as a poke does."""
        self.terminal.paste(text)
        time.sleep(0.5)
        self.terminal.keys("Enter")


Scene = Callable[[Stage], None]


@contextmanager
def mock_server() -> Iterator[None]:
    """Run the mock model server for the time of this block; raises TimeoutError if it does not come up."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.agents.mock_model", "--port", str(_PORT)], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(f"http://127.0.0.1:{_PORT}/v1/models")
        yield
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"the mock server does not answer at {url}")
