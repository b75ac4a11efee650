"""Which agents a heartbeat starts, pokes or leaves alone."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.go_formats import ZERO_TIME
from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.settings import DaemonSettings
from gastown_mail.lifecycle.heartbeat_policy import AgentSnapshot, Decision, PokeAgent, Skip, StartAgent, plan
from gastown_mail.sessions.session import Session
from gastown_mail.town.backoff import StartHistory
from gastown_mail.town.observed import Observation
from gastown_mail.town.records import AgentRecord, Desired

NOW = datetime(2025, 12, 20, 10, 0, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAEMON = DaemonSettings()
TEXT = "HEARTBEAT: check your workers"

WITNESS = Agent(
    address="gastown/witness", role="witness", rig="gastown", name="", session="gt-gastown-witness",
    work_dir=Path("/town/gastown"), command="agent", poke=TEXT, keep_running=False, stop_grace=5.0, env={},
    host="h",
)  # fmt: skip
DEACON = replace(WITNESS, address="deacon/", keep_running=True)


def ago(minutes: float) -> datetime:
    return NOW - minutes * MINUTE


def idle(minutes: float = 60.0, *, age: float = 600.0, incarnation: str = "now", **more: object) -> Session:
    """Return a session without output for so many minutes, started `age` minutes ago."""
    session = Session(
        name=WITNESS.session, id="$1", pane="%1", pid=4711, incarnation=incarnation, generation=1,
        agent=WITNESS.address, dead=False, exit_status=None, attached=0, activity=ago(minutes),
        started_at=ago(age), foreground="agent", in_mode=False, server=1,
    )  # fmt: skip
    return replace(session, **more)  # type: ignore[arg-type]


def seen_of(session: Session | None, state: AgentState = AgentState.READY) -> Observation:
    """What is seen of a session that waits for input, if there is one."""
    return Observation(state, active=session.activity) if session else Observation(AgentState.NONE)


def act(
    agent: Agent = WITNESS, session: Session | None = None, *, now: datetime = NOW,
    settings: DaemonSettings = DAEMON, **recorded: object,
) -> Decision:  # fmt: skip
    record = AgentRecord(**recorded)  # type: ignore[arg-type]
    acts = plan([AgentSnapshot(agent, record, session, seen_of(session))], now, settings)
    assert len(acts) == 1
    return acts[0]


@pytest.mark.parametrize("desired", [None, Desired.RUNNING])
@pytest.mark.parametrize("session", [None, idle(dead=True)], ids=["none", "dead pane"])
def test_an_agent_that_should_run_and_does_not_is_started(
    desired: Desired | None, session: Session | None
) -> None:
    assert isinstance(act(DEACON, session, desired=desired), StartAgent)


@pytest.mark.parametrize("session", [None, idle(dead=True)], ids=["none", "dead pane"])
def test_an_agent_that_need_not_run_is_not_started(session: Session | None) -> None:
    assert isinstance(act(WITNESS, session, desired=Desired.RUNNING), Skip)


def test_an_agent_that_a_request_ended_and_could_not_start_is_started() -> None:
    assert isinstance(act(WITNESS, None, desired=Desired.RUNNING, successor_owed=True), StartAgent)


@pytest.mark.parametrize(("seconds", "started"), [(1, False), (-1, True)])
def test_a_start_waits_for_its_back_off_and_no_longer(seconds: float, started: bool) -> None:
    gate = StartHistory(failures=1, not_before=NOW + timedelta(seconds=seconds))

    assert isinstance(act(DEACON, None, start_history=gate), StartAgent) is started


@pytest.mark.parametrize("desired", [Desired.STOPPED, Desired.PAUSED])
@pytest.mark.parametrize("session", [None, idle(), idle(dead=True), idle(incarnation="")])
def test_a_stopped_or_paused_agent_is_neither_started_nor_poked(
    desired: Desired, session: Session | None
) -> None:
    left = act(DEACON, session, desired=desired)

    assert isinstance(left, Skip)
    assert desired.value in left.why


@pytest.mark.parametrize("dead", [True, False])
def test_an_unmanaged_session_is_left_alone(dead: bool) -> None:
    left = act(DEACON, idle(incarnation="", dead=dead))

    assert isinstance(left, Skip)
    assert "not managed" in left.why


def test_an_idle_agent_is_poked_with_the_text_of_its_settings() -> None:
    session = idle()

    assert act(WITNESS, session) == PokeAgent(WITNESS, session, TEXT, unanswered=0)


def test_an_agent_without_a_poke_is_not_poked() -> None:
    assert isinstance(act(replace(WITNESS, poke=None), idle()), Skip)


def test_an_agent_with_an_attached_client_is_not_poked() -> None:
    assert isinstance(act(WITNESS, idle(attached=1)), Skip)


@pytest.mark.parametrize(("minutes", "poked"), [(0, False), (1.9, False), (2.1, True)])
def test_a_recently_active_agent_is_not_poked(minutes: float, poked: bool) -> None:
    assert isinstance(act(WITNESS, idle(minutes)), PokeAgent) is poked


@pytest.mark.parametrize(
    ("misses", "wait"), [(0, 7.5), (1, 11.25), (2, 16.875), (3, 25.3125), (4, 30), (5, 30), (1000, 30)]
)
def test_each_unanswered_poke_delays_the_next_one_up_to_half_an_hour(misses: int, wait: float) -> None:
    def after(minutes: float) -> Decision:
        return act(WITNESS, idle(minutes), last_poke=ago(minutes), unanswered=misses)

    assert isinstance(after(wait - 0.6), Skip)
    due = after(wait)
    assert isinstance(due, PokeAgent)
    assert due.unanswered == misses + 1


@pytest.mark.parametrize(("minutes", "poked"), [(4.4, False), (4.6, True), (5, True)])
def test_a_poke_may_be_as_early_as_heartbeats_may(minutes: float, poked: bool) -> None:
    answered = idle(3)

    assert isinstance(act(WITNESS, answered, last_poke=ago(minutes)), PokeAgent) is poked


@pytest.mark.parametrize(
    ("seconds", "answered"), [(-10, False), (0, False), (3, False), (4, True), (60, True)]
)
def test_only_what_comes_after_the_pokes_own_echo_is_an_answer(seconds: float, answered: bool) -> None:
    poked_at = ago(10)
    session = idle(activity=poked_at + timedelta(seconds=seconds))

    again = act(WITNESS, session, last_poke=poked_at, unanswered=0)

    assert isinstance(again, PokeAgent)
    assert again.unanswered == (0 if answered else 1)


def test_a_new_session_is_not_judged_by_its_predecessor() -> None:
    young = idle(2.5, age=3)

    first = act(WITNESS, young, last_poke=ago(6), unanswered=7, last_activity=ago(600))

    assert first == PokeAgent(WITNESS, young, TEXT, unanswered=0)


def test_a_heartbeat_longer_than_the_longest_back_off_is_kept() -> None:
    hourly = DaemonSettings(heartbeat_interval=3600)

    assert isinstance(act(WITNESS, idle(50), settings=hourly, last_poke=ago(50), unanswered=3), Skip)
    assert isinstance(act(WITNESS, idle(60), settings=hourly, last_poke=ago(60), unanswered=3), PokeAgent)


def heartbeats(answers: bool, hours: int) -> Iterator[datetime]:
    """Return the times of pokes to an agent that answers after 10 s or never; heartbeats every 5 min."""
    record, session, now = AgentRecord(), idle(0, age=0), NOW
    for beat in range(hours * 12):
        now = NOW + beat * 5 * MINUTE
        [done] = plan([AgentSnapshot(WITNESS, record, session, seen_of(session))], now, DAEMON)
        if isinstance(done, PokeAgent):
            yield now
            record = AgentRecord(last_poke=now, unanswered=done.unanswered)
            echo = now + timedelta(seconds=10 if answers else 1)
            session = replace(session, activity=echo)


def test_an_agent_that_answers_is_poked_at_every_heartbeat() -> None:
    assert len(list(heartbeats(answers=True, hours=2))) == 23


def test_an_agent_that_never_answers_is_finally_poked_every_half_hour() -> None:
    pokes = list(heartbeats(answers=False, hours=12))

    gaps = [(later - earlier) / MINUTE for earlier, later in itertools.pairwise(pokes)]
    assert gaps[:4] == [10, 15, 20, 25]
    assert set(gaps[4:]) == {30}


MOMENTS = st.floats(-100_000, 100_000).map(ago)
SESSIONS = st.none() | st.builds(
    lambda activity, started, dead, ours: idle(
        activity=activity,
        started_at=started,
        dead=dead,
        incarnation="now" if ours else "",
    ),
    MOMENTS,
    MOMENTS,
    st.booleans(),
    st.booleans(),
)


@given(
    SESSIONS,
    MOMENTS | st.just(ZERO_TIME),
    st.integers(0, 10**9),
    st.sampled_from([None, *Desired]),
    st.sampled_from([WITNESS, DEACON]),
)
def test_at_any_clock_only_managed_sessions_are_poked_and_only_ended_ones_started(
    session: Session | None, last_poke: datetime, misses: int, desired: Desired | None, agent: Agent
) -> None:
    done = act(agent, session, last_poke=last_poke, unanswered=misses, desired=desired)

    assert done.why
    if isinstance(done, PokeAgent):
        assert session is not None
        assert session.incarnation
        assert not session.dead
        assert 0 <= done.unanswered <= misses + 1
    if isinstance(done, StartAgent):
        assert session is None or (session.dead and session.incarnation)
        assert agent.keep_running
    if desired in (Desired.STOPPED, Desired.PAUSED):
        assert isinstance(done, Skip)


@pytest.mark.parametrize("hours", [-48, 48])
def test_after_a_clock_jump_a_live_agent_is_at_most_poked(hours: int) -> None:
    stepped = NOW + timedelta(hours=hours)

    for session in (idle(0), idle(60), idle(0, age=0)):
        assert isinstance(act(DEACON, session, now=stepped, last_poke=ago(1), unanswered=2), PokeAgent | Skip)


def test_every_agent_gets_one_decision_in_order() -> None:
    agents = [replace(WITNESS, address=f"rig/crew/{number}") for number in range(50)]

    acts = plan([AgentSnapshot(agent, AgentRecord(), None, seen_of(None)) for agent in agents], NOW, DAEMON)

    assert [done.agent for done in acts] == agents
