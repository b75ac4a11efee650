"""What the pydantic models share: timestamps, readable errors, and hashes in Redis.

A field's `description` says what is expected there; error texts quote it.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from gastown_mail.contracts.go_formats import format_time, parse_time
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
    for detail in error.errors(include_url=False):
        path = tuple(str(step) for step in detail["loc"] if step != "[key]")
        expected, key = _hints(model, path), path[-1] if path else ""
        if key not in expected and detail["type"] != "extra_forbidden":
            expected, key = _hints(model, path[:1]), path[0] if path else ""
        context = detail.get("ctx", {})
        if not path:
            yield path, str(context.get("error") or detail["msg"])
        elif detail["type"] == "extra_forbidden":
            yield path, unknown_key_message("a setting", key, expected)
        elif detail["type"] == "missing":
            yield path, f"is missing: expected {expected[key]}"
        elif detail["type"] == "redis_url":
            url = redact(detail["input"])
            yield path, f"= {quote_value(url)}: {context['reason']}; expected {expected[key]}"
        else:
            hint = expected.get(key)
            why = f"expected {hint}" if hint else detail["msg"]
            if detail["type"] == "value_error" and "Python regular expression: " in str(context.get("error")):
                why = f"expected {context['error']}"
            yield path, f"= {quote_value(detail['input'])}: {why}"


def _hints(model: type[BaseModel], path: tuple[str, ...]) -> dict[str, str | None]:
    """What is expected of each key of the table that holds the last step of this path."""
    for step in path[:-1]:
        field = model.model_fields.get(step)
        model = (_model_in(field.annotation) if field else None) or model
    fields = model.model_fields.items()
    return {str(field.validation_alias or name): field.description for name, field in fields}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, itself or inside."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def quote_value(value: object, limit: int = 60) -> str:
    """A value as JSON, cut to a length that fits a line, without the password of a URL."""
    text = re.sub(r"://\S*@", "://***@", json.dumps(value, default=str))
    return text if len(text) <= limit else text[:limit] + "…"


def unknown_key_message(what: str, key: str, known: Iterable[str]) -> str:
    """`is not a setting; did you mean …?` with the nearest known key, or all of them if none is near."""
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"is not {what}" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}")


class RedisHash(BaseModel):
    """A hash in Redis, or some fields of one. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_alias=True, validate_by_name=True)

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Self:
        """The object that these stored fields describe. Raises ValueError for a bad value."""
        given = {name: text for name, text in fields.items() if text}
        return cls.model_validate_strings(given, by_alias=True, by_name=False)

    def to_mapping(self) -> dict[str, str]:
        """All fields as they are stored."""
        return dict(_texts(self.model_dump(by_alias=True)))

    def given_fields(self) -> dict[str, str]:
        """The fields that this object was made with, as they are stored."""
        return dict(_texts(self.model_dump(by_alias=True, exclude_unset=True)))

    def non_default_fields(self) -> dict[str, str]:
        """The fields that do not have their default, as they are stored."""
        return dict(_texts(self.model_dump(by_alias=True, exclude_defaults=True)))


def stored_as(name: str, default: Any) -> Any:
    """A field with this default that has another name in Redis."""
    return Field(default=default, validation_alias=name, serialization_alias=name)


def _texts(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        match value:
            case dict():  # another RedisHash, whose fields are in the same hash
                yield from _texts(value)
            case None:
                yield name, ""
            case bool():
                yield name, str(value).lower()
            case datetime():
                yield name, format_time(value)
            case tuple():
                yield name, " ".join(value)
            case _:
                yield name, str(value)


def _split(value: object) -> object:
    return value.split() if isinstance(value, str) else value


def _from_epoch(value: object) -> object:
    try:
        return datetime.fromtimestamp(float(value), UTC) if isinstance(value, str) else value
    except (OverflowError, OSError) as error:
        raise ValueError(f"not a valid time: {error}") from None


Flag = Annotated[bool, BeforeValidator(lambda value: value == "true" if isinstance(value, str) else value)]
"""`true` or `false`."""

Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Words with spaces between them."""

EpochSeconds = Annotated[
    datetime, BeforeValidator(_from_epoch), PlainSerializer(lambda at: str(at.timestamp()))
]
"""A time as seconds since the epoch."""

EpochMillis = Annotated[
    datetime, BeforeValidator(_from_epoch), PlainSerializer(lambda at: f"{at.timestamp():.3f}")
]
"""A time as seconds since the epoch, rounded to milliseconds."""

EpochList = Annotated[tuple[EpochMillis, ...], BeforeValidator(_split)]
"""Such times with spaces between them."""
