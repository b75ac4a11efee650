"""A TOML file whose errors can name the line. Standard library only."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gastown_mail.contracts.errors import SettingsError


@dataclass(frozen=True, slots=True)
class TomlFile:
    """The values of a TOML file, and its text."""

    name: str
    text: str
    values: dict[str, Any]

    def location_of(self, *path: str) -> str:
        """`town.toml, line 7` for the line of this key or table."""
        # tomllib gives no positions: find the first line that contains the word and completes the key
        lines = self.text.split("\n")
        for number, line in enumerate(lines, start=1):
            if path[-1] in line and _has_key(_parse_to(lines, number), path):
                return f"{self.name}, line {number}"
        return self.name


def read_toml(path: Path) -> TomlFile:
    """Read the file; a missing one is empty. Raises SettingsError with the line of bad syntax."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return TomlFile(path.name, text, tomllib.loads(text))
    except FileNotFoundError:
        return TomlFile(path.name, "", {})
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path.name}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or an endless number
        place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        line = int(place[1]) if place and place[1] else text.rstrip().count("\n") + 1
        fault = str(error)[: place.start()] if place else error
        raise SettingsError(f"{path.name}, line {line}: not valid TOML: {fault}") from None


def _parse_to(lines: list[str], count: int) -> dict[str, Any]:
    """The values of the first `count` lines, plus the lines on which their last value continues."""
    for end in range(count, len(lines) + 1):
        try:
            return tomllib.loads("\n".join(lines[:end]))
        except ValueError:
            continue
    return {}


def _has_key(values: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True
