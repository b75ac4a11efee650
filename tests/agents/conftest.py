"""Agents that run while many tests look at them, and the table of what was seen."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gastown_mail.town.town import Town
from tests.agents.agent_town import IT, WHY, AgentTown, agent_town
from tests.agents.cases import CASES, Case, Opened
from tests.agents.known import NONE
from tests.agents.namespace import only_loopback
from tests.agents.table import CELL, Outcomes
from tests.support.town import a_town


def pytest_configure(config: pytest.Config) -> None:
    """Collect the outcomes, in the process that reports them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(), "agents-table")
        if file := os.environ.get("AGENTS_FAILED"):
            config.pluginmanager.register(Failures(Path(file)), "agents-failed")


class Failures:
    """Writes the ids of the tests that failed into a file, one a line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure once, in the setup or in the test."""
        known = self._file.read_text().splitlines() if self._file.exists() else []
        if report.failed and report.nodeid not in known:
            self._file.write_text("\n".join([*known, report.nodeid]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a program together, when several processes share the work."""
    for item in items:
        if item.config.pluginmanager.has_plugin("xdist") and (case := _case(item)):
            item.add_marker(pytest.mark.xdist_group(case.name))


def _case(item: pytest.Item) -> Case | None:
    spec = getattr(item, "callspec", None)
    case = spec.params.get("case") if spec else None
    return case if isinstance(case, Case) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Name the program and the check in the report; skip what the program has not."""
    mark, case = item.get_closest_marker("check"), _case(item)
    if mark is None or case is None:
        return
    item.user_properties.append((CELL, (mark.args[0], case.name, case.program.version)))
    if why := NONE.get((case.name, mark.args[0])):
        pytest.skip(why)


@pytest.fixture(
    scope="session",
    params=[pytest.param(case, id=name) for name, case in CASES.items()],
)
def case(request: pytest.FixtureRequest) -> Case:
    """Each program of the table; skipped by name where it cannot run."""
    found: Case = request.param
    if not only_loopback():
        pytest.skip("real programs run in a network namespace of their own only: make agents")
    if not found.program.version:
        pytest.skip(f"it is not installed under {found.program.package}")
    return found


@pytest.fixture(scope="session")
def shared(case: Case, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[AgentTown]:
    """One town for the tests that leave its agent ready, or can have it started anew."""
    folder = tmp_path_factory.mktemp(case.name)
    with (
        towns(folder, redis_url) as make,
        agent_town(case.program, make, folder / "a", case.arguments) as made,
    ):
        yield made


@pytest.fixture
def agent(shared: AgentTown) -> AgentTown:
    """The shared agent, ready; started anew if it is not."""
    session = shared.session(IT)
    if session is None or session.dead or not shared.becomes_ready():
        shared.start_anew()
    return shared


@pytest.fixture
def start(case: Case, tmp_path: Path, make_town: Callable[[str], Town]) -> Iterator[Callable[..., AgentTown]]:
    """Starts an agent of its own for one test, after a change of its files."""
    with ExitStack() as places:

        def started(opened: Opened, arguments: str = "", daemon: str = "", why: str = WHY) -> AgentTown:
            made = places.enter_context(
                agent_town(
                    case.program, make_town, tmp_path / "a", arguments or case.arguments,
                    dict(opened.env), daemon,
                )
            )  # fmt: skip
            opened.change(made.place)
            made.start(why)
            if opened.say:
                made.wait_until_told()
                made.say(opened.say)
            return made

        yield started


@contextmanager
def towns(folder: Path, redis_url: str) -> Iterator[Callable[[str], Town]]:
    """Makes towns that are gone after the block."""
    with ExitStack() as made:
        yield lambda toml: made.enter_context(a_town(folder, redis_url, toml))
