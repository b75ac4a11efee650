"""The command `gastown-mail`: one file per group of commands, imported when one of them is called."""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from gastown_mail.contracts.errors import GastownError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "init": "daemon", "up": "daemon", "start": "daemon", "stop": "daemon", "restart": "daemon",
    "status": "status", "agents": "agents", "explain": "explain",
    "requests": "requests", "inbox": "inbox", "dead": "dead", "events": "facts", "logs": "logs",
    "send": "send",
    "poke": "acting", "run": "acting", "attach": "acting",
    "pause": "wishes", "resume": "wishes", "clear": "wishes", "adopt": "wishes",
    "doctor": "doctor", "demo": "demo",
}  # fmt: skip
"""Which file of this folder holds which command, in the order of `--help`."""

INTERRUPTED = 130

EPILOG = """\b
Your shell completes commands and agents after this (in zsh: zsh_source):
  eval "$(_GASTOWN_MAIL_COMPLETE=bash_source gastown-mail)"
"""


class LazyGroup(click.Group):
    """A group whose commands are loaded one by one."""

    def list_commands(self, _: click.Context) -> list[str]:
        """All names, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"gastown_mail.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """The names and options that begin like this; no command is loaded for that."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gastown-mail")
@click.option("--town", metavar="DIR", help="The town's folder; else GASTOWN_TOWN, else the nearest above.")
@click.pass_context
def cli(context: click.Context, town: str | None) -> None:
    """Renew and wake AI coding agents in tmux sessions, dependably."""
    context.obj = town


def main() -> None:
    """Run the command and end the process with its exit code (CONTRACTS section 9)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command; returns its exit code. A user's mistake is a sentence on stderr, never a traceback."""
    try:
        result = cli.main(arguments, prog_name="gastown-mail", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except GastownError as error:
        click.echo(f"gastown-mail: {error}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        _write_no_more()
        where = f": {error.filename}" if error.filename else ""
        remedy = "make room, or mend the path or its rights, and try again"
        click.echo(f"gastown-mail: the system refused: {error.strerror or error}{where}; {remedy}", err=True)
        return GastownError.exit_code


def _write_no_more() -> None:
    """What is left of our output, for which there was no room, must not fail again at exit."""
    if sys.stdout:  # None when it was closed from the start
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
