"""The programs' settings files that hold hooks, and our entry in them."""

import difflib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastown_mail.cli import json_text
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import SettingsError

DEADLINE = 10
"""Seconds after which a program ends our hook."""

_NEW_MODE, _NEW_FOLDER_MODE = 0o644, 0o700


@dataclass(frozen=True)
class HookProgram:
    """A program that can run a command when its context is full, and how it is told to."""

    name: str
    title: str
    event: str
    """The program's name of that moment."""
    home: Callable[[Mapping[str, str]], Path]
    """Where the user's settings are, by the environment."""
    file: str
    """The user's settings file, in `home`."""
    project_file: str
    """The settings file of a project, in its folder."""
    timeout: int
    """`DEADLINE` in the program's unit."""
    note: str
    """What else the user must know, in one or two sentences."""

    def path(self, folder: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
        """The settings file of this project, or the user's own."""
        return self.home(environ) / self.file if folder is None else folder / self.project_file

    @property
    def group(self) -> dict[str, Any]:
        """Our entry in the program's list for the event."""
        return {"matcher": "auto", "hooks": [self.handler]}

    @property
    def handler(self) -> dict[str, Any]:
        """The command and its deadline."""
        # sh, because Codex gives the text to the user's login shell. Whatever it does not hand to
        # `hooks ask` it reads itself: a program may take a closed pipe for a failure of the hook.
        script = (
            f'[ -n "$GASTOWN_INCARNATION" ] && "${{GASTOWN_MAIL:-gastown-mail}}" hooks ask {self.name}'
            " || cat >/dev/null; exit 0"
        )
        name = {"name": "gastown-mail"} if self.name == "gemini" else {}
        return {**name, "type": "command", "command": f"sh -c '{script}'", "timeout": self.timeout}


def _folder(variable: str, default: str) -> Callable[[Mapping[str, str]], Path]:
    return lambda environ: Path(environ.get(variable) or Path.home() / default)


PROGRAMS = {
    program.name: program
    for program in (
        HookProgram(
            "claude", "Claude Code", "PreCompact",
            _folder("CLAUDE_CONFIG_DIR", ".claude"), "settings.json", ".claude/settings.local.json", DEADLINE,
            "Sessions that start from now on have the hook.",
        ),
        HookProgram(
            "codex", "Codex", "PreCompact",
            _folder("CODEX_HOME", ".codex"), "hooks.json", ".codex/hooks.json", DEADLINE,
            "Codex runs it only after you have trusted it: start codex by hand now and choose to trust it,"
            " or the next agent that starts waits with that question. Start agents with codex --no-daemon:"
            " Codex's shared server runs hooks in the name of the session that started the server.",
        ),
        HookProgram(
            "gemini", "Gemini CLI", "PreCompress",
            lambda environ: Path(environ.get("GEMINI_CLI_HOME") or Path.home()),
            ".gemini/settings.json", ".gemini/settings.json", DEADLINE * 1000,
            "Sessions that start from now on have the hook, in a project's settings only if its folder is"
            " trusted.",
        ),
    )
}  # fmt: skip
"""The programs by name."""


class HookFile:
    """One settings file, as it was read, and the text that it would have with our hook or without."""

    def __init__(self, program: HookProgram, path: Path) -> None:
        self.program, self.path = program, path
        self.text = _read(path)
        self.document = json_text.parse_object(self.text, str(path))
        for depth, kind, word in ((1, dict, "an object"), (2, list, "an array")):
            keys = ("hooks", program.event)[:depth]
            found = json_text.value_at(self.document, keys)
            holder = json_text.value_at(self.document, keys[:-1]) or {}
            if keys[-1] in holder and not isinstance(found, kind):
                raise SettingsError(f"{path}: {'.'.join(keys)} is not {word}; correct it and try again")

    def ours(self) -> list[json_text.Path]:
        """The paths of our handlers, from the last to the first; of this version or an earlier one."""
        event: json_text.Path = ("hooks", self.program.event)
        return [
            (*event, outer, "hooks", inner)
            for outer in reversed(range(self._length(event)))
            for inner in reversed(range(self._length((*event, outer, "hooks"))))
            if _is_ours(json_text.value_at(self.document, (*event, outer, "hooks", inner, "command")))
        ]

    def _length(self, path: json_text.Path) -> int:
        found = json_text.value_at(self.document, path)
        return len(found) if isinstance(found, list) else 0

    def is_current(self) -> bool:
        """Whether exactly our present entry is in the file."""
        ours = self.ours()
        return (
            len(ours) == 1
            and json_text.value_at(self.document, ours[0]) == self.program.handler
            and json_text.value_at(self.document, (*ours[0][:3], "matcher")) == self.program.group["matcher"]
        )

    def is_switched_off(self) -> bool:
        """Whether this file switches all hooks of the program off."""
        disabled = self.document.get("disableAllHooks")
        return bool(disabled) or json_text.value_at(self.document, ("hooksConfig", "enabled")) is False

    def installed(self) -> str:
        """The text with our hook in it once."""
        if self.is_current():
            return self.text
        return json_text.append(self.removed(), ("hooks", self.program.event), self.program.group)

    def removed(self) -> str:
        """The text without our hook; "" if nothing else is in the file."""
        text = self.text
        for path in self.ours():
            group = json_text.value_at(json.loads(text), path[:3])
            text = json_text.remove(text, path if len(group["hooks"]) > 1 else path[:3])
        return text if json_text.parse_object(text, str(self.path)) else ""

    def difference(self, text: str) -> str:
        """The change to `text`, as a unified diff."""
        before, after = (str(self.path) if each else os.devnull for each in (self.text, text))
        lines = (self.text.splitlines(), text.splitlines())
        return "\n".join(difflib.unified_diff(*lines, before, after, lineterm=""))

    def write(self, text: str) -> None:
        """Replace the file's content, or remove the file if there is none. Raises SettingsError, OSError.

        A symlink stays one, and what it points to stays too.
        """
        if _read(self.path) != self.text:
            raise SettingsError(f"{self.path} has changed meanwhile; nothing was written: try again")
        if not text and not self.path.is_symlink():
            self.path.unlink(missing_ok=True)
            return
        target = self.path.resolve()
        target.parent.mkdir(mode=_NEW_FOLDER_MODE, parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else _NEW_MODE
        write_atomically(target, (text or "{}\n").encode(), mode)


def _is_ours(command: object) -> bool:
    return isinstance(command, str) and "GASTOWN_INCARNATION" in command and " hooks ask " in command


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}; correct that") from None
