"""What the pydantic models share: a timestamp, and errors in words for people.

A field's `description` says what is expected there; error texts quote it.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, ValidationError

from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.redis_url import redact

Timestamp = Annotated[
    AwareDatetime,
    BeforeValidator(lambda value: parse_time(value) if isinstance(value, str) else value),
    Field(strict=True, description="RFC 3339 with a zone, such as 2025-12-20T10:12:21.5Z"),
]


def one_line_error(error: ValueError, model: type[BaseModel]) -> str:
    """The error of this model in one line: each bad key with its value and what was expected."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(path)} {text}".lstrip() for path, text in field_errors(error, model))


def field_errors(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path to each bad key (empty for the whole), and the text that follows its name in an error."""
    fields = model.model_fields.items()
    expected = {str(field.validation_alias or name): field.description for name, field in fields}
    for detail in error.errors(include_url=False):
        path = tuple(str(step) for step in detail["loc"] if step != "[key]")
        context = detail.get("ctx", {})
        if not path:
            yield path, str(context.get("error") or detail["msg"])
        elif detail["type"] == "extra_forbidden":
            yield path, unknown_key_message("a setting", path[0], expected)
        elif detail["type"] == "missing":
            yield path, f"is missing: expected {expected[path[0]]}"
        elif detail["type"] == "redis_url":
            url = redact(detail["input"])
            yield path, f"= {quote_value(url)}: {context['reason']}; expected {expected[path[0]]}"
        else:
            yield path, f"= {quote_value(detail['input'])}: expected {expected[path[0]]}"


def quote_value(value: object, limit: int = 60) -> str:
    """A value as JSON, cut to a length that fits a line, without the password of a URL."""
    text = re.sub(r"://\S*@", "://***@", json.dumps(value, default=str))
    return text if len(text) <= limit else text[:limit] + "…"


def unknown_key_message(what: str, key: str, known: Iterable[str]) -> str:
    """`is not a setting; did you mean …?` with the nearest known key, or all of them if none is near."""
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"is not {what}" + (f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}")
