"""A town with one agent whose program is a real one, with the mock model; everything in one namespace."""

import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.state import State
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import heartbeat
from gastown_mail.lifecycle.start import first_prompt
from gastown_mail.plumbing.environment import own_command
from gastown_mail.programs.reader import Reading, read_screen
from gastown_mail.programs.screen import Screen
from gastown_mail.sessions.session import Session
from gastown_mail.town.observed import Observation
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.agents.programs import Place, Program
from tests.support.processes import end_processes_of
from tests.support.stage import Stage
from tests.support.wait import eventually

IT = "rig/crew/it"
HEARTBEAT = "HEARTBEAT: check your work"
WHY = "a test wants it"

PATIENCE = 120.0
"""Seconds that a program may take for anything: opencode needs forty to start on a busy machine."""


_OF_ITS_OWN = (
    "This is the Qwen Code.",
    "Managed memory directory",
    "Change get_factorial() to use math.factorial",
    "Refactor hello() into its own file.",
    "I switched to a new code base.",
    "I am not sharing any files",
)
"""How the messages begin that Qwen Code and aider add to a conversation."""


class RealAgent:
    """The only agent of a town: what its session shows, and what its model has received."""

    def __init__(self, town: Town, place: Place, log: Path) -> None:
        self.town, self.place, self.log = town, place, log
        self.profile = town.profile_of(town.roster().agents[IT])

    @property
    def live(self) -> Session:
        """The agent's session."""
        session = self.town.sessions.find(self.town.roster().agents[IT])
        assert session is not None
        return session

    def screen(self) -> Screen:
        """What the agent's session shows."""
        return self.town.sessions.screens([self.live])[self.live.key]

    def reading(self) -> Reading:
        """What the profile makes of the screen."""
        return read_screen(self.profile, self.screen())

    def seen(self) -> Observation:
        """What a heartbeat sees of it."""
        (snapshot,), _ = heartbeat.observe(self.town)
        return snapshot.seen

    def wait_for(self, *states: AgentState, deadline: float = PATIENCE) -> None:
        """Wait until the screen has shown one of these states at two looks."""
        self.wait_until(lambda: self.reading().state in states, " or ".join(states), deadline)

    def wait_until(self, condition: Callable[[], object], what: str, deadline: float = PATIENCE) -> None:
        """Wait until this has held at two looks; fail with the screen."""
        try:
            eventually(lambda: condition() and condition(), deadline=deadline, step=0.05)
        except AssertionError:
            screen = self.screen()
            raise AssertionError(
                f"not {what}, but {self.reading()}; cursor {screen.x} {screen.y}, title {screen.title!r}:\n"
                + "\n".join(row for row in screen.rows if row.strip())
            ) from None

    def wait_until_seen(self, condition: Callable[[Observation], bool], deadline: float = PATIENCE) -> None:
        """Wait until this holds for what a heartbeat sees."""
        seen = [self.seen()]

        def holds() -> bool:
            seen.append(self.seen())
            return condition(seen[-1])

        try:
            eventually(holds, deadline=deadline, step=0.1)
        except AssertionError:
            raise AssertionError(f"last seen: {seen[-1]}") from None

    def wait_until_told(self, before: int = 0) -> None:
        """Wait until its model has the first prompt, if it takes one, and it is ready."""
        expected = before + ("{prompt}" in self.town.roster().agents[IT].command)
        self.wait_until(lambda: len(self.received()) == expected, "told its first prompt")
        self.wait_for(AgentState.READY)

    def settle(self, rest: float = 0.6) -> Screen:
        """Wait until rows and cursor have not changed for so many seconds, and return the screen.

        Codex blinks its title.
        """
        looks = [self.screen()]

        def rests() -> bool:
            looks.append(self.screen())
            last = {(look.rows, look.x, look.y) for look in looks[-int(rest / 0.2) :]}
            return len(looks) > rest / 0.2 and len(last) == 1

        eventually(rests, deadline=PATIENCE, step=0.2)
        return looks[-1]

    def poke(self, text: str = HEARTBEAT) -> str:
        """Poke it as an operator would; return the outcome."""
        return str(heartbeat.poke_agent(self.town, IT, text))

    def deliver(self, text: str) -> None:
        """Poke it until it takes the text: between two answers a program may look ready for a moment."""
        until = time.monotonic() + PATIENCE
        self.wait_for(AgentState.READY)
        while (outcome := self.poke(text)).startswith("held: ") and time.monotonic() < until:
            self.wait_for(AgentState.READY)
        assert outcome == "delivered", self.reading()

    def tell(self, text: str) -> None:
        """Poke it with success, and wait until the model has the text."""
        before = len(self.received())
        self.deliver(text)
        try:
            eventually(lambda: self.received()[before:] == [text], deadline=PATIENCE)
        except AssertionError:
            raise AssertionError(f"told {text!r}, but it got {self.received()[before:]}") from None

    def received(self) -> list[str]:
        """The user messages that the model got, in their order, without what the program says of itself.

        Blanks at the end of a message do not count: a poke may be typed with one.
        """
        with suppress(FileNotFoundError):
            texts = [json.loads(line)["text"] for line in self.log.read_text().splitlines()]
            return [text.rstrip(" ") for text in texts if not text.startswith(_OF_ITS_OWN)]
        return []

    def type(self, text: str) -> None:
        """Type as a person would."""
        self.town.sessions.tmux.run("send-keys", "-l", "-t", self.live.pane, "--", text)

    def press(self, *keys: str) -> None:
        """Press keys as a person would."""
        self.town.sessions.tmux.run("send-keys", "-t", self.live.pane, *keys)

    def say(self, text: str) -> None:
        """Type a line as a person would, and enter it."""
        self.type(text)
        self.settle()
        self.press("Enter")


class AgentTown(RealAgent, Stage):
    """The town with its only agent, without a daemon."""

    def __init__(self, town: Town, place: Place, log: Path) -> None:
        Stage.__init__(self, town)
        RealAgent.__init__(self, town, place, log)

    def start(self, why: str = WHY) -> None:
        """Start it for this reason, as an operator would; its first prompt has the reason."""
        jobs.serving.set(self.town)
        self.town.desired.set(IT, Desired.RUNNING)
        answer = jobs.start(IT, why, "test")
        assert answer.startswith("started"), answer

    def start_anew(self) -> None:
        """End its session, start it again and wait until it is ready."""
        if (session := self.session(IT)) is not None:
            self.town.sessions.end(session, grace=2)
        told = len(self.received())
        # the log of the mock takes the same first message for the same conversation
        self.start(f"{WHY}, after {told} messages")
        self.wait_until_told(told)

    def becomes_ready(self) -> bool:
        """Wait while it is busy; say whether it is ready then."""
        looks, until = 0, time.monotonic() + 20
        while looks < 3 and time.monotonic() < until:
            state = self.seen().state
            if state not in (AgentState.BUSY, AgentState.READY):
                return False
            looks = looks + 1 if state is AgentState.READY else 0
            time.sleep(0.1)
        return looks == 3

    def first_prompt(self, why: str = WHY) -> str:
        """The first prompt of a session that was started for this reason."""
        return first_prompt(self.agent(IT), self.settings.town_name, why, None, own_command())

    def heartbeat(self) -> State:
        """Do what a daemon does at each heartbeat."""
        return heartbeat.run_heartbeat(self.town)


@contextmanager
def a_place(program: Program, folder: Path) -> Iterator[tuple[Place, Path]]:
    """A home with the program's files in `folder`, and a mock model; with it the file of what it receives.

    The mock and every process that names the folder have ended after the block.
    """
    place = Place(folder / "home", folder / "project", _free_port())
    place.home.mkdir(parents=True)
    place.work.mkdir()
    log = folder / "received"
    program.prepare(place)
    with (folder / "mock.err").open("w") as errors:
        mock = subprocess.Popen(
            [sys.executable, "-m", "tests.agents.mock_model", "--port", str(place.port), "--log", str(log)],
            stderr=errors,
        )
        try:
            eventually(lambda: _is_served(place.port))
            yield place, log
        finally:
            mock.kill()
            mock.wait()
            end_processes_of(folder)


def town_toml(
    program: Program, place: Place, arguments: str, env: dict[str, str] | None = None, daemon: str = ""
) -> str:
    """The town.toml of a town with this program as its only agent; `daemon` has lines of that section."""
    variables = program.full_environment(place) | (env or {})
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in variables.items())
    command = f"{shlex.join(program.command())} {arguments}"
    return f"""
[daemon]
{daemon}
[agents."{IT}"]
command = {json.dumps(command)}
work_dir = {json.dumps(str(place.work))}
program = "{program.name}"
poke = "{HEARTBEAT}"
stop_grace = 5
[agents."{IT}".env]
{lines}
"""


@contextmanager
def agent_town(
    program: Program,
    make_town: Callable[[str], Town],
    folder: Path,
    arguments: str = "{prompt}",
    env: dict[str, str] | None = None,
    daemon: str = "",
) -> Iterator[AgentTown]:
    """Make the town, its agent not started yet; the mock model ends with the block."""
    with a_place(program, folder) as (place, log):
        yield AgentTown(make_town(town_toml(program, place, arguments, env, daemon)), place, log)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _is_served(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
