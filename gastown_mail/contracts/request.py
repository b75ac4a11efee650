"""The lifecycle request: one JSON object, one element of the inbox (CONTRACTS section 2)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    model_validator,
)

from gastown_mail.contracts import go_formats
from gastown_mail.contracts.errors import InvalidRequest
from gastown_mail.contracts.go_formats import format_time, parse_time, precision_of
from gastown_mail.contracts.lifecycle import (
    ID_PATTERN,
    MAX_ELEMENT_BYTES,
    MAX_REASON_CHARS,
    LifecycleAction,
    check_handoff,
    content_id,
    parse_action,
)
from gastown_mail.contracts.validation import Timestamp, one_line_error

OPTIONAL_KEYS = ("id", "to", "incarnation", "reason", "handoff")
KEYS = ("from", "action", "timestamp", *OPTIONAL_KEYS)


def _replace_surrogates(text: str) -> str:
    # JSON can spell half a surrogate pair, which no UTF-8 file can hold; Go replaces it as well
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _action(value: object) -> object:
    return parse_action(value) if isinstance(value, str) else value


def _or_none(text: str) -> str | None:
    return text or None


Text = Annotated[str, StringConstraints(strict=True), AfterValidator(_replace_surrogates)]
NonEmptyText = Annotated[Text, StringConstraints(min_length=1)]


class LifecycleRequest(BaseModel):
    """An agent's wish about a session. Raises ValidationError, a ValueError, when it is not of the shape."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    sender: NonEmptyText = Field(
        validation_alias="from", serialization_alias="from", description="an address or operator"
    )
    """Who asks: any spelling of an address, or `operator`."""
    action: Annotated[LifecycleAction, BeforeValidator(_action)] = Field(
        description="cycle, restart or shutdown"
    )
    """What is to be done; upper and lower case are the same."""
    timestamp: Timestamp
    """When it was asked for; up to nine digits of a second."""
    id: Annotated[str, StringConstraints(strict=True, pattern=ID_PATTERN)] | None = Field(
        default=None, description="1 to 64 characters out of A-Z a-z 0-9 _ -"
    )
    """The same id twice is one request; without one, the same bytes twice are."""
    to: NonEmptyText | None = Field(default=None, description="an address")
    """Whose session; the sender's if not given."""
    incarnation: NonEmptyText | None = Field(default=None, description="the token of a session")
    """The token of the very session that is meant."""
    reason: Text = Field(
        default="", max_length=MAX_REASON_CHARS, description=f"text of at most {MAX_REASON_CHARS} characters"
    )
    """Why, for people."""
    handoff: Annotated[Text, AfterValidator(_or_none)] | None = Field(default=None, description="text")
    """Text for the successor, with `cycle` only."""

    _raw_timestamp: str = PrivateAttr(default="")

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        values = _without_absent(data) if isinstance(data, Mapping) else data
        made: Self = handler(values)
        check_handoff(made.handoff or "", made.action)
        written = values.get("timestamp") if isinstance(values, Mapping) else None
        made._raw_timestamp = written if isinstance(written, str) else format_time(made.timestamp)
        return made

    @property
    def target(self) -> str:
        """Whose session is meant, as it was spelled."""
        return self.sender if self.to is None else self.to

    @property
    def latest_timestamp(self) -> datetime:
        """The end of the time that `timestamp` may mean: `10:12:21Z` is any instant within that second."""
        try:
            return self.timestamp + precision_of(self._written())
        except OverflowError:
            return self.timestamp

    def encode(self) -> bytes:
        """The element for the inbox, with the keys in order and only those that are set.

        Raises ValueError when it would be too long for the inbox.
        """
        optional = {key: value for key in OPTIONAL_KEYS if (value := getattr(self, key))}
        required = {"from": self.sender, "action": self.action.value, "timestamp": self._written()}
        element = go_formats.dump_compact(required | optional).encode()
        if len(element) > MAX_ELEMENT_BYTES:
            raise ValueError(
                f"the request has {len(element)} bytes, the limit is {MAX_ELEMENT_BYTES}: shorten it"
            )
        return element

    def _written(self) -> str:
        # a copy with another timestamp (`model_copy`) keeps the old spelling
        kept = self._raw_timestamp and parse_time(self._raw_timestamp) == self.timestamp
        return self._raw_timestamp if kept else format_time(self.timestamp)


def decode_element(element: bytes) -> tuple[str, LifecycleRequest]:
    """The id and the request of an inbox element; without an `id` key, its bytes' digest is the id.

    Raises UndecodableElement, and nothing else, for whatever is not a request.
    """
    try:
        request = _request(element)
    except ValueError as error:
        raise InvalidRequest(str(error), element) from None
    except RecursionError:
        # what the parser just bears may be too deep for the error that quotes it
        raise InvalidRequest("it is nested too deeply", element) from None
    return request.id or content_id(element), request


def _request(element: bytes) -> LifecycleRequest:
    try:
        return LifecycleRequest.model_validate(_known_values(element))
    except ValueError as error:
        raise ValueError(one_line_error(error, LifecycleRequest)) from None


def _known_values(element: bytes) -> dict[str, object]:
    if len(element) > MAX_ELEMENT_BYTES:
        raise ValueError(f"it has {len(element)} bytes, the limit is {MAX_ELEMENT_BYTES}")
    try:
        text = element.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start} is {element[error.start]:#04x}") from None
    values = go_formats.load_object(text)
    return {key: values[key] for key in KEYS if key in values}


def _without_absent(data: Mapping[str, Any]) -> dict[str, Any]:
    absent = [key for key in OPTIONAL_KEYS if key in data and data[key] is None]
    return {key: value for key, value in data.items() if key not in absent}
