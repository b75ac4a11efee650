"""What a profile says of a command before it runs: whether root may run it, and what it would ask first."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.profile import Answer, FirstRun, Profile
from gastown_mail.programs.library import choose_program

_PROMPT = "{prompt}"
_WORK_DIR = "{work_dir}"
_THIS = "this"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
_MAX_FILE = 50_000_000
"""Bytes of the largest file that is read."""


class UnreadableFile(Exception):
    """A file of the program cannot be read, so it is not known what it has asked; says why."""


def root_refusal(command: str, profile: Profile, environ: Mapping[str, str]) -> str:
    """The option because of which the program ends at once when root runs this command; "" if it does not."""
    if choose_program(command, {_THIS: profile}) != _THIS:
        return ""  # something else runs first, and may give up root
    words = command_words(command)
    if any(
        environ.get(name) == value or f"{name}={value}" in words
        for name, value in profile.root.allows.items()
    ):
        return ""
    return next((option for option in profile.root.refuses if has_option(words, option)), "")


def prompt_taken_by(command: str, profile: Profile) -> str:
    """The option that takes the first prompt for a value of its own; "" if none does."""
    words = command_words(command)
    before = words[: words.index(_PROMPT)] if _PROMPT in words else []
    last = next((word for word in reversed(before) if word.startswith("-")), "")
    return last if last in profile.greedy_options else ""


def open_questions(
    agent: Agent, profile: Profile, environ: Mapping[str, str]
) -> Iterator[FirstRun | UnreadableFile]:
    """The questions that the agent's program would ask in this environment, as nothing shows an answer."""
    words = command_words(agent.command)
    for question in profile.first_run:
        try:
            if _is_asked(question, words, agent, environ) and not any(
                _is_given(answer, agent, environ) for answer in question.answers
            ):
                yield question
        except UnreadableFile as error:
            yield error


def command_words(command: str) -> list[str]:
    """The words of a command line, as a shell would read them if it can."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def has_option(words: list[str], option: str) -> bool:
    """Whether the words have this option; `--option=value` also means the two words."""
    return option in words or option in (f"{name}={value}" for name, value in pairwise(words))


def _is_asked(question: FirstRun, words: list[str], agent: Agent, environ: Mapping[str, str]) -> bool:
    folders = _folders(agent)
    return (
        (not question.options or any(has_option(words, option) for option in question.options))
        and (not question.variables or any(environ.get(name) for name in question.variables))
        and (not question.beside or any((one / name).exists() for one in folders for name in question.beside))
    )


def _is_given(answer: Answer, agent: Agent, environ: Mapping[str, str]) -> bool:
    if answer.variable and environ.get(answer.variable):
        return True
    if not answer.file:
        return False
    file = _expand(answer.file, agent, environ)
    if not answer.key:
        return file.exists()
    content = _read(file)
    found = (_at(content, answer.key, str(folder)) for folder in _folders(agent))
    return any(value is False if not answer.value else bool(value) for value in found)


def _folders(agent: Agent) -> list[Path]:
    """The agent's work dir and the folders above it, by its own name and without symbolic links."""
    real = agent.work_dir.resolve()
    return [agent.work_dir, *agent.work_dir.parents, real, *real.parents]


def _expand(path: str, agent: Agent, environ: Mapping[str, str]) -> Path:
    text = _VARIABLE.sub(lambda match: environ.get(match[1]) or match[2], path)
    text = text.replace(_WORK_DIR, str(agent.work_dir))
    home = environ.get("HOME") or str(Path.home())
    return agent.work_dir / (home + text[1:] if text.startswith("~") else text)


def _read(file: Path) -> Any:
    """What the file holds; None when there is none. Raises UnreadableFile."""
    try:
        if file.stat().st_size > _MAX_FILE:
            raise UnreadableFile(f"{file} is too large")
        text = file.read_text("utf-8")
        return tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{file} cannot be read ({error})") from None


def _at(content: Any, keys: tuple[str, ...], folder: str) -> Any:
    """The value to which the keys lead; None when there is none."""
    for key in keys:
        content = content.get(key.replace(_WORK_DIR, folder)) if isinstance(content, dict) else None
    return content
