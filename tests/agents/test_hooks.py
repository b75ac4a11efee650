"""The hooks that `gastown-mail hooks install` writes, run by the real programs when their context is full.

Run it with `python -m tests.agents.namespace python -m pytest tests/agents/test_hooks.py`.
"""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gastown_mail.town.town import Town
from tests.agents import mock_generate, mock_http, mock_messages, mock_responses
from tests.agents.driver import Terminal
from tests.agents.mock_script import MessageLog, Script, read_script
from tests.agents.namespace import only_loopback
from tests.agents.programs import CLAUDE, CODEX, Place, Program
from tests.agents.programs_b import GEMINI
from tests.support.parts import accept_inbox
from tests.support.processes import clean_environ, clear_away, family
from tests.support.wait import DEADLINE, eventually

pytestmark = [
    pytest.mark.skipif(not only_loopback(), reason="real programs run in a namespace of their own only"),
    pytest.mark.timeout(600),
]

PROGRAMS = {program.name: program for program in (CLAUDE, CODEX, GEMINI)}
FULL = {"claude": 150_000, "codex": 60_000, "gemini": 700_000}
"""Tokens in use with which each program, as it is set up here, makes room before the next message."""

ANSWER = re.compile(r"^\W*(?:OK [0-9a-f]{12}|DONE)\s*$", re.MULTILINE)

WINDOW = {"CLAUDE_CODE_AUTO_COMPACT_WINDOW": "100000"}
CODEX_WINDOW = "model_context_window = 100000\nmodel_auto_compact_token_limit = 50000\n"


def read_script_with_tokens(message: str) -> Script:
    """Read a script; `TOOL command` may name the tokens in use too, so that a subagent can be full."""
    script = read_script(message)
    found = re.search(r"^TOOL .*TOKENS (\d+)", message, re.MULTILINE)
    return Script(script.kind, number=int(found[1]), command=script.command) if found else script


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a mock model server in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mock_messages, "read_script", read_script_with_tokens)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = int(probe.getsockname()[1])
        answers = [mock_messages.answer, mock_responses.answer, mock_generate.answer]
        serve = threading.Thread(target=mock_http.serve, args=(free, answers, MessageLog(None)), daemon=True)
        serve.start()
        eventually(lambda: is_served(free))
        yield free


def is_served(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class House:
    """A user's home with the hook installed, the town whose agents work there, and their programs."""

    def __init__(self, folder: Path, town: Town, program: Program, port: int) -> None:
        self.town, self.program = town, program
        self.place = Place(folder / "home", folder / "work", port)
        self.place.home.mkdir()
        self.place.work.mkdir()
        program.prepare(self.place)
        if program is CODEX:
            config = self.place.home / ".codex/config.toml"
            config.write_text(CODEX_WINDOW + config.read_text())
        self._calls = folder / "calls"
        self._command = folder / "gastown-mail"
        self._command.write_text(
            f'#!/bin/sh\necho "$GASTOWN_AGENT $*" >> {self._calls}\n'
            f'PYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -m gastown_mail "$@"\n'
        )
        self._command.chmod(0o755)
        self._terminals: list[Terminal] = []
        self.hooks("install")

    def hooks(self, command: str) -> None:
        environ = clean_environ(HOME=str(self.place.home))
        words = [str(self._command), "hooks", command, self.program.name, "--yes"]
        subprocess.run(words, env=environ, check=True, capture_output=True, timeout=DEADLINE)

    def start(self, *arguments: str, agent: str = "gastown/crew/max", **more: str) -> Terminal:
        """Start the program as a session of this agent, with `full-AGENT` as its incarnation."""
        session = {
            "GASTOWN_AGENT": agent,
            "GASTOWN_INCARNATION": agent.replace("/", "-"),
            "GASTOWN_TOWN_NAME": self.town.keys.town,
            "GASTOWN_REDIS_URL": self.town.redis_url,
            "GASTOWN_MAIL": str(self._command),
        }
        environ = self.program.full_environment(self.place) | WINDOW | session | more
        terminal = Terminal(self.program.command(*arguments), environ, self.place.work)
        self._terminals.append(terminal)
        return terminal

    def calls(self) -> list[str]:
        """The agent and the words of each call of the hook's command."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if " hooks ask " in line]

    def asked(self) -> list[dict[str, Any]]:
        """The requests in the inbox."""
        return [json.loads(one) for one in self.town.redis.lrange(self.town.keys.inbox, 0, -1)]

    def close(self) -> None:
        """End the programs and the servers that they have started."""
        for terminal in self._terminals:
            terminal.close()
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.place.home) in word for word in process.info["cmdline"] or ()):
                for each in family(process):
                    clear_away(each)


@pytest.fixture
def house(request: pytest.FixtureRequest, tmp_path: Path, town: Town, port: int) -> Iterator[House]:
    program = PROGRAMS[request.param]
    if not program.version:
        pytest.skip(f"{program.name} is not installed under {program.package}")
    made = House(tmp_path, town, program, port)
    try:
        yield made
    finally:
        made.close()


def say(terminal: Terminal, text: str) -> None:
    """Type a message and wait for the answer below it."""
    terminal.paste(text)
    terminal.wait(lambda screen: text[:20] in screen.plain)
    terminal.settled()
    terminal.keys("Enter")
    terminal.wait(lambda screen: ANSWER.search(screen.plain.rpartition(text[:20])[2]) is not None, DEADLINE)
    terminal.settled(seconds=DEADLINE)


def ready(house: House, terminal: Terminal) -> None:
    """Answer Codex's question for trust, and wait for the input line."""
    if house.program is CODEX:
        terminal.wait("Hooks need review", DEADLINE)
        terminal.settled()
        terminal.keys("2")
        terminal.settled()
        if "Hooks need review" in terminal.screen().plain:
            terminal.keys("Enter")
    terminal.wait(
        {"claude": "❯", "codex": "›.*Ask Codex", "gemini": "Type your message"}[house.program.name], 60
    )
    terminal.settled(seconds=DEADLINE)


@pytest.mark.parametrize(
    ("house", "arguments"),
    [("claude", ()), ("codex", ("--no-daemon",)), ("gemini", ())],
    indirect=["house"],
    ids=["claude", "codex", "gemini"],
)
def test_a_full_context_asks_for_one_cycle(house: House, arguments: tuple[str, ...]) -> None:
    terminal = house.start(*arguments)
    ready(house, terminal)

    say(terminal, "hello")
    say(terminal, f"TOKENS {FULL[house.program.name]}")
    assert house.asked() == []

    say(terminal, "and now")
    (request,) = house.asked()
    assert request["id"] == "full-gastown-crew-max"
    assert (request["from"], request["action"]) == ("gastown/crew/max", "cycle")
    assert request["incarnation"] == "gastown-crew-max"
    conversation = request["reason"].removeprefix("the context is full; the conversation is in ")
    assert "TOKENS" in Path(conversation).read_text()

    calls = len(house.calls())
    say(terminal, f"TOKENS {FULL[house.program.name]}")
    say(terminal, "and again")
    assert len(house.calls()) > calls
    accept_inbox(house.town)
    assert list(house.town.requests.all_ids()) == ["full-gastown-crew-max"]


@pytest.mark.parametrize("house", ["claude"], indirect=True)
def test_a_subagents_full_context_is_not_the_sessions(house: House) -> None:
    terminal = house.start("--allowedTools", "Bash,Agent,Task")
    ready(house, terminal)
    call = {"description": "x", "prompt": "TOOL echo TOKENS 150000", "subagent_type": "general-purpose"}

    say(terminal, f"CALL Agent {json.dumps({**call, 'run_in_background': False})}")

    assert house.calls() == ["gastown/crew/max hooks ask claude"]
    assert house.asked() == []


@pytest.mark.parametrize("house", ["codex"], indirect=True)
def test_a_session_in_codex_shared_server_asks_for_nobody_and_says_why(house: House) -> None:
    first = house.start(agent="gastown/crew/max")
    ready(house, first)
    second = house.start(agent="gastown/witness")
    second.wait("›.*Ask Codex", DEADLINE)
    second.settled()

    say(second, f"TOKENS {FULL['codex']}")
    say(second, "and now")

    # Codex gives the hook of the second session the environment of the first
    assert house.calls() == ["gastown/crew/max hooks ask codex"]
    assert "codex --no-daemon" in re.sub(r"\s+", " ", second.screen().plain)
    assert house.asked() == []


@pytest.mark.parametrize("house", list(PROGRAMS), indirect=True)
def test_without_its_hook_a_program_starts_and_asks_for_nothing(house: House) -> None:
    house.hooks("uninstall")
    terminal = house.start(*(["--no-daemon"] if house.program is CODEX else []))
    terminal.wait(
        {"claude": "❯", "codex": "›.*Ask Codex", "gemini": "Type your message"}[house.program.name], 60
    )
    terminal.settled(seconds=DEADLINE)

    say(terminal, f"TOKENS {FULL[house.program.name]}")
    say(terminal, "and now")

    assert (house.calls(), house.asked()) == ([], [])
