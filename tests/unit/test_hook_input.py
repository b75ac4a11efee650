"""What programs tell their hooks, and whether it means a full context; shapes as the programs have them."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gastown_mail.cli.hook_input import is_full, read_input

AUTO = {"hook_event_name": "PreCompact", "trigger": "auto"}


def written(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def claude_answer(tokens: int, cached: int = 0) -> dict[str, Any]:
    usage = {"input_tokens": tokens, "cache_read_input_tokens": cached, "output_tokens": 7}
    return {"type": "assistant", "message": {"role": "assistant", "usage": usage}}


def gemini_answer(tokens: int, model: str = "gemini-2.5-pro") -> dict[str, Any]:
    return {"type": "gemini", "content": "OK", "tokens": {"input": tokens, "output": 5}, "model": model}


@pytest.mark.parametrize("program", ["claude", "codex"])
def test_a_program_that_makes_room_by_itself_is_full(program: str) -> None:
    assert is_full(program, AUTO)


@pytest.mark.parametrize("program", ["claude", "codex", "gemini"])
def test_a_users_command_and_a_subagent_are_not_the_sessions_full_context(program: str) -> None:
    assert not is_full(program, {**AUTO, "trigger": "manual"})
    assert not is_full(program, {**AUTO, "agent_id": "a1"})


@pytest.mark.parametrize(
    ("own", "subagents", "age", "full"),
    [(20_000, 150_000, 0, False), (160_000, 150_000, 0, True), (20_000, 150_000, 300, True)],
)
def test_a_subagent_of_claude_at_work_that_holds_more_is_the_full_one(
    tmp_path: Path, own: int, subagents: int, age: float, full: bool
) -> None:
    conversation = written(tmp_path / "c.jsonl", claude_answer(1), claude_answer(own // 2, own // 2), {})
    subagent = written(tmp_path / "c/subagents/agent-a.jsonl", claude_answer(subagents), {"type": "user"})
    os.utime(subagent, (time.time() - age,) * 2)

    assert is_full("claude", {**AUTO, "transcript_path": str(conversation)}) is full


@pytest.mark.parametrize(
    ("tokens", "model", "threshold", "full"),
    [
        (524_287, "gemini-2.5-pro", None, False),
        (524_288, "gemini-2.5-pro", None, True),
        (128_000, "gemma-4-31b-it", None, True),
        (600_000, "gemini-2.5-pro", 0.9, False),
        (300_000, "gemini-2.5-pro", 0.2, True),
        (300_000, "gemini-2.5-pro", "much", False),
    ],
)
def test_gemini_is_full_when_it_will_summarize(
    tmp_path: Path, tokens: int, model: str, threshold: object, full: bool
) -> None:
    chat = written(tmp_path / "chat.jsonl", gemini_answer(9), gemini_answer(tokens, model), {"type": "user"})
    if threshold is not None:
        written(tmp_path / ".gemini/settings.json", {"model": {"compressionThreshold": threshold}})
    given = {"trigger": "auto", "transcript_path": str(chat), "cwd": str(tmp_path / "work")}

    assert is_full("gemini", given, {"GEMINI_CLI_HOME": str(tmp_path)}) is full


@pytest.mark.parametrize("content", [None, "", "no json\n", '{"type": "gemini"}\n', "[]\n"])
def test_gemini_is_not_full_as_long_as_nothing_says_so(tmp_path: Path, content: str | None) -> None:
    chat = tmp_path / "chat.jsonl"
    if content is not None:
        chat.write_text(content)

    assert not is_full("gemini", {"trigger": "auto", "transcript_path": str(chat)}, {})
    assert not is_full("gemini", {"trigger": "auto", "transcript_path": None}, {})


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b'{"a": 1}', {"a": 1}), (b"", {}), (b"[1]", {}), (b"\xff", {}), (b"[" * 99_999, {})],
)
def test_the_input_is_an_object_or_nothing(data: bytes, expected: dict[str, int]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        if len(data) < 65_536:
            file.write(data)
        else:
            file.write(data[:65_000])

    assert read_input(reading) == expected
    os.close(reading)


def test_an_input_that_never_ends_is_given_up() -> None:
    reading, writing = os.pipe()

    assert read_input(reading) == {}

    os.close(reading)
    os.close(writing)
