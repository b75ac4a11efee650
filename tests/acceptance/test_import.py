"""`import`: a town of the sessions that a person has."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import clean_environ

LOOP = "while read -r line; do echo told: $line; done"


class Person:
    """A person with tmux sessions of their own, on a server of this test."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = clean_environ() | {"TMUX_TMPDIR": str(home), "HOME": str(home)}

    def tmux(self, *words: str, server: str = "default") -> str:
        """Run tmux; return what it prints."""
        argv = ["tmux", "-L", server, "-f", "/dev/null", *words]
        done = subprocess.run(argv, capture_output=True, text=True, env=self.environ, check=True, timeout=30)
        return done.stdout

    def gastown_mail(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the command in the person's folder."""
        argv = [sys.executable, "-m", "gastown_mail", *words]
        return subprocess.run(
            argv, capture_output=True, text=True, env=self.environ, cwd=self.home, timeout=60, check=False
        )

    def pid(self, session: str) -> str:
        """The pid of the program in a session."""
        return self.tmux("display-message", "-p", "-t", f"={session}:", "#{pane_pid}")


@pytest.fixture
def person() -> Iterator[Person]:
    # short: a unix socket is in it
    with tempfile.TemporaryDirectory(prefix="gm-import-") as folder:
        made = Person(Path(folder))
        made.tmux("new-session", "-d", "-s", "max", "-c", folder, f"sh -c '{LOOP}'")
        yield made
        made.gastown_mail("--town", f"{folder}/town", "stop")
        for server in ("default", "other"):
            argv = ["tmux", "-L", server, "kill-server"]
            subprocess.run(argv, env=made.environ, check=False, capture_output=True)


def test_a_proposal_changes_nothing_and_a_folder_gets_it_once(person: Person) -> None:
    said = person.gastown_mail("import")
    written = person.gastown_mail("import", "town")
    again = person.gastown_mail("import", "town")

    town_toml = person.home / "town" / "town.toml"
    assert (said.returncode, written.returncode, again.returncode) == (0, 0, 2)
    assert town_toml.read_text() == said.stdout
    assert '[agents."max"]' in said.stdout
    assert "exists and was not changed" in again.stderr
    assert town_toml.stat().st_mode & 0o077 == 0


def test_sessions_are_adopted_on_request_and_only_then(person: Person) -> None:
    before = person.pid("max")
    person.gastown_mail("import", "town")
    town = ("--town", str(person.home / "town"))

    assert person.gastown_mail(*town, "start").returncode == 0
    refused = person.gastown_mail(*town, "poke", "max")
    adopted = person.gastown_mail(*town, "import", "--adopt")
    nothing_more = person.gastown_mail(*town, "import", "--adopt")
    same = person.pid("max") == before
    restarted = person.gastown_mail(*town, "send", "restart", "--to", "max", "--wait", "30")

    assert refused.returncode != 0
    assert adopted.stdout == "max: adopted session max\n"
    assert nothing_more.stdout.startswith("no agent of this town has a session that is not managed")
    assert same
    assert restarted.returncode == 0, restarted.stderr
    assert person.pid("max") != before
    assert person.gastown_mail("import").returncode == 2, "the only session is a town's"


def test_what_cannot_be_an_agent_is_left_out_with_the_reason(person: Person) -> None:
    person.tmux("new-session", "-d", "-s", "shell", "sh")
    person.tmux("new-session", "-d", "-s", "two words", f"sh -c '{LOOP}'")

    said = person.gastown_mail("import").stdout

    assert "left out: session 'shell', which shows a shell" in said
    assert "left out: session 'two words', whose name" in said
    assert said.count("[agents.") == 1


def test_one_of_several_servers_is_chosen_by_name(person: Person) -> None:
    person.tmux("new-session", "-d", "-s", "ann", f"sh -c '{LOOP}'", server="other")

    unclear = person.gastown_mail("import")
    chosen = person.gastown_mail("import", "--socket", "other")

    assert unclear.returncode == 2
    assert "choose one with --socket" in unclear.stderr
    assert '[agents."ann"]' in chosen.stdout
    assert f"tmux-{os.getuid()}/other" in chosen.stdout


def test_the_server_that_it_runs_inside_of_is_looked_at_too(person: Person) -> None:
    person.tmux("kill-server")
    elsewhere = f"{person.home}/elsewhere"
    argv = ["tmux", "-S", elsewhere, "-f", "/dev/null"]
    subprocess.run([*argv, "new-session", "-d", "-s", "ann", LOOP], env=person.environ, check=True)
    person.environ["TMUX"] = f"{elsewhere},1,0"

    said = person.gastown_mail("import")
    subprocess.run([*argv, "kill-server"], env=person.environ, check=True)

    assert f'tmux_socket = "{elsewhere}"' in said.stdout, said.stderr


def test_without_sessions_it_says_what_to_do_instead(person: Person) -> None:
    person.tmux("kill-server")

    none = person.gastown_mail("import")

    assert none.returncode == 2
    assert "gastown-mail init" in none.stderr
