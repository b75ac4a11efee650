"""The town on which all is measured: live agents in a real tmux, a real Redis, and the daemon."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from benchmarks import crowd
from benchmarks.bare import PROGRAM, Bare
from benchmarks.bell import Bell
from benchmarks.processes import end_town, running_daemon
from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.contracts.lifecycle import FINAL_STATUSES
from gastown_mail.contracts.settings import Settings
from gastown_mail.plumbing.embedded import ensure_server
from gastown_mail.town.town import Town
from tests.support.town import element, write_town
from tests.support.wait import eventually

DEAF = "deaf"
"""The agent that ignores SIGTERM; it has no session until somebody asks for one."""

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
    """The address of the agent of that name."""
    return f"town/crew/{name}"


class Stage:
    """`names` are the live agents. What no measure uses is not started; all of it is gone at the end."""

    def __init__(self, agents: int, *, quick: bool, cleanup: ExitStack) -> None:
        self.quick = quick
        self.names = [f"a{number:04}" for number in range(1, agents + 1)]
        self._cleanup, self._is_served = cleanup, False
        self.folder = Path(tempfile.mkdtemp(prefix="gb-")).resolve()
        cleanup.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.settings = self.new_town(self._toml(agents))

    def rounds(self, full: int) -> int:
        """How many rounds a measure takes: `full`, or a tenth of it when it must be quick."""
        return max(2, full // 10) if self.quick else full

    def new_town(self, toml: str) -> Settings:
        """Another town in a folder of its own, of which nothing is left at the end."""
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
        """Have the town's daemon run beside this process from now on, its first heartbeat done."""
        if not self._is_served:
            self._cleanup.enter_context(running_daemon(self.town.settings))
            self._is_served = True

    def open(self) -> Town:
        """A town in this process with nothing remembered and a connection of its own."""
        town = Town.open(self.settings, self.redis_url, blocking=5.0)
        self._cleanup.callback(town.redis.close)
        return town

    @contextmanager
    def with_only(self, agents: int) -> Iterator[None]:
        """Have the roster name just the first of the agents inside the block; their sessions all live on."""
        file = self.settings.town_root / "town.toml"
        file.write_text(self._toml(agents))
        try:
            yield
        finally:
            file.write_text(self._toml(len(self.names)))

    def ask(self, names: Sequence[str], action: str = "cycle") -> list[str]:
        """Have all of these agents ask at once, in one round trip; the ids."""
        ids = [f"bench-{os.urandom(8).hex()}" for _ in names]
        wishes = [element(address(name), action, id=i) for name, i in zip(names, ids, strict=True)]
        self.town.redis.rpush(self.town.keys.inbox, *wishes)
        return ids

    def settled(self, ids: Sequence[str], deadline: float = 300.0) -> None:
        """Wait until all of these are done. Raises Unknown when one has ended otherwise."""
        requests = self.town.requests

        def final() -> list[str]:
            said = [record.get("status", "") for record in requests.records(ids)]
            return said if all(status in FINAL_STATUSES for status in said) else []

        if other := set(eventually(final, deadline=deadline)) - {"done"}:
            raise StateUnknown(f"requests ended as {', '.join(other)}: what was measured is no cycle")

    def _toml(self, agents: int) -> str:
        head = TOWN.format(folder=self.folder, program=PROGRAM)
        return head + "".join(f'[agents."{address(name)}"]\n' for name in self.names[:agents])


@contextmanager
def a_stage(agents: int, *, quick: bool) -> Iterator[Stage]:
    """A stage of that many live agents."""
    crowd.require_room(agents)
    with ExitStack() as cleanup:
        yield Stage(agents, quick=quick, cleanup=cleanup)
