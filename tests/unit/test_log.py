"""The log: one JSON object per line, bounded, from several processes, and never an obstacle."""

import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rq.logutils import setup_loghandlers

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.plumbing.log import _SharedFileHandler, configure, log_event

logger = logging.getLogger("gastown_mail.test")

WRITER = """
import logging, os, sys
from pathlib import Path
from gastown_mail.plumbing.log import _SharedFileHandler, log_event
root = logging.getLogger()
root.addHandler(_SharedFileHandler(Path(sys.argv[1]), size=int(sys.argv[2]), files=int(sys.argv[3])))
root.setLevel("INFO")
who = os.getpid() if os.fork() else 0
for number in range(int(sys.argv[4])):
    log_event(root, "written", who=who or os.getpid(), number=number, text="x" * 50)
if who:
    os.wait()
"""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    yield
    configure(log_file=None)
    root.setLevel(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "daemon" / "daemon.log"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_event_has_stable_keys(path: Path) -> None:
    configure(log_file=path)
    log_event(logger, "carried out", request_id="r1", agent="gastown/witness", took_ms=12.5, outcome=None)
    (line,) = lines_of(path)
    assert list(line) == ["time", "level", "logger", "event", "request_id", "agent", "took_ms"]
    assert datetime.fromisoformat(line["time"]).tzinfo
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"], line["event"]) == ("INFO", "gastown_mail.test", "carried out")
    assert (line["request_id"], line["took_ms"]) == ("r1", 12.5)


def test_values_of_all_kinds(path: Path) -> None:
    configure(log_file=path)
    text = 'ü "quoted"\nnext \x1b[31m \x9b31m \u2028 100% %s'
    log_event(logger, text, text=text, path=Path("/a"), time="mine", half="\udc80")
    assert path.read_bytes().count(b"\n") == 1
    assert not {0x1B, 0x9B} & set(map(ord, path.read_text(encoding="utf-8")))
    line = json.loads(path.read_bytes())
    assert (line["text"], line["path"], line["time_"]) == (text, "/a", "mine")
    assert line["half"] == "\udc80"
    assert line["event"] == text.replace("\x1b[31m", "")


def test_levels(path: Path) -> None:
    configure(log_file=path, level="warning")
    log_event(logger, "quiet")
    log_event(logger, "loud", logging.ERROR)
    assert [line["event"] for line in lines_of(path)] == ["loud"]
    with pytest.raises(SettingsError, match=r"unknown log level 'chatty'.*DEBUG"):
        configure(log_file=path, level="chatty")


def test_rq_logs_the_same_way(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.StreamHandler(sys.stderr)
    for name in ("rq.worker", "rq_scheduler.scheduler"):
        logging.getLogger(name).addHandler(own)
        logging.getLogger(name).propagate = False
    configure(log_file=path)
    setup_loghandlers("INFO")
    for name in ("rq.worker", "rq_scheduler.scheduler"):
        logging.getLogger(name).info("%s: %s", "queue", "\x1b[32mjob\x1b[39;49;00m")
    assert [(line["logger"], line["event"]) for line in lines_of(path)] == [
        ("rq.worker", "queue: job"),
        ("rq_scheduler.scheduler", "queue: job"),
    ]
    assert capsys.readouterr() == ("", "")


def test_an_exception_is_one_line_with_its_trace(path: Path) -> None:
    configure(log_file=path)
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("went wrong")
    (line,) = lines_of(path)
    assert line["event"] == "went wrong"
    assert "ValueError: odd" in line["trace"]


def test_a_second_configure_replaces_the_first(path: Path, tmp_path: Path) -> None:
    configure(log_file=path, stream=(first := StringIO()))
    configure(log_file=tmp_path / "other.log", stream=(second := StringIO()))
    log_event(logger, "once")
    assert (path.read_text(), first.getvalue()) == ("", "")
    assert len(lines_of(tmp_path / "other.log")) == 1
    assert json.loads(second.getvalue())["event"] == "once"


def test_a_terminal_gets_a_line_for_people() -> None:
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as reading, os.fdopen(slave, "w") as terminal:
        configure(log_file=None, stream=terminal)
        log_event(logger, "carried out", agent="mayor/", reason="tests are green", text="\x1b]0;owned\x07")
        seen = reading.read(4096).decode()
        configure(log_file=None)
    assert 'INFO    gastown_mail.test  carried out agent=mayor/ reason="tests are green"' in seen
    assert "\x1b" not in seen
    assert "\x07" not in seen


def test_a_stream_that_is_true_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_file=None, stream=True)
    log_event(logger, "heard")
    assert json.loads(capsys.readouterr().err)["event"] == "heard"


def test_the_log_file_and_its_backups_are_bounded(path: Path) -> None:
    handler = _SharedFileHandler(path, size=2000, files=3)
    for number in range(200):
        handler.handle(logging.makeLogRecord({"msg": f"event {number}", "name": "n"}))
    handler.close()
    kept = sorted(path.parent.iterdir())
    assert [file.name for file in kept] == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert all(1000 < file.stat().st_size <= 2000 for file in kept[1:])
    events = [line["event"] for file in (kept[2], kept[1], kept[0]) for line in lines_of(file)]
    assert events == [f"event {number}" for number in range(200 - len(events), 200)]


def test_several_processes_and_their_forks_lose_no_line(path: Path) -> None:
    count, size = 250, 20_000
    command = [sys.executable, "-c", WRITER, str(path), str(size), "40", str(count)]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    files = list(path.parent.iterdir())
    lines = [line for file in files for line in lines_of(file)]
    seen: dict[int, set[int]] = {}
    for line in lines:
        seen.setdefault(line["who"], set()).add(line["number"])
    assert len(lines) == 6 * count
    assert list(seen.values()) == [set(range(count))] * 6
    assert len(files) > 3


def test_a_removed_log_file_is_made_again(path: Path) -> None:
    configure(log_file=path)
    log_event(logger, "first")
    path.rename(path.with_name("moved"))
    log_event(logger, "second")
    path.unlink()
    log_event(logger, "third")
    assert [line["event"] for line in lines_of(path)] == ["third"]


def test_a_failing_log_never_fails_the_program(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    configure(log_file=path)
    log_event(logger, "unprintable", value=Mute())
    path.unlink()
    path.mkdir()
    log_event(logger, "nowhere")
    assert capsys.readouterr().err.count("--- Logging error ---") == 2


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be opened .*set log_file"):
        configure(log_file=tmp_path / "file" / "daemon.log")


def test_the_log_and_its_backups_stay_within_the_configured_size(tmp_path: Path) -> None:
    configure(log_file=tmp_path / "daemon.log", size=100_000)

    for _ in range(3000):
        log_event(logger, "said", text="x" * 100)

    files = list(tmp_path.iterdir())
    assert len(files) == 5
    assert 70_000 < sum(file.stat().st_size for file in files) <= 100_000
