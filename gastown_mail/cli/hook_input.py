"""What a program tells its hook, and whether that means a full context.

Each program runs the hook just before it summarizes a conversation to make room. The input is a JSON object.
Seen with Claude Code 2.1.197, Codex 0.169.0 and Gemini CLI 0.61.0.
"""

import json
import os
import select
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MAX_INPUT = 1 << 20
_INPUT_DEADLINE = 2.0
"""Seconds in which a program must have written the input and closed it."""

_TAIL = 1 << 20
"""Bytes at the end of a conversation's file in which its last answer is looked for."""

_RECENT = 60.0
"""Seconds since the last line of a subagent that is still at work."""

_GEMINI_FRACTION = 0.5
"""Gemini CLI's default for `model.compressionThreshold`."""

_GEMINI_WINDOW, _GEMMA_WINDOW = 1_048_576, 256_000
"""The windows that Gemini CLI assumes, in tokens."""


def read_input(descriptor: int) -> Mapping[str, Any]:
    """The JSON object that the program writes; empty if there is none, it is late, or this is a terminal."""
    data, until = b"", time.monotonic() + _INPUT_DEADLINE
    while not os.isatty(descriptor) and len(data) < _MAX_INPUT and (left := until - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                break
            data += piece
    return _object(data)


def is_full(program: str, given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the context of the session itself is full: not a subagent's, and not at the user's command."""
    if given.get("trigger") == "manual" or given.get("agent_id"):
        return False
    conversation = Path(str(given.get("transcript_path") or os.devnull))
    if program == "claude":
        return not _is_of_subagent(conversation)
    if program == "gemini":
        return _is_gemini_full(conversation, Path(str(given.get("cwd") or ".")), environ)
    return True


def is_in_shared_server() -> bool:
    """Whether Codex's shared server runs this process: then its environment is that of the first session."""
    from gastown_mail.sessions.process_table import arguments, read_process

    pid = os.getppid()
    while pid > 1 and (process := read_process(pid)):
        words = arguments(pid)
        if words[1:2] == ["app-server"] and Path(words[0]).name.startswith("codex"):
            return True
        pid = process.parent
    return False


def _is_of_subagent(conversation: Path) -> bool:
    """Whether a subagent of Claude Code is at work that holds more than the conversation that started it.

    Claude Code runs the hook for either, with the same input.
    """
    files = conversation.with_suffix("").glob("subagents/*.jsonl")
    recent = [file for file in files if time.time() - file.stat().st_mtime < _RECENT]
    own = _claude_tokens(conversation)
    return any(_claude_tokens(file) > own for file in recent)


def _claude_tokens(conversation: Path) -> int:
    """The tokens in the context at the last answer; 0 if unknown."""
    for line in _last_lines(conversation):
        message = line.get("message")
        usage = message.get("usage") if isinstance(message, dict) else None
        if line.get("type") == "assistant" and isinstance(usage, dict):
            return sum(
                value
                for key, value in usage.items()
                if key.endswith("input_tokens") and isinstance(value, int)
            )
    return 0


def _is_gemini_full(conversation: Path, folder: Path, environ: Mapping[str, str]) -> bool:
    """Whether Gemini CLI is about to summarize: it runs the hook at each turn, before it looks."""
    for line in _last_lines(conversation):
        tokens = line.get("tokens")
        if line.get("type") == "gemini" and isinstance(tokens, dict):
            window = _GEMMA_WINDOW if str(line.get("model")).startswith("gemma") else _GEMINI_WINDOW
            used = tokens.get("input")
            return isinstance(used, int) and used >= _gemini_fraction(folder, environ) * window
    return False


def _gemini_fraction(folder: Path, environ: Mapping[str, str]) -> float:
    home = Path(environ.get("GEMINI_CLI_HOME") or Path.home())
    for place in (folder, home):
        try:
            settings = _object((place / ".gemini/settings.json").read_bytes())
        except OSError:
            continue
        model = settings.get("model")
        fraction = model.get("compressionThreshold") if isinstance(model, dict) else None
        if isinstance(fraction, float | int) and 0 < fraction <= 1:
            return float(fraction)
    return _GEMINI_FRACTION


def _last_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the objects at the end of a file of JSON lines, the last one first."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return
    yield from map(_object, reversed(lines))


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
