"""How full a context is, from the log that a program keeps of its conversation."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from gastown_mail.contracts.profile import ContextLog

_MAX_FILES = 1000
"""How many files are looked at; a folder with more is not read."""

_TAIL = 512 * 1024
"""Bytes at the end of a log that are read."""


def context_in_log(
    log: ContextLog, work_dir: Path, environ: Mapping[str, str], started: datetime
) -> int | None:
    """How full the context of a session is, in percent, by its program's log.

    None when there is no log since `started`, when more than one could be the session's, or when it does not
    tell.
    """
    logs = [path for path in _candidates(log, work_dir, environ, started) if _is_of(path, log, work_dir)]
    if len(logs) != 1:
        return None
    for line in _lines_backwards(logs[0]):
        used = sum(number for key in log.used if isinstance(number := _at(line, key), int))
        if used:
            window = _at(line, log.window_key) if log.window_key else log.window
            return min(100, round(100 * used / window)) if isinstance(window, int) and window > 0 else None
    return None


def _candidates(
    log: ContextLog, work_dir: Path, environ: Mapping[str, str], started: datetime
) -> Iterator[Path]:
    """The logs that were written to since the session has started."""
    home = Path(environ.get(log.home_variable) or log.home.replace("~", environ.get("HOME", "~"), 1))
    slug = re.sub(r"[^A-Za-z0-9]", "-", str(work_dir.resolve()))
    pattern = f"{started.astimezone():{log.files.replace('{slug}', slug)}}"
    try:
        for number, path in enumerate(home.glob(pattern)):
            if number >= _MAX_FILES:
                return
            if path.stat().st_mtime >= started.timestamp():
                yield path
    except OSError:
        return


def _is_of(path: Path, log: ContextLog, work_dir: Path) -> bool:
    """Whether the log's first line names this work dir, where the profile says that it names one."""
    if not log.work_dir_key:
        return True
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            first = json.loads(file.readline(_TAIL))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(_at(first, log.work_dir_key) == str(work_dir.resolve()))


def _lines_backwards(path: Path) -> Iterator[Any]:
    """The JSON lines at the end of a file, the last one first."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in reversed(lines):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            continue


def _at(value: Any, key: str) -> Any:
    """The value at a path such as `payload.info.total`; None if there is none."""
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
