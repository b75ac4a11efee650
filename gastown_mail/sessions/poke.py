"""A poke: a text for a session, why it may not be typed, and how it ended."""

import enum
import re
from dataclasses import dataclass, replace
from datetime import datetime

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.profile import Profile
from gastown_mail.programs.reader import Reading
from gastown_mail.sessions.foreground import Front
from gastown_mail.sessions.panes import Session

_MAX_BYTES = 100 * 1024
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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


def held(why: str) -> PokeOutcome:
    """Nothing was entered, and it may be another time."""
    return PokeOutcome(PokeResult.HELD, why)


def failed(why: str) -> PokeOutcome:
    """It was not delivered, and trying again may not help."""
    return PokeOutcome(PokeResult.FAILED, why)


@dataclass(frozen=True, slots=True)
class Poke:
    """A text for a session, as the session was when the poke was decided, and its program's profile.

    Nothing is typed after `until`, in epoch seconds of the sessions' clock. `limit_over`: the usage limit
    that the screen still tells of has ended.
    """

    session: Session
    text: str
    profile: Profile
    until: float = float("inf")
    limit_over: bool = False

    def cleaned(self) -> "Poke":
        """Return it without control characters, except tabs and the newlines between its lines."""
        text = _CONTROLS.sub("", self.text.replace("\r\n", "\n")).rstrip("\n")
        return replace(self, text=text)

    def rejection(self) -> PokeOutcome | None:
        """Return why it must never be typed; None when it may be."""
        entry, label = self.profile.input, self.profile.label
        size, limit = len(self.text.encode(errors="surrogatepass")), min(_MAX_BYTES, entry.max_bytes)
        if not self.session.incarnation:
            return failed("the session is not managed; adopt it first")
        if not self.text.strip():
            return failed("the text is empty")
        if any("\ud800" <= char <= "\udfff" for char in self.text):
            return failed("the text is not valid Unicode")
        if size > limit:
            return failed(f"the text has {size} bytes; the limit for {label} is {limit}")
        if "\n" in self.text and not entry.several_lines:
            return failed(f"{label} takes each line by itself; give a text of one line")
        if entry.acts and (act := entry.acts.search(self.text.strip())):
            return failed(f"{label} takes {act[0]!r} at the beginning for a command; begin it otherwise")
        return None

    def obstacle(
        self, session: Session | None, front: Front | None, hidden: str, now: datetime
    ) -> PokeOutcome | None:
        """Return why nothing is typed into the session as it is now, whatever its screen shows."""
        if session is None:
            return failed("the session is gone")
        if session.incarnation != self.session.incarnation:
            return failed("the session was replaced")
        if session.dead:
            return held("its program has ended")
        if session.attached:
            return held("a person is attached")
        if now.timestamp() > self.until:
            return held("its moment has passed")
        if reason := front_obstacle(self.profile, front, hidden):
            return held(reason)
        return None


def front_obstacle(profile: Profile, front: Front | None, hidden: str) -> str:
    """Return why what is in front in a pane must get no text; "" when it may.

    `hidden` is what `Foreground.hidden_reader` found.
    """
    if front is None:
        return "the program in front is unknown"
    if front.shell:
        return f"a bare shell ({front.name}) is in front and would run the text"
    if front.stopped:
        return f"{front.name} is stopped; kill -CONT {front.stopped} continues it"
    if profile.quiet and not front.own:
        return f"another program ({front.name}) is in front"
    if profile.quiet and hidden:
        return f"{hidden} is in front and passes text on; set program for this agent to a profile that fits"
    return ""


def screen_obstacle(poke: Poke, reading: Reading) -> PokeOutcome | None:
    """Return why the poke is not typed while the screen reads so; None when the program is ready."""
    if poke.limit_over and reading.state is AgentState.LIMITED and reading.accepts:
        return None
    line = f": {reading.line}" if reading.line else ""
    match reading.state:
        case AgentState.READY:
            return None
        case AgentState.BUSY:
            return held("it is busy")
        case AgentState.DRAFT:
            return held(f"its input line is not empty{line}")
        case AgentState.ASKS:
            return held(f"it asks a question{line}")
        case AgentState.LIMITED:
            return held(f"it has reached a usage limit{line}")
        case AgentState.STARTING:
            return held("it is starting")
        case AgentState.ENDED:
            return held(f"its program has ended or is stopped; restart the agent{line}")
    hint = f"gastown-mail programs tells how {poke.profile.label or 'a program'} is read"
    return held(f"its screen shows no known input line; {hint}{line}")
