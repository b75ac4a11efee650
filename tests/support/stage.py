"""A town without a daemon: requests are carried out in the test's own process, on real sessions."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gastown_mail.contracts.request import decode_element
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import carry_out
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.town.records import Desired
from gastown_mail.town.town import Town
from tests.support.agents import MAX
from tests.support.processes import stopped
from tests.support.town import TownUnderTest
from tests.support.wait import eventually


class Stage(TownUnderTest):
    """A town in which the test does the work of the clerk and of the workers."""

    def __init__(self, town: Town) -> None:
        super().__init__(town)
        town.state.mark_started(os.getpid(), datetime.now(UTC))

    def run(self, address: str = MAX) -> Session:
        """Start the agent as an operator would."""
        jobs.serving.set(self.town)
        if self.record(address).desired is Desired.STOPPED:
            self.town.desired.set(address, Desired.RUNNING)
        answer = jobs.start(address, "a test wants it", "test")
        assert answer.startswith("started"), answer
        return self.living(address)

    def push(self, raw: bytes) -> str:
        """Have the clerk accept an element; return its request's id."""
        Clerk(self.town).accept([raw])
        return decode_element(raw)[0]

    def carry_out(self, action: str, sender: str = MAX, **more: object) -> tuple[str, str]:
        """Send a request and carry it out; return its status and detail."""
        ident = self.ask(action, sender, **more)
        return self.again(ident), self.detail(ident)

    def again(self, ident: str) -> str:
        """Carry out a request that was sent before; return its status."""
        return carry_out.carry_out_request(self.town, ident)

    def wrote(self, name: str, address: str = MAX) -> Path:
        """Wait until the agent has written this file; return its path."""
        path = self.work(name, address)
        eventually(path.exists)
        return path

    def wait_until_quiet(self, address: str = MAX) -> None:
        """Wait until the agent's program has printed nothing for a while: only then may it be poked."""
        eventually(lambda: datetime.now(UTC) - self.living(address).activity > timedelta(seconds=1.5))

    def environ(self, address: str = MAX) -> dict[str, str]:
        """Return the agent's environment."""
        text = self.wrote("env", address).read_text()
        return dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    def wait_for_incarnation(self, session: Session, address: str = MAX) -> None:
        """Wait until the agent has written that it runs in this session."""
        eventually(lambda: self.environ(address)["GASTOWN_INCARNATION"] == session.incarnation)

    def forget_what_was_written(self, address: str = MAX) -> None:
        """Delete what the agent has written, so that only the next session's files are there."""
        for name in ("env", "prompt"):
            self.wrote(name, address).unlink()

    @contextmanager
    def tmux_stopped(self, server: int, deadline: float = 0.5) -> Iterator[None]:
        """Stop the tmux server inside the block; calls wait at most `deadline` seconds for it."""
        patient = self.town.sessions
        self.town.sessions = Sessions(Tmux(self.settings.tmux_socket, deadline=deadline, environ=os.environ))
        try:
            with stopped(server):
                yield
        finally:
            self.town.sessions = patient
