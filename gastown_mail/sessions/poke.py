"""The poke wave: one line typed into many sessions at once, and only where it is welcome.

Text and Enter are separate, with one shared pause between them: programs with a screen of their own take what
arrives together for one paste. All is looked at just before the text, and again just before the Enter.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions import commands
from gastown_mail.sessions.panes import Session
from gastown_mail.sessions.processes import SHELLS, foreground_shell
from gastown_mail.sessions.tmux import Tmux

PASTE_PAUSE = 0.5
MAX_POKE_BYTES = 100 * 1024
BATCH_SIZE = 100

DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Poke:
    """A text for a session, as it was seen when the poke was decided."""

    session: Session
    text: str


@dataclass(frozen=True, slots=True)
class _Target:
    poke: Poke
    condition: str

    @property
    def pane(self) -> str:
        return self.poke.session.pane


def poke_all(
    tmux: Tmux,
    snapshot: Callable[[], Mapping[str, Session]],
    pokes: Sequence[Poke],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Type each text and Enter; return `delivered`, `held: why` or `failed: why` per session name.

    Raises Unknown or TmuxMissing when nothing was typed at all.
    """
    outcomes: dict[str, str] = {}
    clean = [Poke(poke.session, strip_controls(poke.text)) for poke in pokes]
    fit = [poke for poke in clean if _note(outcomes, poke, rejection_reason(poke))]
    ready = _filter_ready(outcomes, snapshot(), fit) if fit else []
    typed = _run_batches(outcomes, tmux, ready, _paste_script)
    if typed:
        sleep(PASTE_PAUSE)
        entered = _enter(outcomes, tmux, snapshot, typed)
        outcomes.update({poke.session.name: DELIVERED for poke in entered})
    return outcomes


def strip_controls(text: str) -> str:
    """Return the text without control characters; newlines and tabs stay, CR LF becomes a newline."""
    return "".join(char for char in text.replace("\r\n", "\n") if char in "\n\t" or not _is_control(char))


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


def rejection_reason(poke: Poke) -> str:
    """Say why a poke is never sent; "" when it may be."""
    if not poke.session.incarnation:
        return "failed: the session carries no token of ours; adopt it first"
    if not poke.text.strip():
        return "failed: the text is empty"
    size = len(poke.text.encode(errors="surrogatepass"))
    if size > MAX_POKE_BYTES:
        return f"failed: the text has {size} bytes, at most {MAX_POKE_BYTES} are typed"
    if any("\ud800" <= char <= "\udfff" for char in poke.text):
        return "failed: the text is not valid Unicode"
    return ""


def hold_reason(seen: Session, now: Session | None, shell: str | None) -> str:
    """Say why a session is not typed into now; "" when it is. `shell` is what `shell_in_front` found."""
    if now is None:
        return "failed: the session is gone"
    if (now.id, now.incarnation) != (seen.id, seen.incarnation):
        return "failed: the session was replaced"
    if now.dead:
        return "held: its program has ended"
    if now.attached:
        return "held: somebody is attached"
    if shell is None:
        return "held: what is in front of the terminal cannot be told"
    return f"held: a bare shell ({shell}) is in front and would run the text" if shell else ""


def _filter_ready(
    outcomes: dict[str, str], now: Mapping[str, Session], pokes: Iterable[Poke], prefix: str = ""
) -> list[_Target]:
    ready = []
    for poke in pokes:
        fresh = now.get(poke.session.name)
        shell = foreground_shell(fresh.pid) if fresh is not None and not fresh.dead else None
        reason = hold_reason(poke.session, fresh, shell)
        if _note(outcomes, poke, _explain(reason, prefix)) and fresh is not None:
            condition = commands.typing_condition(
                fresh.incarnation, shell_seen=fresh.foreground.removeprefix("-") in SHELLS
            )
            ready.append(_Target(Poke(fresh, poke.text), condition))
    return ready


def _explain(reason: str, prefix: str) -> str:
    kind, _, why = reason.partition(": ")
    return f"{kind}: {prefix}{why}" if reason else ""


def _note(outcomes: dict[str, str], poke: Poke, reason: str) -> bool:
    if reason:
        outcomes[poke.session.name] = reason
    return not reason


_TYPED_ONLY = "the text was typed, but not Enter: "


def _enter(
    outcomes: dict[str, str],
    tmux: Tmux,
    snapshot: Callable[[], Mapping[str, Session]],
    typed: Sequence[Poke],
) -> list[Poke]:
    try:
        now = snapshot()
    except StateUnknown as error:
        outcomes.update({poke.session.name: f"failed: {_TYPED_ONLY}{error}" for poke in typed})
        return []
    ready = _filter_ready(outcomes, now, typed, _TYPED_ONLY)
    return _run_batches(outcomes, tmux, ready, _enter_script, _TYPED_ONLY)


def _run_batches(
    outcomes: dict[str, str],
    tmux: Tmux,
    ready: Iterable[_Target],
    script: Callable[[Sequence[_Target]], Iterable[str]],
    prefix: str = "",
) -> list[Poke]:
    """Run one script per wave; note whom it did not reach, return whom it did."""
    reached = []
    for batch in _batches(ready):
        said, errors = _run(tmux, script(batch))
        if kept := [one.pane for one in batch if f"kept {one.pane[1:]}" in said]:
            said |= _run(tmux, map(commands.detect_dialog, kept))[0]
        for one in batch:
            if _note(outcomes, one.poke, _explain(_failure_reason(one, said, errors), prefix)):
                reached.append(one.poke)
    return reached


def _run(tmux: Tmux, lines: Iterable[str]) -> tuple[set[str], str]:
    """What a script said, and its errors."""
    try:
        answer = tmux.script(lines)
    except StateUnknown as error:
        return set(), str(error)
    return set(answer.lines), answer.errors


def _failure_reason(one: _Target, said: set[str], errors: str) -> str:
    if f"typed {one.pane[1:]}" in said:
        return ""
    if f"dialog {one.pane[1:]}" in said:
        return "held: a dialog is open and would take the poke for its answer"
    if f"kept {one.pane[1:]}" in said:
        return "held: the session changed just now, or takes no input"
    return f"failed: {errors or 'tmux did not say that it was done'}"


def _batches(ready: Iterable[_Target]) -> Iterator[list[_Target]]:
    rest = iter(ready)
    while batch := list(islice(rest, BATCH_SIZE)):
        yield batch


def _paste_script(batch: Sequence[_Target]) -> Iterator[str]:
    buffers: dict[str, str] = {}
    for one in batch:
        buffers.setdefault(one.poke.text, f"gastown-{uuid.uuid4().hex}")
    yield from (commands.set_buffer(name, text) for text, name in buffers.items())
    yield from (_paste(one, buffers[one.poke.text]) for one in batch)
    yield from map(commands.delete_buffer, buffers.values())


def _paste(one: _Target, buffer: str) -> str:
    return commands.paste(one.pane, buffer, one.condition, in_mode=one.poke.session.in_mode)


def _enter_script(batch: Sequence[_Target]) -> Iterator[str]:
    return (commands.enter(one.pane, one.condition, in_mode=one.poke.session.in_mode) for one in batch)
