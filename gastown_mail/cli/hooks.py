"""`hooks`: have a program ask for a cycle when its context is full. `ask` imports only what it needs."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from gastown_mail.cli.hook_files import PROGRAMS, HookFile
from gastown_mail.cli.hook_input import is_full, is_in_shared_server, read_input
from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.contracts.lifecycle import LifecycleAction, full_context_id

_program = click.argument("program", type=click.Choice(list(PROGRAMS)), metavar="PROGRAM")
_dir = click.option(
    "--dir",
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="The project's settings in DIR; default: your own, for all your agents.",
)
_yes = click.option("--yes", "-y", is_flag=True, help="Write without asking.")


@click.group()
def hooks() -> None:
    """Have claude, codex or gemini ask for a cycle when its context is full."""


@hooks.command()
@_program
@_dir
@_yes
def install(program: str, folder: Path | None, yes: bool) -> None:
    """Show the change to PROGRAM's settings, ask, and write it."""
    file = HookFile(PROGRAMS[program], PROGRAMS[program].path(folder))
    if _apply(file, HookFile.installed, yes, "the hook is already there"):
        click.echo(f"the hook is in {file.path}. {file.program.note}")
    if file.is_switched_off():
        click.echo(f"{file.path} switches all hooks off: change that, or this one does not run", err=True)


@hooks.command()
@_program
@_dir
@_yes
def uninstall(program: str, folder: Path | None, yes: bool) -> None:
    """Show PROGRAM's settings without the hook, ask, and write them."""
    file = HookFile(PROGRAMS[program], PROGRAMS[program].path(folder))
    if _apply(file, HookFile.removed, yes, "the hook is not there"):
        click.echo(f"the hook is no longer in {file.path}")


def _apply(file: HookFile, change: Callable[[HookFile], str], yes: bool, unchanged: str) -> bool:
    """Show the change and write it if the user agrees; False if there is nothing to change."""
    text = change(file) if file.ours() or change is HookFile.installed else file.text
    if text == file.text:
        click.echo(f"{file.path}: {unchanged}; nothing to change")
        return False
    click.echo(file.difference(text))
    if not yes and not (sys.stdin.isatty() and click.confirm("Write this?", err=True)):
        raise GastownError("nothing was written; the same command with --yes writes this change")
    file.write(text)
    return True


@hooks.command()
@_dir
def show(folder: Path | None) -> None:
    """Show for each program whether its settings have the hook, and where."""
    for program in PROGRAMS.values():
        path = program.path(folder)
        try:
            click.echo(f"{program.name}: {_state(HookFile(program, path))}")
        except SettingsError as error:
            click.echo(f"{program.name}: unknown: {error}")


def _state(file: HookFile) -> str:
    if not file.ours():
        return f"not in {file.path}; hooks install shows the change"
    if not file.is_current():
        return f"another version is in {file.path}; hooks install shows the change"
    return f"{file.path} switches all hooks off" if file.is_switched_off() else f"installed in {file.path}"


@hooks.command()
@_program
def ask(program: str) -> None:
    """Ask for a cycle, once in a session, if the context is full: what the hook of PROGRAM runs.

    It reads the program's input for hooks, and exits with 0 whatever happens. Codex and Gemini CLI show its
    errors; Claude Code does not.
    """
    given = read_input(descriptor=0)
    try:
        if is_full(program, given):
            _ask(program, str(given.get("transcript_path") or ""))
    except GastownError as error:
        text = f"gastown-mail: {error}"
        if program == "claude":
            # to Claude Code everything on stdout is an instruction for its summary
            click.echo(text, err=True)
        else:
            click.echo(json.dumps({"systemMessage": text}))


def _ask(program: str, conversation: str) -> None:
    # the programs wait for their hooks, and Gemini CLI runs this at each turn: most calls end before this
    from gastown_mail.cli.output import strip_controls
    from gastown_mail.contracts.lifecycle import MAX_REASON_CHARS
    from gastown_mail.mail.send import send_lifecycle

    incarnation = os.environ.get("GASTOWN_INCARNATION")
    if not incarnation:
        raise SettingsError(
            "no cycle was asked for: GASTOWN_INCARNATION is not set, so this is no agent's session"
        )
    if program == "codex" and is_in_shared_server():
        raise GastownError(
            "no cycle was asked for: this Codex works through its shared server, which runs hooks in the name"
            " of the session that it was started by; start this agent with codex --no-daemon"
        )
    reason = "the context is full" + (f"; the conversation is in {conversation}" if conversation else "")
    send_lifecycle(
        LifecycleAction.CYCLE,
        reason=strip_controls(reason)[:MAX_REASON_CHARS],
        request_id=full_context_id(incarnation),
    )
