"""How full a context is, from the logs that programs keep."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gastown_mail.contracts.profile import ContextLog
from gastown_mail.programs.library import built_in
from gastown_mail.programs.session_log import context_in_log

STARTED = datetime.now(UTC) - timedelta(minutes=5)


def log_of(program: str) -> ContextLog:
    log = built_in()[program].context.log
    assert log is not None
    return log


def write(file: Path, *lines: object, after_start: float = 60.0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    then = STARTED.timestamp() + after_start
    os.utime(file, (then, then))
    return file


def claude_answer(tokens: int, cached: int = 0) -> dict[str, object]:
    usage = {"input_tokens": tokens, "cache_read_input_tokens": cached, "output_tokens": 10}
    return {"type": "assistant", "message": {"usage": usage}}


def claude_log(tmp_path: Path, name: str = "one") -> Path:
    slug = "".join(char if char.isalnum() else "-" for char in str(tmp_path / "work"))
    return tmp_path / ".claude/projects" / slug / f"{name}.jsonl"


def claude(tmp_path: Path, **environ: str) -> int | None:
    return context_in_log(log_of("claude"), tmp_path / "work", {"HOME": str(tmp_path), **environ}, STARTED)


def test_the_last_answer_of_claude_counts_with_what_was_cached(tmp_path: Path) -> None:
    write(
        claude_log(tmp_path),
        claude_answer(10),
        claude_answer(40_000, 119_990),
        {"type": "user"},
        "not json {",
    )

    assert claude(tmp_path) == 80


def test_another_home_is_found_by_its_variable(tmp_path: Path) -> None:
    file = write(claude_log(tmp_path), claude_answer(100_000))
    (tmp_path / ".claude").rename(tmp_path / "elsewhere")

    assert not file.exists()
    assert claude(tmp_path) is None
    assert claude(tmp_path, CLAUDE_CONFIG_DIR=str(tmp_path / "elsewhere")) == 50


def test_two_conversations_in_one_folder_tell_nothing(tmp_path: Path) -> None:
    write(claude_log(tmp_path, "one"), claude_answer(100_000))
    write(claude_log(tmp_path, "two"), claude_answer(150_000))

    assert claude(tmp_path) is None


def test_a_conversation_from_before_the_session_does_not_count(tmp_path: Path) -> None:
    write(claude_log(tmp_path, "old"), claude_answer(190_000), after_start=-60)
    write(claude_log(tmp_path, "new"), claude_answer(20_000))

    assert claude(tmp_path) == 10


@pytest.mark.parametrize(
    "lines", [(), ({"message": "text"},), ("[" * 100_000,), ({"message": {"usage": 3}},)]
)
def test_a_log_without_numbers_tells_nothing(tmp_path: Path, lines: tuple[object, ...]) -> None:
    write(claude_log(tmp_path), *lines)

    assert claude(tmp_path) is None


def codex_log(tmp_path: Path, name: str, work_dir: Path, tokens: int, window: object = 200_000) -> Path:
    folder = f"{STARTED.astimezone():%Y/%m/%d}"
    info = {"last_token_usage": {"total_tokens": tokens}, "model_context_window": window}
    return write(
        tmp_path / ".codex/sessions" / folder / f"rollout-{name}.jsonl",
        {"type": "session_meta", "payload": {"cwd": str(work_dir)}},
        {"type": "event_msg", "payload": {"type": "token_count", "info": info}},
    )


def test_the_log_of_codex_names_its_folder_and_its_window(tmp_path: Path) -> None:
    work = tmp_path / "work"
    codex_log(tmp_path, "mine", work, 150_000)
    codex_log(tmp_path, "other", tmp_path / "other", 10)

    assert context_in_log(log_of("codex"), work, {"HOME": str(tmp_path)}, STARTED) == 75


@pytest.mark.parametrize("window", [None, 0, "many"])
def test_a_window_that_is_no_number_tells_nothing(tmp_path: Path, window: object) -> None:
    codex_log(tmp_path, "mine", tmp_path, 150_000, window)

    assert context_in_log(log_of("codex"), tmp_path, {"HOME": str(tmp_path)}, STARTED) is None
