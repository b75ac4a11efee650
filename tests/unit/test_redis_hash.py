"""What each Redis hash looks like, field by field: other versions read and write the same."""

from datetime import UTC, datetime, timedelta

import pytest

from gastown_mail.contracts.state import State
from gastown_mail.contracts.validation import RedisHash
from gastown_mail.mail.requests import Progress
from gastown_mail.town.backoff import NO_HISTORY, StartHistory
from gastown_mail.town.records import AgentRecord, Desired

NOW = datetime(2025, 12, 20, 10, 0, 0, 123456, tzinfo=UTC)
"""1766224800.123456 seconds since the epoch."""

HISTORY = StartHistory(
    starts=(NOW, NOW + timedelta(seconds=30)), failures=2, not_before=NOW + timedelta(minutes=1),
    quarantined_until=NOW, probation=True, failed=True, updated_at=NOW,
)  # fmt: skip
STORED_HISTORY = {
    "starts": "1766224800.123 1766224830.123", "failures": "2", "not_before": "1766224860.123",
    "quarantined_until": "1766224800.123", "trial": "true", "failed": "true",
    "judged_at": "1766224800.123",
}  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "fields"),
    [
        (HISTORY.to_mapping(), STORED_HISTORY),
        (
            NO_HISTORY.to_mapping(),
            {
                "starts": "", "failures": "0", "not_before": "0.000", "quarantined_until": "0.000",
                "trial": "false", "failed": "false", "judged_at": "0.000",
            },
        ),
        (
            State(running=True, pid=7, started_at=NOW).to_mapping(),
            {
                "running": "true", "pid": "7", "started_at": "2025-12-20T10:00:00.123456Z",
                "last_heartbeat": "0001-01-01T00:00:00Z", "heartbeat_count": "0",
            },
        ),
        (
            AgentRecord(
                desired=Desired.PAUSED, session="gt-max", incarnation="t0k", started_at=NOW, changed_at=NOW,
                host="h", last_poke=NOW, last_activity=NOW, unanswered=3, restarts=7, decision="poked",
                before_pause="running", successor_owed=True, start_history=StartHistory(failed=False),
            ).given_fields(),
            {
                "desired": "paused", "session": "gt-max", "incarnation": "t0k",
                "started_at": "2025-12-20T10:00:00.123456Z", "changed_at": "2025-12-20T10:00:00.123456Z",
                "host": "h", "last_poke": "2025-12-20T10:00:00.123456Z",
                "last_activity": "2025-12-20T10:00:00.123456Z", "misses": "3", "restarts": "7",
                "decision": "poked", "before_pause": "running", "owed": "true", "failed": "false",
            },
        ),
        (
            AgentRecord(desired=None, before_pause="", successor_owed=False).given_fields(),
            {"desired": "", "before_pause": "", "owed": "false"},
        ),
        (
            Progress(
                attempts=2, started_at=NOW, target_incarnation="t0k", successors=("a", "b"),
                revived_at=NOW, trusted=True, sender_verified=True,
            ).non_default_fields(),
            {
                "tries": "2", "begun_at": "1766224800.123456", "victim": "t0k", "successors": "a b",
                "revived_at": "1766224800.123456", "trusted": "true", "proven": "true",
            },
        ),
        (Progress(trusted=False, sender_verified=True).non_default_fields(), {"proven": "true"}),
    ],
    ids=["history", "no history", "state", "agent", "agent, unset", "progress", "proofs"],
)  # fmt: skip
def test_a_hash_keeps_its_stored_names_and_forms(stored: dict[str, str], fields: dict[str, str]) -> None:
    assert stored == fields


@pytest.mark.parametrize(
    "value",
    [
        State(running=True, pid=7, started_at=NOW),
        AgentRecord(desired=Desired.STOPPED, last_poke=NOW, unanswered=3, successor_owed=True),
        Progress(attempts=2, started_at=NOW, successors=("a", "b"), trusted=True),
        HISTORY.model_copy(
            update={
                name: getattr(HISTORY, name).replace(microsecond=123000)
                for name in ("not_before", "quarantined_until", "updated_at")
            }
            | {"starts": ()}
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_stored_hash_is_loaded_as_it_was(value: RedisHash) -> None:
    stored = value.to_mapping()

    assert type(value).from_mapping(stored) == value
    assert type(value).from_mapping(stored).to_mapping() == stored


@pytest.mark.parametrize("kind", [State, AgentRecord, Progress, StartHistory])
def test_empty_and_unknown_fields_count_as_absent(kind: type[RedisHash]) -> None:
    stored = dict.fromkeys(kind().to_mapping(), "") | {"something": "else"}

    assert kind.from_mapping(stored) == kind.from_mapping({}) == kind()


def test_an_agents_record_holds_its_start_history() -> None:
    record = AgentRecord.from_mapping({"session": "gt-max", "misses": "2", **STORED_HISTORY})

    assert (record.session, record.unanswered) == ("gt-max", 2)
    assert record.start_history == StartHistory.from_mapping(STORED_HISTORY)
    assert record.start_history.to_mapping() == STORED_HISTORY


@pytest.mark.parametrize(
    ("kind", "field", "text"),
    [(AgentRecord, "desired", "maybe"), (AgentRecord, "started_at", "now"), (StartHistory, "failures", "x")],
)
def test_a_bad_value_is_an_error(kind: type[RedisHash], field: str, text: str) -> None:
    with pytest.raises(ValueError, match=field):
        kind.from_mapping({field: text})
