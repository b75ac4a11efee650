"""The OpenAI Responses interface of the mock model server, for Codex."""

import json
import time
import uuid
from collections.abc import Iterable
from itertools import chain
from typing import Any

from tests.agents.mock_http import Exchange
from tests.agents.mock_script import DONE, Kind, Script, read_script

_NOT_TYPED = (
    "<environment_context>",
    "<user_instructions>",
    "# AGENTS.md instructions",
    "<skills_instructions>",
)


def answer(exchange: Exchange) -> bool:
    """Answer a request of this interface."""
    if (exchange.method, exchange.path) != ("POST", "/v1/responses"):
        return False
    if exchange.body.get("text", {}).get("format"):  # asks for a title of the session, as JSON
        _send(exchange, Script(pieces=((0.0, '{"title": "Mock session"}'),)))
        return True
    items = exchange.body.get("input", [])
    texts = [text for item in items for text in _user_texts(item)]
    exchange.log.received("responses", _conversation(exchange, texts), texts)
    is_result = bool(items) and str(items[-1].get("type", "")).endswith("_output")
    _send(exchange, DONE if is_result else read_script(texts[-1] if texts else ""))
    return True


def _user_texts(item: dict[str, Any]) -> list[str]:
    if item.get("type", "message") != "message" or item.get("role") != "user":
        return []
    content = item.get("content", "")
    parts = [{"text": content}] if isinstance(content, str) else content
    texts = [part["text"] for part in parts if "text" in part]
    return [text for text in texts if not text.startswith(_NOT_TYPED)]


def _conversation(exchange: Exchange, texts: list[str]) -> str:
    for name in ("session_id", "conversation_id", "session-id"):
        if exchange.headers.get(name):
            return str(exchange.headers[name])
    return str(exchange.body.get("prompt_cache_key") or (texts[0][:40] if texts else ""))


def _send(exchange: Exchange, script: Script) -> None:
    if script.kind is Kind.LIMIT:
        _send_limit(exchange, script.number)
    elif script.kind is Kind.ERROR:
        error = {"type": "server_error", "message": "The mock server was asked for an error"}
        exchange.send_json({"error": error}, script.number)
    else:
        _stream(exchange, script)


def _send_limit(exchange: Exchange, seconds: int) -> None:
    error = {
        "type": "usage_limit_reached",
        "message": "The usage limit has been reached",
        "plan_type": "plus",
        "resets_at": int(time.time()) + seconds,
        "resets_in_seconds": seconds,
    }
    exchange.send_json({"error": error}, 429, _limit_headers(100, seconds))


def _limit_headers(percent: int, seconds: int) -> dict[str, str]:
    return {
        "x-codex-primary-used-percent": str(percent),
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": str(int(time.time()) + seconds),
    }


def _stream(exchange: Exchange, script: Script) -> None:
    pieces = script.stream()
    first = next(pieces, None)  # a silent answer waits here, before the head of its answer
    exchange.begin_events(_limit_headers(92, script.near) if script.near else {})
    identity = f"resp_{uuid.uuid4().hex[:24]}"
    _event(exchange, "response.created", response={"id": identity, "object": "response", "output": []})
    if first is not None:
        item = _stream_text(exchange, chain([first], pieces))
    else:
        item = _call(exchange, script)
        _event(exchange, "response.output_item.added", output_index=0, item=item)
        _event(exchange, "response.output_item.done", output_index=0, item=item)
    response = {"id": identity, "object": "response", "status": "completed", "output": [item]}
    _event(exchange, "response.completed", response={**response, "usage": _usage(exchange, script)})


def _stream_text(exchange: Exchange, pieces: Iterable[str]) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "message", "role": "assistant", "id": f"msg_{uuid.uuid4().hex[:24]}"}
    _event(exchange, "response.output_item.added", output_index=0, item={**item, "content": []})
    text = ""
    for piece in pieces:
        text += piece
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        _event(exchange, "response.output_text.delta", delta=piece, **place)
    item |= {"content": [{"type": "output_text", "text": text, "annotations": []}]}
    _event(exchange, "response.output_item.done", output_index=0, item=item)
    return item


def _event(exchange: Exchange, name: str, **fields: Any) -> None:
    exchange.event({"type": name, **fields}, name)


def _usage(exchange: Exchange, script: Script) -> dict[str, Any]:
    tokens = script.number or len(exchange.raw) // 4
    usage: dict[str, Any] = {"input_tokens": tokens, "output_tokens": 20, "total_tokens": tokens + 20}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return usage


def _call(exchange: Exchange, script: Script) -> dict[str, Any]:
    tools = {str(tool.get("name", "")): tool for tool in exchange.body.get("tools", [])}
    call: dict[str, Any] = {"call_id": f"call_{uuid.uuid4().hex[:20]}", "id": f"fc_{uuid.uuid4().hex[:20]}"}
    name, arguments = (
        (script.tool, script.arguments) if script.kind is Kind.CALL else _shell(tools, script.command)
    )
    if tools.get(name, {}).get("type") == "custom":
        given = json.loads(arguments)
        return {**call, "type": "custom_tool_call", "name": name, "input": str(given.get("input", given))}
    return {**call, "type": "function_call", "name": name, "arguments": arguments}


def _shell(tools: dict[str, dict[str, Any]], command: str) -> tuple[str, str]:
    """Return the name of the shell tool among those offered, and its arguments as JSON."""
    if "exec_command" in tools:
        return "exec_command", json.dumps({"cmd": command})
    if "shell_command" in tools:
        return "shell_command", json.dumps({"command": command})
    return "shell", json.dumps({"command": ["bash", "-lc", command]})
