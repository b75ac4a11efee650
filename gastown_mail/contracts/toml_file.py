"""A TOML file whose errors can name the line. Standard library only."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastown_mail.contracts.errors import SettingsError


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What a TOML file says, and its text."""

    name: str
    text: str
    values: dict[str, Any]

    def location_of(self, *path: str) -> str:
        """`town.toml, line 7` for the line that this key or table stands on."""
        line = _line_of(self.text, path)
        return f"{self.name}, line {line}" if line else self.name


def read_toml(path: Path) -> TomlFile:
    """The file's content; a missing file says nothing. Raises SettingsError with the line of bad syntax."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return TomlFile(path.name, "", {})
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path.name}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    try:
        return TomlFile(path.name, text, tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number without end
        raise SettingsError(_syntax_error(path.name, text, str(error))) from None


def _syntax_error(name: str, text: str, error: str) -> str:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", error)
    line = place[1] if place and place[1] else text.rstrip().count("\n") + 1
    return f"{name}, line {line}: not valid TOML: {error[: place.start()] if place else error}"


def _line_of(text: str, path: tuple[str, ...]) -> int | None:
    # the parser keeps no lines: of the lines that hold the word, the first with which the key appears
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if path[-1] in line and _holds(_shortest_document(lines, number), path):
            return number
    return None


def _shortest_document(lines: list[str], count: int) -> dict[str, Any]:
    for end in range(count, len(lines) + 1):  # a value may go on over several lines
        try:
            return tomllib.loads("\n".join(lines[:end]))
        except ValueError:
            continue
    return {}


def _holds(values: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True
