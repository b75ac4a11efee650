"""Sending a request to a real Valkey: accepted, or an error that says that it was not."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from gastown_mail import RedisUnavailable, RequestNotAccepted, SettingsError, send_lifecycle
from gastown_mail.mail.send import SEND_DEADLINE, Receipt
from gastown_mail.plumbing.connections import connect
from gastown_mail.town.town import Town
from tests.support.parts import CLERK, accept_inbox, running
from tests.support.redis import OwnServer
from tests.support.wait import eventually


def inside(town: Town, **more: str) -> dict[str, str]:
    """The environment of a session of `gastown/witness`."""
    return {
        "GASTOWN_REDIS_URL": town.redis_url,
        "GASTOWN_TOWN_NAME": town.keys.town,
        "GASTOWN_AGENT": "gastown/witness",
        "GASTOWN_INCARNATION": "t0ken",
        **more,
    }


def sent(town: Town) -> list[dict[str, object]]:
    return [json.loads(element) for element in town.redis.lrange(town.keys.inbox, 0, -1)]


def test_inside_a_session_the_agent_and_the_town_are_known(town: Town) -> None:
    receipt = send_lifecycle("cycle", handoff="tests are green", environ=inside(town))

    (element,) = sent(town)
    assert element == {
        "from": "gastown/witness", "action": "cycle", "timestamp": element["timestamp"], "id": receipt.id,
        "incarnation": "t0ken", "handoff": "tests are green",
    }  # fmt: skip


def test_arguments_override_the_environment(town: Town) -> None:
    elsewhere = inside(town, GASTOWN_REDIS_URL="unix:///nowhere", GASTOWN_TOWN_NAME="other")

    send_lifecycle(
        "restart", agent="mayor/", to="deacon/", reason="why", redis_url=town.redis_url, town=town.keys.town,
        environ=elsewhere,
    )  # fmt: skip

    (element,) = sent(town)
    assert (element["from"], element["to"], element["reason"]) == ("mayor/", "deacon/", "why")


def test_the_token_is_sent_only_with_its_own_agent(town: Town) -> None:
    send_lifecycle("restart", agent="operator", to="deacon/", environ=inside(town))
    send_lifecycle("restart", agent="gastown/witness", environ=inside(town))

    strange, own = sent(town)
    assert "incarnation" not in strange
    assert own["incarnation"] == "t0ken"


@pytest.mark.parametrize("missing", ["GASTOWN_REDIS_URL", "GASTOWN_TOWN_NAME", "GASTOWN_AGENT"])
def test_outside_a_session_missing_arguments_are_named(town: Town, missing: str) -> None:
    environ = {key: value for key, value in inside(town).items() if key != missing}

    with pytest.raises(SettingsError, match=f"{missing} is not set"):
        send_lifecycle("restart", environ=environ)

    assert sent(town) == []


def test_outside_a_session_the_operator_asks(town: Town) -> None:
    environ = {key: inside(town)[key] for key in ("GASTOWN_REDIS_URL", "GASTOWN_TOWN_NAME")}

    send_lifecycle("restart", to="deacon/", environ=environ)
    with pytest.raises(SettingsError, match="the operator has no session; name the agent"):
        send_lifecycle("restart", environ=environ)

    (element,) = sent(town)
    assert (element["from"], element["to"]) == ("operator", "deacon/")


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "reboot"},
        {"action": "restart", "reason": "r" * 1001},
        {"action": "restart", "handoff": "notes"},
        {"action": "cycle", "handoff": "h" * 65_537},
        {"action": "cycle", "handoff": "\x01" * 40_000},
        {"action": "cycle", "redis_url": "http://localhost"},
    ],
)
def test_an_invalid_request_is_named_and_not_sent(town: Town, wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        send_lifecycle(**wrong, environ=inside(town))

    assert sent(town) == []


def test_without_redis_a_request_is_not_accepted(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nobody.sock"
    begun = time.monotonic()

    with pytest.raises(RequestNotAccepted, match=r"was not accepted.*nobody\.sock is not reachable"):
        send_lifecycle("restart", agent="deacon/", redis_url=url, town="t", environ={})

    assert time.monotonic() - begun < SEND_DEADLINE + 10


def test_a_redis_that_comes_back_in_time_accepts(own_town: Town, server: OwnServer) -> None:
    server.kill()
    server_is_back = _in_background(server.start_again)

    receipt = send_lifecycle("restart", environ=inside(own_town))

    server_is_back()
    assert [element["id"] for element in sent(own_town)] == [receipt.id]


def test_a_sender_whose_connection_died_reconnects(own_town: Town, server: OwnServer) -> None:
    send_lifecycle("cycle", environ=inside(own_town))
    server.kill()
    server.start_again()

    send_lifecycle("restart", environ=inside(own_town))

    assert [request["action"] for request in sent(own_town)] == ["cycle", "restart"]


def _in_background(act: Callable[[], None]) -> Callable[[], None]:
    thread = threading.Thread(target=act)
    thread.start()
    return thread.join


def test_a_stalled_redis_is_an_error_and_gets_at_most_one_request(own_town: Town, server: OwnServer) -> None:
    """A repeated `rpush` to a stalled server would be a second element."""
    with server.frozen(), pytest.raises(RequestNotAccepted, match="did not answer in time"):
        send_lifecycle("restart", environ=inside(own_town))
    last = send_lifecycle("restart", environ=inside(own_town))
    eventually(lambda: sent(own_town)[-1]["id"] == last.id)
    pushed = {str(element["id"]) for element in sent(own_town)}

    accept_inbox(own_town)

    assert len(pushed) <= 2
    assert set(own_town.requests.unsettled()) == pushed
    assert own_town.redis.llen(own_town.queues.lifecycle(own_town.host).key) == len(pushed)


def test_a_receipt_tells_the_requests_status(town: Town) -> None:
    receipt = send_lifecycle("restart", agent="gastown/nobody", environ=inside(town))
    assert (receipt.status(), receipt.detail()) == ("accepted", "")

    accept_inbox(town)

    assert receipt.status() == "refused"
    assert "gastown/nobody" in receipt.detail()
    assert receipt.wait(0) == "refused"


def test_waiting_ends_with_the_request_or_at_the_timeout(town: Town) -> None:
    with running(CLERK, town.settings, town.redis_url):
        refused = send_lifecycle("restart", agent="gastown/nobody", environ=inside(town))
        waiting = send_lifecycle("restart", environ=inside(town))

        assert refused.wait(60) == "refused"
        eventually(lambda: waiting.status() == "received")
        assert waiting.wait(0.1) == "received"


def test_a_receipt_of_a_dead_redis_says_so(own_town: Town, server: OwnServer) -> None:
    receipt = send_lifecycle("restart", environ=inside(own_town))
    server.kill()

    with pytest.raises(RedisUnavailable, match="is not reachable"):
        receipt.wait(5)


@pytest.fixture
def agents_url(own_town: Town) -> str:
    """The URL of a user with the rights of docs/reference/contract.md#redis-keys-and-queues, and no more."""
    prefix = f"gastown:{{{own_town.keys.town}}}"
    execute: Any = own_town.redis.execute_command
    execute(
        "ACL", "SETUSER", "agent", "on", ">pa/ss", "resetkeys", "-@all",
        "+hgetall", f"%R~{prefix}:request:*", f"(+rpush ~{prefix}:inbox)",
    )  # fmt: skip
    return own_town.redis_url.replace("unix://", "unix://agent:pa%2Fss@")


def test_a_user_with_the_least_rights_can_send_and_wait(own_town: Town, agents_url: str) -> None:
    receipt = send_lifecycle("restart", environ=inside(own_town, GASTOWN_REDIS_URL=agents_url))
    assert receipt.status() == "accepted"

    accept_inbox(own_town)

    assert receipt.wait(0.1) == "received"


def test_the_least_privileged_user_can_do_nothing_else(own_town: Town, agents_url: str) -> None:
    keys = own_town.keys
    forbidden = (
        ("LRANGE", keys.inbox, 0, -1),
        ("HSET", keys.request("x"), "status", "done"),
        ("RPUSH", own_town.queues.lifecycle(own_town.host).key, "job"),
        ("HGETALL", keys.agent("gastown/witness")),
    )
    with connect(agents_url) as agent:
        execute: Any = agent.execute_command
        for command in forbidden:
            with pytest.raises(redis.exceptions.NoPermissionError):
                execute(*command)


def test_a_redis_that_refuses_has_not_accepted(own_town: Town, agents_url: str) -> None:
    wrong = agents_url.replace("pa%2Fss", "wrong")

    with pytest.raises(RequestNotAccepted, match="refuses the credentials") as caught:
        send_lifecycle("restart", environ=inside(own_town, GASTOWN_REDIS_URL=wrong))

    assert "wrong@" not in str(caught.value)
    assert sent(own_town) == []


def test_a_full_redis_has_not_accepted(own_town: Town) -> None:
    own_town.redis.config_set("maxmemory", 1)

    with pytest.raises(RequestNotAccepted, match="out of memory"):
        send_lifecycle("restart", environ=inside(own_town))


def test_a_receipt_can_be_made_again_from_the_id(town: Town) -> None:
    environ = inside(town)
    sent_one = send_lifecycle("restart", environ=environ)
    accept_inbox(town)

    again = Receipt(sent_one.id, town.redis_url, town.keys.town)

    assert again.status() == sent_one.status() == "received"
    assert town.requests.record(sent_one.id)["status"] == "received"
