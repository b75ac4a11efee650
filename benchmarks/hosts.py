"""What grows with the number of hosts: their reports, and what the clerk asks of them.

`python -m benchmarks.hosts`: 1 to 100 hosts that only report, ten agents each, in one town.toml. Each figure
stands beside an empty round trip to the same server.
"""

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from redis import Redis

from benchmarks.suite import cleanly
from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import AddressError
from gastown_mail.contracts.keys import Keys
from gastown_mail.plumbing.connections import connect
from gastown_mail.plumbing.embedded import ensure_server, stop_server
from gastown_mail.town.directory import Directory, published
from gastown_mail.town.hosts import REPORT_EVERY, HostEntry, Hosts
from gastown_mail.town.roster import Roster, roster_of

SIZES = (1, 3, 10, 30, 100)
AGENTS_EACH = 10
ROUNDS = 20


def main() -> int:
    """Print a line for each number of hosts."""
    folder = Path(tempfile.mkdtemp(prefix="gmb-", dir="/tmp"))
    try:
        with connect(ensure_server(folder)) as redis:
            print(
                f"{'hosts':>5} {'agents':>6} {'a report':>10} {'÷ PING':>7} {'reports, MB/s':>14} "
                f"{'known':>10} {'unknown':>10} {'÷ PING':>7}"
            )
            for size in SIZES:
                print(line(redis, size), flush=True)
    finally:
        stop_server(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def line(redis: Redis, size: int) -> str:
    """Measure a town on so many hosts: one report, and how long an address takes to be found or not."""
    hosts = Hosts(redis, Keys(f"bench-{secrets.token_hex(4)}"))
    roster = town_roster(size)
    entry = HostEntry(
        machine="m" * 32,
        boot="b" * 36,
        folder="1:2",
        root="/town",
        roster=published(roster),
        town_toml="d" * 64,
    )
    for number in range(size):
        hosts.report(f"h{number}", entry)
    ping = timed(redis.ping)
    report = timed(lambda: hosts.report("h0", entry))
    known = timed(lambda: Directory(roster, "h0", hosts).resolve("rig0/crew/a0"))
    unknown = timed(lambda: missed(Directory(roster, "h0", hosts)))
    traffic = size * len(entry.roster) / REPORT_EVERY / 1e6
    return (
        f"{size:>5} {len(roster.agents):>6} {report * 1e3:>7.2f} ms {report / ping:>7.1f} {traffic:>14.3f} "
        f"{known * 1e6:>7.0f} µs {unknown * 1e3:>7.1f} ms {unknown / ping:>7.0f}"
    )


def town_roster(size: int) -> Roster:
    """The agents of all hosts, as each of them reads them in town.toml."""
    return roster_of(
        Agent(
            address=f"rig{host}/crew/a{number}", role="crew", rig=f"rig{host}", name=f"a{number}",
            session=f"gt-{host}-{number}", work_dir=Path(), command="", poke=None, keep_running=False,
            stop_grace=5, env={}, host=f"h{host}", declared_host=f"h{host}",
        )
        for host in range(size)
        for number in range(AGENTS_EACH)
    )  # fmt: skip


def missed(directory: Directory) -> None:
    try:
        directory.resolve("nowhere/crew/nobody")
    except AddressError:
        return
    raise AssertionError("an address that no host has was found")


def timed(act: Callable[[], object]) -> float:
    """The median of the seconds that it takes."""
    seen = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        seen.append(time.perf_counter() - began)
    return median(seen)


if __name__ == "__main__":
    sys.exit(cleanly(main))
