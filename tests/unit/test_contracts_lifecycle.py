import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.lifecycle import (
    DEAD_STATUSES,
    FINAL_STATUSES,
    ID_PATTERN,
    MAX_HANDOFF_BYTES,
    MAX_REASON_CHARS,
    LifecycleAction,
    RequestStatus,
    check_handoff,
    check_reason,
    content_id,
    new_request_id,
    parse_action,
)


@pytest.mark.parametrize("action", list(LifecycleAction))
def test_an_action_is_read_in_any_case_as_itself(action: LifecycleAction) -> None:
    for text in (action.value, action.value.upper(), action.value.title()):
        assert parse_action(text) is action


@pytest.mark.parametrize(
    "text", ["", "stop", "Restart session", " cycle", "cycle\n", "lifecycle", "RESTART please"]
)
def test_no_action_is_guessed_from_other_words(text: str) -> None:
    with pytest.raises(ValueError, match="expected cycle, restart or shutdown"):
        parse_action(text)


def test_statuses_are_open_final_or_final_and_dead() -> None:
    assert set(RequestStatus) - FINAL_STATUSES == {RequestStatus.RECEIVED, RequestStatus.CARRYING}
    assert {status.value for status in FINAL_STATUSES - DEAD_STATUSES} == {"done", "superseded"}
    assert {status.value for status in DEAD_STATUSES} == {"refused", "expired", "failed"}


@given(st.binary(max_size=200))
def test_the_same_bytes_have_the_same_valid_id(element: bytes) -> None:
    assert content_id(element) == content_id(bytes(element))
    assert ID_PATTERN.match(content_id(element))
    assert content_id(element) != content_id(element + b" ")


def test_the_digest_of_an_element_is_sha256_truncated_to_32_digits() -> None:
    assert content_id(b"x") == "sha-" + hashlib.sha256(b"x").hexdigest()[:32]


def test_new_ids_are_valid_and_different() -> None:
    idents = {new_request_id() for _ in range(1000)}
    assert len(idents) == 1000
    assert all(ID_PATTERN.match(ident) for ident in idents)


def test_new_ids_begin_with_the_time() -> None:
    first = new_request_id().split("-")[0]
    assert len(first) == 12
    assert first <= new_request_id().split("-")[0]


@pytest.mark.parametrize("ident", ["", "a" * 65, "a b", "a\n", "ä", "a/b"])
def test_invalid_ids_are_refused(ident: str) -> None:
    assert not ID_PATTERN.match(ident)


@pytest.mark.parametrize("action", [LifecycleAction.RESTART, LifecycleAction.SHUTDOWN])
def test_a_handoff_goes_with_cycle_only(action: LifecycleAction) -> None:
    check_handoff("", action)
    with pytest.raises(ValueError, match="only with cycle"):
        check_handoff("notes", action)


def test_the_handoff_is_bounded_in_bytes() -> None:
    check_handoff("é" * (MAX_HANDOFF_BYTES // 2), LifecycleAction.CYCLE)
    with pytest.raises(ValueError, match="65537 bytes"):
        check_handoff("x" + "é" * (MAX_HANDOFF_BYTES // 2), LifecycleAction.CYCLE)


def test_the_reason_is_bounded_in_characters() -> None:
    check_reason("é" * MAX_REASON_CHARS)
    with pytest.raises(ValueError, match="1001 characters"):
        check_reason("é" * (MAX_REASON_CHARS + 1))


def test_bytes_that_are_not_text_are_refused_in_plain_words() -> None:
    with pytest.raises(ValueError, match="the reason is not valid UTF-8 text"):
        check_reason("\udcff")
    with pytest.raises(ValueError, match="the handoff is not valid UTF-8 text"):
        check_handoff("\udcff", LifecycleAction.CYCLE)
