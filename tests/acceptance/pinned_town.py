"""One run of a town that writes as much as possible: to Redis, to disk, to tmux and to its agents."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rq import Queue
from rq.serializers import JSONSerializer

from gastown_mail.town.hosts import HostEntry
from tests.acceptance.recording import Recording, Write, connected
from tests.support.agents import RECORDER
from tests.support.daemon import Daemon, a_daemon
from tests.support.processes import Process, clean_environ, end_tmux_server
from tests.support.wait import DEADLINE, eventually

MAX, WITNESS = "gastown/crew/max", "gastown/witness"
FAILS, ABSENT, FOUND, DIES = (f"gastown/crew/{name}" for name in ("fails", "absent", "found", "dies"))
LONG_AGO = "2025-01-01T00:00:00Z"

TOML = f"""
town_name = "pins"
[daemon]
host = "h1"
heartbeat_interval = 1
sweep_interval = 0.5
fresh_after = 0
restart_backoff = 1
crash_loop_count = 1
crash_loop_window = 4
require_incarnation = true
[roles.crew]
command = '''{RECORDER}'''
work_dir = "work/{{name}}"
stop_grace = 2
[roles.witness]
command = '''{RECORDER}'''
work_dir = "work/witness"
poke = "look around"
[agents."{MAX}"]
[agents."{WITNESS}"]
[agents."{FOUND}"]
[agents."gastown/crew/stays"]
keep_running = true
[agents."{DIES}"]
command = "sleep 0.7"
keep_running = true
[agents."{FAILS}"]
command = "sh -c 'exit 7'"
[agents."{ABSENT}"]
command = "no-such-program"
"""
ELSEWHERE = "another-host|pid:[1]|1|0.0|1"
"""A lease whose owner may be alive."""


@dataclass
class Seen:
    """What the town wrote and showed."""

    writes: list[Write] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    exit_codes: dict[str, list[int]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    tmux: dict[str, str] = field(default_factory=dict)
    desired: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    handoff: str = ""
    errors: str = ""


class Run:
    """The town while it runs."""

    def __init__(self, daemon: Daemon, up: Process) -> None:
        self.daemon, self.up, self.seen = daemon, up, Seen()
        self._jobs = 0

    def command(self, *words: str, **environ: str) -> str:
        """Run `gastown-mail` and return what it prints; with `--json`, keep the document."""
        done = self.daemon.command(*words, environ=environ)
        self.seen.exit_codes.setdefault(words[0], []).append(done.returncode)
        self.seen.errors += done.stderr
        if words[-1] == "--json":
            text = done.stdout.splitlines()[0] if words[0] == "events" else done.stdout
            self.seen.documents[" ".join(word for word in words[:2] if word.isalpha())] = json.loads(text)
        return done.stdout.strip()

    def job(self, function: str, *arguments: str, queue: str = "lifecycle") -> None:
        """Queue a job as this version does, and wait until a worker has run it."""
        self._jobs += 1
        target = Queue(f"gastown-pins-h1-{queue}", connection=self.daemon.redis, serializer=JSONSerializer)
        job = target.enqueue_call(
            f"gastown_mail.daemon.jobs.{function}", args=arguments, job_id=f"by-hand-{self._jobs}"
        )
        eventually(lambda: job.get_status(refresh=True) == "finished", deadline=DEADLINE)

    def environment(self, address: str, not_of: str = "") -> dict[str, str]:
        """Return the agent's environment, as soon as its token is not this one."""
        file = self.daemon.root / "work" / address.rpartition("/")[2] / "env"

        def found() -> dict[str, str]:
            entries = file.read_text().split("\0") if file.exists() else []
            read = dict(entry.split("=", 1) for entry in entries if entry)
            return read if read.get("GASTOWN_INCARNATION", not_of) != not_of else {}

        entries = eventually(found, deadline=DEADLINE)
        return {name: value for name, value in entries.items() if name.startswith(("GASTOWN_", "GT_"))}

    def push(self, *elements: str) -> None:
        self.daemon.redis.rpush("gastown:{pins}:inbox", *elements)

    def told(self, event: str) -> bool:
        """Return whether this event is in the stream."""
        entries: Any = self.daemon.redis.xrange("gastown:{pins}:events")
        return any(fields[b"event"] == event.encode() for _, fields in entries)

    def wait_for(self, *events: str) -> None:
        for event in events:
            eventually(lambda event=event: self.told(event), deadline=DEADLINE)  # type: ignore[misc]

    def settled(self, ident: str) -> None:
        final = {b"done", b"superseded", b"refused", b"expired", b"failed"}
        key = f"gastown:{{pins}}:request:{ident}"
        eventually(lambda: self.daemon.redis.hget(key, "status") in final, deadline=DEADLINE)

    def tmux(self, *words: str) -> str:
        digest = hashlib.sha256(str(self.daemon.root).encode()).hexdigest()[:6]
        return subprocess.run(
            ["tmux", "-L", f"gastown-pins-{digest}", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def daemon_files(self) -> list[str]:
        folder = self.daemon.root / "daemon"
        found = [path.relative_to(folder) for path in folder.rglob("*") if not path.name.startswith(".")]
        return sorted(str(path) for path in found if path.parent.name != "appendonlydir")

    @contextmanager
    def lease(self, key: str) -> Iterator[None]:
        """Give this lease to a process of another host inside the block."""
        full = f"gastown:{{pins}}:{key}"
        eventually(lambda: self.daemon.redis.set(full, ELSEWHERE, nx=True, px=30_000), deadline=DEADLINE)
        yield
        self.daemon.redis.delete(full)


@contextmanager
def inner_tmux(socket: Path, environ: dict[str, str]) -> Iterator[None]:
    """A tmux server that a session with this environment has started."""
    words = ("new-session", "-d", "cat")
    subprocess.run(
        ["tmux", "-f", "/dev/null", "-S", socket, *words], env=clean_environ(**environ), check=True
    )
    try:
        yield
    finally:
        end_tmux_server(str(socket))


def recorded() -> Seen:
    """Run the town and return what it wrote and showed."""
    with a_daemon(TOML) as daemon:
        up = daemon.python("-m", "gastown_mail", "up")
        socket = daemon.root / "daemon" / "redis" / "redis.sock"
        connection = eventually(lambda: connected(socket), deadline=DEADLINE, step=0.001)
        assert connection
        recording = Recording(connection)
        eventually(lambda: daemon.state().running, deadline=DEADLINE)
        run = Run(daemon, up)
        for act in (starts, asks, is_refused, is_poked, is_paused, is_repaired, moves, loses_sight, forgets):
            act(run)
        stops(run)
        run.seen.writes += recording.writes()
        recording.close()
        run.seen.log = [json.loads(line) for line in daemon.settings.log_file.read_text().splitlines()]
        return run.seen


def starts(run: Run) -> None:
    """Start agents, or fail to, in every way; adopt a session."""
    run.command("run", MAX)
    run.job("start", WITNESS, "a test wants it", "operator")
    run.job("start", WITNESS, "a test wants it", "operator")
    run.job("start", FAILS, "an old job")
    run.job("start", ABSENT, "a test wants it", "operator")
    with run.lease(f"turn:{ABSENT}"):
        run.job("start", ABSENT, "a test wants it", "operator")
    run.tmux("new-session", "-d", "-s", "gt-gastown-crew-found", "-c", str(run.daemon.root), "sh")
    run.job("start", FOUND, "a test wants it", "operator")
    run.command("adopt", FOUND)
    run.wait_for("quarantined")
    run.job("start", DIES, "it must keep running")


def asks(run: Run) -> None:
    """Have requests carried out; meanwhile the clerk is stopped once, so that elements wait."""
    own, witness = run.environment(MAX), run.environment(WITNESS)
    with inner_tmux(run.daemon.root / "inner", own):
        run.settled(run.command("send", "cycle", "--reason", "full", "--handoff", "next", **own))
    run.seen.environment = run.environment(MAX, own["GASTOWN_INCARNATION"])
    run.seen.handoff = Path(run.seen.environment["GASTOWN_HANDOFF"]).read_text()
    names = ["show-options", "-t", "=gt-gastown-crew-max:"], ["show-options", "-s"]
    lines = [line for words in names for line in run.tmux(*words).splitlines() if line.startswith("@")]
    run.seen.tmux = dict(line.replace('"', "").split(" ", 1) for line in lines)
    clerk = psutil.Process(run.daemon.children()["clerk"])
    clerk.suspend()
    run.push("garbage")
    ident = run.command("send", "shutdown", "--wait", "0.1", **run.seen.environment)
    run.command("inbox", "--json")
    clerk.resume()
    run.settled(ident)
    run.job("start", MAX, "an old job")
    run.job("carry_out", "of-no-request")
    run.settled(run.daemon.ask("restart", WITNESS, to=MAX, incarnation=witness["GASTOWN_INCARNATION"]))


def is_refused(run: Run) -> None:
    """Push what cannot be carried out."""
    run.settled(run.daemon.ask("restart", incarnation="old"))
    old = {"action": "shutdown", "timestamp": LONG_AGO}
    run.push(*(json.dumps({"from": who, "id": who.replace("/", "-"), **old}) for who in (MAX, "nobody")))
    run.settled("gastown-crew-max")
    dead = run.command("send", "restart", "--agent", "operator", "--to", FAILS)
    run.settled(dead)
    run.command("dead", "--json")
    run.command("dead", "drop", dead, "--json")


def is_poked(run: Run) -> None:
    """Poke agents; some cannot be poked."""
    run.command("poke", MAX, "hello")
    run.job("poke", MAX)
    run.job("poke", FOUND, "hello")
    run.job("poke", ABSENT, "hello")
    run.wait_for("poke", "recovered")


def is_paused(run: Run) -> None:
    """Pause an agent and the town; a request waits meanwhile."""
    run.command("pause", MAX)
    run.job("poke", MAX, "hello")
    run.command("pause", "--all")
    run.seen.desired = json.loads((run.daemon.root / "daemon" / "private" / "desired.json").read_text())
    run.command("resume", MAX)
    own = run.environment(MAX, run.seen.environment["GASTOWN_INCARNATION"])
    ident = run.daemon.ask("restart", incarnation=own["GASTOWN_INCARNATION"])
    run.wait_for("postponed")
    for words in (["status"], ["requests", ident], ["doctor"], ["events", "-n", "1", "--agent", MAX]):
        run.command(*words, "--json")
    run.command("resume", "--all")
    run.settled(ident)


def is_repaired(run: Run) -> None:
    """Clear an agent, revive a dead letter; run a heartbeat and a sweep beside others."""
    run.command("clear", DIES)
    run.command("dead", "revive", "gastown-crew-max", "--json")
    run.settled("gastown-crew-max")
    for function in ("heartbeat", "sweep"):
        with run.lease(f"{function}:h1"):
            run.job(function, queue="heartbeat")


def moves(run: Run) -> None:
    """Move an agent to another host and back."""
    hosts = run.daemon.town.hosts
    hosts.report("h2", HostEntry(machine="f" * 32, boot="f" * 8))
    run.command("move", WITNESS, "h2")
    run.wait_for("released")
    hosts.report_end("h2")
    run.command("move", WITNESS, "h1")


def loses_sight(run: Run) -> None:
    """Move the tmux server's socket away until a heartbeat fails."""
    socket = Path(run.tmux("display-message", "-p", "#{socket_path}").strip())
    away = socket.rename(f"{socket}-away")
    run.wait_for("heartbeat_failed")
    run.job("sweep", queue="heartbeat")
    away.rename(socket)


def forgets(run: Run) -> None:
    """Empty Redis."""
    entries: Any = run.daemon.redis.xrange("gastown:{pins}:events")
    for _, found in entries:
        fields = {name.decode(): value.decode() for name, value in found.items()}
        run.seen.writes += [
            Write("gastown:{pins}:events", f"{fields['event']}.{name}", value)
            for name, value in fields.items()
        ]
    run.daemon.redis.flushall()
    run.wait_for("restored", "heartbeat")
    run.seen.files["running"] = run.daemon_files()


def stops(run: Run) -> None:
    run.up.stop()
    run.command("status")
    run.seen.files["stopped"] = run.daemon_files()
