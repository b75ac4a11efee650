"""A seeded random run: requests are sent while the daemon's processes are killed; then all is checked.

`python -m tests.faults.chaos --seconds 600 --seed 1 --requests 1000`, or `make chaos SECONDS=600 SEED=1`.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from tests.faults.chaos_checks import Sampler, violations
from tests.faults.chaos_kills import Killer, Supervisor
from tests.faults.chaos_requests import Ledger, Sender, Watcher
from tests.faults.chaos_town import AGENT, bystanders, town_toml
from tests.support.daemon import Daemon, a_running_daemon
from tests.support.wait import DEADLINE, eventually

CALM = 120.0
"""Seconds after the last kill within which every accepted request must be settled."""

REQUESTS_PER_SECOND = 1000 / 600
SLOWEST = 1.2
"""The longest pause between two blows, in seconds."""


@dataclass
class Report:
    """What a run did, and what was wrong after it."""

    seconds: float
    seed: int
    sent: int = 0
    unanswered: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    sessions: int = 0
    calm: float = 0.0
    sampled: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        reads, seconds = float(str(self.sampled["reads"])), float(str(self.sampled["seconds"]))
        return "\n".join(
            [
                f"seed {self.seed}, {self.seconds:.0f} s of chaos, settled {self.calm:.1f} s after its end",
                f"requests: {self.sent} sent, {self.ways.total()} accepted, {self.unanswered} unanswered",
                f"  by way: {_listed(self.ways)}",
                f"  by status: {_listed(self.statuses)}",
                f"blows: {sum(self.kills.values())}",
                f"  {_listed(self.kills)}",
                f"daemon started again {self.restarts} times; {self.sessions} sessions started",
                f"state.json read {reads:.0f} times, {reads / seconds:.0f} a second",
                *(f"VIOLATION: {violation}" for violation in self.violations),
                f"violations: {len(self.violations)}",
            ]
        )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def run(seconds: float, seed: int, requests: int) -> Report:
    """Do one run; return its report."""
    report = Report(seconds, seed)
    with a_running_daemon(town_toml()) as daemon:
        (daemon.root / "agent.sh").write_text(AGENT)
        for address in daemon.town.roster().agents:
            daemon.town.queues.enqueue_start(
                daemon.town.roster().agents[address], "the run begins", by="operator"
            )
        eventually(lambda: all(map(daemon.started, daemon.town.roster().agents)), deadline=DEADLINE)
        with bystanders(daemon) as standing_by:
            sampler, watcher = Sampler(daemon), _chaos(daemon, report, requests)
            report.sampled = sampler.end()
            report.violations = violations(daemon, watcher, standing_by, report.sampled)
            report.statuses = watcher.by_status()
            report.sessions = sum(len(daemon.starts(a)) for a in daemon.town.roster().agents)
        if (code := daemon.stop()) != 0:
            report.violations.append(f"the daemon ended with {code}")
    return report


def _chaos(daemon: Daemon, report: Report, requests: int) -> Watcher:
    ledger = Ledger()
    watcher, supervisor = Watcher(daemon, ledger), Supervisor(daemon)
    killer = Killer(daemon, random.Random(f"kills {report.seed}"))
    sender = Sender(daemon, ledger, random.Random(f"requests {report.seed}"))
    with _running(watcher.run), _running(supervisor.run):
        with _running(lambda stop: killer.run(stop, SLOWEST)):
            _send_all(sender, report.seconds, requests)
        began = time.monotonic()
        eventually(lambda: _is_calm(daemon), deadline=CALM, step=0.1)
        sender.typed_ids()
        eventually(lambda: not watcher.open(), deadline=CALM, step=0.1)
        report.calm = time.monotonic() - began
    report.sent, report.unanswered, report.kills = sender.sent, ledger.unanswered, killer.tally
    report.ways, report.restarts = Counter(ledger.accepted.values()), supervisor.starts
    return watcher


def _send_all(sender: Sender, seconds: float, requests: int) -> None:
    began, pause = time.monotonic(), threading.Event()
    for number in range(requests):
        due = began + seconds * (number + sender.chance.random()) / requests
        pause.wait(max(0.0, due - time.monotonic()))
        sender.send()


def _is_calm(daemon: Daemon) -> bool:
    redis, keys = daemon.town.redis, daemon.town.keys
    try:
        return not (redis.llen(keys.inbox) or redis.llen(keys.taken) or redis.zcard(keys.unsettled))
    except RedisError:
        return False


@contextmanager
def _running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` beside the block; its exception is raised here."""
    stop, errors = threading.Event(), []

    def guarded() -> None:
        try:
            work(stop)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


def main() -> int:
    """Run from the command line; return 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="chaos")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int)
    given = parser.parse_args()
    requests = given.requests or round(given.seconds * REQUESTS_PER_SECOND)
    report = run(given.seconds, given.seed, requests)
    print(report, flush=True)  # noqa: T201
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
