"""Finds among the tools that a program offers the one that a script asks for, and fits its arguments."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.agents.mock_script import Kind, Script

_SHELL_TOOLS = ("run_shell_command", "bash", "shell")
_EMPTY: dict[str, Any] = {"string": "run it", "boolean": False, "number": 0, "integer": 0, "array": []}


@dataclass(frozen=True)
class ToolCall:
    """A tool and its arguments."""

    name: str
    arguments: dict[str, Any]


def tool_call(script: Script, offered: Mapping[str, Mapping[str, Any]]) -> ToolCall | None:
    """Return the call that the script asks for, or None: it asks for none, or no such tool is offered.

    `offered` is the JSON schema of the arguments by the tool's name.
    """
    if script.kind is Kind.CALL:
        return ToolCall(script.tool, json.loads(script.arguments)) if script.tool in offered else None
    if script.kind is not Kind.TOOL:
        return None
    name = next((tool for tool in _SHELL_TOOLS if tool in offered), None)
    return None if name is None else ToolCall(name, _shell_arguments(script.command, offered[name]))


def _shell_arguments(command: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    needed = [key for key in schema.get("required", []) if key != "command"]
    return {"command": command} | {key: _EMPTY.get(_type(properties.get(key, {}))) for key in needed}


def _type(schema: Mapping[str, Any]) -> str:
    return str(schema.get("type", "string")).lower()
