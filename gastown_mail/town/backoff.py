"""When the daemon may start an agent again: back-off between starts, quarantine after a crash loop. Pure.

Every automatic start counts as a crash until the session has survived `crash_loop_window`; so does a failed
start.
"""

from datetime import UTC, datetime, timedelta

from gastown_mail.contracts.go_formats import format_local
from gastown_mail.contracts.settings import DaemonSettings
from gastown_mail.contracts.validation import EpochList, EpochMillis, Flag, RedisHash, stored_as

_CLOCK_STEP = timedelta(seconds=60)
"""A clock that goes back by more than this has been set; by less, two hosts merely differ a little."""

_NEVER = datetime.fromtimestamp(0, UTC)


class StartHistory(RedisHash):
    """What an agent's earlier starts say about the next one; part of the hash `agent:<address>`.

    `starts` are the recent ones, oldest first, and `failures` those in a row. `probation`: the one start
    after a quarantine has been made. `failed`: the last start did not come up.
    """

    starts: EpochList = ()
    failures: int = 0
    not_before: EpochMillis = _NEVER
    quarantined_until: EpochMillis = _NEVER
    probation: Flag = stored_as("trial", False)
    failed: Flag = False
    updated_at: EpochMillis = stored_as("judged_at", _NEVER)
    """When the waits were set. They are void when the clock has been set back to before that."""

    def blocked_reason(self, now: datetime) -> str | None:
        """Why an automatic start has to wait, None if it does not."""
        if now + _CLOCK_STEP < self.updated_at:
            return None
        if now < self.quarantined_until:
            return f"in quarantine until {format_local(self.quarantined_until)} after a crash loop"
        if now < self.not_before:
            starts = "1 start" if self.failures == 1 else f"{self.failures} starts"
            return f"in back-off until {format_local(self.not_before)} after {starts}"
        return None


NO_HISTORY = StartHistory()


def check_crash_loop(history: StartHistory, now: datetime, settings: DaemonSettings) -> StartHistory:
    """The history before an automatic start at `now`, in quarantine if the starts are a crash loop."""
    if history.blocked_reason(now):
        return history
    recent = _recent(history, now, settings)
    if history.probation or len(recent) >= settings.crash_loop_count:
        until = now + timedelta(seconds=settings.quarantine)
        changes = {"starts": (), "probation": False, "quarantined_until": until, "updated_at": now}
        return history.model_copy(update=changes)
    return history.model_copy(update={"starts": recent})


def record_start(
    history: StartHistory, now: datetime, settings: DaemonSettings, *, failed: bool
) -> StartHistory:
    """The history after an automatic start, or after any start that failed."""
    pause = min(settings.restart_backoff * 2 ** min(history.failures, 32), settings.restart_backoff_max)
    return StartHistory(
        starts=(*_recent(history, now, settings), now),
        failures=history.failures + 1,
        not_before=now + timedelta(seconds=pause),
        quarantined_until=history.quarantined_until,
        probation=history.quarantined_until > _NEVER,
        failed=failed,
        updated_at=now,
    )


def is_stable(started_at: datetime, now: datetime, settings: DaemonSettings) -> bool:
    """Whether the session has lived long enough for its agent's history to be forgotten."""
    return now - started_at >= timedelta(seconds=settings.crash_loop_window)


def _recent(history: StartHistory, now: datetime, settings: DaemonSettings) -> tuple[datetime, ...]:
    """The starts in the window up to now, and later ones, which a clock that was set back leaves."""
    oldest = now - timedelta(seconds=settings.crash_loop_window)
    return tuple(start for start in history.starts if start > oldest)
