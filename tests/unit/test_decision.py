"""The decision about a request that is next for its agent (docs/reference/contract.md#lifecycle-request)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.lifecycle import RequestStatus
from gastown_mail.contracts.request import LifecycleRequest, decode_element
from gastown_mail.lifecycle.decision import (
    AlreadyDone,
    Decision,
    Execute,
    RequestContext,
    Resolve,
    decide,
    is_authorized,
    overrulers,
)
from gastown_mail.mail.requests import Progress
from gastown_mail.sessions.session import Session
from gastown_mail.town.records import AgentRecord, Desired
from tests.support.town import element

NOW = datetime(2025, 12, 20, 10, 12, 30, tzinfo=UTC)
ASKED = "2025-12-20T10:12:21Z"
ASKED_AT = datetime(2025, 12, 20, 10, 12, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACTIONS = ("cycle", "restart", "shutdown")

MAX = Agent(
    address="gastown/crew/max", role="crew", rig="gastown", name="max", session="gt-gastown-crew-max",
    work_dir=Path("/town"), command="agent", poke=None, keep_running=False, stop_grace=5.0, env={}, host="h",
)  # fmt: skip


def asked(action: str = "restart", **more: object) -> LifecycleRequest:
    return decode_element(element(MAX.address, action, **{"timestamp": ASKED, **more}))[1]


def living(incarnation: str = "now", started: float = -60.0, *, dead: bool = False) -> Session:
    """Return the agent's session, started so many seconds after the request."""
    return Session(
        name=MAX.session, id="$1", pane="%1", pid=4711, incarnation=incarnation, generation=1,
        agent=MAX.address, dead=dead, exit_status=None, attached=0, activity=ASKED_AT,
        started_at=ASKED_AT + timedelta(seconds=started), foreground="agent", in_mode=False, server=1,
    )  # fmt: skip


def case(
    request: LifecycleRequest, session: Session | None, *, asker: str = MAX.address,
    record: AgentRecord | None = None, work: Progress | None = None, later: Sequence[LifecycleRequest] = (),
    now: datetime = NOW,
) -> RequestContext:  # fmt: skip
    def of(ident: str, its: LifecycleRequest) -> RequestContext:
        return RequestContext(
            id=ident, request=its, progress=work or Progress(), asker=asker, agent=MAX,
            record=record or AgentRecord(), session=session, now=now, max_age=HOUR,
        )  # fmt: skip

    waiting = [of(f"later-{place}", its) for place, its in enumerate(later)]
    this = of("this", request)
    return replace(this, overruled_by=overrulers([this, *waiting]).get("this", ""))


def status(verdict: Decision) -> str:
    assert isinstance(verdict, Resolve), verdict
    assert verdict.detail, "a refusal says why"
    return verdict.status.value


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("token", [None, "now"])
def test_a_request_of_the_living_session_is_carried_out_on_it(action: str, token: str | None) -> None:
    session = living()

    assert decide(case(asked(action, incarnation=token), session)) == Execute(session)


def test_a_session_whose_program_has_ended_is_replaced_too() -> None:
    session = living(dead=True)

    assert decide(case(asked(incarnation="now"), session)) == Execute(session)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("session", "token"),
    [
        (living("next"), "now"),
        (living("next", started=5), "now"),
        (living("next", started=5), None),
        (None, "now"),
        (None, None),
    ],
)
def test_a_request_for_a_session_that_is_gone_touches_no_other(
    action: str, session: Session | None, token: str | None
) -> None:
    assert status(decide(case(asked(action, incarnation=token), session))) == "superseded"


@pytest.mark.parametrize(
    ("timestamp", "started", "meant"),
    [
        ("2025-12-20T10:12:21Z", 0.5, True),
        ("2025-12-20T10:12:21Z", 0.999, True),
        ("2025-12-20T10:12:21Z", 1.5, False),
        ("2025-12-20T10:12:21.0Z", 0.05, True),
        ("2025-12-20T10:12:21.0Z", 0.5, False),
        ("2025-12-20T10:12:21.400000000Z", 0.5, False),
        ("2025-12-20T10:12:21.600000000Z", 0.5, True),
        ("2025-12-20T02:12:21-08:00", 0.5, True),
    ],
)
def test_a_coarse_timestamp_means_any_instant_inside_its_last_digit(
    timestamp: str, started: float, meant: bool
) -> None:
    session = living(started=started)

    verdict = decide(case(asked(timestamp=timestamp), session))

    assert verdict == Execute(session) if meant else status(verdict) == "superseded"


@pytest.mark.parametrize(
    ("ahead", "received", "started", "meant"),
    [
        # written by a clock 10 min behind: in truth 10 min later than it says
        (-600.0, 610, 590.0, True),
        (-600.0, 610, 605.0, False),
        # by a clock 10 min ahead
        (600.0, 1, -700.0, True),
        (600.0, 1, -590.0, False),
        # ahead by an unknown time: it was received before the session started
        (0.0, -5, -3.0, False),
        (0.0, -5, -7.0, True),
    ],
)
def test_a_timestamp_is_read_by_the_clock_of_redis(
    ahead: float, received: float, started: float, meant: bool
) -> None:
    at = ASKED_AT + timedelta(seconds=received)
    found = case(
        asked(), living("next", started=started), work=Progress(sender_ahead=ahead), now=at + HOUR / 2
    )

    verdict = decide(replace(found, received=at))

    assert isinstance(verdict, Execute) if meant else status(verdict) == "superseded"


def test_a_request_from_a_fast_clock_is_carried_out() -> None:
    session = living()

    verdict = decide(case(asked(timestamp="2025-12-21T10:12:21Z"), session))

    assert verdict == Execute(session)


@pytest.mark.parametrize(("age", "expired"), [(HOUR, False), (HOUR + timedelta(seconds=5), True)])
def test_a_request_older_than_the_maximum_age_expires(age: timedelta, expired: bool) -> None:
    session = living()

    verdict = decide(case(asked(), session, now=ASKED_AT + age))

    assert status(verdict) == "expired" if expired else verdict == Execute(session)


def test_a_revived_request_counts_as_a_new_one() -> None:
    revived_at = NOW + 5 * HOUR
    session = living(started=4 * 3600)

    verdict = decide(case(asked(), session, work=Progress(revived_at=revived_at), now=NOW + 5.5 * HOUR))

    assert verdict == Execute(session)


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_to_a_paused_agent(action: str) -> None:
    paused = AgentRecord(desired=Desired.PAUSED)

    assert status(decide(case(asked(action), living(), record=paused))) == "refused"


@pytest.mark.parametrize("action", ACTIONS)
def test_a_request_for_an_unmanaged_session_is_refused(action: str) -> None:
    assert status(decide(case(asked(action), living(incarnation="")))) == "refused"


@pytest.mark.parametrize(
    ("waiting", "deciding"),
    [
        (["restart", "cycle", "restart"], 2),
        (["restart", "shutdown", "cycle"], 1),
        (["shutdown", "cycle", "restart"], 0),
        (["cycle"], 0),
    ],
)
def test_the_last_of_several_requests_decides_and_shutdown_beats_all(
    waiting: list[str], deciding: int
) -> None:
    session: Session | None = living()
    acted = []

    for place, action in enumerate(waiting):
        verdict = decide(case(asked(action), session, later=[asked(one) for one in waiting[place + 1 :]]))
        if isinstance(verdict, Execute):
            acted.append(place)
            session = None if action == "shutdown" else living("next", started=20)

    assert acted == [deciding]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "later", [{"incarnation": "gone"}, {"timestamp": "2025-12-20T08:00:00Z"}], ids=["of-another", "expired"]
)
def test_a_later_request_that_will_not_be_carried_out_overrules_none(
    action: str, later: dict[str, str]
) -> None:
    session = living()

    verdict = decide(case(asked(incarnation="now"), session, later=[asked(action, **later)]))

    assert verdict == Execute(session)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_authorized_sender_can_start_or_end_an_agent_without_session(action: str) -> None:
    assert decide(case(asked(action), None, asker="mayor/")) == Execute(None)


def test_a_start_requested_before_the_last_change_is_superseded() -> None:
    record = AgentRecord(desired=Desired.STOPPED, changed_at=ASKED_AT + timedelta(seconds=3))

    assert status(decide(case(asked(), None, asker="mayor/", record=record))) == "superseded"
    assert decide(case(asked("shutdown"), None, asker="mayor/", record=record)) == Execute(None)


def test_the_senders_token_is_a_proof_not_the_target_session() -> None:
    session = living("now")
    request = asked(incarnation="of-the-witness")
    asker, proven = "gastown/witness", Progress(sender_verified=True)

    assert decide(case(request, session, asker=asker, work=proven)) == Execute(session)
    late = living("next", started=5)
    assert status(decide(case(request, late, asker=asker, work=proven))) == "superseded"


def test_a_token_that_proves_nothing_means_a_session_that_is_gone() -> None:
    request = asked(incarnation="of-somebody")

    assert status(decide(case(request, living(), asker="gastown/witness"))) == "superseded"


@pytest.mark.parametrize(
    ("asker", "token", "work", "expected"),
    [
        (MAX.address, "now", Progress(), "carried out"),
        (MAX.address, None, Progress(), "refused"),
        (MAX.address, "forged", Progress(), "superseded"),
        ("mayor/", "of-the-mayor", Progress(sender_verified=True), "carried out"),
        ("mayor/", "forged", Progress(), "refused"),
        ("mayor/", None, Progress(), "refused"),
        ("operator", None, Progress(), "refused"),
        ("operator", "now", Progress(), "refused"),
        ("operator", None, Progress(trusted=True), "carried out"),
    ],
)
def test_with_require_incarnation_no_agent_speaks_for_another(
    asker: str, token: str | None, work: Progress, expected: str
) -> None:
    request = asked(incarnation=token) if token else asked()
    strict = replace(case(request, living("now"), asker=asker, work=work), require_incarnation=True)

    verdict = decide(strict)

    assert ("carried out" if isinstance(verdict, Execute) else status(verdict)) == expected


VICTIM, SUCCESSOR = living("victim"), living("successor", started=20)
BEGUN = Progress(attempts=1, started_at=NOW, target_incarnation="victim", successors=("lost", "successor"))


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (VICTIM, Execute(VICTIM)),
        (living("victim", dead=True), Execute(living("victim", dead=True))),
        (None, Execute(None)),
        (SUCCESSOR, AlreadyDone(SUCCESSOR)),
        (living("successor", started=20, dead=True), Execute(living("successor", started=20, dead=True))),
    ],
)
def test_started_work_resumes_at_any_step(action: str, session: Session | None, expected: Decision) -> None:
    assert decide(case(asked(action), session, work=BEGUN)) == expected


@pytest.mark.parametrize("stranger", [living("stranger", started=30), living("")])
def test_started_work_spares_another_session_in_its_place(stranger: Session) -> None:
    assert status(decide(case(asked(), stranger, work=BEGUN))) == "superseded"


@pytest.mark.parametrize("stranger", [living(""), living("stranger")])
def test_work_that_started_without_a_session_spares_the_current_one(stranger: Session) -> None:
    work = Progress(attempts=1, started_at=NOW)

    assert status(decide(case(asked(), stranger, asker="mayor/", work=work))) == "superseded"


def test_started_work_is_neither_expired_nor_paused_nor_overruled() -> None:
    paused = AgentRecord(desired=Desired.PAUSED)
    much_later = NOW + 5 * HOUR

    verdict = decide(
        case(asked(), VICTIM, work=BEGUN, record=paused, later=[asked("shutdown")], now=much_later)
    )

    assert verdict == Execute(VICTIM)


TOKENS = st.sampled_from(["", "now", "next", "victim"])
SESSIONS = st.none() | st.builds(living, TOKENS, st.floats(-4000, 4000), dead=st.booleans())
REQUESTS = st.builds(
    lambda action, token: asked(action, incarnation=token),
    st.sampled_from(ACTIONS),
    TOKENS.map(lambda token: token or None),
)


@given(REQUESTS, SESSIONS, st.sampled_from([MAX.address, "mayor/", "operator"]), st.floats(-9e3, 9e3))
def test_only_the_target_session_is_ever_ended(
    request: LifecycleRequest, session: Session | None, asker: str, later: float
) -> None:
    verdict = decide(case(request, session, asker=asker, now=NOW + timedelta(seconds=later)))

    if isinstance(verdict, Execute) and verdict.target is not None:
        assert verdict.target == session
        assert session.incarnation
        older = session.started_at <= request.latest_timestamp
        assert request.incarnation == session.incarnation or (older and request.incarnation is None)
    assert not isinstance(verdict, AlreadyDone), "nothing has started yet"


@given(REQUESTS, SESSIONS, TOKENS, st.lists(TOKENS.filter(bool), max_size=2))
def test_started_work_ends_only_its_target_and_its_own_successors(
    request: LifecycleRequest, session: Session | None, victim: str, successors: list[str]
) -> None:
    work = Progress(attempts=1, started_at=NOW, target_incarnation=victim, successors=tuple(successors))

    verdict = decide(case(request, session, work=work))

    if isinstance(verdict, Execute) and verdict.target is not None:
        assert verdict.target.incarnation in {victim, *successors} - {""}
    if isinstance(verdict, Resolve):
        assert verdict.status is RequestStatus.SUPERSEDED


@pytest.mark.parametrize(
    ("asker", "allowed"),
    [
        (MAX.address, True),
        ("mayor/", True),
        ("deacon/", True),
        ("operator", True),
        ("gastown/witness", True),
        ("other/witness", False),
        ("gastown/refinery", False),
        ("gastown/crew/maxine", False),
        ("/witness", False),
    ],
)
def test_senders_are_authorized_by_role_and_rig(asker: str, allowed: bool) -> None:
    assert is_authorized(asker, MAX) is allowed


def test_a_witness_without_rig_may_not_ask_for_the_mayor() -> None:
    mayor = Agent(
        address="mayor/", role="mayor", rig="", name="", session="gt-mayor", work_dir=Path("/town"),
        command="agent", poke=None, keep_running=False, stop_grace=5.0, env={}, host="h",
    )  # fmt: skip

    assert not is_authorized("/witness", mayor)
