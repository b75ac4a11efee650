"""A document's shape as tables, from the pydantic model that writes it."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tools.markdown import code, table

Schema = Mapping[str, Any]


def tables(model: type[BaseModel]) -> Iterator[str]:
    """The parts of a page: the keys of the document, then those of each of its parts."""
    schema = model.model_json_schema(mode="serialization")
    yield _table(schema)
    for name, part in schema.get("$defs", {}).items():
        yield f"## {name}"
        yield str(part["description"])
        yield _table(part) if "properties" in part else _kind(part)


def _table(schema: Schema) -> str:
    rows = ([code(key), _kind(value), _meaning(value)] for key, value in schema["properties"].items())
    return table(("key", "type", "meaning"), rows)


def _meaning(value: Schema) -> str:
    return " ".join(str(value.get("description", "")).split())


def _kind(value: Schema) -> str:
    """What a key holds, in words."""
    if "anyOf" in value:
        return " or ".join(_kind(one) for one in value["anyOf"])
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if words := value.get("enum") or [value[key] for key in ("const",) if key in value]:
        return " · ".join(code(word) for word in words)
    if value["type"] == "array":
        return f"list of {_kind(value['items'])}"
    return "time" if value.get("format") == "date-time" else str(value["type"])
