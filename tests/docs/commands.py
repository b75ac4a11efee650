"""Checks whether the parser accepts a command that a document names."""

import re
import shlex
from itertools import dropwhile

import click

from gastown_mail.cli import cli

PLACEHOLDER = "COMMAND"


def refusal(line: str) -> str | None:
    """Return why the parser rejects a line that begins with `gastown-mail`; None if it accepts it."""
    words = shlex.split(line, comments=True)[1:]
    if words[:1] == ["--town"]:
        words = words[2:]
    root = click.Context(cli, info_name="gastown-mail", **cli.context_settings)
    try:
        _parse(cli, words, root)
    except (click.MissingParameter, click.exceptions.Exit):  # only named, or --help
        return None
    except click.ClickException as error:
        return f"{line}: {error.format_message()}"
    return None


def _parse(group: click.Group, words: list[str], parent: click.Context) -> None:
    if not words or words[0].startswith("-") or words[0] == PLACEHOLDER:
        return
    command = group.get_command(parent, words[0])
    if command is None:
        raise click.UsageError(f"there is no command {words[0]}")
    rest = words[1:]
    if isinstance(command, click.Group) and rest and rest[0] in command.commands:
        _parse(command, rest, click.Context(command, info_name=words[0], parent=parent))
    else:
        command.make_context(words[0], rest, parent=parent)


def inline(prose: str) -> list[str]:
    """Return the `gastown-mail` commands in the text, between backticks."""
    return re.findall(r"`(gastown-mail [^`]+)`", prose)


def simple_commands(block: str) -> list[list[str]]:
    """Return the lines of a shell block as lists of words, without comments and leading variables."""
    lines = re.sub(r"\\\n\s*", " ", block).splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [list(dropwhile(_is_assignment, words)) for words in split if words]


def _is_assignment(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None
