"""Typing pokes into many sessions at once, and only where the screen shows that it is safe.

Each step is a look at the screens, then one script in which tmux acts only where that very look still holds.
Text and Enter are sent apart, with one shared pause between them: full-screen programs take what arrives
together for one paste. Enter is sent where the input line holds exactly the text; a poke is delivered when
the program has taken the text from there, and a text that was not taken is taken back.
"""

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.plumbing.clock import Clock
from gastown_mail.programs.reader import Reading, holds_text, read_screen
from gastown_mail.programs.screen import Screen
from gastown_mail.sessions import commands
from gastown_mail.sessions.foreground import SHELLS, Foreground
from gastown_mail.sessions.look import read_screens
from gastown_mail.sessions.panes import Session
from gastown_mail.sessions.poke import (
    Poke,
    PokeOutcome,
    PokeResult,
    failed,
    held,
    screen_obstacle,
)
from gastown_mail.sessions.tmux import Tmux

PASTE_PAUSE = 0.5
_TYPE_PAUSES = (0.0, 0.3, 0.3)
_ENTER_PAUSES = (0.0, 0.1, 0.2, 0.4, 0.8)
_TAKEN_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)
"""Seconds before each look: until the text may be typed, until it is there, until it has been taken."""

_CLEAR_ROUNDS = 5
_QUIET = 1.3
"""Seconds since the last activity after which one look is enough; tmux gives whole seconds."""

_BATCH_SIZE = 100
_NEAR = 2
"""Rows above the input line that must not change between a look and the typing."""

_CHANGES = "the session changed just now, or takes no input"
_NOT_SHOWN = "the input line does not hold exactly the text"


@dataclass(frozen=True, slots=True)
class _Target:
    """A poke whose session was looked at just now."""

    poke: Poke
    session: Session
    screen: Screen
    reading: Reading
    obstacle: PokeOutcome | None

    @property
    def key(self) -> str:
        return self.poke.session.key

    @property
    def holds_text(self) -> bool:
        """Whether the input line holds exactly the poke's text."""
        return holds_text(self.poke.profile, self.screen, self.poke.text)

    @property
    def is_taken(self) -> bool:
        """Whether nothing of the text is left in the input line, in the session it was typed into."""
        entry = self.reading.input
        if self.session.incarnation != self.poke.session.incarnation or self.session.dead:
            return False
        if self.poke.profile.input.continued is None:
            return not self.holds_text
        return entry is None or not entry.text

    @property
    def is_own(self) -> bool:
        """Whether the input line holds what was typed, or what is left of it, and nothing else."""
        if self.session.incarnation != self.poke.session.incarnation:
            return False
        entry = self.reading.input
        rest = bool(entry and entry.text and entry.text in self.poke.text and not self.session.attached)
        return rest or self.holds_text

    def condition(self, *, viewers: bool = False) -> str:
        """What tmux checks when it types: the session, and that the screen is as it was seen."""
        shell_seen = self.session.foreground.removeprefix("-") in SHELLS
        allowed = commands.typing_condition(self.session.incarnation, shell_seen=shell_seen, viewers=viewers)
        return commands.all_of(allowed, commands.unchanged(self.screen, self._rows()))

    def _rows(self) -> Iterator[int]:
        first = self.reading.input.first if self.reading.input else self.screen.y
        filled = [y for y, row in enumerate(self.screen.rows) if row.strip()]
        yield from [y for y in filled if y < first][-_NEAR:]
        yield from (y for y in filled if y >= first)


_Check = Callable[[_Target], bool | PokeOutcome]
"""True: act now; False: look again; an outcome: never."""

_Script = Callable[[Sequence[_Target]], Iterable[str]]


def type_pokes(
    tmux: Tmux,
    snapshot: Callable[[], Mapping[str, Session]],
    pokes: Iterable[Poke],
    *,
    clock: Clock,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, PokeOutcome]:
    """Type each text and Enter; return the outcomes by the sessions' keys.

    Raises StateUnknown or TmuxMissing when nothing was typed at all.
    """
    return _Typist(tmux, snapshot, clock, sleep).run(pokes)


@dataclass
class _Typist:
    """One run over many pokes; `outcomes` has those that have ended."""

    tmux: Tmux
    snapshot: Callable[[], Mapping[str, Session]]
    clock: Clock
    sleep: Callable[[float], None]
    outcomes: dict[str, PokeOutcome] = field(default_factory=dict)
    seen: dict[str, Screen] = field(default_factory=dict)

    def run(self, pokes: Iterable[Poke]) -> dict[str, PokeOutcome]:
        clean = [poke.cleaned() for poke in pokes]
        self.outcomes = {poke.session.key: outcome for poke in clean if (outcome := poke.rejection())}
        typed = self._do(self._open(clean), self._may_type, _paste_script, _TYPE_PAUSES, _CHANGES)
        if not typed:
            return self.outcomes
        self.sleep(PASTE_PAUSE)
        try:
            entered = self._do(typed, self._may_enter, _enter_script, _ENTER_PAUSES, _NOT_SHOWN)
            self._confirm(entered)
            self._take_back([poke for poke in typed if not self._is_delivered(poke)], entered)
        except StateUnknown as error:
            for poke in typed:
                unknown = failed(f"the text was typed; what became of it is unknown: {error}")
                self.outcomes.setdefault(poke.session.key, unknown)
        return self.outcomes

    def _open(self, pokes: Iterable[Poke]) -> list[Poke]:
        return [poke for poke in pokes if poke.session.key not in self.outcomes]

    def _is_delivered(self, poke: Poke) -> bool:
        outcome = self.outcomes.get(poke.session.key)
        return outcome is not None and outcome.result is PokeResult.DELIVERED

    def _look(self, pokes: Collection[Poke]) -> Iterator[_Target]:
        """Look at the sessions of these pokes; those that can get no text at all get their outcome."""
        now, front = self.snapshot(), Foreground()
        by_token = {session.incarnation: session for session in now.values()}
        sessions = {
            poke.session.key: by_token.get(poke.session.incarnation) or now.get(poke.session.key)
            for poke in pokes
        }
        screens = read_screens(self.tmux, [one.pane for one in sessions.values() if one and not one.dead])
        for poke in pokes:
            session = sessions[poke.session.key]
            screen = screens.get(session.pane) if session else None
            strict = session is not None and poke.profile.quiet
            obstacle = poke.obstacle(
                session,
                front.front_of(session.pid) if session and not session.dead else None,
                front.hidden_reader(session.pid) if session and strict else "",
                self.clock.now_or_local(),
            )
            if session is None or screen is None:
                self.outcomes[poke.session.key] = obstacle or failed("the session is gone")
            else:
                yield _Target(poke, session, screen, read_screen(poke.profile, screen), obstacle)

    def _do(
        self, pokes: Collection[Poke], check: _Check, script: _Script, pauses: Sequence[float], otherwise: str
    ) -> list[Poke]:
        """Run the script where `check` allows it, looking again after each pause; return those it reached.

        `otherwise` is the reason of those that were never allowed.
        """
        reached: list[Poke] = []
        waiting = list(pokes)
        for pause in pauses:
            if pause and waiting:
                self.sleep(pause)
            allowed = []
            try:
                targets = list(self._look(waiting)) if waiting else []
            except StateUnknown as error:
                if not reached:
                    raise
                self.outcomes |= {poke.session.key: failed(str(error)) for poke in waiting}
                return reached
            for target in targets:
                verdict = target.obstacle or check(target)
                if isinstance(verdict, PokeOutcome):
                    self.outcomes[target.key] = verdict
                elif verdict:
                    allowed.append(target)
            reached += self._run(script, allowed)
            waiting = [poke for poke in self._open(waiting) if poke not in reached]
        for poke in waiting:
            self.outcomes[poke.session.key] = held(otherwise)
        return reached

    def _run(self, script: _Script, targets: Sequence[_Target]) -> list[Poke]:
        """Run the script in batches; return the pokes for which tmux did it."""
        reached = []
        for first in range(0, len(targets), _BATCH_SIZE):
            batch = targets[first : first + _BATCH_SIZE]
            try:
                answer = self.tmux.script(script(batch))
            except StateUnknown as error:
                self.outcomes |= {target.key: failed(str(error)) for target in batch}
                continue
            words = set(answer.lines)
            for target in batch:
                if f"typed {target.session.pane[1:]}" in words:
                    reached.append(target.poke)
                elif f"kept {target.session.pane[1:]}" not in words:
                    self.outcomes[target.key] = failed(answer.errors or "tmux did not confirm it")
        return reached

    def _may_type(self, target: _Target) -> bool | PokeOutcome:
        if obstacle := screen_obstacle(target.poke, target.reading):
            return obstacle
        before = self.seen.get(target.key)
        self.seen[target.key] = target.screen
        idle = (self.clock.now_or_local() - target.session.activity).total_seconds()
        is_quiet = idle > _QUIET or before == target.screen
        return is_quiet or not target.poke.profile.quiet

    def _may_enter(self, target: _Target) -> bool | PokeOutcome:
        self.seen[target.key] = target.screen
        return target.holds_text

    def _confirm(self, pokes: Collection[Poke]) -> None:
        """Wait until the programs have taken the text; these pokes are delivered."""
        waiting = list(pokes)
        for pause in _TAKEN_PAUSES:
            if not waiting:
                return
            self.sleep(pause)
            for target in self._look(waiting):
                if target.is_taken and target.screen != self.seen[target.key]:
                    self.outcomes[target.key] = PokeOutcome(PokeResult.DELIVERED)
            waiting = self._open(waiting)
        for poke in waiting:
            self.outcomes[poke.session.key] = failed("its program did not take the text")

    def _take_back(self, pokes: Collection[Poke], entered: Collection[Poke]) -> None:
        """Clear the input lines that still hold a text that was typed here, and say what became of it."""
        reasons = {poke.session.key: self.outcomes.pop(poke.session.key) for poke in pokes}
        became = {poke.session.key: "the text was typed" for poke in pokes}
        became |= {poke.session.key: "the text was typed and entered" for poke in entered}
        pressed: set[str] = set()
        waiting: Collection[Poke] = pokes
        for _ in range(_CLEAR_ROUNDS):
            rest = []
            for target in self._look(waiting) if waiting else ():
                entry, key = target.reading.input, target.key
                # without an echo the text can be there unseen
                is_unseen = target.poke.profile.input.continued is None and target.poke not in entered
                if target.is_own or (is_unseen and target.reading.accepts and key not in pressed):
                    became[key] = "the text was typed and is still in its input line"
                    rest.append(target)
                elif entry is None:
                    became[key] = "the text was typed, and no input line is in sight"
                elif entry.text:
                    became[key] = "the text was typed, and its input line holds something else"
                elif key in pressed:
                    became[key] = "the text was typed and taken back"
            if rest:
                pressed.update(target.key for target in rest)
                self._run(_clear_script, rest)
                self.sleep(_TAKEN_PAUSES[0])
            waiting = [target.poke for target in rest]
        for poke in pokes:
            key = poke.session.key
            result = PokeResult.FAILED if poke in entered else reasons[key].result
            self.outcomes[key] = PokeOutcome(result, f"{became[key]}: {reasons[key].detail}")


def _paste_script(batch: Sequence[_Target]) -> Iterator[str]:
    buffers = {_typed(target.poke): f"gastown-{uuid.uuid4().hex}" for target in batch}
    yield from (commands.set_buffer(buffer, text) for text, buffer in buffers.items())
    for one in batch:
        buffer, in_mode = buffers[_typed(one.poke)], one.session.in_mode
        yield commands.paste(one.session.pane, buffer, one.condition(), in_mode=in_mode)
    yield from map(commands.delete_buffer, buffers.values())


def _typed(poke: Poke) -> str:
    return poke.text + poke.profile.input.suffix


def _enter_script(batch: Sequence[_Target]) -> Iterator[str]:
    for one in batch:
        yield commands.press(one.session.pane, ["Enter"], one.condition(), in_mode=one.session.in_mode)


def _clear_script(batch: Sequence[_Target]) -> Iterator[str]:
    for one in batch:
        entry = one.reading.input
        times = 2 * (entry.last - entry.first) + 1 if entry else 1
        keys = one.poke.profile.input.clear * times
        condition = one.condition(viewers=one.holds_text)
        yield commands.press(one.session.pane, keys, condition, in_mode=one.session.in_mode)
