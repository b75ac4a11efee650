"""The poke: a line typed into many sessions at once, and only where it is safe.

Text and Enter are sent apart, with one shared pause between them: full-screen programs take what arrives
together for one paste. Everything is checked just before the text, and again just before the Enter.
"""

import enum
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions import commands
from gastown_mail.sessions.processes import SHELLS, foreground_shell
from gastown_mail.sessions.tmux import Session, Tmux

PASTE_PAUSE = 0.5
_MAX_BYTES = 100 * 1024
_BATCH_SIZE = 100
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TYPED_ONLY = "the text was typed, but not Enter: "


class PokeResult(enum.StrEnum):
    """How a poke ended."""

    DELIVERED = "delivered"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PokeOutcome:
    """How a poke ended, and why; its text is what Redis keeps of it."""

    result: PokeResult
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.result}: {self.detail}" if self.detail else self.result.value


def _held(why: str) -> PokeOutcome:
    return PokeOutcome(PokeResult.HELD, why)


def _failed(why: str) -> PokeOutcome:
    return PokeOutcome(PokeResult.FAILED, why)


@dataclass(frozen=True, slots=True)
class Poke:
    """A text for a session, as the session was when the poke was decided."""

    session: Session
    text: str

    def cleaned(self) -> "Poke":
        """Return it without control characters, except newlines and tabs; CR LF becomes a newline."""
        return Poke(self.session, _CONTROLS.sub("", self.text.replace("\r\n", "\n")))

    def rejection(self) -> PokeOutcome | None:
        """Return why it must never be typed; None when it may be."""
        if not self.session.incarnation:
            return _failed("the session is not managed; adopt it first")
        if not self.text.strip():
            return _failed("the text is empty")
        size = len(self.text.encode(errors="surrogatepass"))
        if size > _MAX_BYTES:
            return _failed(f"the text has {size} bytes; the limit is {_MAX_BYTES}")
        if any("\ud800" <= char <= "\udfff" for char in self.text):
            return _failed("the text is not valid Unicode")
        return None

    def obstacle(self, session: Session | None, shell: str | None) -> PokeOutcome | None:
        """Return why it is not typed now, given the session as it is now and its `foreground_shell`."""
        if session is None:
            return _failed("the session is gone")
        if (session.id, session.incarnation) != (self.session.id, self.session.incarnation):
            return _failed("the session was replaced")
        if session.dead:
            return _held("its program has ended")
        if session.attached:
            return _held("a person is attached")
        if shell is None:
            return _held("the program in front is unknown")
        return _held(f"a bare shell ({shell}) is in front and would run the text") if shell else None


@dataclass(frozen=True, slots=True)
class _Target:
    """A poke that is ready to be typed, and the condition that tmux checks when it types."""

    poke: Poke
    condition: str

    @property
    def pane(self) -> str:
        return self.poke.session.pane

    def paste(self, buffer: str) -> str:
        return commands.paste(self.pane, buffer, self.condition, in_mode=self.poke.session.in_mode)

    def enter(self) -> str:
        return commands.enter(self.pane, self.condition, in_mode=self.poke.session.in_mode)

    def answered(self, words: Collection[str], word: str) -> bool:
        """Return whether a script printed this word for the pane."""
        return f"{word} {self.pane[1:]}" in words


_Outcomes = dict[str, PokeOutcome]
_Script = Callable[[Sequence[_Target]], Iterable[str]]


def poke_all(
    tmux: Tmux,
    snapshot: Callable[[], Mapping[str, Session]],
    pokes: Sequence[Poke],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, PokeOutcome]:
    """Type each text and Enter; return the outcomes by session name.

    Raises StateUnknown or TmuxMissing when nothing was typed at all.
    """
    clean = [poke.cleaned() for poke in pokes]
    outcomes = {poke.session.name: outcome for poke in clean if (outcome := poke.rejection())}
    accepted = [poke for poke in clean if poke.session.name not in outcomes]
    if not accepted:
        return outcomes
    typed, missed = _send(tmux, snapshot(), accepted, _paste_script)
    outcomes |= missed
    if not typed:
        return outcomes
    sleep(PASTE_PAUSE)
    try:
        entered, missed = _send(tmux, snapshot(), typed, lambda batch: map(_Target.enter, batch))
    except StateUnknown as error:
        entered, missed = [], {poke.session.name: _failed(str(error)) for poke in typed}
    outcomes |= {poke.session.name: PokeOutcome(PokeResult.DELIVERED) for poke in entered}
    return outcomes | {
        name: replace(outcome, detail=_TYPED_ONLY + outcome.detail) for name, outcome in missed.items()
    }


def _check(now: Mapping[str, Session], pokes: Iterable[Poke]) -> tuple[list[_Target], _Outcomes]:
    """Return the pokes whose sessions are ready for them now, and the outcomes of the others."""
    targets, missed = [], _Outcomes()
    for poke in pokes:
        session = now.get(poke.session.name)
        shell = foreground_shell(session.pid) if session is not None and not session.dead else None
        if obstacle := poke.obstacle(session, shell):
            missed[poke.session.name] = obstacle
        elif session is not None:
            shell_seen = session.foreground.removeprefix("-") in SHELLS
            condition = commands.typing_condition(session.incarnation, shell_seen=shell_seen)
            targets.append(_Target(Poke(session, poke.text), condition))
    return targets, missed


def _send(
    tmux: Tmux, now: Mapping[str, Session], pokes: Iterable[Poke], script: _Script
) -> tuple[list[Poke], _Outcomes]:
    """Run one script per batch of pokes; return those it reached, and the outcomes of the others."""
    targets, missed = _check(now, pokes)
    reached = []
    for first in range(0, len(targets), _BATCH_SIZE):
        batch = targets[first : first + _BATCH_SIZE]
        words, errors = _run(tmux, script(batch))
        if kept := [target.pane for target in batch if target.answered(words, "kept")]:
            words |= _run(tmux, map(commands.detect_dialog, kept))[0]
        for target in batch:
            name = target.poke.session.name
            if target.answered(words, "typed"):
                reached.append(target.poke)
            elif target.answered(words, "dialog"):
                missed[name] = _held("a dialog is open and would take the poke as its answer")
            elif target.answered(words, "kept"):
                missed[name] = _held("the session changed just now, or takes no input")
            else:
                missed[name] = _failed(errors or "tmux did not confirm it")
    return reached, missed


def _run(tmux: Tmux, lines: Iterable[str]) -> tuple[set[str], str]:
    """Run a script; return the lines it printed, and its errors."""
    try:
        answer = tmux.script(lines)
    except StateUnknown as error:
        return set(), str(error)
    return set(answer.lines), answer.errors


def _paste_script(batch: Sequence[_Target]) -> Iterator[str]:
    buffers = {target.poke.text: f"gastown-{uuid.uuid4().hex}" for target in batch}
    yield from (commands.set_buffer(buffer, text) for text, buffer in buffers.items())
    yield from (target.paste(buffers[target.poke.text]) for target in batch)
    yield from map(commands.delete_buffer, buffers.values())
