"""A town with one agent whose program is a real one, with the mock model; everything in one namespace."""

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.lifecycle import heartbeat
from gastown_mail.programs.reader import Reading, read_screen
from gastown_mail.programs.screen import Screen
from gastown_mail.sessions.session import Session
from gastown_mail.town.town import Town
from tests.agents.programs import Place, Program
from tests.support.stage import Stage
from tests.support.wait import eventually

IT = "rig/crew/it"


class AgentTown(Stage):
    """The town, its only agent, and what the model has received."""

    def __init__(self, town: Town, program: Program, place: Place, log: Path) -> None:
        super().__init__(town)
        self.program, self.place, self.log = program, place, log
        self.profile = town.profile_of(town.roster().agents[IT])

    def screen(self) -> Screen:
        """What the agent's session shows."""
        return self.town.sessions.screens([self.live])[self.live.name]

    @property
    def live(self) -> Session:
        """The agent's session."""
        session = self.town.sessions.find(self.town.roster().agents[IT].session)
        assert session is not None
        return session

    def reading(self) -> Reading:
        """What the profile makes of the screen."""
        return read_screen(self.profile, self.screen())

    def wait_for(self, *states: AgentState, deadline: float = 40.0) -> None:
        """Wait until the screen has shown one of these states at two looks."""
        self.wait_until(lambda: self.reading().state in states, f"{states}", deadline)

    def wait_until(self, condition: Callable[[], object], what: str, deadline: float = 40.0) -> None:
        try:
            eventually(lambda: condition() and condition(), deadline=deadline, step=0.1)
        except AssertionError:
            screen = self.screen()
            raise AssertionError(
                f"not {what}, but {self.reading()}; cursor {screen.x} {screen.y}, title {screen.title!r}:\n"
                + "\n".join(row for row in screen.rows if row.strip())
            ) from None

    def poke(self, text: str) -> str:
        """Poke it as an operator would; return the outcome."""
        return str(heartbeat.poke_agent(self.town, IT, text))

    def received(self) -> list[str]:
        """The user messages that the model got, in their order."""
        with suppress(FileNotFoundError):
            return [json.loads(line)["text"] for line in self.log.read_text().splitlines()]
        return []

    def type(self, text: str) -> None:
        """Type as a person would."""
        self.town.sessions.tmux.run("send-keys", "-l", "-t", self.live.pane, "--", text)

    def press(self, *keys: str) -> None:
        """Press keys as a person would."""
        self.town.sessions.tmux.run("send-keys", "-t", self.live.pane, *keys)


@contextmanager
def agent_town(
    program: Program,
    make_town: Callable[[str], Town],
    folder: Path,
    arguments: str = "{prompt}",
    env: dict[str, str] | None = None,
) -> Iterator[AgentTown]:
    """Make the town; the mock model ends with the block."""
    place = Place(folder / "home", folder / "project", _free_port())
    place.home.mkdir()
    place.work.mkdir()
    log = folder / "received"
    mock = subprocess.Popen(
        [sys.executable, "-m", "tests.agents.mock_model", "--port", str(place.port), "--log", str(log)],
        stderr=(folder / "mock.err").open("w"),
    )
    try:
        program.prepare(place)
        variables = program.full_environment(place) | (env or {})
        lines = "\n".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in variables.items())
        command = f"{shlex.join(program.command())} {arguments}"
        toml = f"""
[agents."{IT}"]
command = {json.dumps(command)}
work_dir = {json.dumps(str(place.work))}
program = "{program.name}"
poke = "HEARTBEAT: check your work"
stop_grace = 5
[agents."{IT}".env]
{lines}
"""
        yield AgentTown(make_town(toml), program, place, log)
    finally:
        mock.kill()
        mock.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
