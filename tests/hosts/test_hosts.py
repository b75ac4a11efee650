"""What happens to one host, or to its link, is that host's alone; no agent ever lives twice."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from gastown_mail.contracts.state import load_state
from gastown_mail.plumbing.connections import to_str_dict
from tests.faults.test_several_hosts import KEEP, pinned
from tests.hosts.world import FakedClock, Host, World
from tests.support.agents import DEAF_RECORDER, MAX, MAXINE, RECORDER
from tests.support.daemon import REPOSITORY
from tests.support.processes import gone
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

NAMES = ("alpha", "beta", "gamma")
CUT_SECONDS = 15.0
SLOW = KEEP.replace(RECORDER, DEAF_RECORDER).replace("stop_grace = 2", "stop_grace = 4")
"""Agents whose end takes four seconds, long enough to cut the link meanwhile."""
MONA = "gastown/crew/mona"
WITH_MONA = SLOW + f'[agents."{MONA}"]\n'


def up(world: World, toml: str = KEEP, names: Sequence[str] = NAMES) -> list[Host]:
    """Hosts of these names, each with this town.toml, whose daemons run."""
    hosts = [world.host(name, toml) for name in names]
    begin(hosts)
    return hosts


def begin(hosts: Sequence[Host]) -> None:
    """Start the daemons of all hosts at the same time; wait until each serves."""
    for host in hosts:
        host.spawn()
    for host in hosts:
        eventually(host.serves, deadline=DEADLINE)


def homes(hosts: Sequence[Host], address: str = MAX) -> list[tuple[str, tuple[str, int, str]]]:
    """Where the agent lives: the hosts and what tells its sessions from others."""
    return [
        (host.name, identity(session))
        for host in hosts
        for session in host.town.sessions.snapshot().values()
        if session.agent == address and not session.dead
    ]


def settled(hosts: Sequence[Host], address: str = MAX) -> tuple[str, tuple[str, int, str]]:
    """Wait until the agent lives and each host has looked twice; return its only home."""
    eventually(lambda: homes(hosts, address), deadline=DEADLINE)
    beat_twice(hosts)
    (home,) = homes(hosts, address)
    return home


def beat_twice(hosts: Sequence[Host]) -> None:
    """Wait until each host has looked twice."""
    counts = {host.name: host.state().heartbeat_count for host in hosts}

    def have_looked() -> bool:
        return all(host.state().heartbeat_count >= counts[host.name] + 2 for host in hosts)

    eventually(have_looked, deadline=DEADLINE)


def facts(host: Host, request: str) -> Counter[str]:
    """How often each event of a request happened."""
    events: Any = host.redis.xrange(host.town.keys.events)
    fields = (to_str_dict(each) for _, each in events)
    return Counter(each["event"] for each in fields if each.get("request") == request)


def carrying(host: Host) -> str:
    """Ask the agent on this host to cycle; return the request once a worker has started on it."""
    request = host.ask("cycle", "operator", to=MAX)
    eventually(lambda: host.status(request) == "carrying", deadline=DEADLINE)
    return request


def done_once(host: Host, request: str, others: Sequence[Host]) -> None:
    """Wait until the request is done, once, by this host and no other."""
    assert host.outcome(request) == "done", host.detail(request)
    seen = facts(host, request)
    assert (seen["started"], seen["done"]) == (1, 1)
    assert [other.starts() for other in others] == [[] for _ in others]


@pytest.mark.parametrize("way", ["both", "from", "to"])
def test_the_link_of_a_host_is_cut_in_the_middle_of_a_cycle(world: World, way: str) -> None:
    hosts = up(world, pinned(WITH_MONA, max="alpha", mona="alpha", maxine="beta"))
    alpha, *others = hosts
    before = {address: settled(hosts, address) for address in (MAX, MAXINE, MONA)}
    starts, daemons = len(alpha.starts()), [(host.state().pid, host.state().started_at) for host in hosts]
    request = carrying(alpha)

    with world.cut(alpha, way):
        until = time.monotonic() + CUT_SECONDS
        while time.monotonic() < until:
            assert len(homes(hosts)) <= 1
            assert [homes(hosts, address) for address in (MAXINE, MONA)] == [[before[MAXINE]], [before[MONA]]]
            time.sleep(0.5)

    done_once(alpha, request, others)
    beat_twice(hosts)
    (now,) = homes(hosts)
    assert (now[0], now[1] != before[MAX][1], len(alpha.starts())) == ("alpha", True, starts + 1)
    assert [homes(hosts, address) for address in (MAXINE, MONA)] == [[before[MAXINE]], [before[MONA]]]
    assert [(host.state().pid, host.state().started_at) for host in hosts] == daemons
    assert others[0].outcome(others[0].ask("restart", "operator", to=MAX)) == "done"


def test_a_host_loses_power_in_the_middle_of_a_cycle_and_returns(world: World) -> None:
    toml = pinned(WITH_MONA, maxine="beta")
    # the first to look gets the agents without a host
    (lost,) = up(world, toml, ["alpha"])
    for address in (MAX, MONA):
        assert settled([lost], address)[0] == "alpha"
    others = up(world, toml, ["beta", "gamma"])
    beta, gamma = others
    hosts, untouched = [lost, *others], [settled(others, MAXINE)]
    starts = {address: len(lost.starts(address)) for address in (MAX, MONA)}
    request = carrying(lost)

    lost.lose_power()

    eventually(lambda: "alpha" not in beta.town.hosts.live(), deadline=DEADLINE)
    beat_twice(others)
    assert homes(others) == homes(others, MONA) == []
    rows = {row["agent"]: row for row in gamma.document("agents")}
    assert {(rows[agent]["state"], rows[agent]["host"]) for agent in starts} == {("elsewhere", "alpha")}
    lost.boot()
    lost.up()
    assert lost.outcome(request) == "done", lost.detail(request)
    assert {settled(hosts, address)[0] for address in starts} == {"alpha"}
    assert {address: len(lost.starts(address)) - count for address, count in starts.items()} == {
        MAX: 1,
        MONA: 1,
    }
    assert homes(hosts, MAXINE) == untouched


def test_stop_and_death_of_one_host(world: World) -> None:
    hosts = up(world, pinned(KEEP, max="alpha", maxine="beta"))
    alpha, beta, gamma = hosts
    before = {address: settled(hosts, address) for address in (MAX, MAXINE)}

    assert alpha.stop() == 0

    running = [load_state(host.root).running for host in hosts]
    assert running == [False, True, True]
    assert homes(hosts) == [before[MAX]], "an agent outlives its daemon"
    assert homes(hosts, MAXINE) == [before[MAXINE]]
    assert beta.outcome(beta.ask("restart", "operator", to=MAXINE)) == "done"
    moved = settled([beta, gamma], MAXINE)
    alpha.up()
    beta.kill_daemon()
    eventually(lambda: "beta" not in alpha.town.hosts.live(), deadline=DEADLINE)
    assert alpha.outcome(alpha.ask("restart", "operator", to=MAX)) == "done"
    assert homes(hosts, MAXINE) == [moved]
    assert len({load_state(host.root).started_at for host in hosts}) == 3


def test_without_a_host_in_town_toml(world: World) -> None:
    hosts = up(world)

    where = {address: settled(hosts, address)[0] for address in (MAX, MAXINE)}

    for host in hosts:
        assert host.outcome(host.ask("restart", "operator", to=MAX)) == "done"
    assert {address: settled(hosts, address)[0] for address in where} == where


def test_two_machines_of_one_name(world: World) -> None:
    (first,) = up(world, names=("alpha",))
    before = settled([first])
    second = world.host("alpha", KEEP)

    refused = second.command("start")

    assert refused.returncode == 2
    assert f"the host name alpha is taken: a daemon on another machine serves {first.root}" in refused.stderr
    assert "GASTOWN_HOST" in refused.stderr
    assert settled([first]) == before


def test_a_machine_takes_the_place_of_another_of_its_name(world: World) -> None:
    (old,) = up(world, names=("alpha",))
    before = settled([old])
    assert old.stop() == 0
    (new,) = up(world, names=("alpha",))
    both = [old, new]
    beat_twice([new])
    # the old machine's agents live on, where the new one cannot see them
    assert homes(both) == [before]

    explained = " ".join(new.command("explain", MAX).stdout.split())
    unsure = new.command("move", MAX, "alpha")
    moved = new.command("move", MAX, "alpha", "--from-dead")

    assert "believed to live on another machine or folder that was host alpha" in explained
    assert f"gastown-mail move {MAX} alpha --from-dead" in explained
    assert (unsure.returncode, "that was host alpha" in unsure.stderr) == (1, True), unsure
    assert moved.returncode == 0, moved.stderr
    eventually(lambda: len(homes([new])) == 1, deadline=DEADLINE)
    old.environ["GASTOWN_HOST"] = "beta"
    old.up()
    eventually(lambda: homes([old]) == [], deadline=DEADLINE)
    assert settled(both)[1] != before[1]
    again = new.command("move", MAX, "alpha", "--from-dead")
    assert "lives on no other host" in again.stderr


def test_the_name_of_a_machine_changes(world: World) -> None:
    (host,) = up(world, names=("alpha",))
    before = settled([host])

    host.space.do("hostname", "renamed")
    town_toml = host.root / "town.toml"
    town_toml.write_text(town_toml.read_text() + "# read again\n")
    beat_twice([host])

    assert homes([host]) == [before]
    assert (host.command("status").returncode, host.record().host) == (0, "alpha")
    assert (
        f"started {host.agent().session}"
        in host.command("send", "restart", "--to", MAX, "--wait", "30").stderr
    )
    moved = homes([host])
    assert host.command("restart").returncode == 0
    assert (host.command("status").returncode, host.record().host) == (0, "renamed")
    assert homes([host]) == moved
    assert (
        f"started {host.agent().session}"
        in host.command("send", "restart", "--to", MAX, "--wait", "30").stderr
    )


def test_two_machines_on_one_folder(world: World) -> None:
    (first,) = up(world, names=("alpha",))
    before = settled([first])
    second = world.host("beta", KEEP, first.root)
    environ = {"GASTOWN_TOWN": str(first.root)}

    refused = second.command("start", environ=environ)
    beside = second.script("worker.py", environ=environ)

    assert refused.returncode == 4, refused.stderr
    assert "another daemon holds this town (its pid is not visible here" in refused.stderr
    assert eventually(beside.has_ended, deadline=DEADLINE)
    assert f"{first.root} belongs to another machine" in beside.words()
    assert settled([first]) == before
    assert first.stop() == 0
    refused = second.command("start", environ=environ)
    assert refused.returncode == 2
    assert f"{first.root} belongs to another machine" in refused.stderr
    assert homes([first, second]) == [before]


def test_a_clock_is_ahead_and_then_set_right(world: World) -> None:
    clock = FakedClock(world.folder)
    clock.set_ahead(3600)
    toml = pinned(KEEP, max="alpha", maxine="beta")
    alpha, beta = world.host("alpha", toml, **clock.environ), world.host("beta", toml)
    for host in (alpha, beta):
        host.up()
    before = settled([alpha, beta])
    inside = ("send", "restart", "--agent", MAX, "--wait", "30")

    done = alpha.command(*inside)
    assert done.returncode == 0, done.stderr
    clock.set_ahead(0)
    beat_twice([alpha])
    done = alpha.command(*inside)

    assert done.returncode == 0, done.stderr
    ahead = settled([alpha, beta])
    assert (before[0], ahead[0]) == ("alpha", "alpha")
    assert len(alpha.starts()) == 3
    beat_twice([beta])


def test_a_dead_host_whose_clock_was_ahead_is_not_taken_for_alive(world: World) -> None:
    clock = FakedClock(world.folder)
    clock.set_ahead(3600)
    alpha, beta = world.host("alpha", KEEP, **clock.environ), world.host("beta", KEEP)
    alpha.up()
    home = settled([alpha])
    beta.up()
    beat_twice([beta])

    alpha.lose_power()

    eventually(lambda: "alpha" not in beta.town.hosts.live(), deadline=DEADLINE)
    assert homes([beta]) == []
    moved = beta.command("move", MAX, "beta", "--from-dead")
    assert moved.returncode == 0, moved.stderr
    assert settled([beta])[1] != home[1]


def test_a_host_that_was_taken_for_dead_returns(world: World) -> None:
    (alpha,) = up(world, names=("alpha",))
    before = settled([alpha])
    (beta,) = up(world, names=("beta",))
    alpha.kill_daemon()
    eventually(lambda: "alpha" not in beta.town.hosts.live(), deadline=DEADLINE)
    moved = beta.command("move", MAX, "beta", "--from-dead")
    assert moved.returncode == 0, moved.stderr
    eventually(lambda: homes([beta]), deadline=DEADLINE)
    assert homes([alpha]) == [before], "an operator has said that it is dead"

    alpha.up()

    eventually(lambda: homes([alpha]) == [], deadline=DEADLINE)
    assert settled([alpha, beta])[0] == "beta"


def test_nothing_is_left_of_a_host(world: World) -> None:
    (host,) = up(world, names=("alpha",))
    settled([host])
    processes = host.daemon_processes()
    assert processes

    host.lose_power()

    assert [process for process in processes if psutil.pid_exists(process.pid)] == []


_KILLED = """import os, signal
from tests.hosts.world import a_world
with a_world() as world:
    host = world.host("alpha", "[daemon]\\n")
    print(world.folder, world.switch.init.pid, host.space.init.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_hosts_end_with_the_process_of_their_test(namespaces: None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip

    folder, *pids = done.stdout.split()
    shutil.rmtree(folder)
    assert len(pids) == 2
    eventually(lambda: all(gone(int(pid)) for pid in pids), deadline=DEADLINE)
