"""Whether a bare shell is in front in a pane: what is typed there would run as a command."""

from collections.abc import Sequence
from pathlib import PurePath

from gastown_mail.sessions import kernel

SHELLS = frozenset(("sh", "bash", "dash", "zsh", "fish", "ksh", "mksh", "ash", "tcsh", "csh"))
_MULTI_CALL = "busybox"
_OPTIONS_WITH_VALUE = {"fish": ("-C", "--init-command"), "bash": ("--rcfile", "--init-file")}


def foreground_shell(pid: int) -> str | None:
    """Return the name of the bare shell in front on the terminal of a pane's process; "" when none is.

    None when it cannot be told. A shell that runs a script or `-c` is a program like any other.
    """
    group = kernel.foreground_group(pid)
    if group <= 0:
        return None
    return bare_shell(kernel.arguments(group) or _other_group_member(group))


def bare_shell(argv: Sequence[str]) -> str | None:
    """Return the name of a shell that reads commands from the terminal; "" for others, None for no argv."""
    if not argv:
        return None
    if _name(argv[0]) == _MULTI_CALL and len(argv) > 1:
        argv = argv[1:]
    name = _name(argv[0])
    return name if name in SHELLS and not _has_program(argv[1:], _OPTIONS_WITH_VALUE.get(name, ())) else ""


def is_shell(argv: Sequence[str]) -> bool:
    """Say whether this is a shell, with a program to run or without."""
    return bool(argv) and _name(argv[0]) in SHELLS


def _other_group_member(group: int) -> list[str]:
    # The first program of a pipeline may have ended while the rest of its group is still in front.
    members = (row.process.pid for row in kernel.read_all().values() if row.group == group)
    return next((words for pid in members if (words := kernel.arguments(pid))), [])


def _name(word: str) -> str:
    return PurePath(word).name.removeprefix("-")


def _has_program(words: Sequence[str], valued: Sequence[str]) -> bool:
    waiting = iter(words)
    for word in waiting:
        if not word.startswith(("-", "+")) or word == "-":
            return word != "-"
        if word == "--":
            return next(waiting, None) is not None
        if word.startswith("--command") or _short(word, "c"):
            return True
        if _short(word, "s"):
            return False
        if word in valued or _short(word, "o") or _short(word, "O"):
            next(waiting, None)
    return False


def _short(word: str, letter: str) -> bool:
    return not word.startswith("--") and letter in word
