"""One session of an agent: look at it, start it, end it, read its screen. The fence is in every act.

Whatever is done to a session is done by the server to the one that carries the token, in the same step as the
check; what is done to processes is done to those that carry it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import ProcessesSurvived, SessionNotManaged, StartFailed, StateUnknown
from gastown_mail.sessions import commands, process_table, processes
from gastown_mail.sessions.commands import SessionSpec
from gastown_mail.sessions.panes import PANE_FORMAT, Session, group_sessions, parse_panes
from gastown_mail.sessions.poke import Poke, PokeOutcome, poke_all
from gastown_mail.sessions.process_table import Process
from gastown_mail.sessions.processes import is_shell
from gastown_mail.sessions.tmux import NoServer, TargetNotFound, Tmux, TmuxResult, variable_names

STARTUP_CHECK = 0.25
"""Seconds for which a new session's program must stay; its end is noticed at once."""
ENV_CACHE_SECONDS = 0.5
"""Seconds for which the names in the server's environment hold: an end and the start after it are one act."""

FAILED_START_GRACE = 1.0
LAST_LINES = 10

__all__ = ["Poke", "Session", "Sessions"]


class Sessions:
    """The sessions of one tmux server. All of it raises Unknown or TmuxMissing when tmux does not answer."""

    def __init__(
        self,
        tmux: Tmux,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.tmux = tmux
        self._sleep = sleep
        self._names: list[str] | None = None
        self._names_at = 0.0

    def snapshot(self) -> dict[str, Session]:
        """Return all sessions by name, ours or not, from one call; none when there is no server."""
        return _mark_zombies(group_sessions(self.tmux.panes()))

    def find(self, name: str) -> Session | None:
        """Return the session of exactly this name; None when there is certainly none."""
        if not commands.NAME.fullmatch(name):
            return self.snapshot().get(name)
        return self._find_target(commands.target_by_name(name))

    def start(
        self, agent: Agent, *, incarnation: str, generation: int, environ: Mapping[str, str], command: str
    ) -> Session:
        """Start `command` in a new session of the agent, at most once per generation, and see that it stays.

        The session's environment is `environ` over a clean one (`clean_environment`) and nothing else. Raises
        StartFailed with the reason when the generation was started before, when a session of that name exists
        (it is not touched), when the work dir is missing, or when the command ends at once (nothing of it
        stays).
        """
        spec = SessionSpec(
            agent, incarnation, generation, datetime.now(UTC), command, environ, base=self.tmux.environ
        )
        creation = commands.new_session(spec, self._server_names())
        look = commands.line(*commands.list_session(commands.target_by_name(agent.session), PANE_FORMAT))
        try:
            answer = self._ensured(lambda: self.tmux.script([creation, look], cwd=agent.work_dir))
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise StartFailed(
                f"the work dir of {agent.address} cannot be entered: {error}; create it, then start again"
            ) from None
        if "started" not in answer.lines:
            raise self._not_started(agent, incarnation, generation, answer)
        return self._wait_started(agent, incarnation, _session_in(answer.lines))

    def adopt(self, session: Session, agent: Agent, *, incarnation: str, generation: int) -> Session:
        """Make a session that a person started the agent's, from now on fenced by this token.

        Its processes do not carry the token, so `end` finds them as the family of its pane only. Raises
        StartFailed when it is gone or carries a token already.
        """
        spec = SessionSpec(agent, incarnation, generation, session.started_at)
        answer = self.tmux.script([commands.adopt(session.id, spec)])
        adopted = self._find_target(commands.target_by_id(session.id))
        if adopted is None or adopted.incarnation != incarnation:
            raise StartFailed(
                f"session {session.name} was not adopted: {answer.errors or 'it carries a token already'}"
            )
        return adopted

    def end(self, session: Session, *, grace: float) -> None:
        """End this very session and its whole tree of processes: SIGTERM, `grace` seconds, kill, SIGKILL.

        Harmless when it has ended or was replaced: then only what is left of it ends. Raises NotOurs for a
        session without token, SurvivorsLeft when something survives SIGKILL.
        """
        if not session.incarnation:
            raise SessionNotManaged(
                f"session {session.name} carries no token of ours and is left alone; adopt it first"
            )
        live = self._refind(session)
        agent_process = processes.child_of(live.server, live.pid) if live and not live.dead else None
        self._end_processes(session.incarnation, agent_process, live, grace)

    def end_orphans(self, incarnation: str, *, grace: float) -> None:
        """End the processes that still carry an incarnation whose session is gone. Raises SurvivorsLeft."""
        self._end_processes(incarnation, None, None, grace)

    def capture_screen(self, session: Session, lines: int = 50) -> str:
        """Return the screen's last lines, without blank ones at the end; "" when the session is gone."""
        try:
            text = self.tmux.run(*commands.capture(session.pane, lines))
        except (NoServer, TargetNotFound):
            return ""
        return "\n".join(text.rstrip().splitlines()[-lines:])

    def poke(self, pokes: Sequence[Poke]) -> dict[str, PokeOutcome]:
        """Type texts into sessions; return the outcomes by session name."""
        return poke_all(self.tmux, self.snapshot, pokes, sleep=self._sleep)

    def _ensured(self, ask: Callable[[], TmuxResult]) -> TmuxResult:
        """The answer of a server that is started first if there is none: it may have ended just now."""
        try:
            return ask()
        except NoServer:
            self.tmux.run(*commands.start_server())
            return ask()

    def _server_names(self) -> list[str]:
        """What the server's own environment holds: asked for now, or at an end of a session just before."""
        names, age = self._names, time.monotonic() - self._names_at
        return self.tmux.global_environment() if names is None or age > ENV_CACHE_SECONDS else names

    def _find_target(self, target: str) -> Session | None:
        try:
            text = self.tmux.run(*commands.list_session(target, PANE_FORMAT))
        except (NoServer, TargetNotFound):
            return None
        return _session_in(text.split("\n"))

    def _refind(self, session: Session) -> Session | None:
        found = self._find_target(commands.target_by_id(session.id))
        return found if found is not None and found.incarnation == session.incarnation else None

    def _end_processes(
        self, incarnation: str, agent_process: Process | None, live: Session | None, grace: float
    ) -> None:
        root = {agent_process} if agent_process else set()
        server = live.server if live else self.tmux.server_pid()

        def kill_session() -> None:
            if live is not None:
                self._kill(live)

        survivors = processes.terminate_all(
            lambda: processes.with_incarnation(incarnation) | root,
            grace=grace,
            exclude={server},
            # The end of a shell around the agent would hang up on the agent, whatever its grace.
            terminate_last={process for process in root if is_shell(process_table.arguments(process.pid))},
            before_kill=kill_session,
        )
        if survivors:
            raise ProcessesSurvived(
                f"processes of incarnation {incarnation} survived SIGKILL: {processes.describe(survivors)}; "
                "end them by hand, then try again"
            )

    def _kill(self, session: Session) -> None:
        kill = commands.kill(session.id, session.incarnation)
        look = commands.list_session(commands.target_by_id(session.id), PANE_FORMAT)
        began = time.monotonic()
        answer = self.tmux.run_raw([*commands.show_global_environment(), ";", *kill, ";", *look])
        error = self.tmux.to_error(answer) if answer.status else None
        if isinstance(error, NoServer):
            return
        if error is not None and not isinstance(error, TargetNotFound):
            raise error
        ours = [number for number, row in enumerate(answer.lines) if row in commands.MARKERS]
        self._names, self._names_at = variable_names(answer.lines[: ours[-1]]) if ours else None, began
        left = _session_in(answer.lines[ours[-1] + 1 :]) if ours else None
        if left is not None and left.incarnation == session.incarnation:
            raise StateUnknown(f"tmux did not remove session {session.name} ({session.id}); look again")

    def _wait_started(self, agent: Agent, incarnation: str, session: Session | None) -> Session:
        if session is not None and not session.dead:
            program = processes.child_of(session.server, session.pid)
            processes.wait_ended({program} if program else (), timeout=STARTUP_CHECK)
            session = self._find_own(agent.session, incarnation)
        if session is None or session.dead:
            raise self._ended_at_once(agent, incarnation, session)
        return session

    def _find_own(self, name: str, incarnation: str) -> Session | None:
        found = self.find(name)
        return found if found is not None and found.incarnation == incarnation else None

    def _ended_at_once(self, agent: Agent, incarnation: str, session: Session | None) -> StartFailed:
        if session is None:
            self.end_orphans(incarnation, grace=FAILED_START_GRACE)
            return StartFailed(
                f"the session of {agent.address} vanished right after its start; start it again"
            )
        if session.exit_status is None:
            self.tmux.run(*commands.reap_children())
            session = self._find_own(agent.session, incarnation) or session
        screen = [
            row for row in self.capture_screen(session, 2 * commands.HEIGHT).splitlines() if row.strip()
        ]
        self.end(session, grace=FAILED_START_GRACE)
        return StartFailed(
            f"the command of {agent.address} ended at once with status {session.exit_status}; "
            f"run it by hand in {agent.work_dir} to see why. Its last lines:\n"
            + "\n".join(screen[-LAST_LINES:])
        )

    def _not_started(
        self, agent: Agent, incarnation: str, generation: int, answer: TmuxResult
    ) -> StartFailed:
        if "stale" in answer.lines:
            return StartFailed(
                f"generation {generation} of session {agent.session} is not newer than the last one started: "
                "somebody else started it; look at what lives now"
            )
        half_made = self._find_own(agent.session, incarnation)
        if half_made is not None:
            self.end(half_made, grace=FAILED_START_GRACE)
        return StartFailed(
            f"tmux did not start session {agent.session}: {answer.errors or 'it does not say why'}; "
            "look at what lives now, then start again"
        )


def _session_in(lines: Iterable[str]) -> Session | None:
    """The session that these lines describe, besides our own words. Raises Unknown for anything else."""
    panes = parse_panes("\n".join(row for row in lines if row not in commands.MARKERS))
    return next(iter(_mark_zombies(group_sessions(panes)).values()), None)


def _mark_zombies(sessions: dict[str, Session]) -> dict[str, Session]:
    # tmux may not have noticed that a program ended: 3.3a misses a SIGCHLD now and then, and a detached child
    # that holds the terminal then keeps the pane looking alive.
    return {
        name: replace(session, dead=True) if process_table.is_zombie(session.pid, session.server) else session
        for name, session in sessions.items()
    }
