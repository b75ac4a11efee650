"""`init` and `move-town`: make a town of a folder, or of a folder that was copied or moved."""

import os
from pathlib import Path

import click

from gastown_mail.cli.options import load, town_option
from gastown_mail.contracts.settings import load_settings
from gastown_mail.town.identity import forget_identity, take_over_folder

_GAS_TOWN = """
# The agents of every Gas Town. Both run as long as the daemon does.
[agents."mayor/"]
keep_running = true

[agents."deacon/"]
keep_running = true
"""


@click.command()
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--gas-town",
    is_flag=True,
    help="Declare the mayor and the deacon of a Gas Town too; both are then kept running.",
)
@click.option(
    "--new-identity",
    is_flag=True,
    help="Make a new town of a copy: what daemon/ knows of the original's agents is set aside.",
)
def init(directory: Path, gas_town: bool, new_identity: bool) -> None:
    """Create a town: a commented town.toml, without agents. Existing files are not changed."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "town.toml"
    if not file.exists():
        file.write_text(Path(__file__).with_name("town.toml").read_text() + (_GAS_TOWN if gas_town else ""))
    settings = load_settings(directory, environ=os.environ)
    if new_identity and (aside := forget_identity(settings)):
        click.echo(f"what belonged to the original is in {aside} now")
        settings = load_settings(directory, environ=os.environ)
    settings.daemon_dir.mkdir(mode=0o755, exist_ok=True)
    for folder in ("mayor", "deacon") if gas_town else ():
        (directory / folder).mkdir(exist_ok=True)
    click.echo(
        f"town {settings.town_name} is in {settings.town_root}; "
        "next: declare an agent in town.toml, then run gastown-mail up"
    )


@click.command(name="move-town")
@town_option
def move_town() -> None:
    """Make this folder the town's: it was copied or moved here, and the other one is given up."""
    settings = load()
    other = take_over_folder(settings)
    given_up = f"; {other} has given its agents up" if other else ""
    click.echo(
        f"{settings.town_root} is the town {settings.town_name} now{given_up}; next: gastown-mail start"
    )
