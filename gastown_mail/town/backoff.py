"""The gate that every automatic start passes: back-off between starts, and quarantine for a crash loop. Pure.

An automatic start is taken for a crash until the session has lived for a whole window; a failed start counts
like any other. Times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.settings import DaemonSettings

CLOCK_STEP = 60.0
"""Seconds from which on a clock that goes back is taken for stepped; less is hosts that differ a little."""


@dataclass(frozen=True)
class StartHistory:
    """An agent's start history, as far as it decides about the next start.

    `starts` are the recent ones, oldest first; `failures` those in a row; `trial` means that the one start
    after a quarantine has been made; `failed` that the last start did not come up at all.
    """

    starts: tuple[float, ...] = ()
    failures: int = 0
    not_before: float = 0.0
    quarantined_until: float = 0.0
    trial: bool = False
    failed: bool = False
    judged_at: float = 0.0
    """When the waits were set; they mean nothing to a clock that has been stepped back before it."""

    @classmethod
    def from_mapping(cls, fields: Mapping[str, str]) -> "StartHistory":
        """Read the gate's fields of the hash `agent:<address>`."""
        return cls(
            starts=tuple(float(start) for start in fields.get("starts", "").split()),
            failures=int(fields.get("failures") or 0),
            not_before=float(fields.get("not_before") or 0),
            quarantined_until=float(fields.get("quarantined_until") or 0),
            trial=fields.get("trial") == "true",
            failed=fields.get("failed") == "true",
            judged_at=float(fields.get("judged_at") or 0),
        )

    def to_mapping(self) -> dict[str, str]:
        """The fields as they are kept in Redis."""
        return {
            "starts": " ".join(f"{start:.3f}" for start in self.starts),
            "failures": str(self.failures),
            "not_before": f"{self.not_before:.3f}",
            "quarantined_until": f"{self.quarantined_until:.3f}",
            "trial": "true" if self.trial else "false",
            "failed": "true" if self.failed else "false",
            "judged_at": f"{self.judged_at:.3f}",
        }

    def blocked_reason(self, now: float) -> str | None:
        """Why an automatic start must wait, None when it need not."""
        if now < self.judged_at - CLOCK_STEP:
            return None
        if now < self.quarantined_until:
            return f"in quarantine until {_moment(self.quarantined_until)} after a crash loop"
        if now < self.not_before:
            return f"in back-off until {_moment(self.not_before)} after {self.failures} starts"
        return None


NO_HISTORY = StartHistory()
"""The gate of an agent without a history."""


def check_crash_loop(history: StartHistory, now: float, settings: DaemonSettings) -> StartHistory:
    """The gate as it is when a start is wanted at `now`: a crash loop that shows by that is quarantined."""
    if history.blocked_reason(now):
        return history
    recent = _recent(history, now, settings)
    if history.trial or len(recent) >= settings.crash_loop_count:
        return replace(
            history, starts=(), trial=False, quarantined_until=now + settings.quarantine, judged_at=now
        )
    return replace(history, starts=recent)


def record_start(
    history: StartHistory, now: float, settings: DaemonSettings, *, failed: bool
) -> StartHistory:
    """The gate after an automatic start, or after any start that failed."""
    pause = min(settings.restart_backoff * 2 ** min(history.failures, 32), settings.restart_backoff_max)
    return StartHistory(
        starts=(*_recent(history, now, settings), now),
        failures=history.failures + 1,
        not_before=now + pause,
        quarantined_until=history.quarantined_until,
        trial=history.quarantined_until > 0,
        failed=failed,
        judged_at=now,
    )


def is_stable(started_at: float, now: float, settings: DaemonSettings) -> bool:
    """Has a session lived long enough for its agent's history to be forgotten?"""
    return now - started_at >= settings.crash_loop_window


def _recent(history: StartHistory, now: float, settings: DaemonSettings) -> tuple[float, ...]:
    """The starts inside the window that ends now; what a stepped clock put into the future counts too."""
    return tuple(start for start in history.starts if start > now - settings.crash_loop_window)


def _moment(epoch: float) -> str:
    return format_time(datetime.fromtimestamp(int(epoch)).astimezone())
