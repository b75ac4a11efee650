"""A town on whose real sessions requests are carried out in the test's own process."""

import contextlib
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.request import decode_element
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import carry_out
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.sessions import process_table
from gastown_mail.sessions.session import Session, Sessions
from gastown_mail.sessions.tmux import Tmux
from gastown_mail.town.records import AgentRecord, Desired
from gastown_mail.town.town import Town
from tests.towns import element
from tests.waiting import eventually

MAX, MAXINE, WITNESS, DEACON = "gastown/crew/max", "gastown/crew/maxine", "gastown/witness", "deacon/"

RECORDER = (
    """sh -c 'echo $$ >> starts; env -0 > env.part; mv env.part env; printf %s "$1" > prompt.part;"""
    """ mv prompt.part prompt; while read line; do echo "$line" >> lines; done' sh {prompt}"""
)
"""An agent that leaves in its work dir what it was given and what it is told; it ends on SIGTERM at once."""

DEAF_RECORDER = RECORDER.replace("sh -c '", "sh -c 'trap : TERM; ", 1).replace(
    'while read line; do echo "$line" >> lines; done', "while :; do sleep 0.1; done"
)
"""An agent that lives through SIGTERM until its grace is over."""

RECORDED = f"""
[daemon]
restart_backoff = 0
[roles.crew]
command = '''{RECORDER}'''
work_dir = "work/{{name}}"
stop_grace = 2
[roles.witness]
command = '''{RECORDER}'''
work_dir = "work/witness"
poke = "HEARTBEAT: check your workers"
[roles.deacon]
command = '''{RECORDER}'''
work_dir = "work/deacon"
poke = ""
[agents."gastown/crew/max"]
[agents."gastown/crew/maxine"]
[agents."gastown/witness"]
"""

WITH_DEACON = RECORDED + '[agents."deacon/"]\n'


class Stage:
    """What a test does to one town, and what it sees there."""

    def __init__(self, town: Town) -> None:
        self.town = town
        town.state.mark_started(os.getpid(), datetime.now(UTC))
        for agent in town.roster().agents.values():
            agent.work_dir.mkdir(parents=True, exist_ok=True)

    def agent(self, address: str = MAX) -> Agent:
        return self.town.roster().agents[address]

    def start(self, address: str = MAX) -> Session:
        """Start the agent as an operator would."""
        jobs.serving.set(self.town)
        if self.town.agents.read(address).desired is Desired.STOPPED:
            self.town.desired.set(address, Desired.RUNNING)
        answer = jobs.start(address, "a test wants it", "test")
        assert answer.startswith("started"), answer
        return self.living(address)

    def session(self, address: str = MAX) -> Session | None:
        return self.town.sessions.find(self.agent(address).session)

    def living(self, address: str = MAX) -> Session:
        """The agent's session, which must be alive."""
        session = self.session(address)
        assert session is not None, f"{address} has no session"
        assert not session.dead, f"{address} has ended"
        assert process_table.read_process(session.pid) is not None
        return session

    def ask(self, action: str, sender: str = MAX, **more: object) -> str:
        """Have the clerk book a request; its id."""
        return self.book(element(sender, action, **more))

    def book(self, wish: bytes) -> str:
        Clerk(self.town).accept([wish])
        return decode_element(wish)[0]

    def carry_out(self, action: str, sender: str = MAX, **more: object) -> tuple[str, str]:
        """Ask and have it carried out; the status and the reason."""
        ident = self.ask(action, sender, **more)
        status = carry_out.carry_out_request(self.town, ident)
        return status, self.detail(ident)

    def again(self, ident: str) -> str:
        return carry_out.carry_out_request(self.town, ident)

    def status(self, ident: str) -> str:
        return self.town.requests.record(ident)["status"]

    def detail(self, ident: str) -> str:
        return self.town.requests.record(ident).get("detail", "")

    def record(self, address: str = MAX) -> AgentRecord:
        return self.town.agents.read(address)

    def wrote(self, name: str, address: str = MAX) -> Path:
        """The file of that name in the agent's work dir, as soon as it is there."""
        path = self.agent(address).work_dir / name
        eventually(path.exists)
        return path

    def environ(self, address: str = MAX) -> dict[str, str]:
        """The environment that the agent found."""
        text = self.wrote("env", address).read_text()
        return dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    def wait_for_incarnation(self, session: Session, address: str = MAX) -> None:
        """Until the agent has written down that it runs in this session."""
        eventually(lambda: self.environ(address)["GASTOWN_INCARNATION"] == session.incarnation)

    def forget_what_was_written(self, address: str = MAX) -> None:
        """So that only the next session's files are seen."""
        for name in ("env", "prompt"):
            self.wrote(name, address).unlink()

    @contextlib.contextmanager
    def tmux_stopped(self, server: int, deadline: float = 0.5) -> Iterator[None]:
        """Have a tmux server that does not answer; calls wait no longer than `deadline`."""
        patient = self.town.sessions
        self.town.sessions = Sessions(
            Tmux(self.town.settings.tmux_socket, deadline=deadline, environ=os.environ)
        )
        os.kill(server, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)
            self.town.sessions = patient


def identity(session: Session) -> tuple[str, int, str]:
    """What stays the same as long as a session is not replaced."""
    return session.id, session.pid, session.incarnation


def gone(pid: int) -> bool:
    """Nothing lives under this pid."""
    return process_table.read_process(pid) is None
