"""The lifecycle request: one JSON object, one element of the inbox.

Its keys: docs/reference/contract.md#lifecycle-request.
"""

import warnings
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

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

_OPTIONAL_KEYS = ("id", "to", "incarnation", "reason", "handoff", "clock")
_KEYS = ("from", "action", "timestamp", *_OPTIONAL_KEYS)


def _replace_surrogates(text: str) -> str:
    # JSON can spell half a surrogate pair, which no UTF-8 file can hold; Go replaces it too
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_Text = Annotated[str, StringConstraints(strict=True), AfterValidator(_replace_surrogates)]
_NonEmptyText = Annotated[_Text, StringConstraints(min_length=1)]


class LifecycleRequest(BaseModel):
    """A request about a session. Raises ValidationError, which is a ValueError, if it is not valid."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    sender: _NonEmptyText = Field(
        validation_alias="from", serialization_alias="from", description="an address or operator"
    )
    """The sender: any spelling of an address, or `operator`."""
    action: Annotated[
        LifecycleAction,
        BeforeValidator(lambda value: parse_action(value) if isinstance(value, str) else value),
    ] = Field(description="cycle, restart or shutdown")
    """What to do; case is ignored."""
    timestamp: Timestamp
    """When the request was made, with up to nine fractional digits."""
    id: Annotated[str, StringConstraints(strict=True, pattern=ID_PATTERN)] | None = Field(
        default=None, description="1 to 64 characters from A-Z a-z 0-9 _ -"
    )
    """Two elements with the same id are one request; without an id, two with the same bytes are."""
    to: _NonEmptyText | None = Field(default=None, description="an address")
    """The agent whose session is meant; default: the sender."""
    incarnation: _NonEmptyText | None = Field(default=None, description="the token of a session")
    """The token of the session that is meant."""
    reason: _Text = Field(
        default="", max_length=MAX_REASON_CHARS, description=f"text of at most {MAX_REASON_CHARS} characters"
    )
    """The reason, for people."""
    handoff: Annotated[_Text, AfterValidator(lambda text: text or None)] | None = Field(
        default=None, description="text"
    )
    """Text for the successor; only with `cycle`."""
    clock: Literal["redis"] | None = Field(default=None, description="redis")
    """By which clock `timestamp` was written: that of Redis; default: that of the sender's machine."""

    _raw_timestamp: str = PrivateAttr(default="")

    @model_validator(mode="wrap")
    @classmethod
    def _check_whole(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        if isinstance(data, Mapping):  # null counts as absent
            data = {
                key: value for key, value in data.items() if value is not None or key not in _OPTIONAL_KEYS
            }
        made: Self = handler(data)
        check_handoff(made.handoff or "", made.action)
        raw = data.get("timestamp") if isinstance(data, Mapping) else None
        made._raw_timestamp = raw if isinstance(raw, str) else format_time(made.timestamp)
        return made

    @property
    def target(self) -> str:
        """The agent whose session is meant, as it was spelled."""
        return self.sender if self.to is None else self.to

    @property
    def latest_timestamp(self) -> datetime:
        """The latest time that `timestamp` may mean: `10:12:21Z` is any instant within that second."""
        try:
            return self.timestamp + precision_of(self._written())
        except OverflowError:
            return self.timestamp

    @property
    def latest(self) -> datetime:
        """The former name of `latest_timestamp`."""
        text = "LifecycleRequest.latest is now LifecycleRequest.latest_timestamp"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return self.latest_timestamp

    def encode(self) -> bytes:
        """The element for the inbox, with the keys in order and only those that are set.

        Raises ValueError if it is too long for the inbox.
        """
        optional = {key: value for key in _OPTIONAL_KEYS if (value := getattr(self, key))}
        required = {"from": self.sender, "action": self.action.value, "timestamp": self._written()}
        element = go_formats.dump_compact(required | optional).encode()
        if len(element) > MAX_ELEMENT_BYTES:
            raise ValueError(
                f"the request has {len(element)} bytes; the limit is {MAX_ELEMENT_BYTES}: shorten it"
            )
        return element

    def _written(self) -> str:
        # a copy with another timestamp (`model_copy`) keeps the old spelling
        holds = self._raw_timestamp and parse_time(self._raw_timestamp) == self.timestamp
        return self._raw_timestamp if holds else format_time(self.timestamp)


def decode_element(element: bytes) -> tuple[str, LifecycleRequest]:
    """The id and the request of an inbox element; without an `id` key the digest of its bytes is the id.

    Raises InvalidRequest, and nothing else, for anything that is not a request.
    """
    try:
        request = _parse(element)
    except ValueError as error:
        raise InvalidRequest(str(error), element) from None
    except RecursionError:
        # what the parser barely accepts may be too deep for the error that quotes it
        raise InvalidRequest("it is nested too deeply", element) from None
    return request.id or content_id(element), request


def _parse(element: bytes) -> LifecycleRequest:
    if len(element) > MAX_ELEMENT_BYTES:
        raise ValueError(f"it has {len(element)} bytes; the limit is {MAX_ELEMENT_BYTES}")
    try:
        values = go_formats.load_object(element.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start} is {element[error.start]:#04x}") from None
    try:
        return LifecycleRequest.model_validate({key: values[key] for key in _KEYS if key in values})
    except ValueError as error:
        raise ValueError(one_line_error(error, LifecycleRequest)) from None
