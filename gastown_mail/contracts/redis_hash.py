"""Redis hashes as frozen objects. Every stored value is text, and an empty one means that it is not set."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from gastown_mail.contracts.go_formats import format_time


class RedisHash(BaseModel):
    """A hash in Redis, or some fields of one. Fields that it does not know are ignored."""

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
    return datetime.fromtimestamp(float(value), UTC) if isinstance(value, str) else value


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
