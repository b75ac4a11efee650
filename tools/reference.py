"""Writes `docs/reference/` from the code: `python -m tools.reference`, or `make docs`.

This module repeats nothing that the code says; the tests compare each page with its output.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gastown_mail import cli
from gastown_mail.cli import demo, doctor, status
from gastown_mail.contracts import errors, keys, lifecycle, settings
from gastown_mail.contracts.address import CUSTOM_ROLE, DEFAULT_COMMAND, ROLES, Role
from gastown_mail.contracts.go_formats import format_duration
from gastown_mail.contracts.lifecycle import LifecycleAction, RequestStatus
from gastown_mail.contracts.profile import (
    Answer,
    Context,
    ContextLog,
    FirstRun,
    InputLine,
    Profile,
    Root,
    Rule,
)
from gastown_mail.contracts.request import LifecycleRequest
from gastown_mail.contracts.settings_model import DURATION_HINT, DaemonSettings, RoleSettings
from gastown_mail.contracts.shared_daemons import SHARED_DAEMONS
from gastown_mail.mail.events import FIELDS, EventName
from gastown_mail.plumbing import log
from gastown_mail.programs.library import OTHER, built_in
from gastown_mail.status.model import Report
from gastown_mail.town.roster import STOP_GRACE
from tools import shapes
from tools.markdown import code, first_line, listed, page, rows_at_head, said_below, table

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HELP_WIDTH = 100


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())


def settings_page() -> str:
    """Every key of town.toml, from the models that read it."""
    running = [name for name, role in ROLES.items() if role.keep_running]
    return page(
        "Settings",
        "An argument overrides the environment, the environment overrides `town.toml`, and that overrides "
        "the default. An unknown key or an invalid value is an error that names the line. "
        'Write durations as `"5m"`, `"90s"`, `"1h30m"` or as a bare number of seconds.',
        "`town_name`, at the top of the file, is the town's name; by default the name of its folder.",
        "## `[daemon]`",
        "Each key also has an environment variable: `heartbeat_interval` is `GASTOWN_HEARTBEAT_INTERVAL`. "
        "A change needs `gastown-mail restart`.",
        table(("key", "default", "expected", "what it is"), _rows(DaemonSettings)),
        "## Shared daemons",
        "When a session ends, all its processes end, except shared daemons and what lives below them. A "
        "shared daemon is a program that later sessions find by one well-known socket, whichever session "
        "started it. It has detached: it has no terminal, and a session of its own or a parent outside the "
        "agent's tree. The event `spared` names it. The built-in list:",
        listed(SHARED_DAEMONS) + ".",
        "The first word is the name of the program; a version behind it does not matter. Each further word "
        "is one of its arguments, or the end of one after a `/`, or an option's name before a `=`. What an "
        'agent\'s own `command` names is the agent, and ends: with `command = "tmux new claude"` tmux is not '
        "spared.",
        '## `[roles.<role>]` and `[agents."<address>"]`',
        "A role's settings apply to all its agents; an agent's own settings override them. Roles are "
        f"{listed(ROLES)}, and `{CUSTOM_ROLE}` for agents whose address has none of the forms below. Strings "
        "may contain `{town}`, `{rig}`, `{name}` and `{role}`, and `command` also `{prompt}`. A change is "
        "known a second after the file is saved; a running session stays as it was started.",
        table(("key", "default", "expected", "what it is"), _rows(RoleSettings, _OF_ROLES)),
        "## Roles",
        "Either spelling names the agent; the first is the one that is shown and stored.",
        table(("role", "address", "also", "`session`", "`work_dir`", "`poke`"), map(_role, ROLES.values())),
        "`<rig>/<name>` also names a crew member or a polecat; if a rig has both, it is the crew member. "
        "An agent with any other address needs a `command`, works in the town's folder, and is not "
        f"poked. `keep_running` is true by default for {listed(running)} alone.",
    )


def profiles_page() -> str:
    """Every key of a program profile, from the models that read it."""
    columns = ("key", "default", "expected", "what it is")
    names = listed(name for name in sorted(built_in()) if name != OTHER)
    parts: tuple[tuple[str, type[BaseModel], str], ...] = (
        ("## `input`", InputLine, "Where the program takes text. Rows and columns are those of the screen."),
        (
            "## `rules`",
            Rule,
            "Each `[[programs.<name>.rules]]` is one sign of a state. All that it names must hold; the first "
            "rule that holds decides. When none does, an empty input line with the cursor at its beginning "
            "is `ready`, one with text is `draft`, a blank screen is `starting`, and the rest `unknown`.",
        ),
        ("## `context`", Context, "How full the program's context is, for `cycle_at`."),
        ("## `context.log`", ContextLog, "Keys are paths such as `a.b.c` into the JSON of a line."),
        ("## `first_run`", FirstRun, "What the program asks when it is started for the first time."),
        ("## `first_run.answers`", Answer, "What shows that such a question was answered."),
        ("## `root`", Root, "What the program refuses to do as root."),
    )
    return page(
        "Program profiles",
        f"A profile tells what the screen of a program means. There are profiles for {names}, and "
        f"`{OTHER}` for all other programs. The first word of an agent's `command` chooses its profile, or "
        "its setting `program`. In `town.toml`, `[programs.<name>]` is a profile of your own; with a name "
        "from this list, it changes only the keys that it has. See [How to mend a profile]"
        "(../how-to/profiles.md).",
        "Patterns are Python regular expressions. Write them in single quotes, so that TOML leaves their "
        "backslashes alone.",
        "## `[programs.<name>]`",
        table(columns, _rows(Profile)),
        *(part for head, model, text in parts for part in (head, text, table(columns, _rows(model)))),
    )


_OF_ROLES: Mapping[str, str] = {
    "command": code(DEFAULT_COMMAND),
    **dict.fromkeys(("work_dir", "session", "poke", "keep_running"), "by role"),
    "stop_grace": code(f'"{format_duration(STOP_GRACE)}"'),
    "host": "this host",
}


def _rows(model: type[BaseModel], defaults: Mapping[str, str] = MappingProxyType({})) -> Iterator[list[str]]:
    meanings = said_below(model)
    for name, field in model.model_fields.items():
        yield [code(name), defaults.get(name) or _default(field), field.description or "", meanings[name]]


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value in ({}, ()):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    duration = (field.description or "").startswith(DURATION_HINT)
    return code(f'"{format_duration(value)}"' if duration else value)


def _role(role: Role) -> list[str]:
    words = (role.name, role.address, role.alias, role.session, role.work_dir or ".", role.poke or "")
    return [code(word) for word in words]


def request_page() -> str:
    """The shape of a request, from the model that decodes it."""
    sizes = [f"{size // 1024} KiB" for size in (lifecycle.MAX_ELEMENT_BYTES, lifecycle.MAX_HANDOFF_BYTES)]
    actions = said_below(LifecycleAction)
    return page(
        "The request",
        "One JSON object, one element of the inbox. Keys that are not listed are ignored. An element has at "
        f"most {sizes[0]}, a handoff at most {sizes[1]}.",
        table(("key", "required", "expected", "what it is"), _request_rows()),
        "## Actions",
        table(
            ("action", "what it asks for"), ([code(one.value), actions[one.name]] for one in LifecycleAction)
        ),
        "## Statuses",
        "A request is accepted when `RPUSH` has answered. It ends in exactly one final status, and can be "
        "looked up for `requests_kept` after that. Dead letters are listed with their reason and can be "
        "revived.",
        table(("status", "", "meaning"), map(_status, RequestStatus)),
    )


def _request_rows() -> Iterator[list[str]]:
    meanings = said_below(LifecycleRequest)
    for name, field in LifecycleRequest.model_fields.items():
        required = "yes" if field.is_required() else ""
        yield [code(field.validation_alias or name), required, field.description or "", meanings[name]]


def _status(status: RequestStatus) -> list[str]:
    final = "final" if status in lifecycle.FINAL_STATUSES else ""
    kind = "final, a dead letter" if status in lifecycle.DEAD_STATUSES else final
    return [code(status.value), kind, said_below(RequestStatus)[status.name]]


def keys_page() -> str:
    """Redis keys and files, from the tables at the heads of the modules that make them."""
    return page(
        "Redis keys and files",
        "## Keys",
        "`{town}` is the town's name in braces, which are part of the key. Public keys are stable; the "
        "others are internal and may change.",
        table(("key", "type", "public", "holds"), rows_at_head(keys)),
        "rq's queues are `gastown-<town>-<host>-lifecycle` and `gastown-<town>-<host>-heartbeat`.",
        "## Files",
        "Paths are relative to the town's folder. `log_file` and `pid_file` can be anywhere.",
        table(("file", "holds"), rows_at_head(settings)),
    )


def commands_page() -> str:
    """The `--help` of each command."""
    root = click.Context(
        cli.cli, info_name="gastown-mail", terminal_width=HELP_WIDTH, **cli.cli.context_settings
    )
    return page("Commands", *(part for inner in _contexts(root) for part in _help(inner)))


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(group := context.command, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield from _contexts(click.Context(command, info_name=name, parent=context))


def _help(context: click.Context) -> tuple[str, str]:
    return f"## {context.command_path}", f"```text\n{context.command.get_help(context)}\n```"


def events_page() -> str:
    """Every event, from the catalogue."""
    return page(
        "Events",
        "`gastown-mail events` shows them, `-f` follows them, `--json` prints one document per line. In "
        "Redis they are the entries of the stream `gastown:{town}:events`.",
        table(
            ("event", "meaning", "fields"),
            ([code(event), event.meaning, listed(event.fields)] for event in EventName),
        ),
        "## Fields",
        "A field that would be empty is left out.",
        table(("field", "meaning"), ([code(name), text] for name, text in FIELDS.items())),
    )


def log_page() -> str:
    """The keys of the log, from the table at the head of the module that writes it."""
    return page(
        "The log",
        "`gastown-mail logs` shows it, `-f` follows it. Each line is one event, JSON off a terminal. The "
        "file `daemon/daemon.log` and its rotated files take at most `log_size`. Tokens are never logged.",
        table(("key", "on which lines", "meaning"), rows_at_head(log)),
    )


def exit_codes_page() -> str:
    """The exit codes of the command, from its constants and the error classes."""
    family = [kind for kind in vars(errors).values() if _is_error(kind)]
    codes = sorted({*_SPECIAL, *(kind.exit_code for kind in family)})
    return page(
        "Exit codes",
        table(("code", "when"), ([str(number), _when(number, family)] for number in codes)),
        "## Errors",
        "The text of an error says what happened and what to do next. All of them can be imported from "
        "`gastown_mail`.",
        table(
            ("error", "exit code", "meaning"),
            ([code(kind.__name__), str(kind.exit_code), first_line(kind)] for kind in family),
        ),
    )


_SPECIAL: Mapping[int, str] = {
    status.EXIT_CODES["running"]: "done; `status`: running",
    click.UsageError.exit_code: "bad usage",
    status.EXIT_CODES["stopped"]: "`status`: stopped",
    status.EXIT_CODES["degraded"]: "`status`: degraded",
    doctor.FINDINGS: "`doctor` has findings",
    cli.INTERRUPTED: "Ctrl-C",
    demo.SIGNALLED: f"`demo`: plus the number of the signal that ended it, so {cli.INTERRUPTED} for Ctrl-C",
}


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, errors.GastownError)


def _when(number: int, family: Iterable[type[errors.GastownError]]) -> str:
    named = [kind.__name__ for kind in family if kind.exit_code == number]
    return "; ".join(filter(None, (_SPECIAL.get(number), listed(named))))


def status_json_page() -> str:
    """What `status --json` prints, from the model that is printed."""
    return page(
        "status --json",
        "One document. `agents --json` prints only its list `agents`. Times are RFC 3339 with a zone; ages "
        "and durations are in seconds. Null means never, or not known: then `unknown` says why. Keys may be "
        "added to version 1; none is renamed or removed.",
        *shapes.tables(Report),
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "profiles.md": profiles_page,
    "request.md": request_page,
    "keys.md": keys_page,
    "commands.md": commands_page,
    "events.md": events_page,
    "log.md": log_page,
    "exit-codes.md": exit_codes_page,
    "status-json.md": status_json_page,
}
"""Every page of the reference, by the name of its file."""

if __name__ == "__main__":
    main()
