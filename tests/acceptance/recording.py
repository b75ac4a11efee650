"""Everything that is written into one Redis, as MONITOR shows it."""

import ast
import base64
import json
import re
import socket
import threading
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_WORD = re.compile(rb'"(?:[^"\\]|\\.)*"')
_WRITES = {"HSET", "HINCRBY", "ZADD", "SET", "SADD", "XADD", "RPUSH", "INCRBY"}


class Write(NamedTuple):
    """A value that was written: its key, its field or score, and its text."""

    key: str
    field: str
    value: str


class Recording:
    """The commands that a server runs from now until it ends."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines: list[bytes] = []
        self._socket = connection
        self._socket.sendall(b"MONITOR\r\n")
        self._stream = self._socket.makefile("rb")
        assert self._stream.readline() == b"+OK\r\n"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self._lines.extend(self._stream)

    def commands(self) -> Iterator[list[bytes]]:
        """Yield each command with its arguments, after the server has ended."""
        self._reader.join(10)
        assert not self._reader.is_alive()
        for line in self._lines:
            yield [ast.literal_eval(f"b{word.decode()}") for word in _WORD.findall(line)]

    def writes(self) -> list[Write]:
        """Return all values that were written."""
        return [write for command in self.commands() for write in _values(command)]

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def connected(path: Path) -> socket.socket | None:
    """Return a connection to the server on this unix socket, None when it does not listen yet."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _values(command: list[bytes]) -> Iterator[Write]:
    name, key, *rest = [_text(word) for word in command] if len(command) > 2 else ["", ""]
    if name not in _WRITES:
        return
    if name == "XADD":
        entry = rest[rest.index("*") + 1 :]
        about = f"{entry[1]}." if entry[0] == "event" else ""
        rest = [word if number % 2 else about + word for number, word in enumerate(entry)]
    elif name == "ZADD":
        rest = [word for word in rest if word not in ("NX", "XX")]
    elif name not in ("HSET", "HINCRBY"):
        rest = ["", rest[0]]
    yield from (Write(key, *pair) for pair in zip(rest[::2], rest[1::2], strict=False))


def _text(word: bytes) -> str:
    """Return a word as text; rq compresses the data of its jobs."""
    return (zlib.decompress(word) if word.startswith(b"x\x9c") else word).decode(errors="replace")


def by_field(writes: Iterable[Write]) -> dict[str, set[str]]:
    """Return the town's values by kind of key, and field of a hash; the score of a member goes before it."""
    found: dict[str, set[str]] = defaultdict(set)
    for key, field, value in writes:
        kind = key.split(":")[2]
        if kind in ("open", "dead", "waiting", "hosts"):
            found[kind].add(f"{field} {value}")
        elif kind != "events":
            found[f"{kind} {field}".strip()].add(value)
    return found


def results(writes: Iterable[Write]) -> dict[str, set[str]]:
    """Return what the jobs returned, by the name of their function."""
    found: dict[str, set[str]] = defaultdict(set)
    functions: dict[str, str] = {}
    for key, field, value in writes:
        _, kind, job, *_ = f"{key}::".split(":")
        if kind == "job" and field == "data":
            functions[job] = json.loads(value)[0].rpartition(".")[2]
        elif kind == "results" and field == "return_value":
            found[functions[job]].add(str(json.loads(base64.b64decode(value))))
    return found


def described(writes: Iterable[Write]) -> set[str]:
    """Return a line for each job that the town queued; `data` goes before a job's other fields."""
    lines: list[str] = []
    for key, field, value in writes:
        if not key.startswith("rq:job:"):
            continue
        if field == "data":
            name, _, arguments, _ = json.loads(value)
            head = (
                f"{key.removeprefix('rq:job:')} in ORIGIN: {name.removeprefix('gastown_mail.daemon.jobs.')}"
            )
            lines.append(f"{head} {json.dumps(arguments)}")
        elif field == "origin":
            lines[-1] = lines[-1].replace("ORIGIN", value)
        elif field in ("description", "meta"):
            lines[-1] += f" {value}"
    return {line for line in lines if not line.startswith("by-hand")}
