"""What the heartbeat does by what it sees: a usage limit, a full context, a status line that ticks."""

import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from gastown_mail.contracts.go_formats import ZERO_TIME
from gastown_mail.contracts.lifecycle import full_context_id
from gastown_mail.lifecycle import heartbeat
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.mail.events import read_latest
from gastown_mail.sessions import process_table
from gastown_mail.town.town import Town
from tests.integration.test_heartbeat import run_queued
from tests.support.stage import Stage
from tests.support.wait import eventually

FAKE = "rig/crew/fake"

PROGRAM = """
import sys, threading, time
first = sys.argv[1]
def show(text):
    sys.stdout.write(text)
    sys.stdout.flush()
def tick():
    while True:
        time.sleep(0.1)
        show("\\x1b7\\x1b[50;1H" + str(time.time()) + "\\x1b8")
show(first + "\\n\\n> ")
if "tick" in first:
    threading.Thread(target=tick, daemon=True).start()
for line in sys.stdin:
    with open("lines", "a") as file:
        file.write(line)
    show("OK\\n\\n> ")
"""

TOWN = """
[daemon]
fresh_after = 0
heartbeat_interval = 1
restart_backoff = 0
[programs.fake]
label = "Fake"
[programs.fake.input]
sign = '^> '
continued = '^  '
entered = '^> .'
[programs.fake.context]
used = '(\\d+)% used'
[[programs.fake.rules]]
state = "limited"
above = 'reached your limit'
[agents."rig/crew/fake"]
command = COMMAND
program = "fake"
poke = "HEARTBEAT"
work_dir = "work"
stop_grace = 1
cycle_at = 80
"""


@pytest.fixture
def play(make_town: Callable[..., Town]) -> Callable[[str], Stage]:
    """Starts an agent whose program shows this text first."""

    def start(text: str) -> Stage:
        command = shlex.join([sys.executable, "-S", "-c", PROGRAM, text]) + " {prompt}"
        stage = Stage(make_town(TOWN.replace("COMMAND", f"'''{command}'''")))
        stage.run(FAKE)
        eventually(lambda: "\n>" in stage.town.sessions.capture_screen(stage.living(FAKE)))
        return stage

    return start


def lines(stage: Stage) -> list[str]:
    file = stage.agent(FAKE).work_dir / "lines"
    return file.read_text().splitlines() if file.exists() else []


def pokes(stage: Stage) -> list[dict[str, str]]:
    events = read_latest(stage.town.redis, stage.town.keys, 200)
    return [dict(event.fields) for event in events if event.fields["event"] == "poke"]


def test_an_agent_at_its_limit_is_poked_once_when_the_limit_has_ended(play: Callable[[str], Stage]) -> None:
    stage = play("You have reached your limit, try again in 3 seconds")

    heartbeat.run_heartbeat(stage.town)
    until = stage.record(FAKE).limited_until
    assert until != ZERO_TIME
    while datetime.now(UTC) < until:
        heartbeat.run_heartbeat(stage.town)
        if datetime.now(UTC) < until:
            assert stage.record(FAKE).decision.startswith("not poked: limited until ")
            assert lines(stage) == []
    heartbeat.run_heartbeat(stage.town)
    heartbeat.run_sweep(stage.town)

    assert lines(stage) == ["HEARTBEAT"]
    [poke] = [poke for poke in pokes(stage) if poke["outcome"] == "delivered"]
    assert poke["detail"] == "poked: its usage limit has ended"


def test_a_cycle_is_asked_for_once_when_the_context_is_full(play: Callable[[str], Stage]) -> None:
    stage = play("85% used\n\na long conversation")
    before = stage.living(FAKE)

    for _ in range(3):
        heartbeat.run_heartbeat(stage.town)
        heartbeat.run_sweep(stage.town)
    [raw] = stage.town.redis.lrange(stage.town.keys.inbox, 0, -1)
    assert isinstance(raw, bytes)
    Clerk(stage.town).accept([raw])
    run_queued(stage)

    successor = stage.living(FAKE)
    assert successor.incarnation != before.incarnation
    request = stage.town.requests.record(full_context_id(before.incarnation))
    assert (request["status"], request["from"]) == ("done", FAKE)
    assert request["reason"] == "its context is 85 % full"
    handoff = stage.town.handoff_file(stage.agent(FAKE)).read_text()
    assert "85 % full" in handoff
    assert "a long conversation" in handoff
    prompt = " ".join(process_table.arguments(successor.pid))
    assert 'context was full, in these words: "its context is 85 % full"' in prompt


def test_a_context_that_is_not_full_enough_is_left_alone(play: Callable[[str], Stage]) -> None:
    stage = play("79% used")

    heartbeat.run_heartbeat(stage.town)

    assert stage.town.redis.llen(stage.town.keys.inbox) == 0
    assert lines(stage) == ["HEARTBEAT"]


def test_a_status_line_that_ticks_is_no_activity(play: Callable[[str], Stage]) -> None:
    stage = play("tick")
    daemon = stage.settings.daemon.model_copy(update={"fresh_after": 3.0})
    stage.town.settings = stage.settings.model_copy(update={"daemon": daemon})

    heartbeat.run_heartbeat(stage.town)
    assert stage.record(FAKE).decision.startswith("not poked: active at")
    eventually(lambda: heartbeat.run_heartbeat(stage.town) and lines(stage), deadline=15)

    assert lines(stage) == ["HEARTBEAT"]
