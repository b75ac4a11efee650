"""The Anthropic Messages interface of the mock model server, for Claude Code."""

import json
import time
import uuid
from itertools import chain
from typing import Any

from tests.agents.mock_http import Exchange
from tests.agents.mock_script import DONE, Kind, Script, read_script

MODEL = "claude-sonnet-4-5"


def answer(exchange: Exchange) -> bool:
    """Answer a request of this interface."""
    match exchange.method, exchange.path:
        case "POST", "/v1/messages":
            _message(exchange)
        case "POST", "/v1/messages/count_tokens":
            exchange.send_json({"input_tokens": len(exchange.raw) // 4})
        case "GET", "/v1/models" if "anthropic-version" in exchange.headers:
            exchange.send_json(
                {"data": [{"type": "model", "id": MODEL, "display_name": MODEL}], "has_more": False}
            )
        case _:
            return False
    return True


def _message(exchange: Exchange) -> None:
    messages = exchange.body.get("messages", [])
    texts = [text for message in messages for text in _user_texts(message)]
    if not exchange.body.get("tools"):  # asks for a title of the session
        script = Script(pieces=((0.0, '{"title": "Mock session", "isNewTopic": false}'),))
    else:
        exchange.log.received("messages", _conversation(exchange.body, texts), texts)
        script = DONE if messages and _is_tool_result(messages) else read_script(texts[-1] if texts else "")
    _send(exchange, script)


def _user_texts(message: dict[str, Any]) -> list[str]:
    if message.get("role") != "user":
        return []
    content = message.get("content", "")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = [block["text"] for block in blocks if block.get("type") == "text"]
    return [text for text in texts if not text.startswith("<system-reminder>")]


def _is_tool_result(messages: list[dict[str, Any]]) -> bool:
    """Say whether nothing but tool results (and reminders) follows the model's last message."""
    for message in reversed(messages):
        if message.get("role") == "assistant" or _user_texts(message):
            return False
        if isinstance(message.get("content"), list) and any(
            b.get("type") == "tool_result" for b in message["content"]
        ):
            return True
    return False


def _conversation(body: dict[str, Any], texts: list[str]) -> str:
    said = str(body.get("metadata", {}).get("user_id", ""))
    try:
        return str(json.loads(said)["session_id"])
    except (ValueError, KeyError, TypeError):
        return said or (texts[0][:40] if texts else "")


def _send(exchange: Exchange, script: Script) -> None:
    if script.kind is Kind.LIMIT:
        _send_limit(exchange, script)
    elif script.kind is Kind.ERROR:
        error = {"type": "api_error", "message": "The mock server was asked for an error"}
        exchange.send_json({"type": "error", "error": error}, script.number)
    elif exchange.body.get("stream"):
        _stream(exchange, script)
    else:
        _send_whole(exchange, script)


def _send_limit(exchange: Exchange, script: Script) -> None:
    error = {"type": "rate_limit_error", "message": "This request would exceed your account's rate limit."}
    body = {"type": "error", "error": error, "request_id": "req_mock"}
    headers = {"retry-after": str(script.number), "x-should-retry": "false"}
    claim = script.command or "five_hour"
    exchange.send_json(body, 429, headers | _limit_headers("rejected", claim, script.number))


def _limit_headers(status: str, claim: str, seconds: int) -> dict[str, str]:
    """Return the headers that tell a subscription's limits; `claim` is five_hour, seven_day, ..."""
    resets = str(int(time.time()) + seconds)
    window = "5h" if claim == "five_hour" else "7d"
    values = {
        "status": status,
        "reset": resets,
        "representative-claim": claim,
        f"{window}-status": status,
        f"{window}-reset": resets,
        f"{window}-utilization": "1.0" if status == "rejected" else "0.93",
        f"{window}-surpassed-threshold": "0.9",
        "fallback-percentage": "0.5",
        "overage-status": "rejected",
        "overage-disabled-reason": "org_level_disabled",
    }
    return {f"anthropic-ratelimit-unified-{name}": value for name, value in values.items()}


def _head(exchange: Exchange, script: Script) -> dict[str, Any]:
    tokens = script.number or len(exchange.raw) // 4
    usage = {"input_tokens": tokens, "output_tokens": 1}
    usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": exchange.body.get("model", MODEL),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _stream(exchange: Exchange, script: Script) -> None:
    pieces = script.stream()
    first = next(pieces, None)  # a silent answer waits here, before the head of its answer
    near = _limit_headers("allowed_warning", "five_hour", script.near) if script.near else {}
    exchange.begin_events({"request-id": "req_mock", **near})
    _event(exchange, "message_start", message=_head(exchange, script))
    if first is not None:
        _event(exchange, "content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in chain([first], pieces):
            _event(exchange, "content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    else:
        block = _tool_use(exchange, script)
        _event(exchange, "content_block_start", index=0, content_block={**block, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        _event(exchange, "content_block_delta", index=0, delta=delta)
    _event(exchange, "content_block_stop", index=0)
    reason = {"stop_reason": _stop_reason(script), "stop_sequence": None}
    _event(exchange, "message_delta", delta=reason, usage={"output_tokens": 20})
    _event(exchange, "message_stop")


def _event(exchange: Exchange, name: str, **fields: Any) -> None:
    exchange.event({"type": name, **fields}, name)


def _stop_reason(script: Script) -> str:
    return "end_turn" if script.kind is Kind.TEXT else "tool_use"


def _tool_use(exchange: Exchange, script: Script) -> dict[str, Any]:
    names = [tool.get("name", "") for tool in exchange.body.get("tools", [])]
    if script.kind is Kind.TOOL:
        name = "Bash" if "Bash" in names else names[0]
        arguments: Any = {"command": script.command, "description": "Run the command asked for"}
    else:
        name, arguments = script.tool, json.loads(script.arguments)
    return {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:20]}", "name": name, "input": arguments}


def _send_whole(exchange: Exchange, script: Script) -> None:
    if script.kind is Kind.TEXT:
        content: list[dict[str, Any]] = [{"type": "text", "text": "".join(script.stream())}]
    else:
        content = [_tool_use(exchange, script)]
    exchange.send_json({**_head(exchange, script), "content": content, "stop_reason": _stop_reason(script)})
