"""What a profile makes of a screen. Pure."""

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.profile import Profile, Rule
from gastown_mail.programs.screen import Screen

_MAX_LINE = 400
_DIALOG_ROWS = 14
_SHOWN_TAB = "^I"
"""How some programs show a tab."""

_WHITESPACE = re.compile(r"[\s\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufe0e\ufe0f]+")
"""With what has no width and may get lost: marks of direction, joiners, variants."""


@dataclass(frozen=True)
class Input:
    """The input line on a screen: its first and last row, and the text in it.

    `cut`: only the end of the text is in sight.
    """

    first: int
    last: int
    text: str
    cut: bool = False

    def holds(self, text: str, pasted: re.Pattern[str] | None) -> bool:
        """Whether this is the text in it, or its end, or what stands for it; whitespace does not count."""
        shown, wanted = _WHITESPACE.sub("", self.text), _WHITESPACE.sub("", text)
        if "\t" in text:
            shown = shown.replace(_SHOWN_TAB, "")
        if self.cut:
            return bool(shown) and wanted.endswith(shown)
        return shown == wanted or bool(pasted and pasted.fullmatch(self.text))


@dataclass(frozen=True)
class Reading:
    """The state that a screen shows, the line that says so, and the input line if there is one.

    `accepts`: the cursor stands at the beginning of an empty input line. `rule`: the number of the profile's
    rule that decided, from 1; 0 when none did.
    """

    state: AgentState
    line: str
    input: Input | None
    accepts: bool = False
    rule: int = 0


def read_screen(profile: Profile, screen: Screen) -> Reading:
    """The state of a program that shows this screen; `unknown` when the profile has no sign for it."""
    screen = _prepared(profile, screen)
    entry = _find_input(profile, screen)
    accepts = bool(entry and not entry.text and entry.first == screen.y and _is_behind_sign(profile, screen))
    for number, rule in enumerate(profile.rules, 1):
        line = _evidence(rule, profile, screen, entry)
        if line is not None and (accepts or rule.state is not AgentState.READY):
            if rule.state is AgentState.ASKS:
                line = _question(screen) or line
            elif rule.state is AgentState.LIMITED:
                line = _paragraph(screen, line)
            return Reading(rule.state, line[:_MAX_LINE], entry, accepts, number)
    if entry is None:
        last = next((row for row in reversed(screen.rows) if row.strip()), "")
        state = AgentState.UNKNOWN if last else AgentState.STARTING
        return Reading(state, last.strip()[:_MAX_LINE], None)
    return Reading(AgentState.READY if accepts else AgentState.DRAFT, entry.text[:_MAX_LINE], entry, accepts)


def holds_text(profile: Profile, screen: Screen, text: str) -> bool:
    """Whether the input line holds exactly this text. Programs wrap lines, so whitespace does not count.

    A profile whose input has no `continued` rows cannot tell where a wrapped line begins: then all that
    stands before the cursor must end with the text, or be the end of it. The cursor's column counts cells,
    not characters, so all of its row may count as well.
    """
    screen, wanted = _prepared(profile, screen), _WHITESPACE.sub("", text)
    if profile.input.continued is None:
        above, row = "".join(screen.rows[: screen.y]), screen.rows[screen.y]
        before = {_WHITESPACE.sub("", part) for part in (row, row[: screen.x]) if row[: screen.x].strip()}
        shown = [_WHITESPACE.sub("", above) + part for part in before if part]
        return any(one.endswith(wanted) or wanted.endswith(one) for one in shown)
    entry = _find_input(profile, screen)
    return entry is not None and entry.holds(text, profile.input.pasted)


def context_used(profile: Profile, screen: Screen, reading: Reading) -> int | None:
    """How full the context is, in percent, as the rows around the input line say; None if they do not."""
    rows = [row for row in screen.rows if row.strip()]
    if entry := reading.input:
        rows = [*_filled(screen.rows[: entry.first])[-profile.above :], *screen.rows[entry.last + 1 :]]
    for pattern, is_left in ((profile.context.used, False), (profile.context.left, True)):
        found = next((match for row in reversed(rows) if pattern and (match := pattern.search(row))), None)
        with suppress(TypeError, ValueError):  # a pattern of the user's own may find something else
            percent = min(100, round(float(found[found.lastindex or 0] if found else "")))
            return 100 - percent if is_left else percent
    return None


def _prepared(profile: Profile, screen: Screen) -> Screen:
    """The screen with the cursor where the program draws it, and without what is beside its input line."""
    if profile.input.drawn_cursor:
        x, y = screen.reversed_cell() or (-1, -1)
        screen = replace(screen, x=x, y=y)
    if (aside := profile.input.aside) and profile.input.sign:
        screen = screen.without_aside(aside, profile.input.sign)
    return screen


def _find_input(profile: Profile, screen: Screen) -> Input | None:
    """The input line that the cursor is in."""
    sign, continued = profile.input.sign, profile.input.continued
    if sign is None or not 0 <= screen.y < len(screen.rows):
        return None
    for first in range(screen.y, -1, -1):
        if match := sign.match(_padded(screen, first)):
            # where each row of a box begins with the sign, the first one counts
            while continued and first and all(p.match(screen.rows[first - 1]) for p in (sign, continued)):
                first -= 1
            last = _last_row(profile, screen, first)
            match = sign.match(_padded(screen, first)) or match
            text = screen.text_from(first, match.end(), profile.input.placeholder)
            scrolled = profile.input.scrolled.search(text) if profile.input.scrolled else None
            texts = [text[: scrolled.start()] if scrolled else text]
            texts += [_without(continued, row) for row in screen.rows[first + 1 : last + 1]]
            is_cut = bool(scrolled) or (first == 0 and last > 0)
            return Input(first, last, "\n".join(texts).strip("\u200b \n"), is_cut)
        if continued is None or not continued.match(_padded(screen, first)):
            return None
    return None


def _padded(screen: Screen, y: int) -> str:
    # blanks at a row's end are not in its text, but the cursor may stand behind them
    return screen.rows[y].ljust(screen.x if y == screen.y else 0) + " "


def _is_behind_sign(profile: Profile, screen: Screen) -> bool:
    prefix = screen.rows[screen.y].ljust(screen.x)[: screen.x]
    return bool(profile.input.sign and profile.input.sign.fullmatch(prefix))


def _last_row(profile: Profile, screen: Screen, first: int) -> int:
    end, continued = profile.input.end, profile.input.continued
    last = first
    for y in range(first + 1, len(screen.rows)):
        row = screen.rows[y]
        if (end and end.search(row)) or continued is None or not continued.match(row + " "):
            break
        last = y
    return max(last, screen.y)


def _without(prefix: re.Pattern[str] | None, row: str) -> str:
    return prefix.sub("", row, count=1) if prefix else row


def _evidence(rule: Rule, profile: Profile, screen: Screen, entry: Input | None) -> str | None:
    """The line that makes the rule hold, "" if that is no text; None when it does not hold."""
    if rule.input is not None and rule.input is not (entry is not None):
        return None
    if rule.cursor is not None and rule.cursor is not screen.cursor_visible:
        return None
    below = _below(profile, screen, entry)
    if rule.lacks and (not below or any(rule.lacks.search(row) for row in below)):
        return None
    line = below[-1].strip() if (rule.lacks or rule.cursor is not None) and below else ""
    for pattern, rows in _places(rule, profile, screen, entry):
        found = next((row for row in rows if pattern.search(row)), None)
        if found is None:
            return None
        line = found.strip() or line
    return line


def _places(
    rule: Rule, profile: Profile, screen: Screen, entry: Input | None
) -> Iterator[tuple[re.Pattern[str], Sequence[str]]]:
    """The patterns of a rule, each with the rows in which it is searched; the last one gives the line."""
    if rule.title:
        yield rule.title, [screen.title]
    if rule.row:
        yield rule.row, screen.rows[screen.y : screen.y + 1] if screen.y >= 0 else []
    if rule.text:
        yield rule.text, screen.rows[entry.first : entry.last + 1] if entry else []
    if rule.above:
        yield rule.above, _above(profile, screen, entry)
    if rule.below:
        yield rule.below, _below(profile, screen, entry)


def _above(profile: Profile, screen: Screen, entry: Input | None) -> Sequence[str]:
    rows = _filled(screen.rows[: entry.first])[-profile.above :] if entry else []
    entered = profile.input.entered
    last = max((n for n, row in enumerate(rows) if entered and entered.search(row)), default=-1)
    return rows[last + 1 :]


def _below(profile: Profile, screen: Screen, entry: Input | None) -> Sequence[str]:
    return _filled(screen.rows[entry.last + 1 :]) if entry else _filled(screen.rows)[-profile.below :]


def _paragraph(screen: Screen, line: str) -> str:
    """The line with those that follow it without a blank one: narrow screens wrap what tells of a limit."""
    rows = [row.strip() for row in screen.rows]
    found = next((y for y in range(len(rows) - 1, -1, -1) if rows[y] == line), None)
    if found is None:
        return line
    following = itertools.takewhile(bool, rows[found:])
    return " ".join(row for row in following if not row.startswith("─"))


def _question(screen: Screen) -> str:
    """The last row that ends like a question; a dialog's own last row only names its keys."""
    rows = (row.strip(" │┃|") for row in reversed(_filled(screen.rows)[-_DIALOG_ROWS:]))
    return next((row for row in rows if row.endswith("?")), "")


def _filled(rows: Sequence[str]) -> list[str]:
    return [row for row in rows if row.strip()]
