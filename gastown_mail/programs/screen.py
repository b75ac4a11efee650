"""A screen of a terminal: its rows with their styles, its cursor and its title."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

_BLANKS = " \t\n\r\v\f"
"""What tmux takes for blank at the end of a row; a no-break space is text."""

_SEQUENCE = re.compile(
    r"\x1b\[([0-9;:]*)m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;:?]*[A-Za-z]|[\x0e\x0f]"
)
_FAINT, _REVERSED = "2", "7"
_HEADER_END = "---"


@dataclass(frozen=True)
class Screen:
    """What a pane shows. `lines` are as `capture-pane -e` prints them; `x` and `y` count from 0."""

    lines: tuple[str, ...]
    x: int
    y: int
    cursor_visible: bool = True
    title: str = ""

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The text of each row, without styles and blanks at its end."""
        return tuple(_SEQUENCE.sub("", line).rstrip(_BLANKS) for line in self.lines)

    def text_from(self, y: int, column: int, placeholder: re.Pattern[str] | None) -> str:
        """The text of a row from a column on; "" if all of it is faint or matches `placeholder`."""
        shown = self.rows[y][column:].strip(_BLANKS)
        if placeholder is not None and placeholder.fullmatch(shown):
            return ""
        written: list[str] = []
        drawn_cursor, at, faint = 0, 0, False
        for style, text in styled_runs(self.lines[y]):
            part = text[max(0, column - at) :]
            at += len(text)
            if not part.strip(_BLANKS):
                continue
            if _FAINT in style:
                faint = True
            elif _REVERSED in style and len(part) == 1 and not written:
                drawn_cursor += 1  # on the first letter of a placeholder, if faint text follows
            else:
                written.append(part)
        empty = not written and (faint or not drawn_cursor)
        return "" if empty else shown

    def without_aside(self, aside: re.Pattern[str], sign: re.Pattern[str]) -> "Screen":
        """The same without the group of `aside` in rows that begin with `sign`, which lose their styles."""
        lines = list(self.lines)
        for y, row in enumerate(self.rows):
            if sign.match(row) and (found := aside.search(row)):
                lines[y] = row[: found.start(found.lastindex or 0)]
        return replace(self, lines=tuple(lines))

    def reversed_cell(self) -> tuple[int, int] | None:
        """The column and row of the last single cell in reverse, which a program may draw as its cursor."""
        for y in range(len(self.lines) - 1, -1, -1):
            at = 0
            for style, text in styled_runs(self.lines[y]):
                if _REVERSED in style and len(text.rstrip("\u200b")) == 1:
                    return at, y
                at += len(text)
        return None

    @classmethod
    def parse(cls, text: str) -> "Screen":
        """Read a recorded screen (see `dump`), or bare rows with the cursor unknown. Raises ValueError."""
        head, found, body = text.partition(f"\n{_HEADER_END}\n")
        if not found:
            return cls(tuple(text.rstrip("\n").split("\n")), x=-1, y=-1)
        fields = dict(line.split(": ", 1) for line in head.split("\n") if ": " in line)
        try:
            x, y = map(int, fields["cursor"].split())
            lines = tuple(body.split("\n"))[: int(fields.get("height", "1000"))]
            return cls(lines, x, y, fields.get("cursor_visible", "1") == "1", fields.get("title", ""))
        except (KeyError, ValueError) as error:
            raise ValueError(f"not a recorded screen: its head needs `cursor: X Y` ({error})") from None

    def dump(self, **fields: str) -> str:
        """The text of a recorded screen: a head with these fields, cursor and title, then the rows."""
        own = {
            "cursor": f"{self.x} {self.y}",
            "cursor_visible": str(int(self.cursor_visible)),
            "title": self.title,
            "height": str(len(self.lines)),
        }
        head = "\n".join(f"{key}: {value}" for key, value in (fields | own).items())
        return "\n".join((head, _HEADER_END, *self.lines, ""))


def styled_runs(line: str) -> Iterable[tuple[list[str], str]]:
    """The runs of text in a row as tmux printed it, each with its style: the SGR parameters that hold.

    A colour with all its numbers is one of them.
    """
    style: list[str] = []
    at = 0
    for sequence in _SEQUENCE.finditer(line):
        if text := line[at : sequence.start()]:
            yield style, text
        at = sequence.end()
        if sequence[1] is not None:
            style = _apply(style, sequence[1])
    if text := line[at:]:
        yield style, text


def _apply(style: list[str], parameters: str) -> list[str]:
    """The style after one SGR sequence; a colour replaces one of the same kind."""
    words = re.findall(
        r"[34]8[;:](?:5[;:][0-9]+|2[;:][0-9;:]*?[0-9]+[;:][0-9]+[;:][0-9]+)|[0-9]+", parameters or "0"
    )
    for word in words:
        if word == "0":
            style = []
        elif word == "22":
            style = [old for old in style if old not in ("1", "2")]
        elif word in ("39", "49"):
            style = [old for old in style if not _is_colour(old, word[0])]
        else:
            plane = "3" if _is_colour(word, "3") else "4" if _is_colour(word, "4") else ""
            style = [old for old in style if not (plane and _is_colour(old, plane))] + [word]
    return style


def _is_colour(word: str, plane: str) -> bool:
    bright = {"3": "9", "4": "10"}[plane]
    return word.startswith(f"{plane}8") or re.fullmatch(f"({plane}|{bright})[0-7]", word) is not None
