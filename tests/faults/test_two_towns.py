"""Two towns with equally named agents on one Redis, and a user's own tmux: none touches another's."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gastown_mail.sessions import process_table
from tests.support.agents import MAX, MAXINE, UNPOKED, a_crew
from tests.support.daemon import Daemon, a_running_daemon
from tests.support.processes import clean_environ, end_tmux_server
from tests.support.wait import eventually

pytestmark = pytest.mark.timeout(240)


class UsersTmux:
    """A tmux server that a person runs, with sessions named like the agents'."""

    def __init__(self, names: list[str]) -> None:
        self.socket, self.environ = f"user-{secrets.token_hex(4)}", clean_environ()
        for name in names:
            self._tmux("new-session", "-d", "-s", name, "sleep 100000")

    def sessions(self) -> str:
        """Return the names, pids and ages of the sessions, as tmux shows them."""
        form = "#{session_name} #{pane_pid} #{pane_dead} #{session_created} #{history_size}"
        return self._tmux("list-panes", "-a", "-F", form)

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self.socket, "-f", "/dev/null", *words],
            capture_output=True, text=True, timeout=60, check=True, env=self.environ, cwd="/",
        ).stdout  # fmt: skip


@pytest.fixture
def towns(redis_url: str) -> Iterator[tuple[Daemon, Daemon]]:
    toml = a_crew(daemon=f'{UNPOKED}redis_url = "{redis_url}"\n')
    with ExitStack() as stack:
        first, second = (stack.enter_context(a_running_daemon(toml)) for _ in range(2))
        yield first, second


@pytest.fixture
def user() -> Iterator[UsersTmux]:
    made = UsersTmux(["gt-gastown-crew-max", "gt-gastown-crew-maxine"])
    yield made
    end_tmux_server(made.socket, made.environ)


def test_requests_to_one_town_do_not_affect_another(towns: tuple[Daemon, Daemon], user: UsersTmux) -> None:
    first, second = towns
    for daemon in towns:
        daemon.run(MAX)
        daemon.run(MAXINE)
    others, users = second.town.sessions.snapshot(), user.sessions()

    for action in ("cycle", "restart", "shutdown"):
        ident = first.ask(action)
        assert first.outcome(ident) == "done"
        assert second.status(ident) == ""

    assert first.session(MAX) is None
    assert {name: s.pid for name, s in second.town.sessions.snapshot().items()} == {
        name: s.pid for name, s in others.items()
    }
    assert user.sessions() == users
    assert second.outcome(second.ask("cycle")) == "done"
    assert first.session(MAX) is None


def test_the_same_id_and_the_same_bytes_are_a_request_in_each_town(towns: tuple[Daemon, Daemon]) -> None:
    for daemon in towns:
        daemon.run(MAX)
    ident = towns[0].ask("restart", "operator", to=MAX)
    work = eventually(lambda: towns[0].town.requests.progress(ident))
    assert work is not None

    assert towns[1].push(work.element) == ident

    assert towns[0].outcome(ident) == towns[1].outcome(ident) == "done"
    assert len(towns[0].starts()) == len(towns[1].starts()) == 2


def test_stopping_one_town_does_not_affect_the_other(towns: tuple[Daemon, Daemon], user: UsersTmux) -> None:
    first, second = towns
    kept = [first.run(MAX), second.run(MAX)]
    users = user.sessions()

    assert first.stop() == 0
    assert second.outcome(second.ask("restart", MAXINE, to=MAXINE)) == "superseded"

    assert [first.session(MAX), second.session(MAX)] == kept
    assert all(process_table.read_process(session.pid) for session in kept)
    assert user.sessions() == users
    assert second.outcome(second.ask("restart")) == "done"


def test_a_town_on_the_users_tmux_server_leaves_the_users_sessions_alone(
    user: UsersTmux, redis_url: str
) -> None:
    users = user.sessions()
    toml = a_crew(daemon=f'{UNPOKED}redis_url = "{redis_url}"\ntmux_socket = "{user.socket}"\n')
    with a_running_daemon(toml.replace("[roles.crew]", "[roles.crew]\nkeep_running = true")) as daemon:
        ident = daemon.ask("cycle", "operator", to=MAX)

        assert daemon.outcome(ident) == "refused"
        assert "adopt" in daemon.town.requests.record(ident)["detail"]
        assert user.sessions() == users
        assert daemon.starts(MAX) == []
