"""`demo`: a small town in a temporary folder, one of each act, and a look at the world after each."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
from redis.exceptions import RedisError

from gastown_mail.cli.demo_town import (
    ANN,
    BOB,
    CAL,
    DemoFailed,
    DemoTown,
    Interrupted,
    demo_folder,
    demo_town,
    stop,
)
from gastown_mail.cli.facts import format_event
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, OPERATOR, RequestStatus
from gastown_mail.contracts.state import State, load_state
from gastown_mail.daemon.service import require_tmux
from gastown_mail.mail.events import read_latest
from gastown_mail.mail.send import send_lifecycle
from gastown_mail.town.records import Desired

DEADLINE = 25.0
"""Seconds in which all must have been shown; ending what was started takes some more."""

BEATS_AFTER = 2
"""After so many more heartbeats, one has begun and ended since."""

EVENTS_SHOWN, EVENTS_READ = 12, 120
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALLED = 128
"""Added to the signal's number this is the exit code, as in a shell."""


@dataclass(frozen=True)
class Step:
    """One thing to show. `run` does it, looks whether it really happened, and returns what to say of it."""

    name: str
    awaited: str
    run: Callable[[DemoTown], str]


@click.command()
@click.option("--deadline", default=DEADLINE, show_default=True, metavar="SECONDS", help="Give up then.")
def demo(deadline: float) -> int:
    """Show a small town at work: real sessions, one of each action. Nothing of it stays."""
    require_tmux()
    try:
        with caught_signals() as caught, demo_folder() as folder:
            click.echo(f"a town of three agents in {folder}; it ends by itself")
            show(folder, caught, time.monotonic() + deadline)
    except Interrupted as interruption:
        click.echo("interrupted; everything is ended and removed")
        return SIGNALLED + interruption.number
    except BrokenPipeError:
        # Nobody reads on: nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (GastownError, RedisError, OSError) as error:
        click.echo(f"FAILED  {error}")
        return 1
    click.echo("ok  left nothing: no process, no tmux server, no folder")
    return 0


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Note the signals that ask the demo to end, instead of ending at once; an ignored one stays ignored."""
    caught: list[int] = []
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in heard}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def show(folder: Path, caught: list[int], until: float) -> None:
    """Play all steps. Raises NotShown for the first that did not happen, with the last events before it."""
    with demo_town(folder, caught, until) as stage:
        try:
            for step in STEPS:
                play(stage, step)
        except GastownError:
            tell_events(stage)
            raise


def play(stage: DemoTown, step: Step) -> None:
    """One step: what it waits for, then what came of it and how long that took."""
    click.echo(f"..  {step.name}: waiting for {step.awaited}")
    began = time.monotonic()
    came = step.run(stage)
    click.echo(f"ok  {step.name:<9} {(time.monotonic() - began) * 1000:6.0f} ms  {came}")


def tell_events(stage: DemoTown) -> None:
    """Print what the daemon told last of the agents, if its Redis can still say it."""
    try:
        told = [e for e in read_latest(stage.town.redis, stage.town.keys, EVENTS_READ) if "agent" in e.fields]
        for event in told[-EVENTS_SHOWN:]:
            click.echo(f"    {format_event(event)}")
    except RedisError as error:
        click.echo(f"    its events cannot be read: {error}")


def _town(stage: DemoTown) -> str:
    stage.wait("the daemon to serve the town", stage.serves)
    for address in stage.sessions:
        stage.wait_for_line(address, f"I am {address}")
    return f"daemon {stage.daemon.pid} serves; {', '.join(stage.sessions)} run in tmux"


def _poke(stage: DemoTown) -> str:
    text = f"are you there, {secrets.token_hex(4)}?"
    stage.poke(ANN, text)
    stage.wait_for_line(ANN, f"heard: {text}")
    return f"typed {text!r}, and she answered"


def _cycle(stage: DemoTown) -> str:
    before, words = stage.wait_for_session(ANN), f"next: merge branch {secrets.token_hex(4)}"
    stage.poke(ANN, f"hand over {words}")
    after = stage.wait_for_line(ANN, f"handoff: {words}", after=before)
    stage.expect_gone(before)
    took = stage.wait("ann's own request to be done", lambda: _took(stage, ANN))
    return f"pid {before.pid} asked, pid {after.pid} read {words!r}; {_ms(took)} ms from request to done"


def _restart(stage: DemoTown) -> str:
    before = stage.wait_for_session(BOB)
    _ask(stage, "restart", BOB)
    after = stage.wait_for_line(BOB, "no handoff", after=before)
    stage.expect_gone(before)
    return f"pid {before.pid} ended, pid {after.pid} runs without a handoff"


def _shutdown(stage: DemoTown) -> str:
    before = stage.wait_for_session(CAL)
    _ask(stage, "shutdown", CAL)
    stage.wait("no session of cal", lambda: stage.look(CAL) is None)
    stage.expect_gone(before)
    return f"pid {before.pid} ended, no successor"


def _heartbeat(stage: DemoTown) -> str:
    enough = stage.town.state.read().heartbeat_count + BEATS_AFTER
    expected = f"state.json to say what Redis says, and at least {enough} heartbeats"
    state = stage.wait(expected, lambda: _same_state(stage, enough))
    if stage.look(CAL) or stage.town.agents.read(CAL).desired is not Desired.STOPPED:
        raise DemoFailed("expected cal to stay down through the heartbeats, and it runs or is wanted to")
    return f"{state.heartbeat_count} heartbeats, Redis and state.json agree, cal is still down"


def _stop(stage: DemoTown) -> str:
    before = stage.wait_for_session(ANN)
    code = stop(stage.daemon)
    if code != 0 or load_state(stage.root).running:
        raise DemoFailed(f"expected exit code 0 and running = false in state.json; the exit code is {code}")
    if stage.wait_for_session(ANN).incarnation != before.incarnation:
        raise DemoFailed("expected ann to outlive the daemon, and another session took her place")
    return "the daemon ended, ann and bob go on"


STEPS = (
    Step("town", "the daemon, its own Valkey, and a session of each agent", _town),
    Step("poke", "ann to answer a line that is typed into her session", _poke),
    Step("cycle", "ann to ask for it from inside, and a successor that has her handoff", _cycle),
    Step("restart", "a fresh session of bob, without a handoff", _restart),
    Step("shutdown", "the end of cal, who otherwise must keep running", _shutdown),
    Step("heartbeat", "the next heartbeats; cal stays down, state.json says what Redis says", _heartbeat),
    Step("stop", "the daemon to end, while the agents go on", _stop),
)


def _ask(stage: DemoTown, action: str, address: str) -> None:
    """Send a request as the operator and wait until it is done."""
    url, name = stage.town.redis_url, stage.town.keys.town
    receipt = send_lifecycle(action, agent=OPERATOR, to=address, redis_url=url, town=name, environ={})
    stage.wait(f"the {action} to be settled", lambda: receipt.status() in FINAL_STATUSES)
    if receipt.status() != RequestStatus.DONE:
        raise DemoFailed(f"expected the {action} to be done; it is {receipt.status()}: {receipt.detail()}")


def _took(stage: DemoTown, address: str) -> timedelta | None:
    """From the agent's own last request to its end, None as long as none of them is done."""
    for event in reversed(read_latest(stage.town.redis, stage.town.keys, EVENTS_READ)):
        if (event.fields["event"], event.fields.get("agent")) == (RequestStatus.DONE.value, address):
            record = stage.town.requests.record(event.fields["request"])
            if record["from"] == address:
                return parse_time(record["finished_at"]) - parse_time(record["timestamp"])
    return None


def _same_state(stage: DemoTown, enough: int) -> State | None:
    state = stage.town.state.read()
    same = state == load_state(stage.root) and state.running and state.pid == stage.daemon.pid
    return state if same and state.heartbeat_count >= enough else None


def _ms(span: timedelta) -> int:
    return round(span / timedelta(milliseconds=1))
