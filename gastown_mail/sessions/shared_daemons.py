"""Shared daemons among the processes of a session that ends: they are spared with what lives below them.

tmux, gpg-agent and their like are found by every session of a user through one well-known socket, but carry
the token of the session that started them. This guards against mistakes: a program is known by its name.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Sequence, Set
from itertools import pairwise

from gastown_mail.sessions import process_table
from gastown_mail.sessions.process_table import Process

_TITLE = re.compile(r"[(\[:]")
"""Where a title begins in a program's name: `bazel(project)`, `buck2d[project]`, `tmux: server`."""

_INSIDE = re.compile(rb"\0(?:TMUX=[^\0]*,([0-9]+),[0-9]+|STY=([0-9]+)\.[^\0]*)(?=\0)")
"""The pid of the multiplexer's server, in the environment of what runs in it."""


_COMMAND_OPTION = re.compile("-[a-z]*c")


class SharedDaemons:
    """The shared daemons that are met while one session ends.

    `programs`: the list as in `contracts.shared_daemons`. What the agent's own `command` names is the agent
    and is not spared.
    """

    def __init__(self, programs: Iterable[str], *, command: str = "") -> None:
        words = _shell_words(command)
        self._programs = [
            program
            for program in programs
            if not any(is_program(words[start:], program) for start in range(len(words)))
        ]
        self.found: dict[Process, str] = {}
        """Those that were met, and the entry of the list by which they are known."""
        self.alone = True
        """Whether nothing but shared daemons, and what lives below them, was met."""

    def find(self, tree: Set[Process], *, but: Set[Process]) -> None:
        """Add those in this tree to `found`, except `but`, and except what they have forked of themselves."""
        pids = {process.pid for process in tree}
        met = dict(self.found)
        for process in tree - met.keys() - but:
            entry = self.entry(process_table.arguments(process.pid))
            if entry and _is_detached(process, pids):
                met[process] = entry
        programs = {(daemon.pid, entry) for daemon, entry in met.items()}
        self.found = {p: entry for p, entry in met.items() if (p.parent, entry) not in programs}

    def contain(self, process: Process) -> bool:
        """Return whether a process was started in the terminal of a multiplexer among `found`."""
        pids = {str(daemon.pid).encode() for daemon in self.found}
        numbers = _INSIDE.findall(process_table.environment(process.pid)) if pids else ()
        return any(tmux in pids or screen in pids for tmux, screen in numbers)

    def __str__(self) -> str:
        named = sorted((daemon.pid, entry) for daemon, entry in self.found.items())
        return ", ".join(f"{entry} (pid {pid})" for pid, entry in named)

    def entry(self, argv: Sequence[str]) -> str | None:
        """Return the entry of the list that names the program with these arguments."""
        words = [word for word in argv if word]
        if len(words) == 1:  # a title that the program has written over its arguments
            words = words[0].split()
        return next((program for program in self._programs if is_program(words, program)), None)


def is_program(argv: Sequence[str], program: str) -> bool:
    """Return whether these arguments are those of this program: its name, and the words that follow it.

    A word stands for an argument, its last folders and name, or an option with a value: `daemon.js` for
    `/lib/daemon.js`, `--listen` for `--listen=unix://`. A version behind the name does not matter.
    """
    name, *words = program.split()
    if not argv or name.lower() not in _names(argv[0]):
        return False
    return all(
        any(
            argument == word or argument.endswith(f"/{word}") or argument.startswith(f"{word}=")
            for argument in argv[1:]
        )
        for word in words
    )


def _names(word: str) -> tuple[str, str]:
    """Return a program's name in small letters, and the same without a version at its end."""
    name = _TITLE.split(word.rpartition("/")[2].removeprefix("-"))[0].lower()
    return name, name.rstrip("0123456789.-")


def _is_detached(process: Process, tree: Collection[int]) -> bool:
    """Return whether it has no terminal, and a session of its own or no parent in the tree.

    Unlike a program that runs in front, or in the background of a shell.
    """
    fresh = process_table.read_process(process.pid)
    if fresh != process or process_table.has_terminal(process.pid):
        return False
    return fresh.session == fresh.pid or fresh.parent not in tree


def _shell_words(command: str) -> list[str]:
    """Return the words of a command line, then those of the command lines in it (`sh -c "…"`)."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    inner = [word for option, word in pairwise(words) if _COMMAND_OPTION.fullmatch(option)]
    return words + [word for line in inner for word in _shell_words(line)]
