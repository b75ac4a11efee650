"""`programs`: the profiles of agents' programs, and what they make of a screen."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gastown_mail.cli.options import agent_option, find_root, json_option, load, open_town, town_option
from gastown_mail.cli.output import print_json, table
from gastown_mail.contracts.errors import GastownError, SettingsError
from gastown_mail.contracts.profile import Profile
from gastown_mail.contracts.validation import unknown_key_message
from gastown_mail.programs.library import built_in, town_profiles
from gastown_mail.programs.reader import context_used, read_screen
from gastown_mail.programs.screen import Screen

if TYPE_CHECKING:
    from gastown_mail.town.town import Town


@click.command()
@town_option
@json_option
@agent_option
@click.option("--save", metavar="PATH", help="Write the screen of --agent to this file.")
@click.argument("name", default="")
@click.argument("file", default="")
def programs(as_json: bool, agent: str | None, save: str | None, name: str, file: str) -> None:
    """List the profiles, or show what NAME's makes of the screen in FILE (- is stdin) or of an agent's.

    A profile tells what the screen of a program means. To mend one, write what is different into town.toml
    under [programs.NAME]; FILE is a screen that --save wrote.
    """
    if agent is None and (save or (file and not name)):
        raise click.UsageError("--save needs --agent, and FILE needs NAME")
    profiles = _profiles()
    if agent is not None:
        with open_town() as town:
            name, screen = _screen_of(town, agent, name)
    elif file:
        screen = _screen_in(file)
    elif name:
        _show(_named(profiles, name), as_json)
        return
    else:
        _list(profiles, as_json)
        return
    if save:
        Path(save).write_text(screen.dump(program=name), encoding="utf-8")
    _print_reading(name, _named(profiles, name), screen, as_json)


def _profiles() -> dict[str, Profile]:
    """The profiles of this town; outside a town the built-in ones."""
    try:
        find_root()
    except SettingsError:
        return dict(built_in())
    return town_profiles(load().programs)


def _named(profiles: dict[str, Profile], name: str) -> Profile:
    if name not in profiles:
        raise SettingsError(f"{name} {unknown_key_message('a profile', name, profiles)}")
    return profiles[name]


def _screen_of(town: "Town", spelling: str, name: str) -> tuple[str, Screen]:
    """The name of the profile to use, and what the agent's session shows."""
    agent = town.roster().pick(spelling)
    session = town.sessions.find(agent)
    if session is None or not session.incarnation or session.dead:
        raise GastownError(f"{agent.address} has no live session on this host; gastown-mail status shows why")
    screen = town.sessions.screens([session]).get(session.key)
    if screen is None:
        raise GastownError(f"the session of {agent.address} has just ended")
    return name or agent.program, screen


def _screen_in(file: str) -> Screen:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return Screen.parse(text)
    except UnicodeDecodeError:
        raise GastownError(f"{file} is not UTF-8 text; write it with --agent and --save") from None
    except ValueError as error:
        raise GastownError(f"{file}: {error}; write it with --agent and --save") from None


def _list(profiles: dict[str, Profile], as_json: bool) -> None:
    if as_json:
        print_json({name: list(profile.commands) for name, profile in profiles.items()})
        return
    rows = [
        (name, profile.label, ", ".join(profile.commands) or "set program")
        for name, profile in profiles.items()
    ]
    click.echo(table(("NAME", "PROGRAM", "CHOSEN BY COMMAND"), sorted(rows)))


def _show(profile: Profile, as_json: bool) -> None:
    """Print all that the profile says."""
    document = profile.model_dump(mode="json", exclude_defaults=True)
    if as_json:
        print_json(document)
        return
    rules = document.pop("rules", [])
    rows = [(key, value) for table_ in (document, document.pop("input", {})) for key, value in table_.items()]
    click.echo(table(("KEY", "VALUE"), rows))
    for number, rule in enumerate(rules, 1):
        signs = ", ".join(f"{key} {value}" for key, value in rule.items() if key != "state")
        click.echo(f"rule {number}: {rule['state']} if {signs}")


def _print_reading(name: str, profile: Profile, screen: Screen, as_json: bool) -> None:
    reading, used = read_screen(profile, screen), None
    used = context_used(profile, screen, reading)
    entry = reading.input
    document = {
        "program": name,
        "state": reading.state.value,
        "line": reading.line or None,
        "rule": reading.rule or None,
        "input": entry.text if entry else None,
        "context": used,
        "cursor": [screen.x, screen.y] if screen.y >= 0 else None,
        "title": screen.title.strip() or None,
    }
    if as_json:
        print_json(document)
        return
    by = f"by rule {reading.rule}" if reading.rule else "no rule holds; the input line decides"
    shown = {
        "state": f"{reading.state} ({by})",
        "line": reading.line or "-",
        "input line": repr(entry.text) if entry else "none at the cursor",
        "context": f"{used} %" if used is not None else "not shown",
        "cursor": f"column {screen.x}, row {screen.y}, counted from 0" if screen.y >= 0 else "unknown",
        "title": screen.title.strip() or "-",
    }
    click.echo(table(("", f"{profile.label or name} sees"), list(shown.items())))
