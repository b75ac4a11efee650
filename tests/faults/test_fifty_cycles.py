"""An agent that cycles itself again and again from inside its sessions."""

import sys
from pathlib import Path

import pytest

from tests.support.agents import MAX
from tests.support.daemon import a_running_daemon
from tests.support.wait import eventually

pytestmark = pytest.mark.timeout(300)

CYCLES = 50

RENEWS_ITSELF = (
    'sh -c \'echo "$GASTOWN_INCARNATION $(cat "${GASTOWN_HANDOFF:-/dev/null}")" >> starts;'
    f" n=$(wc -l < starts); [ $n -gt {CYCLES} ] || {sys.executable} -m gastown_mail send cycle --handoff $n;"
    " while read line; do :; done'"
)

TOWN = f"""
[agents."{MAX}"]
command = '''{RENEWS_ITSELF}'''
work_dir = "work/max"
stop_grace = 2
"""


def test_fifty_cycles_from_inside_are_fifty_new_sessions_each_with_its_predecessors_notes() -> None:
    with a_running_daemon(TOWN) as daemon:
        daemon.town.queues.enqueue_start(daemon.agent(), "a test wants it", by="operator")
        starts = daemon.root / "work" / "max" / "starts"

        eventually(lambda: len(_lines(starts)) == CYCLES + 1, deadline=240)

        lines = _lines(starts)
        assert len({line.split()[0] for line in lines}) == CYCLES + 1
        assert [line.split()[1:] for line in lines] == [[], *([str(n)] for n in range(1, CYCLES + 1))]
        eventually(lambda: not daemon.town.requests.unsettled())
        sessions = daemon.town.sessions.snapshot().values()
        assert [(session.agent, session.dead) for session in sessions] == [(MAX, False)]
        assert next(iter(sessions)).incarnation == lines[-1].split()[0]


def _lines(starts: Path) -> list[str]:
    return starts.read_text().splitlines() if starts.exists() else []
