"""The interfaces of the mock model server that aider, opencode, Qwen Code and Gemini CLI speak."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.agents.mock_script import read_script
from tests.agents.mock_tools import ToolCall, tool_call

Post = Callable[[str, dict[str, Any]], str]
_SHELL = {"type": "object", "properties": {"wait": {"type": "boolean"}}, "required": ["command", "wait"]}


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    """Post JSON to a mock server of this test's own; returns the body of the answer, of an error too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tests.agents.mock_model", "--port", str(port)])

    def send(path: str, body: dict[str, Any]) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode())
        try:
            return str(urllib.request.urlopen(request, timeout=20).read().decode())
        except urllib.error.HTTPError as error:
            return str(error.read().decode())

    try:
        _wait_for(port)
        yield send
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"the mock server does not listen on port {port}")


def _chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def _generate(text: str, **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def test_a_streamed_chat_ends_with_done(post: Post) -> None:
    body = post("/v1/chat/completions", _chat("LINES 2", stream=True))
    assert "line 2 of 2" in body
    assert body.endswith("data: [DONE]\n\n")


def test_a_chat_asks_for_the_programs_shell_tool(post: Post) -> None:
    tools = [{"type": "function", "function": {"name": "bash", "parameters": _SHELL}}]
    answer = json.loads(post("/v1/chat/completions", _chat("TOOL echo x", tools=tools)))
    call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert json.loads(call["arguments"]) == {"command": "echo x", "wait": False}


def test_a_chat_without_tools_gets_the_command_as_text(post: Post) -> None:
    answer = json.loads(post("/v1/chat/completions", _chat("TOOL echo x")))
    assert "```bash\necho x\n```" in answer["choices"][0]["message"]["content"]


def test_a_chat_over_its_limit_is_told_when_to_come_back(post: Post) -> None:
    assert (
        "try again in 60s" in json.loads(post("/v1/chat/completions", _chat("LIMIT 60")))["error"]["message"]
    )


def test_gemini_is_answered_whole_and_streamed(post: Post) -> None:
    whole = json.loads(post("/v1beta/models/g:generateContent", _generate("LINES 2")))
    streamed = post("/v1beta/models/g:streamGenerateContent", _generate("LINES 2"))
    assert "line 2 of 2" in json.dumps(whole)
    assert whole["candidates"][0]["finishReason"] == "STOP"
    assert streamed.count("data: ") == 3


def test_gemini_is_asked_for_its_shell_tool(post: Post) -> None:
    declared = [{"functionDeclarations": [{"name": "run_shell_command", "parametersJsonSchema": _SHELL}]}]
    answer = json.loads(post("/v1beta/models/g:generateContent", _generate("TOOL echo x", tools=declared)))
    call = answer["candidates"][0]["content"]["parts"][0]["functionCall"]
    assert call == {"name": "run_shell_command", "args": {"command": "echo x", "wait": False}}


@pytest.mark.parametrize(
    ("message", "sign"),
    [
        ("LIMIT 0", "PerDay"),
        ("LIMIT 20", "PerMinute"),
        ("LIMIT 7200", "QUOTA_EXHAUSTED"),
        ("ERROR 429", "2h0m0s"),
    ],
)
def test_gemini_has_four_sorts_of_limits(post: Post, message: str, sign: str) -> None:
    assert sign in post("/v1beta/models/g:generateContent", _generate(message))


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    assert tool_call(read_script("TOOL echo x"), {"read_file": {}}) is None
    assert tool_call(read_script("CALL write {}"), {"write": {}}) == ToolCall("write", {})
