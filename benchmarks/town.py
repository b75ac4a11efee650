"""The town in which everything is measured: live agents in a real tmux, a real Redis, and the daemon."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import psutil

from benchmarks import crowd
from benchmarks.bare import PROGRAM, Bare
from benchmarks.bell import Bell
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.lifecycle import FINAL_STATUSES
from gastown_mail.contracts.settings import Settings
from gastown_mail.plumbing.embedded import ensure_server
from gastown_mail.town.town import Town
from tests.support.daemon import Daemon
from tests.support.town import element, end_town, write_town
from tests.support.wait import DEADLINE, eventually

DEAF = "deaf"
"""The agent that ignores SIGTERM; it has no session until a measure starts it."""

TOWN = """
[daemon]
tmux_socket = "{folder}/tmux"
heartbeat_interval = "1h"
fresh_after = 1
[roles.crew]
command = "echo {{name}} > {folder}/bell; {program}"
work_dir = "."
poke = "HEARTBEAT: check your work"
[agents."town/crew/deaf"]
command = "trap '' TERM; echo {{name}} > {folder}/bell; {program}"
stop_grace = 60
"""


def address(name: str) -> str:
    """Return the address of the agent of that name."""
    return f"town/crew/{name}"


class BenchTown:
    """`names` are the live agents. Parts start when a measure needs them; nothing is left at the end."""

    def __init__(self, agents: int, *, quick: bool, cleanup: ExitStack) -> None:
        self.quick = quick
        self.names = [f"a{number:04}" for number in range(1, agents + 1)]
        self._cleanup, self._is_served = cleanup, False
        self.folder = Path(tempfile.mkdtemp(prefix="gb-")).resolve()
        cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.settings = self.new_town(self._toml(agents))

    def rounds(self, full: int) -> int:
        """Return how many rounds a measure takes: `full`, or a tenth of it in a quick run."""
        return max(2, full // 10) if self.quick else full

    def new_town(self, toml: str) -> Settings:
        """Make another town in a folder of its own; nothing of it is left at the end."""
        settings = write_town(self.folder, toml)
        self._cleanup.callback(end_town, settings)
        return settings

    @cached_property
    def redis_url(self) -> str:
        """The embedded server of the town."""
        return ensure_server(self.settings.redis_dir)

    @cached_property
    def town(self) -> Town:
        """The town in this process, its agents live and idle."""
        town = self.open()
        bell, agents = self.bell, town.roster().agents
        town.state.mark_started(os.getpid(), datetime.now(UTC))
        crowd.start(town, [agents[address(name)] for name in self.names])
        bell.wait(self.names)
        return town

    @cached_property
    def bell(self) -> Bell:
        bell = Bell(self.folder / "bell")
        self._cleanup.callback(bell.close)
        return bell

    @cached_property
    def bare(self) -> Bare:
        return Bare(self.town, self.bell)

    def serve(self) -> None:
        """Run the town's daemon beside this process from now on; return after its first heartbeat."""
        if not self._is_served:
            self._cleanup.enter_context(running_daemon(self.town.settings))
            self._is_served = True

    def open(self) -> Town:
        """Open the town with empty caches and a connection of its own."""
        town = Town.open(self.settings, self.redis_url, blocking=5.0)
        self._cleanup.callback(town.redis.close)
        return town

    @contextmanager
    def with_only(self, agents: int) -> Iterator[None]:
        """Name only the first agents in the roster inside the block; all sessions live on."""
        file = self.settings.town_root / "town.toml"
        file.write_text(self._toml(agents))
        try:
            yield
        finally:
            file.write_text(self._toml(len(self.names)))

    def ask(self, names: Sequence[str], action: str = "cycle") -> list[str]:
        """Push a request of each of these agents in one round trip; return the ids."""
        ids = [f"bench-{os.urandom(8).hex()}" for _ in names]
        elements = [element(address(name), action, id=i) for name, i in zip(names, ids, strict=True)]
        self.town.redis.rpush(self.town.keys.inbox, *elements)
        return ids

    def settled(self, ids: Sequence[str], deadline: float = 300.0) -> None:
        """Wait until all of these are done. Raises StateUnknown when one has ended otherwise."""
        requests = self.town.requests

        def final() -> list[str]:
            statuses = [record.get("status", "") for record in requests.records(ids)]
            return statuses if all(status in FINAL_STATUSES for status in statuses) else []

        if other := set(eventually(final, deadline=deadline)) - {"done"}:
            raise StateUnknown(f"requests ended as {', '.join(other)}: what was measured is not a cycle")

    def _toml(self, agents: int) -> str:
        head = TOWN.format(folder=self.folder, program=PROGRAM)
        return head + "".join(f'[agents."{address(name)}"]\n' for name in self.names[:agents])


@contextmanager
def bench_town(agents: int, *, quick: bool) -> Iterator[BenchTown]:
    """A town of that many live agents."""
    crowd.require_room(agents)
    with ExitStack() as cleanup:
        yield BenchTown(agents, quick=quick, cleanup=cleanup)


@contextmanager
def running_daemon(settings: Settings) -> Iterator[psutil.Process]:
    """`gastown-mail up` with all its processes, from its first heartbeat on."""
    daemon = Daemon(settings, quiet=True)
    try:
        up = daemon.up()
        eventually(lambda: daemon.state().heartbeat_count > 0, deadline=DEADLINE)
        yield psutil.Process(up.pid)
        daemon.stop()
    finally:
        daemon.close()
