"""The profiles of a town: the built-in ones, and those of its `town.toml`."""

import re
import shlex
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from gastown_mail.contracts.profile import Profile

OTHER = "other"
"""The profile of a program for which there is no other."""

_PREFIXES = frozenset(("exec", "env", "command", "nice", "nohup", "time", "stdbuf", "caffeinate"))
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


@cache
def built_in() -> Mapping[str, Profile]:
    """The profiles that come with the package, by name."""
    found = (file for file in files(__package__).iterdir() if file.name.endswith(".toml"))
    return {
        file.name.removesuffix(".toml"): Profile.model_validate(tomllib.loads(file.read_text("utf-8")))
        for file in found
    }


def town_profiles(own: Mapping[str, Profile]) -> dict[str, Profile]:
    """All profiles by name, the town's own first. One with a built-in name changes only what it says."""
    empty = Profile()
    mended = {name: one.merged_over(built_in().get(name, empty)) for name, one in own.items()}
    return {**mended, **{name: profile for name, profile in built_in().items() if name not in mended}}


def choose_program(command: str, profiles: Mapping[str, Profile]) -> str:
    """The name of the profile whose `commands` has the first word of this command line; else `other`."""
    try:
        words = shlex.split(command.replace("{prompt}", ""))
    except ValueError:
        words = command.split()
    programs = (
        word for word in words if not (_ASSIGNMENT.match(word) or word in _PREFIXES or word.startswith("-"))
    )
    first = PurePath(next(programs, "")).name
    return next((name for name, profile in profiles.items() if first in profile.commands), OTHER)
