"""The poke wave: one line typed into all live agents at once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import Pause, in_turn
from benchmarks.town import BenchTown
from gastown_mail.programs.library import built_in
from gastown_mail.programs.screen import Screen
from gastown_mail.sessions import commands
from gastown_mail.sessions.panes import PANE_FORMAT
from gastown_mail.sessions.session import Poke, Session, Sessions
from gastown_mail.sessions.typing import PASTE_PAUSE

NAME = "poke-wave"
WHAT = "Sessions.poke of one line to all agents at once, less the one pause between text and Enter"
BUFFER = "bench"
TEXT = "HEARTBEAT: check your work"
SHELL = built_in()["shell"]
LOOK = ("list-panes", "-a", "-F", PANE_FORMAT)
ROUNDS, BUDGET = 20, 20.0
SETTLE = 0.2
"""Seconds before each wave, in which tmux reads what the last one printed."""


def measure(bench: BenchTown) -> Figure:
    pause = Pause()
    sessions = Sessions(bench.town.sessions.tmux, sleep=pause)
    ours = [session for session in sessions.snapshot().values() if session.incarnation]
    wave = Wave(sessions, ours)
    look = [line for session in ours for line in commands.look(session.pane, "bench")]
    screens = sessions.screens(ours)
    bare = scripts(ours, bare_steps)
    fenced = scripts(ours, lambda session: fenced_steps(session, screens[session.name]))
    acts = (
        wave.poke,
        lambda: send(bench, bare, pause),
        lambda: send(bench, bare, pause, look),
        lambda: send(bench, fenced, pause, look),
    )
    measured, limit, with_looks, with_fence = in_turn(
        bench.rounds(ROUNDS), *map(pause.timed, acts), budget=BUDGET, rest=SETTLE
    )
    return Figure(
        NAME, WHAT, measured,
        limits=(
            Limit("two bare tmux calls, all paste-buffer in one, all send-keys Enter in the other", limit),
            Limit(
                "the same, with a list-panes -a and the screens of all panes before each step and at the end",
                with_looks, "with looks",
            ),
            Limit("the same, and each step of each pane behind its guard", with_fence, "with guards"),
        ),
        goals=(
            Goal("p50 / with guards", ratios(measured, with_fence)[0], 3.0),
            Goal("tmux processes", wave.most_processes, 12 + 6 * len(ours) / 100),
        ),
    )  # fmt: skip


class Wave:
    """Our own wave, and the most tmux processes that one wave has started."""

    def __init__(self, sessions: Sessions, ours: Sequence[Session]) -> None:
        self._sessions = sessions
        self._pokes = [Poke(session, TEXT, SHELL) for session in ours]
        self.most_processes = 0

    def poke(self) -> None:
        before = self._sessions.tmux.calls
        outcomes = set(map(str, self._sessions.poke(self._pokes).values()))
        self.most_processes = max(self.most_processes, self._sessions.tmux.calls - before)
        if outcomes != {"delivered"}:
            raise AssertionError(f"not all pokes were delivered: {', '.join(outcomes)}")


Steps = tuple[str, str]
"""The tmux commands that type the text into a pane, and that press Enter there."""


def bare_steps(session: Session) -> Steps:
    return f"paste-buffer -p -r -b {BUFFER} -t {session.pane}", f"send-keys -t {session.pane} Enter"


def fenced_steps(session: Session, screen: Screen) -> Steps:
    """The steps with the guard that compares a screen; its title and rows are taken from a look before."""
    seen = commands.unchanged(replace(screen, x=0, y=0), [])
    guard = commands.all_of(
        commands.typing_condition(session.incarnation, shell_seen=False), f"#{{||:{seen},1}}"
    )
    typing = commands.paste(session.pane, BUFFER, guard, in_mode=False)
    return typing, commands.press(session.pane, ["Enter"], guard, in_mode=False)


def scripts(ours: Sequence[Session], steps: Callable[[Session], Steps]) -> tuple[list[str], list[str]]:
    """Return all that is typed into these sessions as two scripts, made before the time is taken."""
    typing, entering = zip(*map(steps, ours), strict=True)
    around = f'set-buffer -b {BUFFER} -- "{TEXT}"', f"delete-buffer -b {BUFFER}"
    return [around[0], *typing, around[1]], list(entering)


def send(
    bench: BenchTown, steps: tuple[list[str], list[str]], pause: Pause, look: Sequence[str] = ()
) -> None:
    """Do the same with tmux alone, optionally with a look before each step and at the end."""
    for number, step in enumerate((*steps, [])):
        if number == 1:
            pause(PASTE_PAUSE)
        if look:
            bench.bare.run(*LOOK)
            bench.bare.script(look)
        if step:
            bench.bare.script(step)
