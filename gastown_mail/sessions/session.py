"""The sessions of one tmux server: find, start, end, poke them, read their screens; always fenced.

The server checks a session's token in the same step in which it acts on the session; only processes that
have the token are signalled.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import ProcessesSurvived, SessionNotManaged, StartFailed, StateUnknown
from gastown_mail.contracts.shared_daemons import SHARED_DAEMONS
from gastown_mail.plumbing.clock import Clock
from gastown_mail.programs.screen import Screen
from gastown_mail.sessions import commands, process_table, processes
from gastown_mail.sessions.commands import SessionSpec
from gastown_mail.sessions.foreground import is_shell
from gastown_mail.sessions.look import read_screens
from gastown_mail.sessions.panes import (
    GENERATION,
    PANE_FORMAT,
    SIGNALLED,
    Session,
    Snapshot,
    group_sessions,
    parse_panes,
)
from gastown_mail.sessions.poke import Poke, PokeOutcome
from gastown_mail.sessions.shared_daemons import SharedDaemons
from gastown_mail.sessions.tmux import NoServer, TargetNotFound, Tmux, TmuxResult, variable_names
from gastown_mail.sessions.typing import type_pokes

_LOCAL = Clock()

_STARTUP_CHECK = 0.25
"""Seconds for which a new session's program must stay alive; its end is noticed at once."""

_ENV_CACHE_SECONDS = 0.5
"""Seconds for which the names in the server's environment are kept, for an end and the start after it."""

_FAILED_START_GRACE = 1.0
_LAST_LINES = 10
_TMUX_SAYS = "Pane is dead ("
LAST_LINES = ". Its last lines:"

__all__ = ["Poke", "Session", "Sessions"]


class Sessions:
    """The sessions of one tmux server. Methods raise StateUnknown or TmuxMissing if tmux gives no answer.

    `town` is the id of the town whose agents live there, "" if it has none yet.
    """

    def __init__(
        self, tmux: Tmux, *, town: str = "", spare: Sequence[str] = SHARED_DAEMONS,
        clock: Clock = _LOCAL, sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self.tmux, self.town, self._spare, self.clock = tmux, town, spare, clock
        self._sleep = sleep
        self._names: list[str] | None = None
        self._names_at = 0.0

    def snapshot(self) -> Snapshot:
        """Return all sessions by key, managed or not, from one call; empty when there is no server."""
        return self._look()

    def end_empty_server(self) -> None:
        """End the tmux server if no program lives on it, an agent's or a person's."""
        with suppress(NoServer):
            self.tmux.run(*commands.end_empty_server())

    def find(self, agent: Agent) -> Session | None:
        """Return the agent's session, as `Snapshot.of` does; None when this server certainly has none."""
        return self._look(commands.is_agents(agent)).of(agent, self.town)

    def with_token(self, incarnation: str) -> Session | None:
        """Return the session of this incarnation, whatever its name; None when there is certainly none."""
        found = self._look(commands.is_incarnation(incarnation)).values()
        return next((one for one in found if one.incarnation == incarnation), None)

    def last_generation(self, agent: Agent) -> int | None:
        """Return the greatest generation of the agent's session name; None if the server's option is none."""
        try:
            text = self.tmux.run(*commands.show_last_generation(agent.session)).strip()
        except NoServer:
            return 0
        return int(text or 0) if GENERATION.fullmatch(text or "0") else None

    def start(
        self, agent: Agent, *, incarnation: str, generation: int, environ: Mapping[str, str], command: str
    ) -> Session:
        """Start `command` in a new session, at most once per generation, and check that it stays.

        The session's environment is `environ` over a clean one (`clean_environment`), nothing else. Raises
        StartFailed if the generation was started before, if a session of that name exists (it is not
        touched), if the work dir is missing, or if the command ends at once (nothing is left of it).
        """
        spec = SessionSpec(
            agent,
            incarnation,
            generation,
            self.clock.now(),
            self.town,
            command,
            environ,
            base=self.tmux.environ,
        )
        session = self._create(spec)
        if session is not None and not session.dead:
            program = processes.child_of(session.server, session.pid)
            processes.wait_ended({program} if program else (), timeout=_STARTUP_CHECK)
            session = self.with_token(spec.incarnation)
        if session is None or session.dead:
            raise self._ended_at_once(spec, session)
        return session

    def adopt(self, session: Session, agent: Agent, *, incarnation: str, generation: int) -> Session:
        """Make a session that a person started the agent's; from now on this token fences it.

        Its processes do not have the token, so `end` finds only the descendants of its pane. Raises
        StartFailed if the session is gone or already has a token.
        """
        spec = SessionSpec(agent, incarnation, generation, session.started_at, self.town)
        answer = self.tmux.script([commands.adopt(session.id, spec)])
        adopted = self.with_token(incarnation)
        if adopted is None or adopted.incarnation != incarnation:
            reason = answer.errors or "it is managed already"
            raise StartFailed(f"session {session.name} was not adopted: {reason}")
        return adopted

    def end(self, session: Session, *, grace: float, command: str = "") -> str:
        """End exactly this session and its process tree: SIGTERM, `grace` seconds, kill-session, SIGKILL.

        If it has ended or was replaced, only what remains of it ends. Returns the names and pids of the
        shared daemons that were spared, "" if there are none; what the agent's own `command` names is not
        one. Raises SessionNotManaged for a session without a token, ProcessesSurvived if something survives
        SIGKILL.
        """
        if not session.incarnation:
            raise SessionNotManaged(
                f"session {session.name} is not managed and was not ended; adopt it first"
            )
        live = self.with_token(session.incarnation)
        return str(self._end_processes(session.incarnation, live, grace, command))

    def end_orphans(self, incarnation: str, *, grace: float, command: str = "") -> str:
        """End the processes of an incarnation whose session is gone; `command` and the errors as for `end`.

        Returns the shared daemons that were spared; "" too if nothing else was left, because they were named
        when the rest ended.
        """
        spare = self._end_processes(incarnation, None, grace, command)
        return "" if spare.alone else str(spare)

    def capture_screen(self, session: Session, lines: int = 50) -> str:
        """Return the last lines of the screen without trailing blank ones; "" when the session is gone."""
        try:
            text = self.tmux.run(*commands.capture(session.pane, lines))
        except (NoServer, TargetNotFound):
            return ""
        return "\n".join(text.rstrip().splitlines()[-lines:])

    def poke(self, pokes: Sequence[Poke]) -> dict[str, PokeOutcome]:
        """Type texts into sessions; return the outcomes by the sessions' keys."""
        return type_pokes(self.tmux, self.snapshot, pokes, clock=self.clock, sleep=self._sleep)

    def screens(self, sessions: Iterable[Session]) -> dict[str, Screen]:
        """Return what these sessions show, by their keys; without those that are gone.

        Those that have ended show one row more: tmux pushes a row up to write that the program has ended.
        """
        own = list(sessions)
        panes = {session.key: session.pane for session in own}
        screens = read_screens(self.tmux, [session.pane for session in own if not session.dead])
        screens |= read_screens(self.tmux, [one.pane for one in own if one.dead and one.pid], above=1)
        return {key: screens[pane] for key, pane in panes.items() if pane in screens}

    def _create(self, spec: SessionSpec) -> Session | None:
        """Create the session and return it as it was right after; None when it was gone already."""
        names, age = self._names, time.monotonic() - self._names_at
        if names is None or age > _ENV_CACHE_SECONDS:
            names = self.tmux.global_environment()
        look = commands.list_session(commands.target_by_name(spec.agent.session), PANE_FORMAT)
        script = [commands.new_session(spec, names), commands.line(*look)]
        try:
            answer = self._run_script(script, spec)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise StartFailed(
                f"the work dir of {spec.agent.address} cannot be entered: {error}; create it, then try again"
            ) from None
        if "started" not in answer.lines:
            raise self._not_started(spec, answer)
        return self._only_session(answer.lines)

    def _run_script(self, script: Sequence[str], spec: SessionSpec) -> TmuxResult:
        """Run a script in the spec's work dir, on a server that is started first if it has just ended."""
        try:
            return self.tmux.script(script, cwd=spec.agent.work_dir)
        except NoServer:
            self.tmux.run(*commands.start_server())
            return self.tmux.script(script, cwd=spec.agent.work_dir)

    def _look(self, condition: str = "1") -> Snapshot:
        """Return the sessions of the panes for which this holds; of all without a condition."""
        try:
            text = self.tmux.run(*commands.list_all(PANE_FORMAT, condition))
        except (NoServer, TargetNotFound):
            return Snapshot()
        return self._read(text)

    def _read(self, text: str) -> Snapshot:
        return _mark_zombies(group_sessions(parse_panes(text, self.clock)))

    def _only_session(self, lines: Iterable[str]) -> Session | None:
        """Return the session in these lines, which may hold markers too. Raises StateUnknown for others."""
        sessions = self._read("\n".join(row for row in lines if row not in commands.MARKERS))
        return next(iter(sessions.values()), None)

    def _end_processes(
        self, incarnation: str, live: Session | None, grace: float, command: str
    ) -> SharedDaemons:
        agent_process = processes.child_of(live.server, live.pid) if live and not live.dead else None
        root = {agent_process} if agent_process else set()
        server = live.server if live else self.tmux.server_pid()
        spare = SharedDaemons(self._spare, command=command)

        def kill_session() -> None:
            if live is not None:
                self._kill(live)

        survivors = processes.terminate_all(
            lambda: processes.with_incarnation(incarnation) | root,
            grace=grace,
            exclude={server},
            # The end of a shell around the agent would hang up on the agent, whatever its grace.
            terminate_last={p for p in root if is_shell(process_table.arguments(p.pid))},
            before_kill=kill_session,
            spare=spare,
        )
        if survivors:
            raise ProcessesSurvived(
                f"processes of incarnation {incarnation} survived SIGKILL: {processes.describe(survivors)}; "
                "end them by hand, then try again"
            )
        return spare

    def _kill(self, session: Session) -> None:
        if session.moved or self._has_guests(session):
            self._kill_pane(session)
            return
        kill = commands.kill(session.id, session.incarnation)
        look = commands.list_all(PANE_FORMAT, commands.is_incarnation(session.incarnation))
        began = time.monotonic()
        answer = self.tmux.run_raw([*commands.show_global_environment(), ";", *kill, ";", *look])
        error = self.tmux.to_error(answer) if answer.status else None
        if isinstance(error, NoServer):
            return
        if error is not None and not isinstance(error, TargetNotFound):
            raise error
        markers = [number for number, row in enumerate(answer.lines) if row in commands.MARKERS]
        self._names = variable_names(answer.lines[: markers[-1]]) if markers else None
        self._names_at = began
        if markers and (left := self._only_session(answer.lines[markers[-1] + 1 :])) is not None:
            # a person's session shares its windows
            self._kill_pane(left)

    def _has_guests(self, session: Session) -> bool:
        """Return whether programs that are not the agent's live in other panes of its session."""
        if not session.shared:
            return False
        pids = self.tmux.run(*commands.list_session(commands.target_by_id(session.id), "#{pane_pid}"))
        own = {process.pid for process in processes.with_incarnation(session.incarnation)} | {session.pid}
        others = {int(pid) for pid in pids.split()} - own
        return any(process_table.read_process(pid) for pid in others)

    def _kill_pane(self, session: Session) -> None:
        """End only the agent's pane; what is left of its session is a person's, and gives up its name."""
        home = session.home or session.id
        for command in (
            commands.kill_pane(session.pane, session.incarnation),
            commands.release(home, session.incarnation),
        ):
            answer = self.tmux.run_raw(command)
            error = self.tmux.to_error(answer) if answer.status else None
            if error is not None and not isinstance(error, NoServer | TargetNotFound):
                raise error
        if self.with_token(session.incarnation) is not None:
            raise StateUnknown(f"tmux did not remove pane {session.pane} of {session.name}; try again")

    def _ended_at_once(self, spec: SessionSpec, session: Session | None) -> StartFailed:
        """Remove what is left of a start whose session has ended; return the error that describes it."""
        agent = spec.agent
        if session is None:
            spared = self.end_orphans(spec.incarnation, grace=_FAILED_START_GRACE, command=spec.command)
            return StartFailed(
                f"the session of {agent.address} vanished right after its start; start it again"
                + _still_running(spared)
            )
        if session.exit_status is None:
            self.tmux.run(*commands.reap_children())
            session = self.with_token(spec.incarnation) or session
        screen = self.capture_screen(session, 2 * commands.HEIGHT).splitlines()
        last = [row for row in screen if row.strip() and not row.startswith(_TMUX_SAYS)][-_LAST_LINES:]
        spared = self.end(session, grace=_FAILED_START_GRACE, command=spec.command)
        return StartFailed(
            f"the command of {agent.address} ended at once with status {_exit_words(session.exit_status)}; "
            f"run it by hand in {agent.work_dir} to see why{_still_running(spared)}"
            + (LAST_LINES + "\n" + "\n".join(last) if last else "")
        )

    def _not_started(self, spec: SessionSpec, answer: TmuxResult) -> StartFailed:
        """Remove a half-made session; return the error that tells why nothing was started."""
        name = spec.agent.session
        if "stale" in answer.lines:
            return StartFailed(
                f"generation {spec.generation} of session {name} is not newer than the last one started: "
                "another process has started the session; see gastown-mail status"
            )
        half_made = self.with_token(spec.incarnation)
        if half_made is not None:
            self.end(half_made, grace=_FAILED_START_GRACE, command=spec.command)
        return StartFailed(
            f"tmux did not start session {name}: {answer.errors or 'it gives no reason'}; "
            "see gastown-mail status, then start it again"
        )


def _exit_words(status: int | None) -> str:
    """Return an exit status with the signal that it stands for."""
    by_signal = (status or 0) - SIGNALLED
    return f"{status} (signal {by_signal})" if by_signal > 0 else str(status)


def _still_running(spared: str) -> str:
    """Return what to say about the shared daemons that a failed start has left."""
    return f"; it started shared daemons, which still run: {spared}" if spared else ""


def _mark_zombies(sessions: Snapshot) -> Snapshot:
    # tmux may not have noticed that a program ended: 3.3a sometimes misses a SIGCHLD, and a detached child
    # that holds the terminal then keeps the pane looking alive.
    return Snapshot(
        (key, _mark_dead(session) if process_table.is_zombie(session.pid, session.server) else session)
        for key, session in sessions.items()
    )


def _mark_dead(session: Session) -> Session:
    status = session.exit_status
    return replace(
        session, dead=True, exit_status=process_table.zombie_status(session.pid) if status is None else status
    )
