"""JSON with the bytes that Go's `encoding/json` writes. Standard library only."""

import json
from collections.abc import Mapping

_ESCAPED = str.maketrans({char: f"\\u{ord(char):04x}" for char in "&<>\u2028\u2029"})


def dump_compact(values: Mapping[str, object]) -> str:
    """One line, as `json.Marshal`: HTML's and JavaScript's characters escaped, all others as they are."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def dump_indented(values: Mapping[str, object]) -> str:
    """As `json.MarshalIndent(v, "", "  ")`: two spaces, no newline at the end."""
    return json.dumps(values, ensure_ascii=False, indent=2).translate(_ESCAPED)


def load_object(text: str) -> dict[str, object]:
    """The object that a JSON text holds, of equal keys the last; ValueError with a plain reason otherwise."""
    try:
        value = json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is not a JSON object but {_kind(value)}")
    return value


def _whole_number(digits: str) -> int | float:
    # Python refuses to read endless integers, which would let one unknown key spoil an element
    return int(digits) if len(digits) < 100 else float(digits)


def _kind(value: object) -> str:
    kinds = {str: "a text", list: "a list", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
