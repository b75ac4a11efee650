"""What must hold after a chaos run, seen from outside; each check says what is wrong."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence

from gastown_mail.contracts.lifecycle import FINAL_STATUSES
from gastown_mail.plumbing.connections import to_str_dict, to_strs
from gastown_mail.sessions import process_table
from tests.faults.chaos_requests import Watcher
from tests.faults.chaos_town import Bystander
from tests.support.daemon import Daemon
from tests.support.wait import eventually

SETTLING = 30.0
"""Seconds within which operations in progress must end."""

READS_EXPECTED = 100


class Sampler:
    """A process that reads `state.json` about 1,000 times a second until `end()`."""

    CODE = """
import json, sys, threading, time
from pathlib import Path
from gastown_mail.contracts.state import State
path, over, reads, failures = Path(sys.argv[1]), threading.Event(), 0, []
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
began = time.monotonic()
while not over.is_set():
    reads += 1
    try:
        State.decode(path.read_text())
    except Exception as error:
        failures.append(repr(error)[:200])
    time.sleep(0.0005)
print(json.dumps({"reads": reads, "seconds": time.monotonic() - began, "failures": failures[:5]}))
"""

    def __init__(self, daemon: Daemon) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(daemon.settings.daemon_dir / "state.json")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=daemon.environ,
        )  # fmt: skip

    def end(self) -> dict[str, object]:
        """End the process; return how often it read, for how long, and its failures."""
        said, _ = self._process.communicate("", timeout=SETTLING)
        found: dict[str, object] = json.loads(said)
        return found


def violations(
    daemon: Daemon, watcher: Watcher, standing_by: Sequence[Bystander], sampled: dict[str, object]
) -> list[str]:
    """Return everything that is wrong."""
    watcher.read(daemon.town.redis.pipeline(transaction=False))
    found = [*watcher.changed, *_unsettled(daemon, watcher), *_left_lying(daemon)]
    found += [f"no longer there: {bystander.what}" for bystander in standing_by if not bystander.lives()]
    found += _twice_started(daemon)
    found += _until_none(lambda: _wrong_processes(daemon))
    found += _until_none(lambda: _wrong_sessions(daemon))
    found += _until_none(lambda: _unhealthy(daemon))
    found += [f"state.json could not be read: {failure}" for failure in sampled["failures"]]  # type: ignore[attr-defined]
    if int(sampled["reads"]) < READS_EXPECTED:  # type: ignore[call-overload]
        found.append(f"state.json was read only {sampled['reads']} times")
    return found


def _until_none(check: Callable[[], list[str]]) -> list[str]:
    try:
        eventually(lambda: not check(), deadline=SETTLING, step=0.1)
    except AssertionError:
        return check()
    return []


def _unsettled(daemon: Daemon, watcher: Watcher) -> list[str]:
    redis, keys = daemon.town.redis, daemon.town.keys
    found = [
        f"accepted and never settled: {ident} ({watcher.ledger.accepted[ident]})" for ident in watcher.open()
    ]
    for key in redis.scan_iter(f"{keys.request('')}*".replace("{", "[{]").replace("}", "[}]"), count=1000):
        record = to_str_dict(redis.hgetall(key))
        if record.get("status") not in FINAL_STATUSES:
            found.append(f"a record that is not final: {key!r} {record}")
    return found


def _left_lying(daemon: Daemon) -> list[str]:
    redis, keys = daemon.town.redis, daemon.town.keys
    counts = {
        "inbox": redis.llen(keys.inbox),
        "taken": redis.llen(keys.taken),
        "open": redis.zcard(keys.unsettled),
    }
    waiting = {f"waiting:{a}": redis.zcard(keys.pending(a)) for a in daemon.town.roster().agents}
    return [f"{name} still holds {count}" for name, count in (counts | waiting).items() if count]


def _twice_started(daemon: Daemon) -> list[str]:
    starts = [token for address in daemon.town.roster().agents for token in daemon.starts(address)]
    return [f"started twice: {token}" for token in set(starts) if starts.count(token) > 1]


def _wrong_processes(daemon: Daemon) -> list[str]:
    """Return the processes of incarnations that are no longer alive."""
    tokens: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    mine = f"GASTOWN_TOWN={daemon.root}".encode()
    for pid in process_table.pids():
        entries = process_table.environment(pid).split(b"\0")
        if mine in entries and process_table.read_process(pid) is not None:
            named = dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)
            address, token = to_strs([named.get(b"GASTOWN_AGENT"), named.get(b"GASTOWN_INCARNATION")])
            if address and token and token != "0" * 32:
                tokens[address][token].append(pid)
    found = []
    for address, by_token in tokens.items():
        session = daemon.session(address)
        living = session.incarnation if session else ""
        found += [
            f"{address}: pids {pids} of incarnation {token}, but {living or 'none'} lives"
            for token, pids in by_token.items()
            if token != living
        ]
    return found


def _wrong_sessions(daemon: Daemon) -> list[str]:
    found = []
    sessions = daemon.town.sessions.snapshot()
    for address, agent in daemon.town.roster().agents.items():
        record, session = daemon.record(address), sessions.get(agent.session)
        desired = record.desired.value if record.desired else ""
        if desired == "stopped" and session is not None:
            found.append(f"{address} is to be stopped and has the session {session.incarnation}")
        if desired == "running" and agent.keep_running and (session is None or session.dead):
            found.append(f"{address} must run and does not")
        if session is not None and session.incarnation != record.incarnation:
            found.append(f"{address} lives as {session.incarnation}, and {record.incarnation} is recorded")
    return found


def _unhealthy(daemon: Daemon) -> list[str]:
    done = daemon.command("status")
    return [f"status says {done.returncode}: {done.stdout}{done.stderr}"] if done.returncode else []
