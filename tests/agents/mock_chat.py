"""The OpenAI chat completions interface of the mock model server: aider, opencode and Qwen Code speak it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.agents.mock_http import Exchange
from tests.agents.mock_script import DONE, Kind, Script, digest, read_script
from tests.agents.mock_tools import ToolCall, tool_call

MODEL = "mock-model"
_AIDERS_REMINDER = re.compile(
    r"\n\n(?:To suggest changes to a file you|# \*SEARCH/REPLACE block\* Rules).*", re.DOTALL
)
"""What aider puts behind the last message of a request."""

_LIST = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "mock"}]}


def answer(exchange: Exchange) -> bool:
    """Answer a request of this interface."""
    match exchange.method, exchange.path:
        case "POST", "/v1/chat/completions":
            _completion(exchange)
        case "GET", "/v1/models" if "anthropic-version" not in exchange.headers:
            exchange.send_json(_LIST)
        case _:
            return False
    return True


def _completion(exchange: Exchange) -> None:
    body = exchange.body
    messages: list[Mapping[str, Any]] = body.get("messages", [])
    texts = [text for message in messages for text in _user_texts(message)]
    script = _script(messages, texts)
    if _is_side_question(body):
        script = Script(pieces=((0.0, "Mock session"),))
    else:
        exchange.log.received("chat", digest(texts[0] if texts else ""), texts)
    if script.kind is Kind.LIMIT:
        _send_limit(exchange, script.number)
    elif script.kind is Kind.ERROR:
        _send_error(exchange, script.number, "server_error", "The server had an error. Please try again.")
    else:
        call = tool_call(script, _offered(body))
        send = _send_stream if body.get("stream") else _send_whole
        send(exchange, _deltas(script, call), call)


def _is_side_question(body: Mapping[str, Any]) -> bool:
    """Say whether a program asks for the title of a session: it offers no tools and says so."""
    return not body.get("tools") and any(
        "title generator" in str(message.get("content")) for message in body.get("messages", [])[:1]
    )


def _script(messages: list[Mapping[str, Any]], texts: list[str]) -> Script:
    if messages and messages[-1].get("role") == "tool":
        return DONE
    return read_script(texts[-1] if texts else "")


def _user_texts(message: Mapping[str, Any]) -> list[str]:
    if message.get("role") != "user":
        return []
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [_AIDERS_REMINDER.sub("", str(part["text"])) for part in parts if part.get("type") == "text"]
    return [text for text in texts if not text.startswith("<system-reminder>")]


def _offered(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    functions = [tool.get("function", {}) for tool in body.get("tools") or []]
    return {function["name"]: function.get("parameters", {}) for function in functions if "name" in function}


def _deltas(script: Script, call: ToolCall | None) -> Iterator[dict[str, Any]]:
    if call is not None:
        yield {"content": None, "tool_calls": [_call(call)]}
    elif script.kind is Kind.TOOL:
        # A program without tools may take a command from a block of text, as aider does.
        yield {"content": f"```bash\n{script.command}\n```\n"}
    else:
        yield from ({"content": piece} for piece in script.stream())


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"index": 0, "id": "call_1", "type": "function", "function": function}


def _finish(call: ToolCall | None) -> str:
    return "stop" if call is None else "tool_calls"


def _usage(exchange: Exchange, answered: object) -> dict[str, int]:
    asked, given = len(exchange.raw) // 4, len(json.dumps(answered)) // 4
    return {"prompt_tokens": asked, "completion_tokens": given, "total_tokens": asked + given}


def _head(exchange: Exchange, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": exchange.body.get("model", MODEL)}


def _send_stream(exchange: Exchange, deltas: Iterator[dict[str, Any]], call: ToolCall | None) -> None:
    head = _head(exchange, "chat.completion.chunk")
    exchange.begin_events()
    answered = []
    for delta in deltas:
        answered.append(delta)
        exchange.event(head | _choice({"role": "assistant"} | delta))
    exchange.event(head | _choice({}, _finish(call)))
    exchange.event(head | {"choices": [], "usage": _usage(exchange, answered)})
    exchange.event("[DONE]")


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _send_whole(exchange: Exchange, deltas: Iterator[dict[str, Any]], call: ToolCall | None) -> None:
    answered = list(deltas)
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if call is None:
        message["content"] = "".join(delta["content"] for delta in answered)
    else:
        message["tool_calls"] = [_call(call)]
    choice = {"index": 0, "message": message, "finish_reason": _finish(call)}
    head = _head(exchange, "chat.completion")
    exchange.send_json(head | {"choices": [choice], "usage": _usage(exchange, answered)})


def _send_limit(exchange: Exchange, seconds: int) -> None:
    """A limit by time has a time to wait; with 0 seconds it is an empty account, which has none."""
    if seconds == 0:
        text = "You exceeded your current quota, please check your plan and billing details."
        _send_error(exchange, 429, "insufficient_quota", text)
    else:
        model = exchange.body.get("model", MODEL)
        text = f"Rate limit reached for {model} on requests per day. Please try again in {seconds}s."
        _send_error(exchange, 429, "rate_limit_exceeded", text, {"retry-after": str(seconds)})


def _send_error(
    exchange: Exchange, status: int, code: str, text: str, headers: dict[str, str] | None = None
) -> None:
    error = {"message": text, "type": code, "param": None, "code": code}
    exchange.send_json({"error": error}, status, headers)
