"""What the mock model servers answer, whatever their interface: read from keywords in the last user message.

A keyword stands at the beginning of any line of the message; the first line that has one decides:

    SLOW n        streams for n seconds
    SILENT n      sends no byte for n seconds, then answers
    LIMIT [n [w]] the usage limit of a subscription for n seconds (default 3600), then OK; w names the window
    NEAR [n]      OK, and the limit is said to be near, reset in n seconds
    ERROR [code]  an error of the server (default 500)
    LINES n       n lines of text at once
    TOKENS n      OK, and the context is said to hold n tokens
    TOOL cmd...   asks for the shell tool with this command; after its result the answer is DONE
    CALL t {...}  asks for the tool t with this JSON object as its input; after its result the answer is DONE
    (none)        OK and a digest of the message
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_KEYWORD = re.compile(
    r"^[ \t]*(SLOW|SILENT|LIMIT|NEAR|ERROR|LINES|TOKENS|TOOL|CALL)\b[ \t]*(.*)$", re.MULTILINE
)
_PIECE_SECONDS = 0.2


class Kind(StrEnum):
    """How the server behaves: `text`, or one of the answers that are none."""

    TEXT = "text"
    LIMIT = "limit"
    ERROR = "error"
    TOOL = "tool"
    CALL = "call"


@dataclass(frozen=True)
class Script:
    """One answer. `pieces` is text, with the seconds to wait before each.

    `number` is the seconds of a limit, the status of an error, or the tokens in use (0: count them); `near`
    is the seconds to the reset of a limit that is near (0: none).
    """

    kind: Kind = Kind.TEXT
    pieces: tuple[tuple[float, str], ...] = ()
    number: int = 0
    near: int = 0
    command: str = ""
    tool: str = ""
    arguments: str = "{}"

    def stream(self) -> Iterator[str]:
        """Yield the pieces of the text, each after its pause."""
        for pause, piece in self.pieces:
            time.sleep(pause)
            yield piece


_LIMITS: dict[str, float] = {}
"""When the limit of a message ends, by the monotonic clock."""

DONE = Script(pieces=((0.0, "DONE"),))


def digest(text: str) -> str:
    """Return 12 hexadecimal digits that name this text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_script(message: str) -> Script:
    """Return the answer that the last user message asks for."""
    found = _KEYWORD.search(message)
    if found is None:
        return Script(pieces=((0.0, f"OK {digest(message)}"),))
    word, rest = found[1], found[2].strip()
    match word:
        case "SLOW":
            count = max(1, round(_number(rest, 5) / _PIECE_SECONDS))
            return Script(
                pieces=tuple((_PIECE_SECONDS, f"piece {n} of {count}\n") for n in range(1, count + 1))
            )
        case "SILENT":
            return Script(pieces=((_number(rest, 5), f"OK {digest(message)}"),))
        case "LINES":
            lines = int(_number(rest, 100))
            return Script(pieces=tuple((0.0, f"line {n} of {lines}\n\n") for n in range(1, lines + 1)))
        case "TOKENS":
            return Script(pieces=((0.0, f"OK {digest(message)}"),), number=int(_number(rest, 1000)))
        case "LIMIT":
            return _limit(message, _number(rest, 3600), rest.partition(" ")[2])
        case "NEAR":
            return Script(pieces=((0.0, f"OK {digest(message)}"),), near=int(_number(rest, 3600)))
        case "ERROR":
            return Script(Kind.ERROR, number=int(_number(rest, 500)))
        case "TOOL":
            return Script(Kind.TOOL, command=rest)
    tool, _, arguments = rest.partition(" ")
    return Script(Kind.CALL, tool=tool, arguments=json.dumps(json.loads(arguments or "{}")))


def _limit(message: str, seconds: float, window: str) -> Script:
    """The limit, until so many seconds after the message was first seen; then the answer to it."""
    left = _LIMITS.setdefault(message, time.monotonic() + seconds) - time.monotonic()
    if seconds and left <= 0:
        return Script(pieces=((0.0, f"OK {digest(message)}"),))
    return Script(Kind.LIMIT, number=max(0, round(left)), command=window)


def _number(text: str, default: float) -> float:
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else default


class MessageLog:
    """A file of JSON lines `{"at", "interface", "conversation", "text"}`, one for each user message received.

    Programs send the whole conversation with each request; a text is logged as often as one conversation
    holds it, however many requests (repetitions among them) carry it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: dict[str, Counter[str]] = {}
        self._lock = threading.Lock()

    def received(self, interface: str, conversation: str, texts: list[str]) -> None:
        """Log those user messages of the conversation that no earlier request had."""
        with self._lock:
            seen = self._seen.setdefault(conversation, Counter())
            now = Counter[str]()
            for text in texts:
                now[text] += 1
                if now[text] > seen[text]:
                    seen[text] += 1
                    self._write(interface, conversation, text)

    def _write(self, interface: str, conversation: str, text: str) -> None:
        if self._path is None:
            return
        line = {"at": time.time(), "interface": interface, "conversation": conversation, "text": text}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
