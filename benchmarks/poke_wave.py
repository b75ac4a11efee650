"""The poke wave: one line typed into all live agents at once."""

from collections.abc import Sequence

from benchmarks.figures import Figure, Goal, Limit, ratios
from benchmarks.sampling import Pause, in_turn
from benchmarks.stage import Stage
from gastown_mail.sessions.panes import PANE_FORMAT
from gastown_mail.sessions.poke import PASTE_PAUSE
from gastown_mail.sessions.session import Poke, Session, Sessions

NAME = "poke-wave"
WHAT = "Sessions.poke of one line to all agents at once, less the one pause between text and Enter"
TEXT = "HEARTBEAT: check your work"
LOOK = ("list-panes", "-a", "-F", PANE_FORMAT)
ROUNDS, BUDGET = 20, 20.0
SETTLE = 0.2
"""Seconds before each wave in which tmux takes in what the last one has printed."""


def measure(stage: Stage) -> Figure:
    pause = Pause()
    sessions = Sessions(stage.town.sessions.tmux, sleep=pause)
    ours = [session for session in sessions.snapshot().values() if session.incarnation]
    wave = Wave(sessions, ours)
    acts = (wave.poke, lambda: bare_wave(stage, ours, pause), lambda: bare_wave(stage, ours, pause, LOOK))
    measured, limit, with_looks = in_turn(
        stage.rounds(ROUNDS), *map(pause.timed, acts), budget=BUDGET, rest=SETTLE
    )
    return Figure(
        NAME, WHAT, measured,
        limits=(
            Limit("two bare tmux calls, all paste-buffer in one, all send-keys Enter in the other", limit),
            Limit("the same, each after the list-panes -a that the fence demands", with_looks, "with looks"),
        ),
        goals=(
            Goal("p50 / limit", ratios(measured, limit)[0], 1.5),
            Goal("tmux processes", wave.most_processes, 4 + 4 * len(ours) / 100),
        ),
    )  # fmt: skip


class Wave:
    """Our own wave, and how many tmux processes one of it starts at most."""

    def __init__(self, sessions: Sessions, ours: Sequence[Session]) -> None:
        self._sessions = sessions
        self._pokes = [Poke(session, TEXT) for session in ours]
        self.most_processes = 0

    def poke(self) -> None:
        before = self._sessions.tmux.calls
        outcomes = set(self._sessions.poke(self._pokes).values())
        self.most_processes = max(self.most_processes, self._sessions.tmux.calls - before)
        if outcomes != {"delivered"}:
            raise AssertionError(f"not all pokes were delivered: {', '.join(outcomes)}")


def bare_wave(stage: Stage, ours: Sequence[Session], pause: Pause, look: Sequence[str] = ()) -> None:
    """What tmux needs for the same text in the same panes, perhaps with a look before each step."""
    panes = [session.pane for session in ours]
    if look:
        stage.bare.run(*look)
    pasted = (f"paste-buffer -p -r -b bench -t {pane}" for pane in panes)
    stage.bare.script([f'set-buffer -b bench -- "{TEXT}"', *pasted, "delete-buffer -b bench"])
    pause(PASTE_PAUSE)
    if look:
        stage.bare.run(*look)
    stage.bare.script([f"send-keys -t {pane} Enter" for pane in panes])
