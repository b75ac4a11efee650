"""What is in front in a pane: an agent's program, or a shell or an interpreter that would run a poke."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from gastown_mail.sessions import process_table
from gastown_mail.sessions.process_table import Process

SHELLS = frozenset(
    (
        "sh bash dash zsh fish ksh mksh ash tcsh csh rbash oksh loksh lksh posh yash rc es osh ysh oil ion"
        " elvish nu xonsh pwsh murex"
    ).split()
)
_INTERPRETERS = frozenset(
    (
        "python pypy ipython bpython ptpython node nodejs deno bun irb pry ruby perl lua luajit ghci iex erl"
        " julia R Rscript octave scala jshell groovysh clj php tclsh wish guile racket sbcl ocaml utop gdb"
        " lldb pdb sqlite3 psql mysql mariadb mongosh redis-cli valkey-cli bc dc ed"
    ).split()
)
_GATES = frozenset(
    (
        "script setsid ssh mosh-client su sudo doas docker podman kubectl nerdctl lxc nsenter chroot unshare"
        " machinectl tmux screen zellij dtach abduco expect unbuffer socat nc ncat telnet rlwrap cu minicom"
        " xargs"
    ).split()
)
"""Programs that pass typed text on to another one, which cannot be seen from here."""

_MULTI_CALL = frozenset(("busybox", "toybox"))
_OPTIONS_WITH_VALUE = {"fish": ("-C", "--init-command"), "bash": ("--rcfile", "--init-file")}
_VERSION = re.compile(r"[0-9.]+$")


@dataclass(frozen=True, slots=True)
class Front:
    """The process in front: its name, and whether it is a bare `shell` or interpreter.

    `stopped` is its pid if a signal has stopped it, so that it does nothing.
    `own`: it belongs to the process group of the pane's own process, or to a child of the pane's shell.
    """

    name: str
    shell: bool = False
    stopped: int = 0
    own: bool = True


class Foreground:
    """What is in front in panes, as the processes are now; one scan of the machine serves all of them."""

    def __init__(self) -> None:
        self._processes: list[Process] | None = None
        self._children: dict[int, list[Process]] = {}

    def front_of(self, pid: int) -> Front | None:
        """Return what is in front on the terminal of this process, a pane's; None when it is unknown."""
        group = process_table.foreground_group(pid)
        if group <= 0:
            return None
        member, argv = self._spokesman(group)
        if not argv:
            return None
        leader, stopped = process_table.read_process(group), self._stopped(member, group)
        from_shell = leader is not None and leader.parent == pid and bare_shell(process_table.arguments(pid))
        return Front(
            name=_name(((stopped and process_table.arguments(stopped)) or argv)[0]),
            shell=bool(bare_shell(argv) or _is_renamed_shell(member, argv)),
            stopped=stopped,
            own=group == pid or bool(from_shell),
        )

    def hidden_reader(self, pid: int) -> str:
        """Return the name of a process below a pane's own that may get what is typed, though not in front.

        It is a bare shell that reads the pane's terminal from another session, or a program such as `ssh` or
        `script` that passes text on; "" if there is none.
        """
        terminal, above = _stdin(pid), _ancestry(process_table.foreground_group(pid))
        for process in self._family(pid):
            argv = process_table.arguments(process)
            if not argv or _stdin(process) != terminal:
                continue
            if _name(argv[0]) in _GATES or (process not in above and bare_shell(argv)):
                return _name(argv[0])
        return ""

    def _stopped(self, pid: int, group: int) -> int:
        """This pid if it is stopped, or the first of the programs a shell waits for if all are; else 0."""
        if process_table.is_stopped(pid):
            return pid
        if not is_shell(process_table.arguments(pid)):
            return 0
        waits = [self._stopped(child.pid, group) for child in self._below(pid) if child.group == group]
        return waits[0] if waits and all(waits) else 0

    def _spokesman(self, group: int) -> tuple[int, list[str]]:
        """The first process of a group that has an argv, and this argv."""
        if argv := process_table.arguments(group):
            return group, argv
        # The first program of a pipeline may have ended while the rest of its group is still in front.
        members = (process.pid for process in self._all() if process.group == group)
        return next(((pid, words) for pid in members if (words := process_table.arguments(pid))), (0, []))

    def _family(self, pid: int) -> Iterator[int]:
        """Yield this pid and those of its descendants."""
        waiting = [pid]
        while waiting:
            yield (one := waiting.pop())
            waiting += [child.pid for child in self._below(one)]

    def _below(self, pid: int) -> Sequence[Process]:
        self._all()
        return self._children.get(pid, ())

    def _all(self) -> list[Process]:
        if self._processes is None:
            self._processes = process_table.read_all()
            for process in self._processes:
                self._children.setdefault(process.parent, []).append(process)
        return self._processes


def _ancestry(pid: int) -> set[int]:
    """The pid and those of its ancestors."""
    chain: set[int] = set()
    while pid > 1 and pid not in chain and (process := process_table.read_process(pid)):
        chain.add(pid)
        pid = process.parent
    return chain


def bare_shell(argv: Sequence[str]) -> str | None:
    """Return the name of a shell or an interpreter that reads commands from its terminal.

    "" for other programs, also for a shell that runs a script or `-c`; None for no argv.
    """
    if not argv:
        return None
    if _name(argv[0]) in _MULTI_CALL and len(argv) > 1:
        argv = argv[1:]
    name = _name(argv[0])
    if name in SHELLS:
        return "" if _has_program(argv[1:], _OPTIONS_WITH_VALUE.get(name, ())) else name
    if _VERSION.sub("", name) in _INTERPRETERS:
        options = [word for word in argv[1:] if word.startswith("-")]
        runs = len(options) < len(argv) - 1 or {"-c", "-e", "-m"} & set(options)
        return "" if runs and "-i" not in options else name
    return ""


def is_shell(argv: Sequence[str]) -> bool:
    """Return whether this is a shell, bare or not."""
    return bool(argv) and _name(argv[0]) in SHELLS


def _is_renamed_shell(pid: int, argv: Sequence[str]) -> bool:
    """Return whether a shell runs bare under another name, such as a link to it."""
    try:
        name = Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return False
    return name in SHELLS and bool(bare_shell([name, *argv[1:]]))


def _stdin(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/0").readlink())
    except OSError:
        return ""


def _name(word: str) -> str:
    return PurePath(word).name.removeprefix("-")


def _has_program(words: Sequence[str], valued: Sequence[str]) -> bool:
    """Return whether a shell's arguments name a script or a command; `valued` options take a value."""
    rest = iter(words)
    for word in rest:
        if not word.startswith(("-", "+")) or word == "-":
            return word != "-"
        if word == "--":
            return next(rest, None) is not None
        if word.startswith("--command") or _short(word, "c"):
            return True
        if _short(word, "s"):
            return False
        if word in valued or _short(word, "o") or _short(word, "O"):
            next(rest, None)
    return False


def _short(word: str, letter: str) -> bool:
    return not word.startswith("--") and letter in word
