"""`status`, `doctor` and `explain` show the same problems in the same words, whatever is wrong."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gastown_mail.daemon.jobs import TownWorker, make_worker
from gastown_mail.daemon.schedule import TownScheduler, register
from gastown_mail.daemon.service import periodic_jobs
from gastown_mail.plumbing.locks import TownLock
from gastown_mail.status.checks import run_checks
from gastown_mail.status.collect import StatusCollector, collect_report
from gastown_mail.status.explain import explain_agent
from gastown_mail.status.model import Explanation, Problem
from gastown_mail.town.backoff import StartHistory
from gastown_mail.town.lease import hold_lease
from gastown_mail.town.records import TOWN, AgentRecord
from gastown_mail.town.town import Town
from tests.support.agents import MAX, TWO_AGENTS
from tests.support.redis import OwnServer
from tests.support.town import a_town, element

WITH_WORK_DIR = TWO_AGENTS.replace('work_dir = "."\nstop_grace', 'work_dir = "work"\nstop_grace')


@dataclass
class Served:
    """A town with all that a daemon registers, in this process; `clerk` ends the clerk, `after` the test."""

    town: Town
    server: OwnServer
    workers: list[TownWorker]
    clerk: ExitStack
    after: ExitStack

    def schedule(self, first: datetime) -> None:
        for job in periodic_jobs(self.town):
            register(TownScheduler(self.town.settings.town_name, self.town.redis), job, first)

    def findings(self) -> set[str]:
        """What `doctor` finds, without the seconds."""
        results = run_checks(self.town.settings)
        return {_timeless(result.text) for result in results if result.verdict == "finding"}

    def explain(self) -> Explanation:
        collector = StatusCollector(self.town.settings)
        return explain_agent(collector, self.town.roster().resolve(MAX))


def _timeless(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?s", "Ns", text)


def _words(problem: Problem) -> str:
    return _timeless(f"{problem.reason}: {problem.remedy}")


@pytest.fixture
def served(tmp_path: Path, server: OwnServer) -> Iterator[Served]:
    """A town in which nothing is wrong."""
    toml = f'[daemon]\nredis_url = "{server.url}"\n{WITH_WORK_DIR}'
    with ExitStack() as after, a_town(tmp_path, server.url, toml) as town:
        (town.settings.town_root / "work").mkdir()
        after.enter_context(TownLock(town.settings.lock_file))
        town.state.mark_started(os.getpid(), datetime.now(UTC))
        clerk = after.enter_context(ExitStack())
        clerk.enter_context(hold_lease(town.redis, town.keys.clerk, town.host))
        lifecycle, heartbeat = town.keys.lifecycle_queue(town.host), town.keys.heartbeat_queue(town.host)
        queues = {"one": lifecycle, "two": lifecycle, "three": heartbeat}
        workers = [make_worker(town, name, queue, town.redis) for name, queue in queues.items()]
        for worker in workers:
            worker.register_birth()  # type: ignore[no-untyped-call]
        made = Served(town, server, workers, clerk, after)
        made.schedule(datetime.now(UTC) + timedelta(minutes=1))
        yield made


def no_worker(served: Served) -> None:
    for worker in served.workers:
        worker.register_death()  # type: ignore[no-untyped-call]


def stopped_scheduler(served: Served) -> None:
    served.schedule(datetime.now(UTC) - timedelta(seconds=30))


def nothing_scheduled(served: Served) -> None:
    served.town.redis.delete(
        TownScheduler(served.town.settings.town_name, served.town.redis).scheduled_jobs_key
    )


def ended_agent(served: Served) -> None:
    served.town.agents.write(MAX, AgentRecord(successor_owed=True))


def quarantined_agent(served: Served) -> None:
    ended_agent(served)
    now = datetime.now(UTC)
    history = StartHistory(quarantined_until=now + timedelta(hours=1), updated_at=now)
    served.town.agents.write_start_history(MAX, history)


def taken_without_clerk(served: Served) -> None:
    served.town.redis.rpush(served.town.keys.taken, element())
    served.clerk.close()


def silent_redis(served: Served) -> None:
    served.after.enter_context(served.server.frozen())


def key_of_another_type(served: Served) -> None:
    served.town.redis.set(served.town.keys.inbox, "no list")


DEGRADING = [
    no_worker, stopped_scheduler, nothing_scheduled, ended_agent, quarantined_agent, taken_without_clerk,
    silent_redis, key_of_another_type,
]  # fmt: skip


def test_a_town_that_is_served_has_no_problem_anywhere(served: Served) -> None:
    report = collect_report(served.town.settings.town_root)

    assert (report.verdict, report.troubles, served.findings()) == ("running", [], set())


@pytest.mark.parametrize("spoil", DEGRADING)
def test_doctor_finds_whatever_degrades_the_town(served: Served, spoil: Callable[[Served], None]) -> None:
    spoil(served)

    report = collect_report(served.town.settings.town_root)

    assert report.verdict == "degraded"
    assert set(map(_words, report.troubles)) <= served.findings()


@pytest.mark.parametrize("spoil", [no_worker, stopped_scheduler, nothing_scheduled, taken_without_clerk])
def test_explain_begins_with_what_keeps_the_daemon_from_working(
    served: Served, spoil: Callable[[Served], None]
) -> None:
    spoil(served)
    troubles = collect_report(served.town.settings.town_root).troubles
    ended_agent(served)

    steps = [_timeless(step) for step in served.explain().next_steps]

    assert steps[: len(troubles)] == list(map(_words, troubles))
    assert steps[len(troubles)].startswith("when that is done, the next sweep starts it")


def test_a_paused_town_is_a_finding_although_it_is_not_degraded(served: Served) -> None:
    served.town.desired.pause(TOWN)

    report, [finding] = collect_report(served.town.settings.town_root), served.findings()

    assert (report.verdict, report.paused) == ("running", True)
    assert finding.startswith("the whole town is paused: ")
    assert served.explain().next_steps[0] == finding


def test_no_start_is_promised_to_an_agent_whose_work_dir_is_missing(served: Served) -> None:
    ended_agent(served)
    assert "the next sweep starts it" in served.explain().next_steps[0]
    work_dir = served.town.settings.town_root / "work"
    shutil.rmtree(work_dir)

    [step] = served.explain().next_steps

    assert step.startswith(f"it cannot be started: the work dir {work_dir} does not exist; create it")
    assert any(text.startswith(f"{MAX} cannot be started: the work dir") for text in served.findings())
