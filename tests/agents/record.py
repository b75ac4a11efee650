"""Record the programs' screens again: `python -m tests.agents.record [PROGRAM...] [--only WHAT]`.

Each scenario brings screens about and says which state is right for them; the files in `screens/` are what
the unit tests of the profiles read.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.agents import namespace
from tests.agents.driver import Screen, Terminal
from tests.agents.programs import CACHE, PROGRAMS, Place, Program

SCREENS = Path(__file__).parent / "screens"
PORT = 8765

TYPED = (
    ("letters", "hello world", "letters typed"),
    ("one-letter", "h", "one letter typed"),
    ("digit", "1", "a digit typed"),
    ("spaces", "   ", "three spaces typed"),
    ("slash", "/", "a slash typed: the list of commands is open"),
    ("slash-word", "/mod", "the beginning of a command typed"),
    ("slash-unknown", "/nonsense here", "an unknown command typed"),
    ("shell", "!", "an exclamation mark typed: shell mode"),
    ("shell-command", "!ls", "shell mode with a command"),
    ("at", "@", "an at sign typed: the list of files is open"),
    ("hash", "#", "a number sign typed"),
)
"""What a person may have typed: the name of the screen, the keys, a note."""


class Recorder:
    """Starts one program, each time in a fresh home, and writes the screens it shows."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self._folder = folder
        self.taken: list[str] = []

    @contextlib.contextmanager
    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        prepare: Callable[[Place], None] | None = None,
        ready: str = "",
        size: tuple[int, int] = (200, 50),
    ) -> Iterator[Terminal]:
        """Start the program; `prepare` may change what its own preparation wrote, `ready` is waited for.

        A variable of `env` that is empty is taken out of the environment.
        """
        with tempfile.TemporaryDirectory(
            prefix="agents-", dir="/var/tmp", ignore_cleanup_errors=True
        ) as home:
            place = Place(Path(home), Path(home) / "project", PORT)
            place.work.mkdir()
            self.program.prepare(place)
            if prepare is not None:
                prepare(place)
            environment = self.program.full_environment(place) | (env or {})
            environment = {name: value for name, value in environment.items() if value}
            width, height = size
            argv = self.program.command(*arguments)
            terminal = Terminal(argv, environment, place.work, width=width, height=height)
            try:
                if ready:
                    terminal.wait(ready)
                    terminal.settled()
                yield terminal
            finally:
                terminal.close()
                namespace.end_others(spare=("tests.agents.mock_model",))

    def take(self, terminal: Terminal, state: str, what: str, note: str) -> Screen:
        """Write the screen as it is now to `<state>-<what>.screen`."""
        screen = terminal.screen()
        folder = self._folder / self.program.name
        folder.mkdir(parents=True, exist_ok=True)
        text = screen.record(self.program.name, self.program.version, state, note)
        (folder / f"{state}-{what}.screen").write_text(text, encoding="utf-8")
        self.taken.append(f"{state}-{what}")
        return screen


Scenario = Callable[[Recorder], None]


@contextlib.contextmanager
def mock_server() -> Iterator[None]:
    """Run the mock model server on its port."""
    argv = [sys.executable, "-m", "tests.agents.mock_model", "--port", str(PORT)]
    server = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        _wait_for_server()
        yield
    finally:
        server.kill()
        server.wait()


def _wait_for_server() -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def run(recorder: Recorder, scenarios: list[Scenario], only: str) -> int:
    """Run the scenarios and return how many failed."""
    failed = 0
    for scenario in scenarios:
        if only and only not in scenario.__name__:
            continue
        before = len(recorder.taken)
        try:
            scenario(recorder)
        except (TimeoutError, subprocess.SubprocessError):
            failed += 1
            traceback.print_exc()
        print(recorder.program.name, scenario.__name__, *recorder.taken[before:], flush=True)  # noqa: T201
    return failed


def main() -> None:
    """Record what the arguments name, inside a namespace."""
    from tests.agents import record_claude, record_codex  # they import this module

    scenarios = {"claude": record_claude.SCENARIOS, "codex": record_codex.SCENARIOS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", nargs="*", default=[*scenarios], choices=[*scenarios])
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--to", type=Path, default=SCREENS)
    given = parser.parse_args()
    for name in given.programs:
        if not PROGRAMS[name].version:
            parser.error(f"{name} is not installed in {CACHE}: install it there, or set AGENTS_CACHE")
    namespace.isolate()
    os.environ.pop("TMUX", None)
    with mock_server():
        failed = [
            run(Recorder(PROGRAMS[name], given.to), scenarios[name], given.only) for name in given.programs
        ]
    sys.exit(min(sum(failed), 1))


if __name__ == "__main__":
    main()
