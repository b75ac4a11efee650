import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.errors import InvalidRequest
from gastown_mail.contracts.lifecycle import MAX_ELEMENT_BYTES, LifecycleAction, content_id
from gastown_mail.contracts.request import _KEYS, _OPTIONAL_KEYS, LifecycleRequest, decode_element
from tests.unit.moments import MOMENTS

CONFORMANCE = Path(__file__).parent.parent / "conformance"
FILES = sorted(CONFORMANCE.glob("request-*.json"))
GOOD = {"from": "gastown/witness", "action": "restart", "timestamp": "2025-12-20T10:12:21.123456Z"}

TEXTS = st.text(min_size=1, max_size=40)
IDS = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")


@st.composite
def requests(draw: st.DrawFn) -> LifecycleRequest:
    action = draw(st.sampled_from(LifecycleAction))
    return LifecycleRequest(
        sender=draw(TEXTS),
        action=action,
        timestamp=draw(MOMENTS),
        id=draw(st.none() | IDS),
        to=draw(st.none() | TEXTS),
        incarnation=draw(st.none() | TEXTS),
        reason=draw(st.text(max_size=40)),
        handoff=draw(st.none() | st.text()) if action is LifecycleAction.CYCLE else None,
    )


def element(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def reason_of(raw: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        decode_element(raw)
    assert caught.value.raw is raw
    assert "\n" not in caught.value.reason
    assert "pydantic" not in caught.value.reason
    assert "http" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_go_wrote_is_read_and_written_byte_for_byte(path: Path) -> None:
    ident, request = decode_element(path.read_bytes())
    assert request.encode() == path.read_bytes()
    assert ident == content_id(path.read_bytes())


def test_what_go_wrote_means_what_it_says() -> None:
    read = {path.stem: decode_element(path.read_bytes())[1] for path in FILES}
    assert {(name, request.sender, request.action.value) for name, request in read.items()} == {
        ("request-cycle", "mayor/", "cycle"),
        ("request-restart", "gastown/witness", "restart"),
        ("request-shutdown", "gastown/crew/max", "shutdown"),
    }
    assert read["request-cycle"].timestamp == datetime(2025, 12, 20, 10, 12, 21, 123456, tzinfo=UTC)


@given(requests())
def test_a_written_request_reads_as_itself(request: LifecycleRequest) -> None:
    ident, read = decode_element(request.encode())
    assert read == request
    assert read.latest_timestamp == request.latest_timestamp
    assert read.encode() == request.encode()
    assert ident == request.id or (request.id is None and ident == content_id(request.encode()))


@given(requests())
def test_an_element_is_in_order_without_what_is_not_set_and_safe_in_html(request: LifecycleRequest) -> None:
    raw = request.encode()
    values = json.loads(raw)
    assert list(values) == [key for key in _KEYS if key in values]
    assert all(values[key] for key in _OPTIONAL_KEYS if key in values)
    assert not set("<>&\u2028\u2029") & set(raw.decode())


def test_text_is_written_as_go_writes_it() -> None:
    request = LifecycleRequest.model_validate({**GOOD, "reason": "a<b> & ü \u2028 🙂 \x7f \x01"})
    assert b'"reason":"a\\u003cb\\u003e \\u0026 \xc3\xbc \\u2028 ' in request.encode()
    assert request.encode().endswith('🙂 \x7f \\u0001"}'.encode())


@pytest.mark.parametrize("key", _OPTIONAL_KEYS)
def test_null_counts_as_absent(key: str) -> None:
    assert decode_element(element(**{key: None}))[1] == decode_element(element())[1]


def test_unknown_keys_are_ignored_whatever_they_hold() -> None:
    odd = b'"x":NaN,"y":[-Infinity,{}],"z":' + b"1" * 5000
    assert decode_element(element()[:-1] + b"," + odd + b"}")[1] == decode_element(element())[1]


def test_the_last_of_equal_keys_counts() -> None:
    assert decode_element(b'{"action":"cycle",' + element()[1:])[1].action is LifecycleAction.RESTART


def test_the_target_defaults_to_the_sender() -> None:
    assert decode_element(element())[1].target == "gastown/witness"
    assert decode_element(element(to="gastown/crew/max"))[1].target == "gastown/crew/max"


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    request = decode_element(element().replace(b"gastown", b"\\ud800"))[1]
    assert request.sender == "\ufffd/witness"
    assert decode_element(request.encode())[1] == request


@pytest.mark.parametrize(
    ("spelling", "span"),
    [
        ("21Z", 1_000_000),
        ("21.5Z", 100_000),
        ("21.50Z", 10_000),
        ("21.123456789Z", 1),
        ("21+01:00", 1_000_000),
    ],
)
def test_a_coarse_time_means_any_instant_inside_its_last_digit(spelling: str, span: int) -> None:
    request = decode_element(element(timestamp=f"2025-12-20T10:12:{spelling}"))[1]
    assert request.latest_timestamp - request.timestamp == timedelta(microseconds=span)


def test_the_last_second_of_the_calendar_has_an_end() -> None:
    request = decode_element(element(timestamp="9999-12-31T23:59:59Z"))[1]
    assert request.latest_timestamp == request.timestamp


def test_a_copy_with_another_time_is_written_with_that_time() -> None:
    later = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    copy = decode_element(element())[1].model_copy(update={"timestamp": later})
    assert decode_element(copy.encode())[1].timestamp == later
    assert copy.latest_timestamp == later + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"from": ""}, 'from = "": expected an address'),
        ({"from": 5}, "from = 5: expected an address"),
        ({"from": None}, "from = null: expected an address"),
        ({"action": "stop"}, 'action = "stop": expected cycle, restart or shutdown'),
        ({"action": True}, "action = true: expected cycle"),
        ({"timestamp": 1766225541}, "timestamp = 1766225541: expected RFC 3339"),
        ({"timestamp": "2025-12-20T10:12:21"}, "expected RFC 3339 with a zone"),
        ({"id": ""}, 'id = "": expected 1 to 64 characters'),
        ({"id": "a b"}, "expected 1 to 64 characters"),
        ({"id": "a\n"}, "expected 1 to 64 characters"),
        ({"id": "a" * 65}, "expected 1 to 64 characters"),
        ({"to": ""}, 'to = "": expected an address'),
        ({"to": ["mayor/"]}, 'to = ["mayor/"]: expected an address'),
        ({"incarnation": ""}, 'incarnation = "": expected the token'),
        ({"reason": "x" * 1001}, "expected text of at most 1000 characters"),
        ({"handoff": "x"}, "only with cycle"),
        ({"action": "cycle", "handoff": {}}, "handoff = {}: expected text"),
        ({"action": "cycle", "handoff": "x" * 65537}, "65537 bytes"),
    ],
)
def test_a_bad_key_is_named_with_what_was_expected(changes: dict[str, object], words: str) -> None:
    assert words in reason_of(element(**changes))


@pytest.mark.parametrize("key", ["from", "action", "timestamp"])
def test_a_missing_key_is_named(key: str) -> None:
    values = {name: value for name, value in GOOD.items() if name != key}
    assert reason_of(json.dumps(values).encode()).startswith(f"{key} is missing: expected ")


def test_a_python_attribute_name_is_not_a_key() -> None:
    assert "from is missing" in reason_of(element().replace(b'"from"', b'"sender"'))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON"),
        (b"cycle", "not JSON"),
        (element()[:-1], "not JSON"),
        (element() + b"{}", "not JSON"),
        (b"[]", "not a JSON object but a list"),
        (b"null", "not a JSON object but null"),
        (b'"cycle"', "not a JSON object but a string"),
        (b"\xff{}", "not UTF-8: byte 0 is 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (MAX_ELEMENT_BYTES - 1) + b"{}", "131073 bytes"),
    ],
)
def test_an_element_that_is_not_an_object_is_invalid(raw: bytes, words: str) -> None:
    assert words in reason_of(raw)


def test_an_element_of_the_largest_size_is_read() -> None:
    raw = element()
    assert decode_element(raw + b" " * (MAX_ELEMENT_BYTES - len(raw)))[1].sender == "gastown/witness"


def test_a_request_that_is_too_large_for_the_inbox_is_not_written() -> None:
    request = LifecycleRequest.model_validate({**GOOD, "action": "cycle", "handoff": "\x01" * 60_000})
    with pytest.raises(ValueError, match="shorten it"):
        request.encode()


def test_a_request_needs_a_time_with_zone() -> None:
    with pytest.raises(ValueError, match="timezone info"):
        LifecycleRequest.model_validate({**GOOD, "timestamp": datetime(2025, 1, 1)})  # noqa: DTZ001


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def decoded(raw: bytes) -> tuple[str, LifecycleRequest] | InvalidRequest:
    try:
        return decode_element(raw)
    except InvalidRequest as error:
        return error


@given(st.dictionaries(st.sampled_from([*_KEYS, "sender", "x"]), JSON_VALUES), st.booleans())
def test_almost_valid_elements_are_requests_or_invalid(changes: dict[str, Any], whole: bool) -> None:
    raw = json.dumps({**GOOD, **changes} if whole else changes).encode()
    outcome = decoded(raw)
    if isinstance(outcome, InvalidRequest):
        assert outcome.raw == raw
        assert outcome.reason
    else:
        assert decode_element(outcome[1].encode())[1] == outcome[1]


CUT = st.integers(0, len(element())).map(lambda at: element()[:at] + element()[at + 1 :])


@given(st.binary() | CUT)
def test_broken_bytes_are_requests_or_invalid(raw: bytes) -> None:
    outcome = decoded(raw)
    assert outcome.raw == raw if isinstance(outcome, InvalidRequest) else outcome[0]
