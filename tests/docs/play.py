"""Plays a document: runs its blocks in order with a real town, in a folder that is gone afterwards."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

from gastown_mail.cli.daemon import stop_daemon
from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.settings import find_town, load_settings
from gastown_mail.daemon.service import redis_url
from gastown_mail.plumbing.embedded import stop_server
from gastown_mail.sessions.session import Session
from gastown_mail.town.roster import load_roster
from gastown_mail.town.town import Town
from tests.docs.blocks import ROOT, Block
from tests.docs.shell import DEADLINE, Shell, shows
from tests.support.town import end_town
from tests.support.wait import eventually


class Play:
    """The run of one document."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.last: Block | None = None
        self.said: str | None = ""
        """The output of the last block; None when it ended with its session, or nothing here can run it."""
        self.lacks: list[str] = []
        """The programs that are not installed: their blocks were not run."""

    def block(self, block: Block) -> None:
        """Run one block; its output must be what the document shows."""
        if block.mark in ("skip", "picture"):
            return
        if block.mark == "run":
            _stands_in(ROOT / block.about.removeprefix("by "), block)
        elif block.mark == "append":
            self._append(self.shell.folder / block.about.removeprefix("to "), block.text)
        else:
            getattr(self, f"_{block.language}")(block)

    def _append(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as stream:
            stream.write(text)

    def _sh(self, block: Block) -> None:
        self.last = block
        if block.mark == "keys":
            keys, _, after = block.about.partition(" after ")
            self.said = self.shell.on_terminal(block.text, keys, after)
        elif block.mark == "inside":
            self.said = self.shell.inside(self._session(block), "bash", "-euo", "pipefail", "-c", block.text)
        else:
            self.said = self.shell.run(block.text)

    _bash = _sh

    def _zsh(self, block: Block) -> None:
        ready = replace(block, text=f"autoload -U compinit && compinit -u -D\n{block.text}")
        self._script(ready, "block.zsh", "zsh", "-f")

    def _text(self, block: Block) -> None:
        last = self.last
        assert last is not None, "a text block shows what the block before it printed"
        until = time.monotonic() + DEADLINE
        while not self._shown(block) and last.mark == "again" and time.monotonic() < until:
            self._sh(last)
        assert self._shown(block), f"expected\n{block.text}\nfrom\n{last.text}\nand it was\n{self.said}"

    def _shown(self, block: Block) -> bool:
        return self.said is None or shows(self.said, block.text)

    def _python(self, block: Block) -> None:
        self._script(block, "block.py", sys.executable)

    def _js(self, block: Block) -> None:
        self._script(block, "block.mjs", "node")

    def _go(self, block: Block) -> None:
        # also without a compiler: the shape of its JSON
        keys = dict.fromkeys(re.findall(r'json:"(\w+)', block.text), "x")
        sample = {**keys, "action": "cycle", "timestamp": "2025-12-20T10:12:21.123456789Z"}
        decode_element(json.dumps(sample).encode())
        self._script(block, "block.go", "go", "run")

    def _script(self, block: Block, name: str, program: str, *words: str) -> None:
        self.last, self.said = block, None
        script, found = self.shell.state / name, shutil.which(program)
        script.write_text(block.text)
        if not found:
            self.lacks.append(program)
        elif block.mark == "inside":
            self.said = self.shell.inside(self._session(block), found, *words, str(script))
        else:
            self.said = self.shell.program(found, *words, str(script))

    def _toml(self, block: Block) -> None:
        load_text(block.text)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _ini(self, block: Block) -> None:
        configparser.ConfigParser().read_string(block.text)

    def _session(self, block: Block) -> Mapping[str, str]:
        """Return the town's variables in the environment of the session that the block names."""
        town = self._town()
        agent = town.roster().resolve(block.about)
        found = eventually(lambda: _surroundings(town.sessions.find(agent)), deadline=DEADLINE)
        town.redis.close()
        return found

    def _town(self) -> Town:
        settings = load_settings(find_town(self.shell.folder, self.shell.environ), environ={})
        return Town.open(settings, redis_url(settings))


def _surroundings(session: Session | None) -> dict[str, str]:
    """Return the town's variables in a session's environment; none if an earlier block has just ended it."""
    if session is None or session.dead:
        return {}
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(session.pid).environ()
        return {name: value for name, value in found.items() if name.startswith(("GASTOWN_", "GT_"))}
    return {}


def load_text(toml: str) -> None:
    """Load a town with these settings; raises SettingsError if they are invalid."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "town.toml").write_text(toml)
        load_roster(load_settings(Path(folder), environ={}))


def _stands_in(file: Path, block: Block) -> None:
    commands = [line.partition("#")[0].strip() for line in block.text.splitlines()]
    text = file.read_text()
    assert [command for command in commands if command and command not in text] == [], file


@contextmanager
def a_shell(name: str = "w") -> Iterator[Shell]:
    """A shell in an empty folder with a short path; every town made in it ends with it."""
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="gmd-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        cleanup.callback(_end_servers)
        cleanup.callback(_end_towns, folder)
        yield Shell(folder / name, folder / "home")


def _end_towns(folder: Path) -> None:
    for file in folder.rglob("town.toml"):
        settings = load_settings(file.parent, environ={})
        stop_daemon(settings)
        end_town(settings)
        stop_server(settings.redis_dir)


def _end_servers() -> None:
    """End the tmux servers that a document has left without a town."""
    for socket in Path(os.environ["TMUX_TMPDIR"]).glob("tmux-*/*"):
        subprocess.run(["tmux", "-S", socket, "kill-server"], capture_output=True, timeout=60, check=False)
