"""The Gemini interface of the mock model server: `generateContent`, `streamGenerateContent`, `countTokens`.

A path is `.../models/MODEL:METHOD`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.agents.mock_http import Exchange
from tests.agents.mock_script import DONE, Kind, Script, digest, read_script
from tests.agents.mock_tools import ToolCall, tool_call

_PATH = re.compile(r"models/(?P<model>[^/:]+):(?P<method>\w+)$")
_SHORT_LIMIT = 120
_SERVICE = "cloudcode-pa.googleapis.com"
_METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"


def answer(exchange: Exchange) -> bool:
    """Answer a request of this interface."""
    found = _PATH.search(exchange.path)
    if exchange.method != "POST" or found is None:
        return False
    match found["method"]:
        case "countTokens":
            exchange.send_json({"totalTokens": len(exchange.raw) // 4})
        case "generateContent" | "streamGenerateContent":
            _content(exchange, found["model"], streamed=found["method"].startswith("stream"))
        case _:
            return False
    return True


def _content(exchange: Exchange, model: str, *, streamed: bool) -> None:
    contents: list[Mapping[str, Any]] = exchange.body.get("contents", [])
    texts = [text for content in contents for text in _user_texts(content)]
    if exchange.body.get("tools"):
        exchange.log.received("generate", digest(texts[0] if texts else ""), texts)
    script = DONE if contents and _is_result(contents[-1]) else read_script(texts[-1] if texts else "")
    if script.kind is Kind.LIMIT:
        _send_limit(exchange, script.number, model)
    elif script.kind is Kind.ERROR and script.number == 429:
        _send_capacity(exchange)
    elif script.kind is Kind.ERROR:
        text = "The model is overloaded. Please try again later."
        _send_error(exchange, script.number, "UNAVAILABLE", text, [])
    else:
        answers = _answers(exchange, script, tool_call(script, _offered(exchange.body)))
        _send_stream(exchange, answers) if streamed else exchange.send_json(_joined(answers))


def _user_texts(content: Mapping[str, Any]) -> list[str]:
    """Return what the user typed, without what Gemini CLI says of the folder before the first message."""
    if content.get("role") != "user":
        return []
    texts = [str(part["text"]) for part in content.get("parts", []) if "text" in part]
    return [text for text in texts if not text.startswith("<session_context>")]


def _is_result(content: Mapping[str, Any]) -> bool:
    return any("functionResponse" in part for part in content.get("parts", []))


def _offered(body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    declared = [one for tool in body.get("tools") or [] for one in tool.get("functionDeclarations", [])]
    return {one["name"]: one.get("parametersJsonSchema") or one.get("parameters") or {} for one in declared}


def _answers(exchange: Exchange, script: Script, call: ToolCall | None) -> Iterator[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in _parts(script, call):
        parts.append(part)
        yield _candidate(part)
    asked, given = script.number or len(exchange.raw) // 4, len(json.dumps(parts)) // 4
    usage = {"promptTokenCount": asked, "candidatesTokenCount": given, "totalTokenCount": asked + given}
    yield _candidate({"text": ""}, "STOP") | {"usageMetadata": usage}


def _parts(script: Script, call: ToolCall | None) -> Iterator[dict[str, Any]]:
    if call is not None:
        yield {"functionCall": {"name": call.name, "args": call.arguments}}
    elif script.kind is Kind.TOOL:
        yield {"text": script.command}
    else:
        yield from ({"text": piece} for piece in script.stream())


def _candidate(part: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [part]}}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "modelVersion": "mock"}


def _send_stream(exchange: Exchange, answers: Iterator[dict[str, Any]]) -> None:
    exchange.begin_events()
    for one in answers:
        exchange.event(one)


def _joined(answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
    every = list(answers)
    parts = [part for one in every for part in one["candidates"][0]["content"]["parts"]]
    candidate = every[-1]["candidates"][0] | {"content": {"role": "model", "parts": parts}}
    return every[-1] | {"candidates": [candidate]}


def _send_limit(exchange: Exchange, seconds: int, model: str) -> None:
    """Send a 429: with 0 for a free key's day, below two minutes for a minute, else for a subscription."""
    retry = _detail("RetryInfo", retryDelay=f"{seconds}s")
    if seconds >= _SHORT_LIMIT:
        limit = f"{model} Requests per day per user per tier"
        text = (
            f"Quota exceeded for quota metric '{model} Requests' and limit '{limit}' of service '{_SERVICE}'."
        )
        _send_quota(exchange, text, [_detail("ErrorInfo", reason="QUOTA_EXHAUSTED", domain=_SERVICE), retry])
        return
    violation = {
        "quotaMetric": _METRIC,
        "quotaId": f"GenerateRequestsPer{'Minute' if seconds else 'Day'}PerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": "250",
    }
    text = "You exceeded your current quota, please check your plan and billing details."
    _send_quota(
        exchange, text, [_detail("QuotaFailure", violations=[violation]), *([retry] if seconds else [])]
    )


def _send_capacity(exchange: Exchange) -> None:
    """Send the 429 that subscriptions get since 2025; Gemini CLI waits the two hours without a word."""
    text = "You have exhausted your capacity on this model. Your quota will reset after 2h0m0s."
    reason = _detail("ErrorInfo", reason="QUOTA_EXHAUSTED", domain=_SERVICE)
    _send_quota(exchange, text, [reason, _detail("RetryInfo", retryDelay="7200s")])


def _detail(kind: str, **fields: object) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def _send_quota(exchange: Exchange, text: str, details: list[dict[str, Any]]) -> None:
    _send_error(exchange, 429, "RESOURCE_EXHAUSTED", text, details)


def _send_error(exchange: Exchange, code: int, status: str, text: str, details: list[dict[str, Any]]) -> None:
    error = {"code": code, "message": text, "status": status, "details": details}
    exchange.send_json({"error": error}, code)
