"""Automatic starts: a back-off that grows, a crash window that slides, a quarantine that ends."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.settings import DaemonSettings
from gastown_mail.town import backoff
from gastown_mail.town.backoff import NO_HISTORY, StartHistory, check_crash_loop, is_stable

DAEMON = DaemonSettings()
NO_BACK_OFF = DaemonSettings(restart_backoff=0)
MINUTE = 60.0
NOW = 1_766_224_800.0
"""2025-12-20 10:00 UTC."""


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def pause(gate: StartHistory, now: float = NOW) -> float:
    """Return for how long automatic starts are blocked."""
    return (max(gate.not_before, gate.quarantined_until) - moment(now)).total_seconds()


def record_start(gate: StartHistory, now: float, settings: DaemonSettings, *, failed: bool) -> StartHistory:
    return backoff.record_start(gate, moment(now), settings, failed=failed)


def blocked_reason(gate: StartHistory, now: float) -> str | None:
    return gate.blocked_reason(moment(now))


def attempt(
    gate: StartHistory, now: float, settings: DaemonSettings = DAEMON, *, failed: bool = False
) -> tuple[StartHistory, bool]:
    """Attempt an automatic start; return the new history and whether it was allowed."""
    considered = check_crash_loop(gate, moment(now), settings)
    if blocked_reason(considered, now):
        return considered, False
    return record_start(considered, now, settings, failed=failed), True


def attempts(
    times: list[float], settings: DaemonSettings = NO_BACK_OFF, gate: StartHistory = NO_HISTORY
) -> StartHistory:
    """Make these starts; each must be allowed."""
    for now in times:
        gate, passed = attempt(gate, now, settings)
        assert passed, f"refused at {now - NOW}: {blocked_reason(gate, now)}"
    return gate


def in_quarantine(now: float = NOW, settings: DaemonSettings = NO_BACK_OFF) -> StartHistory:
    """Return the start history of an agent whose crash loop was just found."""
    gate, passed = attempt(attempts([now] * settings.crash_loop_count, settings), now, settings)
    assert not passed
    return gate


def kept(gate: StartHistory) -> StartHistory:
    """Return the start history as a restarted daemon reads it."""
    return StartHistory.from_mapping(gate.to_mapping())


def test_an_agent_without_a_history_is_started_at_once() -> None:
    assert (
        check_crash_loop(NO_HISTORY, moment(NOW), DAEMON)
        == NO_HISTORY
        == kept(NO_HISTORY)
        == StartHistory.from_mapping({})
    )
    assert blocked_reason(NO_HISTORY, NOW) is None


def test_the_back_off_doubles_with_each_start_up_to_its_cap() -> None:
    gate, pauses = NO_HISTORY, []
    for _ in range(8):
        gate = record_start(gate, NOW, DAEMON, failed=False)
        pauses.append(pause(gate))

    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]


def test_the_back_off_of_very_many_starts_is_its_cap() -> None:
    assert pause(record_start(StartHistory(failures=10**6), NOW, DAEMON, failed=True)) == 600


def test_a_start_is_refused_until_its_back_off_is_over_and_not_longer() -> None:
    gate = attempts([NOW], DAEMON)

    for early in (0.0, 29.9):
        assert attempt(gate, NOW + early) == (gate, False)
    assert "back-off" in (blocked_reason(gate, NOW + 29.9) or "")

    assert attempt(gate, NOW + 30)[1]


def test_a_refused_start_does_not_make_the_back_off_longer() -> None:
    gate = attempts([NOW, NOW + 30], DAEMON)

    for second in range(31, 90):
        assert attempt(gate, NOW + second) == (gate, False)

    assert attempt(gate, NOW + 90)[1]


def test_the_back_off_restarts_after_the_history_is_forgotten() -> None:
    gate = attempts([NOW, NOW + 30, NOW + 90], DAEMON)
    assert pause(gate, NOW + 90) == 120

    assert pause(record_start(NO_HISTORY, NOW, DAEMON, failed=False)) == 30


@pytest.mark.parametrize(("age", "stable"), [(899.0, False), (900.0, True), (-5.0, False), (1e6, True)])
def test_a_session_is_stable_when_it_has_lived_for_a_whole_window(age: float, stable: bool) -> None:
    assert is_stable(moment(NOW - age), moment(NOW), DAEMON) is stable


@pytest.mark.parametrize(
    "gate",
    [
        NO_HISTORY,
        attempts([NOW, NOW + 30], DAEMON),
        in_quarantine(),
        attempts([NOW + 1800], gate=in_quarantine()),
        record_start(NO_HISTORY, NOW + 0.125, DAEMON, failed=True),
    ],
    ids=["open", "back-off", "quarantine", "trial", "failed"],
)
def test_the_start_history_survives_a_restart_of_the_daemon(gate: StartHistory) -> None:
    assert kept(gate) == gate


def test_a_stored_start_history_decides_like_one_in_memory() -> None:
    gate = other = NO_HISTORY
    for now in itertools.accumulate([20.0] * 400, initial=NOW):
        gate, passed = attempt(gate, now)
        other, same = attempt(kept(other), now)

        assert (other, same) == (gate, passed)


def test_five_starts_within_the_window_are_a_crash_loop() -> None:
    gate = attempts([NOW + minute * MINUTE for minute in (0, 3, 6, 9, 12)])

    gate, passed = attempt(gate, NOW + 14 * MINUTE, NO_BACK_OFF)

    assert not passed
    assert "quarantine" in (blocked_reason(gate, NOW + 14 * MINUTE) or "")
    assert pause(gate, NOW + 14 * MINUTE) == 30 * MINUTE


def test_starts_spread_over_more_than_the_window_are_not_a_crash_loop() -> None:
    attempts([NOW + 4 * number * MINUTE for number in range(100)])


def test_the_crash_window_slides() -> None:
    """It does not restart at fixed moments and does not keep old starts."""
    gate = attempts([NOW, *(NOW + minute * MINUTE for minute in (11, 12, 13, 14))])

    assert not attempt(gate, NOW + 14.9 * MINUTE, NO_BACK_OFF)[1]
    gate = attempts([NOW + 15.1 * MINUTE], gate=gate)

    assert not attempt(gate, NOW + 25.9 * MINUTE, NO_BACK_OFF)[1]


def test_starts_that_failed_count_like_any_other() -> None:
    gate = NO_HISTORY
    for number in range(5):
        gate = record_start(gate, NOW + number, NO_BACK_OFF, failed=True)

    assert gate.failed
    assert not attempt(gate, NOW + 5, NO_BACK_OFF)[1]
    assert (
        pause(record_start(record_start(NO_HISTORY, NOW, DAEMON, failed=True), NOW, DAEMON, failed=True))
        == 60
    )


def test_a_successful_start_clears_the_mark_of_a_failed_one() -> None:
    gate = record_start(NO_HISTORY, NOW, DAEMON, failed=True)

    assert not record_start(gate, NOW + 30, DAEMON, failed=False).failed


def test_quarantine_ends_by_itself_with_one_trial_start() -> None:
    gate = in_quarantine()
    for early in (0, 600, 1799.9):
        assert attempt(gate, NOW + early, NO_BACK_OFF) == (gate, False)

    gate = attempts([NOW + 1800], gate=gate)

    again, passed = attempt(gate, NOW + 1801, NO_BACK_OFF)
    assert not passed
    assert pause(again, NOW + 1801) == 1800
    attempts([NOW + 3601], gate=again)


def test_a_trial_is_remembered_however_late_the_second_start_comes() -> None:
    """Only a stable session ends the trial; then the whole history is forgotten."""
    gate = kept(attempts([NOW + 100 * MINUTE], gate=in_quarantine()))

    assert not attempt(gate, NOW + 200 * MINUTE, NO_BACK_OFF)[1]


def test_a_quarantine_shorter_than_the_window_ends_with_a_trial_too() -> None:
    short = DaemonSettings(restart_backoff=0, quarantine=60)

    gate = attempts([NOW + 60], short, in_quarantine(settings=short))

    assert not attempt(gate, NOW + 61, short)[1]


@pytest.mark.parametrize("step", [-86_400.0, -1.0, 1.0, 86_400.0, -NOW, 10 * 365 * 86_400.0])
@pytest.mark.parametrize("gate", [attempts([NOW], DAEMON), in_quarantine(), attempts([NOW] * 5)])
def test_a_stepped_clock_gets_an_answer(gate: StartHistory, step: float) -> None:
    after, passed = attempt(gate, NOW + step)

    if passed:
        assert after.starts[-1] == moment(NOW + step)
    else:
        assert " until " in (blocked_reason(after, NOW + step) or "")
    assert blocked_reason(kept(after), NOW + step) == blocked_reason(after, NOW + step)


def test_starts_that_a_stepped_clock_put_into_the_future_count() -> None:
    assert not attempt(attempts([NOW] * 5), NOW - 86_400, NO_BACK_OFF)[1]


SETTINGS = st.builds(
    DaemonSettings,
    restart_backoff=st.sampled_from([0, 1, 30]),
    restart_backoff_max=st.sampled_from([0, 60, 600]),
    crash_loop_count=st.integers(1, 6),
    crash_loop_window=st.sampled_from([10, 900]),
    quarantine=st.sampled_from([900, 1800]),
)
GAPS = st.lists(
    st.tuples(st.integers(0, 8).map(lambda power: float(5**power) / 5), st.booleans()), max_size=60
)


@given(settings=SETTINGS, gaps=GAPS)
def test_no_window_ever_sees_more_starts_than_a_crash_loop_has(
    settings: DaemonSettings, gaps: list[tuple[float, bool]]
) -> None:
    """For any starts at any time, as long as the quarantine is no shorter than the window."""
    gate, now, made = NO_HISTORY, NOW, []
    for gap, failed in gaps:
        now += gap
        gate, passed = attempt(kept(gate), now, settings, failed=failed)
        made += [now] * passed

    for first in made:
        window = [start for start in made if first <= start < first + settings.crash_loop_window]
        assert len(window) <= settings.crash_loop_count


@given(settings=SETTINGS, gaps=GAPS)
def test_no_start_is_refused_for_longer_than_the_settings_say(
    settings: DaemonSettings, gaps: list[tuple[float, bool]]
) -> None:
    gate, now = NO_HISTORY, NOW
    longest = max(settings.restart_backoff_max, settings.quarantine) + 0.001
    for gap, failed in gaps:
        now += gap
        gate, _ = attempt(kept(gate), now, settings, failed=failed)

        assert pause(gate, now) <= longest


@pytest.mark.parametrize("gate", [attempts([NOW], DAEMON), in_quarantine()])
def test_a_clock_that_is_set_back_does_not_make_a_wait_longer(gate: StartHistory) -> None:
    assert blocked_reason(gate, NOW + 1)

    assert blocked_reason(gate, NOW - 86_400) is None
