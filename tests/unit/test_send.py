"""What a sender builds before anything is sent."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.lifecycle import (
    MAX_ELEMENT_BYTES,
    MAX_HANDOFF_BYTES,
    MAX_REASON_CHARS,
    LifecycleAction,
)
from gastown_mail.contracts.request import decode_element
from gastown_mail.mail.send import build_element

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
NOWHERE = "unix:///nowhere/redis.sock"


def composed(
    action: str = "restart",
    asker: str = "gastown/witness",
    *,
    to: str | None = None,
    token: str = "",
    reason: str = "",
    handoff: str = "",
) -> bytes:
    return build_element("an-id", action, asker, to=to, token=token, reason=reason, handoff=handoff, now=NOW)


def test_an_element_has_only_the_keys_that_were_given() -> None:
    found = json.loads(composed())

    assert list(found) == ["from", "action", "timestamp", "id"]
    assert (found["from"], found["action"], found["id"]) == ("gastown/witness", "restart", "an-id")
    assert parse_time(found["timestamp"]) == NOW


def test_the_keys_have_a_fixed_order() -> None:
    element = composed("cycle", "mayor/", to="deacon/", token="t0k", reason="tired", handoff="next: #12")

    assert list(json.loads(element)) == [
        "from", "action", "timestamp", "id", "to", "incarnation", "reason", "handoff"
    ]  # fmt: skip
    assert json.loads(element) | {"timestamp": ""} == {
        "from": "mayor/", "action": "cycle", "timestamp": "", "id": "an-id", "to": "deacon/",
        "incarnation": "t0k", "reason": "tired", "handoff": "next: #12",
    }  # fmt: skip


@pytest.mark.parametrize(
    "spelling", ["cycle", "CYCLE", "Cycle", "restart", "Restart", "shutdown", "SHUTDOWN"]
)
def test_the_case_of_an_action_is_ignored(spelling: str) -> None:
    assert json.loads(composed(spelling))["action"] == spelling.lower()


@pytest.mark.parametrize("word", ["", "reboot", "cycl", "cycle ", "stop", "shut down", "recycle"])
def test_no_action_is_guessed(word: str) -> None:
    with pytest.raises(SettingsError, match=r"was not sent.*expected cycle, restart or shutdown"):
        composed(word)


@pytest.mark.parametrize("action", ["restart", "shutdown"])
def test_a_handoff_goes_with_cycle_only(action: str) -> None:
    with pytest.raises(SettingsError, match="a handoff goes only with cycle"):
        composed(action, handoff="notes")


def test_the_longest_reason_and_handoff_go_through_and_one_more_does_not() -> None:
    longest = composed("cycle", reason="ü" * MAX_REASON_CHARS, handoff="x" * MAX_HANDOFF_BYTES)

    assert len(decode_element(longest)[1].handoff or "") == MAX_HANDOFF_BYTES
    with pytest.raises(SettingsError, match=f"1001 characters; the limit is {MAX_REASON_CHARS}"):
        composed(reason="r" * (MAX_REASON_CHARS + 1))
    with pytest.raises(SettingsError, match=f"the limit is {MAX_HANDOFF_BYTES}"):
        composed("cycle", handoff="ü" * (MAX_HANDOFF_BYTES // 2) + "x")


def test_an_element_that_the_clerk_would_reject_is_not_sent() -> None:
    """Each control character of the handoff takes six bytes in JSON."""
    with pytest.raises(SettingsError, match=f"the limit is {MAX_ELEMENT_BYTES}"):
        composed("cycle", handoff="\x01" * 40_000)


@pytest.mark.parametrize("where", ["asker", "to", "reason", "handoff"])
def test_text_that_is_not_unicode_is_not_sent(where: str) -> None:
    wrong: dict[str, str] = {where: "half a pair: \ud800"}
    with pytest.raises(SettingsError, match="was not sent"):
        composed("cycle", **wrong)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(
    st.sampled_from(LifecycleAction),
    st.text("abc/-", min_size=1),
    st.none() | st.just("deacon/"),
    words,
    words,
)
def test_the_clerk_reads_what_a_sender_composed(
    action: LifecycleAction, asker: str, to: str | None, reason: str, handoff: str
) -> None:
    handoff = handoff if action is LifecycleAction.CYCLE else ""

    ident, request = decode_element(composed(action, asker, to=to, token="t", reason=reason, handoff=handoff))

    assert (ident, request.id, request.sender, request.action) == ("an-id", "an-id", asker, action)
    assert (request.target, request.incarnation) == (to or asker, "t")
    assert (request.reason, request.handoff or "") == (reason, handoff)


def test_sending_imports_no_more_than_it_uses() -> None:
    """Importing pydantic and rq would cost an agent 0.4 s."""
    script = (
        "import sys\nfrom gastown_mail import send_lifecycle\nsend_lifecycle\n"
        "print(sorted({'pydantic', 'rq', 'psutil', 'click', 'rq_scheduler'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
