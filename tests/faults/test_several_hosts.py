"""Several hosts, a folder and a tmux server each, on one Redis: what happens to one is that host's alone."""

import json
import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.state import load_state
from gastown_mail.sessions.session import Session
from gastown_mail.town.records import Desired
from tests.support.agents import MAX, MAXINE, UNPOKED, a_crew
from tests.support.daemon import Daemon, a_daemon
from tests.support.processes import gone
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

KEEP = a_crew(daemon=UNPOKED).replace("[roles.crew]", "[roles.crew]\nkeep_running = true")
_Hosts = Callable[..., list[Daemon]]


def on(redis_url: str, name: str, toml: str = KEEP) -> str:
    """This town.toml with a name and a Redis that all hosts share."""
    return f'town_name = "{name}"\n{toml.replace("[daemon]", f"[daemon]{chr(10)}redis_url = {redis_url!r}")}'


def pinned(toml: str, **hosts: str) -> str:
    """This town.toml with a host for each of these agents."""
    for name, host in hosts.items():
        header = f'[agents."gastown/crew/{name}"]'
        toml = toml.replace(header, f'{header}\nhost = "{host}"')
    return toml


@pytest.fixture
def hosts(redis_url: str) -> Iterator[_Hosts]:
    """Makes running hosts of these names, each with this town.toml."""
    name = f"shared-{secrets.token_hex(4)}"
    with ExitStack() as stack:

        def make(names: str, toml: str = KEEP) -> list[Daemon]:
            made = [
                stack.enter_context(a_daemon(on(redis_url, name, toml), quiet=True, GASTOWN_HOST=host))
                for host in names
            ]
            for daemon in made:
                daemon.up()
            return made

        yield make


def sessions_on(daemons: Sequence[Daemon], address: str = MAX) -> list[tuple[str, Session]]:
    """The living sessions of an agent on all these hosts, with the host's name."""
    return [
        (daemon.environ.get("GASTOWN_HOST", ""), one)
        for daemon in daemons
        for one in daemon.town.sessions.snapshot().values()
        if one.agent == address and not one.dead
    ]


def beats_twice(daemon: Daemon) -> None:
    count = daemon.state().heartbeat_count
    eventually(lambda: daemon.state().heartbeat_count >= count + 2, deadline=DEADLINE)


def the_only(daemons: Sequence[Daemon], address: str = MAX) -> tuple[str, Session]:
    """Wait until the agent lives, and all hosts have looked twice; return its only session."""
    eventually(lambda: sessions_on(daemons, address), deadline=DEADLINE)
    for daemon in daemons:
        beats_twice(daemon)
    (found,) = sessions_on(daemons, address)
    return found


def states(daemon: Daemon) -> dict[str, tuple[str, str]]:
    rows = daemon.document("agents")
    return {row["agent"]: (row["state"], row["host"]) for row in rows}


def test_without_a_host_in_town_toml_three_hosts_have_one_of_each_agent(hosts: _Hosts) -> None:
    three = hosts("abc")

    homes = {address: the_only(three, address)[0] for address in (MAX, MAXINE)}

    for daemon in three:
        seen = states(daemon)
        for address, home in homes.items():
            here = home == daemon.environ["GASTOWN_HOST"]
            assert (seen[address][0] == AgentState.ELSEWHERE, seen[address][1]) == (not here, home)
    # a request from any host goes where the agent is
    for daemon in three:
        assert daemon.outcome(daemon.ask("restart", "operator", to=MAX)) == "done"
    assert the_only(three)[0] == homes[MAX]


def test_the_stop_and_the_death_of_one_host_touch_no_other(hosts: _Hosts) -> None:
    a, b = two = hosts("ab", pinned(KEEP, max="a", maxine="b"))
    before = {address: identity(the_only(two, address)[1]) for address in (MAX, MAXINE)}

    assert a.stop() == 0

    assert (load_state(a.root).running, load_state(b.root).running) == (False, True)
    assert load_state(a.root).pid == a.process.pid
    assert load_state(b.root).pid == b.process.pid
    beats_twice(b)
    assert b.outcome(b.ask("restart", "operator", to=MAXINE)) == "done"
    assert b.redis.hget(b.town.keys.state, "running") == b"true"
    a.up()
    b.process.popen.send_signal(signal.SIGKILL)
    beats_twice(a)
    assert a.outcome(a.ask("restart", "operator", to=MAX)) == "done"
    assert identity(the_only([a])[1]) != before[MAX]
    assert len(sessions_on(two, MAXINE)) == 1


def test_a_dead_hosts_agents_are_started_nowhere_else_until_an_operator_says_so(hosts: _Hosts) -> None:
    a, b = two = hosts("ab")
    home, session = the_only(two)
    dead, alive = (a, b) if home == "a" else (b, a)
    for process in dead.process.family():
        process.kill()

    beats_twice(alive)

    assert sessions_on([alive]) == []
    assert states(alive)[MAX] == (AgentState.ELSEWHERE, home)
    refused = alive.command("move", MAX, alive.environ["GASTOWN_HOST"], "--from-dead")
    assert refused.returncode == 1
    assert f"host {home} is alive" in refused.stderr
    eventually(lambda: home not in alive.town.hosts.live(), deadline=DEADLINE)
    beats_twice(alive)
    assert sessions_on([alive]) == []

    moved = alive.command("move", MAX, alive.environ["GASTOWN_HOST"], "--from-dead")

    assert moved.returncode == 0, moved.stderr
    eventually(lambda: sessions_on([alive]), deadline=DEADLINE)
    dead.up()
    eventually(lambda: gone(session.pid), deadline=DEADLINE)
    assert the_only(two)[0] == alive.environ["GASTOWN_HOST"]


def test_an_agent_that_moves_in_town_toml_lives_on_one_host(hosts: _Hosts) -> None:
    a, _ = two = hosts("ab", pinned(KEEP, max="a"))
    home, session = the_only(two)
    assert home == "a"

    for daemon in two:
        file = daemon.root / "town.toml"
        file.write_text(file.read_text().replace('host = "a"', 'host = "b"'))
        beats_twice(daemon)

    eventually(lambda: [host for host, _ in sessions_on(two)] == ["b"], deadline=DEADLINE)
    assert gone(session.pid)
    assert the_only(two)[0] == "b"
    events = [
        json.loads(line)["event"] for line in a.command("events", "--json", "-n", "500").stdout.splitlines()
    ]
    assert events.index("released") > events.index("releasing")


def test_an_agent_that_town_toml_gives_to_a_dead_host_moves_after_an_edit(hosts: _Hosts) -> None:
    a, b = hosts("ab", pinned(KEEP, max="a"))
    the_only([a])
    for process in a.process.family():
        process.kill()
    eventually(lambda: "a" not in b.town.hosts.live(), deadline=DEADLINE)
    move = ("move", MAX, "b", "--from-dead")

    refused = b.command(*move)
    file = b.root / "town.toml"
    file.write_text(file.read_text().replace('host = "a"', 'host = "b"'))
    beats_twice(b)
    before = sessions_on([b])
    moved = b.command(*move)

    assert refused.returncode == 1
    assert 'write "b" there, on all living hosts; then run this again' in refused.stderr
    assert before == [], "no host takes an agent from a dead one by itself"
    assert moved.returncode == 0, moved.stderr
    eventually(lambda: sessions_on([b]), deadline=DEADLINE)


def test_an_operator_moves_an_agent(hosts: _Hosts) -> None:
    a, _ = two = hosts("ab")
    home, _ = the_only(two)
    target = "b" if home == "a" else "a"

    moved = a.command("move", MAX, target)

    assert moved.returncode == 0, moved.stderr
    eventually(lambda: [host for host, _ in sessions_on(two)] == [target], deadline=DEADLINE)
    assert the_only(two)[0] == target


def test_an_agent_stays_where_it_is_while_the_other_host_is_not_alive(hosts: _Hosts) -> None:
    (a,) = hosts("a", pinned(KEEP, max="a"))
    before = identity(the_only([a])[1])

    refused = a.command("move", MAXINE, "b")
    file = a.root / "town.toml"
    file.write_text(file.read_text().replace('host = "a"', 'host = "b"'))
    beats_twice(a)

    assert (refused.returncode, "no daemon serves host b; alive: a" in refused.stderr) == (1, True)
    assert identity(the_only([a])[1]) == before


def test_a_stopped_agent_is_not_started_by_its_move(hosts: _Hosts) -> None:
    a, _ = two = hosts("ab")
    home, _ = the_only(two)
    assert a.outcome(a.ask("shutdown", "operator", to=MAX)) == "done"

    assert a.command("move", MAX, "b" if home == "a" else "a").returncode == 0

    for daemon in two:
        beats_twice(daemon)
    assert sessions_on(two) == []
    assert a.record().desired is Desired.STOPPED


def test_a_host_name_belongs_to_one_folder_while_its_daemon_lives(hosts: _Hosts, redis_url: str) -> None:
    (first,) = hosts("a")
    before = identity(the_only([first])[1])
    with a_daemon(on(redis_url, first.settings.town_name), quiet=True, GASTOWN_HOST="a") as second:
        refused = second.command("start")

        assert refused.returncode == 2
        assert f"the host name a is taken: a daemon on this machine serves {first.root}" in refused.stderr
        assert "GASTOWN_HOST" in refused.stderr
    beats_twice(first)
    assert identity(first.living()) == before


def test_one_folder_is_not_served_under_two_host_names(hosts: _Hosts) -> None:
    (first,) = hosts("a")

    for script in ("worker.py", "scheduler.py"):
        other = first.script(script, environ={"GASTOWN_HOST": "b", "GASTOWN_TOWN": str(first.root)})
        assert eventually(other.has_ended, deadline=DEADLINE)
        assert "is served as host a, and this would be host b on the same folder" in other.words()


NEW = "gastown/crew/new"


def test_a_request_for_an_agent_that_one_host_knows_only_is_carried_out_there(hosts: _Hosts) -> None:
    a, b = two = hosts("ab")
    the_only(two)
    (b.root / "work" / "new").mkdir(parents=True)
    file = b.root / "town.toml"
    file.write_text(f'{file.read_text()}[agents."{NEW}"]\nkeep_running = false\n')

    # at once: no host has told the other of it yet
    ident = a.ask("restart", "operator", to=NEW)

    assert a.outcome(ident) == "done"
    host, session = the_only(two, NEW)
    assert host == "b"
    assert a.outcome(a.ask("cycle", NEW, incarnation=session.incarnation)) == "done"


def test_a_request_that_arrives_at_a_host_without_the_agent_waits_there(hosts: _Hosts) -> None:
    a, b = two = hosts("ab")
    the_only(two)
    file = b.root / "town.toml"
    file.write_text(f'{file.read_text()}[agents."{NEW}"]\nhost = "a"\nkeep_running = false\n')

    ident = b.ask("restart", "operator", to=NEW)

    record = eventually(lambda: waits(b, ident), deadline=DEADLINE)
    assert record["detail"] == f"waiting: host a does not have {NEW} in its town.toml, host b has"
    (a.root / "work" / "new").mkdir(parents=True)
    (a.root / "town.toml").write_text(file.read_text())
    assert a.outcome(ident) == "done"
    assert the_only(two, NEW)[0] == "a"


def waits(daemon: Daemon, ident: str) -> dict[str, str]:
    record = daemon.town.requests.record(ident)
    return record if "town.toml, host" in record.get("detail", "") else {}


def test_a_request_for_an_agent_that_no_host_knows_is_refused_once_all_have_said_so(hosts: _Hosts) -> None:
    a, b = two = hosts("ab")
    the_only(two)

    ident = a.ask("restart", "operator", to="gastown/crew/nobody")

    assert a.outcome(ident) == "refused"
    assert 'there is no agent "gastown/crew/nobody"' in b.town.requests.record(ident)["detail"]
    assert not b.town.requests.pending("")
