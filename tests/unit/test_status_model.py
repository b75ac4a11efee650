"""The documents of `status`, `agents`, `explain` and `doctor`: their shape is what is written here."""

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, ValidationError

from gastown_mail.status.model import (
    AgentStatus,
    CheckResult,
    Daemon,
    DesiredBy,
    Explanation,
    Heartbeat,
    Host,
    InboxStatus,
    LastRequest,
    Problem,
    Report,
)

ROW = (
    "agent host session desired must_run observed state state_since state_age state_line limited_until"
    " context program has_poke exit_status since age active idle attached waits waits_until"
    " last_poke since_poke restarts start_fault work_dir damage decision"
)
VERSION_1: dict[type[BaseModel], str] = {
    Report: "version town root asked verdict troubles unknown paused suspended rewound replicas_missing"
    " asks_after daemon heartbeat hosts mail agents",
    Problem: "reason remedy",
    Daemon: "held pid frozen running since state_from state_age",
    Heartbeat: "count last age next due_in interval",
    Host: "host here lifecycle expected heartbeat seen agents",
    InboxStatus: "clerk inbox inbox_oldest taken taken_oldest open open_oldest dead stalled",
    AgentStatus: ROW,
    Explanation: "version asked decision decided decided_ago now wish town_paused daemon_runs last_request"
    " next_steps unknown",
    DesiredBy: "desired by since",
    LastRequest: "id action asked_by status received finished detail",
    CheckResult: "check verdict text",
}
"""The keys of version 1, in the order in which they are printed."""


@pytest.mark.parametrize("model", VERSION_1, ids=lambda model: model.__name__)
def test_a_part_of_a_document_has_these_keys_and_no_others(model: type[BaseModel]) -> None:
    assert list(model.model_fields) == VERSION_1[model].split()


@pytest.mark.parametrize("model", VERSION_1, ids=lambda model: model.__name__)
def test_a_part_of_a_document_says_what_it_is(model: type[BaseModel]) -> None:
    assert model.model_json_schema()["description"]


def test_the_docstring_of_a_key_is_its_description_in_the_schema() -> None:
    row = Report.model_json_schema()["$defs"]["AgentStatus"]["properties"]

    assert row["session"]["description"] == "The name of its tmux session."


def test_a_key_that_is_not_of_this_version_is_refused() -> None:
    report = Report(town="t", root="/t", asked=datetime.now(UTC), daemon=Daemon(held=False))
    document = report.model_dump() | {"mood": "good"}

    with pytest.raises(ValidationError, match="mood"):
        Report.model_validate(document)
