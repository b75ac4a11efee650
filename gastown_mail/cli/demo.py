"""`demo`: run a small town in a temporary folder, show each action once, and check the results."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

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
    stop_daemon,
)
from gastown_mail.cli.events import format_event
from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.go_formats import parse_time
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, OPERATOR, RequestStatus
from gastown_mail.contracts.state import State, load_state
from gastown_mail.daemon.service import require_tmux
from gastown_mail.mail.events import read_latest
from gastown_mail.mail.send import send_lifecycle
from gastown_mail.town.records import Desired

_DEADLINE = 25.0
"""Seconds for all steps together; the cleanup afterwards takes some more."""

_MORE_HEARTBEATS = 2
"""When two more heartbeats have completed, the second one also began after the count was read."""

_EVENTS_SHOWN, _EVENTS_READ = 12, 120

SIGNALLED = 128
"""Exit code of a demo that a signal ended, minus the signal's number; as in a shell."""

_Step = Callable[[DemoTown], str]
_STEPS: list[tuple[str, str, _Step]] = []
"""Name, what to wait for, and the function that does it, checks it, and returns what happened."""


def _step(awaited: str) -> Callable[[_Step], _Step]:
    """Register a function as the next step, under its own name."""

    def add(step: _Step) -> _Step:
        _STEPS.append((step.__name__.strip("_"), awaited, step))
        return step

    return add


@click.command()
@click.option(
    "--deadline", default=_DEADLINE, show_default=True, metavar="SECONDS", help="Give up after this."
)
def demo(deadline: float) -> int:
    """Show a small town at work, with real sessions and one of each action. Nothing is left behind."""
    require_tmux()
    try:
        with _caught_signals() as caught, demo_folder() as folder:
            click.echo(f"a town of three agents in {folder}; it will be removed at the end")
            with demo_town(folder, caught, time.monotonic() + deadline) as town:
                _show(town)
    except Interrupted as interruption:
        click.echo("interrupted; everything was ended and removed")
        return SIGNALLED + interruption.number
    except BrokenPipeError:
        # The reader is gone: the interpreter must not write to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (GastownError, RedisError, OSError) as error:
        click.echo(f"FAILED  {error}")
        return 1
    click.echo("ok  left nothing behind: no process, no tmux server, no folder")
    return 0


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Collect the signals that ask the demo to end, so that it can clean up; ignored ones stay ignored."""
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ours = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in ours}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(demo: DemoTown) -> None:
    """Run all steps; before the error of a failed one, print the town's last events."""
    try:
        for name, awaited, step in _STEPS:
            click.echo(f"..  {name}: waiting for {awaited}")
            began = time.monotonic()
            result = step(demo)
            click.echo(f"ok  {name:<9} {(time.monotonic() - began) * 1000:6.0f} ms  {result}")
    except GastownError:
        try:
            events = read_latest(demo.town.redis, demo.town.keys, _EVENTS_READ)
            for event in [event for event in events if "agent" in event.fields][-_EVENTS_SHOWN:]:
                click.echo(f"    {format_event(event)}")
        except RedisError as error:
            click.echo(f"    the town's events cannot be read: {error}")
        raise


@_step("the daemon, its own Valkey server and a session for each agent")
def _town(demo: DemoTown) -> str:
    demo.wait("the daemon to serve the town", demo.serves)
    for address in demo.agents:
        demo.wait_for_line(address, f"I am {address}")
    return f"daemon {demo.daemon.pid} serves; {', '.join(demo.agents)} run in tmux"


@_step("ann to answer a line that is typed into its session")
def _poke(demo: DemoTown) -> str:
    text = f"are you there, {secrets.token_hex(4)}?"
    demo.poke(ANN, text)
    demo.wait_for_line(ANN, f"heard: {text}")
    return f"typed {text!r}, and ann answered"


@_step("ann to ask for a cycle, and its successor to read the handoff")
def _cycle(demo: DemoTown) -> str:
    before, handoff = demo.wait_for_session(ANN), f"next: merge branch {secrets.token_hex(4)}"
    demo.poke(ANN, f"hand over {handoff}")
    after = demo.wait_for_line(ANN, f"handoff: {handoff}", after=before)
    demo.expect_gone(before)

    def took() -> timedelta | None:
        for event in reversed(read_latest(demo.town.redis, demo.town.keys, _EVENTS_READ)):
            if (event.fields["event"], event.fields.get("agent")) == (RequestStatus.DONE.value, ANN):
                record = demo.town.requests.record(event.fields["request"])
                if record["from"] == ANN:
                    return parse_time(record["finished_at"]) - parse_time(record["timestamp"])
        return None

    ms = round(demo.wait("ann's own request to be done", took) / timedelta(milliseconds=1))
    return f"pid {before.pid} asked, pid {after.pid} read {handoff!r}; {ms} ms from request to done"


@_step("a new session of bob without a handoff")
def _restart(demo: DemoTown) -> str:
    before = demo.wait_for_session(BOB)
    _ask(demo, "restart", BOB)
    after = demo.wait_for_line(BOB, "no handoff", after=before)
    demo.expect_gone(before)
    return f"pid {before.pid} ended, pid {after.pid} runs without a handoff"


@_step("cal to end, although its settings keep it running")
def _shutdown(demo: DemoTown) -> str:
    before = demo.wait_for_session(CAL)
    _ask(demo, "shutdown", CAL)
    demo.wait("no session of cal", lambda: demo.find(CAL) is None)
    demo.expect_gone(before)
    return f"pid {before.pid} ended, no successor"


def _ask(demo: DemoTown, action: str, address: str) -> None:
    """Send a request as the operator and wait until it is done."""
    url, name = demo.town.redis_url, demo.town.keys.town
    receipt = send_lifecycle(action, agent=OPERATOR, to=address, redis_url=url, town=name, environ={})
    demo.wait(f"the {action} to be settled", lambda: receipt.status() in FINAL_STATUSES)
    if receipt.status() != RequestStatus.DONE:
        raise DemoFailed(f"expected the {action} to be done; it is {receipt.status()}: {receipt.detail()}")


@_step("more heartbeats; cal stays down, and state.json matches Redis")
def _heartbeat(demo: DemoTown) -> str:
    enough = demo.town.state.read().heartbeat_count + _MORE_HEARTBEATS

    def matching_state() -> State | None:
        state = demo.town.state.read()
        same = state == load_state(demo.root) and state.running and state.pid == demo.daemon.pid
        return state if same and state.heartbeat_count >= enough else None

    expected = f"state.json to match Redis after at least {enough} heartbeats"
    state = demo.wait(expected, matching_state)
    if demo.find(CAL) or demo.town.agents.read(CAL).desired is not Desired.STOPPED:
        raise DemoFailed(
            "expected cal to stay down through the heartbeats; it runs, or its desired state is not stopped"
        )
    return f"{state.heartbeat_count} heartbeats, Redis and state.json agree, cal is still down"


@_step("the daemon to stop while the agents keep running")
def _stop(demo: DemoTown) -> str:
    before = demo.wait_for_session(ANN)
    code = stop_daemon(demo.daemon)
    if code != 0 or load_state(demo.root).running:
        raise DemoFailed(f"expected exit code 0 and running = false in state.json; the exit code is {code}")
    if demo.wait_for_session(ANN).incarnation != before.incarnation:
        raise DemoFailed("expected ann to outlive the daemon; another session took its place")
    return "the daemon ended, ann and bob keep running"
