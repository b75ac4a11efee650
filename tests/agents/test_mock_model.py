"""The mock model server, asked over HTTP as the programs ask it."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.agents.mock_http import server
from tests.agents.mock_model import ANSWERS
from tests.agents.mock_script import Kind, MessageLog, digest, read_script


class Mock:
    """A running server and the log of what it received."""

    def __init__(self, http: ThreadingHTTPServer, log: Path) -> None:
        self.url = f"http://127.0.0.1:{http.server_address[1]}"
        self._log = log

    def post(self, path: str, body: dict[str, Any]) -> str:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def received(self) -> list[str]:
        return [json.loads(line)["text"] for line in self._log.read_text().splitlines()]


@pytest.fixture
def mock(tmp_path: Path) -> Iterator[Mock]:
    log = tmp_path / "log"
    http = server(0, ANSWERS, MessageLog(log))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield Mock(http, log)
    http.shutdown()
    http.server_close()


def messages(*texts: str) -> dict[str, Any]:
    """Return a conversation of user messages, each answered, as Claude Code sends it."""
    said = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in texts]
    reply = {"role": "assistant", "content": "yes"}
    turns = [turn for message in said for turn in (message, reply)][:-1]
    return {"model": "m", "stream": True, "tools": [{"name": "Bash"}], "messages": turns}


def items(*texts: str) -> dict[str, Any]:
    """Return the same conversation as Codex sends it."""
    said = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": t}]} for t in texts
    ]
    return {"model": "m", "stream": True, "tools": [{"name": "exec_command"}], "input": said}


INTERFACES = pytest.mark.parametrize(
    ("path", "conversation"), [("/v1/messages", messages), ("/v1/responses", items)]
)


@INTERFACES
def test_a_plain_message_is_answered_with_its_digest(mock: Mock, path: str, conversation: Any) -> None:
    assert f"OK {digest('1. Say hello')}" in mock.post(path, conversation("1. Say hello"))


@INTERFACES
def test_a_message_is_logged_once_however_often_it_is_sent(mock: Mock, path: str, conversation: Any) -> None:
    mock.post(path, conversation("one"))
    mock.post(path, conversation("one"))
    mock.post(path, conversation("one", "two\n 'quoted' ü"))
    mock.post(path, conversation("one", "two\n 'quoted' ü", "one"))
    assert mock.received() == ["one", "two\n 'quoted' ü", "one"]


@INTERFACES
def test_a_tool_is_asked_for_with_the_command(mock: Mock, path: str, conversation: Any) -> None:
    answer = mock.post(path, conversation("TOOL echo hello"))
    assert "echo hello" in answer
    assert "Bash" in answer or "exec_command" in answer


@INTERFACES
def test_a_limit_is_an_error_429(mock: Mock, path: str, conversation: Any) -> None:
    with pytest.raises(urllib.error.HTTPError) as failed:
        mock.post(path, conversation("LIMIT 7200"))
    assert failed.value.code == 429
    failed.value.close()


def test_tool_results_are_answered_with_done(mock: Mock) -> None:
    body = messages("TOOL true")
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": ""}]},
    ]
    assert "DONE" in mock.post("/v1/messages", body)


@pytest.mark.parametrize(
    ("message", "kind", "number"),
    [
        ("LIMIT", Kind.LIMIT, 3600),
        ("please\nERROR 529\n", Kind.ERROR, 529),
        ("a SLOW answer", Kind.TEXT, 0),
        ("TOKENS 5000", Kind.TEXT, 5000),
    ],
)
def test_a_keyword_at_the_beginning_of_a_line_decides(message: str, kind: Kind, number: int) -> None:
    script = read_script(message)
    assert (script.kind, script.number) == (kind, number)


def test_slow_and_silent_wait_as_long_as_they_say() -> None:
    slow, silent = read_script("SLOW 3"), read_script("SILENT 3")
    assert sum(pause for pause, _ in slow.pieces) == pytest.approx(3)
    assert [pause for pause, _ in silent.pieces] == [3]
