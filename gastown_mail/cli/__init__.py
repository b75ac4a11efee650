"""The command `gastown-mail`. Each command's module is imported when the command is used."""

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING

import click

from gastown_mail.cli.options import town_option
from gastown_mail.contracts.errors import GastownError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "init": "folder", "import": "existing",
    "up": "daemon", "start": "daemon", "stop": "daemon", "restart": "daemon",
    "status": "status", "agents": "status", "explain": "status",
    "requests": "requests", "inbox": "requests", "dead": "requests", "events": "events", "logs": "events",
    "send": "send",
    "poke": "control", "run": "control", "attach": "control", "pause": "control", "resume": "control",
    "clear": "control", "adopt": "control", "move": "control", "move-town": "folder",
    "programs": "programs", "hooks": "hooks", "doctor": "doctor", "demo": "demo",
}  # fmt: skip
"""The module of this package that defines each command, in the order of `--help`."""

INTERRUPTED = 130

_EPILOG = """\b
To complete commands and agents in your shell (in zsh: zsh_source):
  eval "$(_GASTOWN_MAIL_COMPLETE=bash_source gastown-mail)"
"""


_BEGIN = """gastown-mail keeps AI coding agents running in tmux. Where to begin:

  gastown-mail demo             see it at work with sample agents, in a temporary folder
  gastown-mail init mytown      make a town: a folder with a town.toml, in which you declare your agents
  gastown-mail import mytown    make a town of the tmux sessions that you already have
  gastown-mail status           the town of this folder: does its daemon run, and how are its agents
  gastown-mail --help           all commands"""


class _LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_") + ("_" if iskeyword(cmd_name) else "")
        command: click.Command = getattr(import_module(f"{__name__}.{COMMANDS[cmd_name]}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click's own names no similar command
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        # click's own would import every command to see which of them are hidden
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)  # fmt: skip
@click.version_option(package_name="gastown-mail")
@town_option
@click.pass_context
def cli(context: click.Context) -> None:
    """Keep AI coding agents such as Claude Code and Codex running in tmux: renew, wake and stop them."""
    if not context.invoked_subcommand:
        click.echo(_BEGIN)


def main() -> None:
    """Run the command line and exit with its exit code (docs/reference/contract.md#exit-codes)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code; errors are printed to stderr in one sentence."""
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
        if sys.stdout:  # None if it was closed from the start
            # Output that could not be written must not fail again when the interpreter flushes it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = f": {error.filename}" if error.filename else ""
        hint = "free some space, or correct the path or its permissions, and try again"
        click.echo(f"gastown-mail: the system refused: {error.strerror or error}{where}; {hint}", err=True)
        return GastownError.exit_code
