"""The log: one event per line with stable keys, also for rq's lines, in a file of bounded size.

Several processes append to one file. Each line is one write in append mode, so lines never mix. The process
that finds the file full rotates it under a lock; the others notice that the name has a new file and follow.

| key        | on which lines | says                                                              |
|------------|----------------|-------------------------------------------------------------------|
| time       | all            | RFC 3339 in UTC, milliseconds                                     |
| level      | all            | DEBUG, INFO, WARNING, ERROR                                       |
| logger     | all            | the module that logs: the daemon's, or rq's                       |
| event      | all            | what happened; one word from the daemon                           |
| trace      | of an error    | where in the program the error was raised                         |
| request_id | of a request   | its id, as in the record `request:<id>` and in the events         |
| agent      | of an agent    | its canonical address                                             |
| action     | of a request   | cycle, restart, shutdown                                          |
| outcome    | of a request   | its final status                                                  |
| took_ms    | many           | how many milliseconds it took                                     |
| detail     | many           | the reason or the result, in words                                |
| child      | of a process   | the name of the daemon's child process                            |
| pid        | of a process   | its process id                                                    |
| code       | of a process   | its exit status, or minus the signal that ended it                |
| job        | of an rq job   | rq's id of it                                                     |
| interval   | of a schedule  | seconds                                                           |
| requeued   | of a sweep     | how many requests were queued again                               |

An incarnation proves which agent sent a request, so it is never in the log.
"""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.plumbing.locks import try_lock

LOG_FILES = 5
"""The log and its rotated files."""

_LOG_SIZE = 10_000_000
"""Bytes of all of them together."""

# rq and rq-scheduler give these loggers handlers of their own unless their records are handled already
_LIBRARY_LOGGERS = ("rq.worker", "rq.job", "rq_scheduler.scheduler")
_FIELDS = "gastown_fields"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def configure(
    *, log_file: Path | None, size: int = _LOG_SIZE, level: str = "INFO", stream: bool | TextIO = False
) -> None:
    """Send the log records of this process to `log_file` (JSON lines, rotated) and to `stream`.

    `size`: bytes of the file and its rotated ones together. `stream`: True is stderr. A terminal gets
    readable lines, any other stream JSON lines. A second call replaces what the first set up. Raises
    SettingsError if the level is unknown or the file cannot be opened.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise SettingsError(f"unknown log level {level!r}: use DEBUG, INFO, WARNING, ERROR or CRITICAL")
    handlers: list[logging.Handler] = []
    if log_file is not None:
        handlers.append(_SharedFileHandler(log_file, size=size // LOG_FILES))
    if stream:
        handlers.append(_StreamHandler(sys.stderr if stream is True else stream))
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _OURS)]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(number)
    for name in _LIBRARY_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def log_event(logger: logging.Logger, event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with its fields (`request_id`, `agent`, `took_ms` …); a field that is None is left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    logger.log(level, "%s", event, extra={_FIELDS: given})


class _JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: time, level, logger, event, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "event": _COLOUR.sub("", record.getMessage()),
        }
        for name, value in _fields(record).items():
            line[f"{name}_" if name in line else name] = value
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return _CONTROL.sub(_as_json, json.dumps(line, ensure_ascii=False, default=str))


class _ConsoleFormatter(logging.Formatter):
    """Writes a record as a line for people; control characters in it cannot reach the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        moment = _moment(record).astimezone().strftime("%H:%M:%S")
        event = _COLOUR.sub("", record.getMessage())
        fields = ""
        for name, value in _fields(record).items():
            text = str(value)
            quoted = json.dumps(text, ensure_ascii=False) if re.search(r"[\s\"=]|^$", text) else text
            fields += f" {name}={quoted}"
        line = _CONTROL.sub(_as_json, f"{moment} {record.levelname:<7} {record.name}  {event}{fields}")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _SharedFileHandler(logging.Handler):
    """Appends JSON lines to a file that other processes append to as well, and rotates it.

    There are at most `files` files of about `size` bytes: `path`, then `path.1` (newest) to `path.N`
    (oldest).
    """

    def __init__(self, path: Path, *, size: int = _LOG_SIZE // LOG_FILES, files: int = LOG_FILES) -> None:
        super().__init__()
        self.path, self.size, self.files = path, size, files
        self.setFormatter(_JsonFormatter())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._open()
        except OSError as error:
            raise SettingsError(
                f"the log file {path} cannot be opened ({error.strerror}): give this user write access, "
                "or set log_file"
            ) from error

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode(errors="backslashreplace")
            self._follow()
            if os.fstat(self._fd).st_size + len(line) > self.size:
                self._rotate()
                self._follow()
            os.write(self._fd, line)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self.acquire()
        try:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        finally:
            self.release()
        super().close()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _follow(self) -> None:
        """Reopen the file if it was rotated or removed."""
        if self._fd < 0 or not _is_behind(self._fd, self.path):
            fresh = self._open()
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = fresh

    def _rotate(self) -> None:
        # a separate file description: a forked process shares self._fd, and would share a lock on it
        fd = self._open()
        try:
            # while another process rotates, this one line goes into the full file
            if not try_lock(fd):
                return
            # another process may have rotated between the size check and the lock
            if _is_behind(fd, self.path) and os.path.samestat(os.fstat(fd), os.fstat(self._fd)):
                names = [f"{self.path.name}.{number}" for number in range(1, self.files)]
                files = [self.path, *map(self.path.with_name, names)]
                for older, younger in zip(reversed(files), reversed(files[:-1]), strict=False):
                    if younger.exists():
                        younger.replace(older)
        finally:
            os.close(fd)


class _StreamHandler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(_ConsoleFormatter() if stream.isatty() else _JsonFormatter())


_OURS = (_SharedFileHandler, _StreamHandler)


def _as_json(control: re.Match[str]) -> str:
    return f"\\u{ord(control[0]):04x}"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = getattr(record, _FIELDS, None)
    return given if isinstance(given, dict) else {}


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _is_behind(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
