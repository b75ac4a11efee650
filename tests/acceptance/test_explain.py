"""`explain` with a real daemon: what the last heartbeat decided and what has happened since."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gastown_mail.status.model import Explanation
from gastown_mail.town.backoff import StartHistory
from tests.support.agents import MAX, MAXINE, RECORDED, WITNESS
from tests.support.daemon import Daemon, a_daemon
from tests.support.processes import stopped
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)


def explained(daemon: Daemon, address: str) -> Explanation:
    """Return the document of `explain --json`, which has exactly its documented shape."""
    document: Any = daemon.document("explain", address)
    return Explanation.model_validate(document, strict=False)


def decided(daemon: Daemon, address: str, words: str) -> Explanation:
    """Wait until a heartbeat has decided so; return the explanation."""

    def seen() -> Explanation | None:
        told = explained(daemon, address)
        return told if words in (told.decision or "") else None

    return eventually(seen, deadline=DEADLINE, step=0.2)  # type: ignore[return-value]


def test_why_agents_were_not_started_or_poked_and_what_to_do(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    daemon.run(WITNESS)

    plain = decided(daemon, MAX, "not poked: it has no poke")
    active = decided(daemon, WITNESS, "not poked: active")
    absent = decided(daemon, MAXINE, "keep_running is false")

    assert (plain.now.observed, plain.wish and plain.wish.by) == ("alive", "an operator")
    assert plain.decided is not None
    assert active.daemon_runs
    assert absent.wish
    assert absent.wish.by == "its settings: keep_running = false"
    assert any(f"gastown-mail run {MAXINE}" in step for step in absent.next_steps)
    said = daemon.command("explain", "gastown-crew-max")
    assert said.returncode == 0
    assert said.stdout.splitlines()[0] == f"{MAX}: not poked: it has no poke"


def test_a_pause_and_the_last_request_are_shown_with_what_ends_them(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    assert daemon.command("pause", MAX).returncode == 0
    ident = daemon.ask("restart")
    eventually(lambda: daemon.status(ident) == "refused", deadline=DEADLINE)

    told = decided(daemon, MAX, "left alone: paused")

    assert told.now.desired == "paused"
    assert told.last_request
    assert (told.last_request.id, told.last_request.status) == (ident, "refused")
    assert any(f"gastown-mail resume {MAX}" in step for step in told.next_steps)
    assert any(f"dead revive {ident}" in step for step in told.next_steps)


def test_a_shutdown_is_shown_as_the_desired_state_with_its_request(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    ident = daemon.ask("shutdown")
    daemon.done(ident)

    told = explained(daemon, MAX)

    assert told.wish
    assert (told.wish.desired, told.wish.by) == ("stopped", f"request {ident} (shutdown)")
    assert told.last_request
    assert (told.last_request.id, told.last_request.status) == (ident, "done")
    assert told.last_request.finished


def test_a_quarantine_is_shown_with_its_end_and_what_ends_it_sooner() -> None:
    keeps = RECORDED.replace(
        '[agents."gastown/crew/max"]', '[agents."gastown/crew/max"]\nkeep_running = true'
    )
    with a_daemon(keeps.replace("[daemon]\n", "[daemon]\nheartbeat_interval = 1\n")) as daemon:
        later = datetime.now(UTC) + timedelta(hours=1)
        daemon.up()
        eventually(lambda: daemon.town.agents.read(MAX).start_history.starts, deadline=DEADLINE)
        daemon.town.agents.write_start_history(
            MAX, StartHistory(quarantined_until=later, updated_at=datetime.now(UTC))
        )
        daemon.town.sessions.end(daemon.living(MAX), grace=2.0)

        told = decided(daemon, MAX, "not started: in quarantine until")

        assert (told.now.observed, told.now.waits) == ("none", "quarantine")
        assert any(f"gastown-mail clear {MAX}" in step for step in told.next_steps)


def test_without_redis_it_says_what_it_does_not_know(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)

    with stopped(daemon.redis_pid()):
        done = daemon.command("explain", MAX)

    assert done.returncode == 3
    assert "did not answer in time" in done.stderr
    assert "session gt-gastown-crew-max for" in " ".join(done.stdout.split())
    assert "back-off      unknown" in done.stdout


def test_an_agent_that_the_town_does_not_have_cannot_be_explained(daemon: Daemon) -> None:
    done = daemon.command("explain", "gastown/crew/nobody")

    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody" in done.stderr
