"""Words that are stored in Redis and on disk, or that other programs use, as literals.

Running towns, agents, scripts and dashboards rely on them. Code may be renamed and moved; these words stay.
Add new words here; never change or remove one. `test_pinned_interfaces.py` pins commands, documents and
settings, `test_pinned_python.py` the Python interface, and `tests/acceptance/test_pinned_records.py` what a
running town writes.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import gastown_mail
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, AgentState, RequestStatus
from gastown_mail.mail.events import EventName
from gastown_mail.plumbing import failpoints

ROOT = Path(__file__).parents[2]
PACKAGE = Path(gastown_mail.__file__).parent

KEYS = """
    gastown:{pins}:inbox gastown:{pins}:taken gastown:{pins}:state gastown:{pins}:dead gastown:{pins}:events
    gastown:{pins}:open gastown:{pins}:agents gastown:{pins}:places gastown:{pins}:clerk
    gastown:{pins}:accepted
    gastown:{pins}:agent:A gastown:{pins}:request:A gastown:{pins}:work:A gastown:{pins}:handoff:A
    gastown:{pins}:waiting:A gastown:{pins}:turn:A gastown:{pins}:heartbeat:A gastown:{pins}:sweep:A
    gastown:{pins}:state:A gastown:{pins}:hosts gastown:{pins}:host:A gastown:{pins}:identity
    gastown:{pins}:revision gastown:{pins}:epoch
    gastown-pins-A-lifecycle gastown-pins-A-heartbeat pins_A_B
""".split()
"""Every key of a town named `pins`, its queues, and the form of a job id; A is an address, id or host."""

JOBS: dict[str, list[tuple[str, ...]]] = {
    "carry_out": [("an id",)],
    "start": [("an address", "a reason"), ("an address", "a reason", "operator")],
    "poke": [("an address",), ("an address", "a text"), ("an address", "a text", "1766225541.5")],
    "release": [("an address",)],
    "heartbeat": [()],
    "sweep": [()],
}
"""The functions of `gastown_mail.daemon.jobs` that queued jobs name, and the arguments that these hold."""

EVENT_FIELDS = {
    **dict.fromkeys(
        ("received", "done", "superseded", "refused", "expired", "failed"), "agent request action detail"
    ),
    "carrying": "agent request action session",
    "ended": "agent request session",
    "spared": "agent request detail",
    "postponed": "agent request detail",
    "revived": "agent request",
    "dropped": "agent request",
    "starting": "agent detail",
    "started": "agent request session pid",
    "start_failed": "agent request detail",
    "not_started": "agent detail",
    "back_off": "agent request detail",
    "quarantined": "agent detail",
    "recovered": "agent",
    "cleared": "agent",
    "adopted": "agent session",
    "moved": "agent detail",
    "releasing": "agent detail",
    "released": "agent detail",
    "desired": "agent detail",
    "poke": "agent outcome detail",
    "state": "agent state detail",
    "heartbeat": "number started to_start poked held left requeued",
    "heartbeat_failed": "detail",
    "daemon_started": "pid",
    "daemon_stopped": "pid",
    "restored": "detail",
    "rewound": "detail",
}

FAILPOINTS = """
    clerk-taken clerk-booked turn-taken intent-written handoff-written session-ended end-noted
    successor-announced session-started start-noted settled
""".split()

LOG_KEYS = """
    time level logger event trace request_id agent action outcome took_ms detail child pid code job interval
    requeued
""".split()

LOG_EVENTS = """
    booked carrying settled postponed requeued swept scheduled not_looked clerk_waits schedule_waits
    roster_kept desired_not_kept child_started child_died child_failed redis_warning redis_started_again
    redis_not_started sweep_not_requested stop_not_announced stop_not_recorded town_not_taken_over
""".split()

VARIABLES = """
    GASTOWN_TOWN GASTOWN_TOWN_NAME GASTOWN_REDIS_URL GASTOWN_AGENT GASTOWN_INCARNATION GASTOWN_HANDOFF
    GASTOWN_MAIL GT_ROLE GASTOWN_FAIL_AT GASTOWN_HOST GASTOWN_MIN_REPLICAS
""".split()
"""The variables that are read or given to a session, besides the one of each setting."""

COMPOSE_VARIABLES = """
    GASTOWN_AGENT_MAIL GASTOWN_AGENT_PASSWORD GASTOWN_AGENT_PATH GASTOWN_AGENT_REDIS_ADDRESS
    GASTOWN_AGENT_REDIS_URL GASTOWN_MAIL
    GASTOWN_DAEMON_PASSWORD GASTOWN_DASHBOARD_PASSWORD GASTOWN_DASHBOARD_REDIS_URL GASTOWN_GID
    GASTOWN_HANDOFF GASTOWN_REDIS_ADDRESS GASTOWN_REDIS_PORT GASTOWN_REDIS_URL GASTOWN_TMUX_DIR
    GASTOWN_TMUX_SOCKET GASTOWN_TOWN GASTOWN_TOWN_DIR GASTOWN_UID
""".split()
"""The variables of the compose files and of the programs beside them."""


def all_keys(keys: Keys) -> Iterator[str]:
    """Yield what every property and method of `Keys` makes, whatever it is called."""
    for name, member in vars(Keys).items():
        if isinstance(member, property):
            yield getattr(keys, name)
        elif inspect.isfunction(member) and not name.startswith("_"):
            yield member(keys, *"AB"[: len(inspect.signature(member).parameters) - 1])


def test_every_redis_key_queue_and_job_id() -> None:
    assert sorted(all_keys(Keys("pins"))) == sorted(KEYS)


def test_a_job_id_has_only_characters_that_rq_accepts() -> None:
    assert Keys("pins").job_id("start", "gastown/crew/max") == "pins_start_gastown-crew-max"


@pytest.mark.parametrize("name", JOBS)
def test_a_queued_job_finds_its_function_and_the_arguments_fit(name: str) -> None:
    function: Callable[..., Any] = getattr(import_module("gastown_mail.daemon.jobs"), name)

    for arguments in JOBS[name]:
        inspect.signature(function).bind(*arguments)


def test_actions_and_statuses() -> None:
    assert [action.value for action in gastown_mail.LifecycleAction] == ["cycle", "restart", "shutdown"]
    assert [status.value for status in RequestStatus] == (
        ["received", "carrying", "done", "superseded", "refused", "expired", "failed"]
    )
    assert {str(status) for status in DEAD_STATUSES} == {"refused", "expired", "failed"}
    assert {str(status) for status in FINAL_STATUSES - DEAD_STATUSES} == {"done", "superseded"}


def test_agent_states() -> None:
    assert [state.value for state in AgentState] == (
        "ready busy asks limited starting draft ended none elsewhere unknown".split()
    )


def test_a_request_is_these_bytes() -> None:
    request = gastown_mail.LifecycleRequest.model_validate(
        {
            "from": "gastown/witness", "action": "CYCLE", "timestamp": "2025-12-20T10:12:21.123456789Z",
            "id": "one", "to": "gastown/crew/max", "incarnation": "token", "reason": "full",
            "handoff": "next",
        }
    )  # fmt: skip

    assert request.encode().decode() == (
        '{"from":"gastown/witness","action":"cycle","timestamp":"2025-12-20T10:12:21.123456789Z","id":"one",'
        '"to":"gastown/crew/max","incarnation":"token","reason":"full","handoff":"next"}'
    )
    keys = ["from", "action", "timestamp", "id", "to", "incarnation", "reason", "handoff", "clock"]
    assert list(request.model_dump(by_alias=True)) == keys


def test_state_and_config_are_these_texts(tmp_path: Path) -> None:
    noon = datetime(2025, 12, 20, 12, tzinfo=UTC)
    state = gastown_mail.State(running=True, pid=7, started_at=noon, heartbeat_count=2)
    config = gastown_mail.default_config("/t")

    gastown_mail.save_state(tmp_path, state)

    assert (tmp_path / "daemon" / "state.json").read_text() == (
        '{\n  "running": true,\n  "pid": 7,\n  "started_at": "2025-12-20T12:00:00Z",\n'
        '  "last_heartbeat": "0001-01-01T00:00:00Z",\n  "heartbeat_count": 2\n}'
    )
    assert state.to_mapping() == {
        "running": "true", "pid": "7", "started_at": "2025-12-20T12:00:00Z",
        "last_heartbeat": "0001-01-01T00:00:00Z", "heartbeat_count": "2",
    }  # fmt: skip
    assert config.heartbeat_interval == timedelta(minutes=5)
    assert config.encode() == (
        '{\n  "heartbeat_interval": 300000000000,\n  "town_root": "/t",\n'
        '  "log_file": "/t/daemon/daemon.log",\n  "pid_file": "/t/daemon/daemon.pid"\n}'
    )


def test_events_and_their_fields() -> None:
    assert {event: " ".join(event.fields) for event in EventName} == EVENT_FIELDS


def test_failpoints() -> None:
    assert list(failpoints.FAILPOINTS) == FAILPOINTS


def test_the_keys_of_a_log_line() -> None:
    page = (ROOT / "docs" / "reference" / "log.md").read_text()

    assert re.findall(r"^\| `(\w+)` ", page, re.MULTILINE) == LOG_KEYS


def test_every_event_of_the_log_is_a_word_of_the_package() -> None:
    assert set(LOG_EVENTS) - set(constants()) == set()


def constants() -> Iterator[str]:
    """Yield every string constant of the package."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def words(pattern: str, *folders: Path) -> set[str]:
    """Return all matches in the files of these folders."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {word for file in files if file.suffix != ".pyc" for word in re.findall(pattern, file.read_text())}


def test_environment_variables() -> None:
    variable = r"\b(?:GASTOWN|GT)_[A-Z_]*[A-Z]\b"

    assert words(variable, PACKAGE) == set(VARIABLES)
    assert words(variable, ROOT / "docker") == set(COMPOSE_VARIABLES)
