"""The daemon takes over a town left by an earlier version: agents stay alive, open requests are carried out.

`tests/data/before-rooms` is the record of a daemon that was killed in the middle of its work; see its README.
Keys, fields and paths are literals here because they are what that version wrote.
"""

import json
import re
import secrets
import shutil
import subprocess
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from gastown_mail.contracts.settings import load_settings
from tests.support.daemon import Daemon
from tests.support.processes import lives
from tests.support.redis import own_server
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(240)

DATA = Path(__file__).parents[1] / "data/before-rooms"
KEYS = "gastown:{town}:"
JOBS = "gastown_mail.daemon.jobs"
TOKEN = re.compile(rb"(?<!sha-)\b[0-9a-f]{32}\b")
SCHEDULE = "rq:scheduler:gastown-town:scheduled_jobs"

OPEN = {
    ("api/crew/eve", "restart", "api/crew/eve"): "done",  # in the inbox
    ("api/crew/tom", "cycle", "api/crew/tom"): "done",  # taken
    ("api/polecats/dag", "restart", "api/polecats/dag"): "superseded",  # queued; the next one decides
    ("api/witness", "shutdown", "api/polecats/dag"): "done",  # queued
    ("api/crew/dan", "cycle", "api/crew/dan"): "done",  # begun: the session is still alive
    ("api/crew/sue", "restart", "api/crew/sue"): "done",  # begun: ended, the successor only announced
    ("api/crew/zoe", "cycle", "api/crew/zoe"): "done",  # begun: the successor is alive, but not recorded
}
"""The status in which each open request ends, by sender, action and agent."""

SETTLED = {
    ("api/crew/max", "cycle", "api/crew/max"): "done",
    ("api/crew/max", "restart", "api/crew/max"): "superseded",
    ("api/crew/lea", "shutdown", "api/crew/lea"): "done",
    ("deacon/", "restart", "api/polecats/dag"): "done",
    ("operator", "restart", "api/crew/ivy"): "refused",
    ("operator", "restart", "api/polecats/kim"): "failed",
    ("api/crew/bo", "shutdown", "api/crew/max"): "refused",
    ("api/crew/bo", "cycle", "api/crew/bo"): "expired",
    ("api/crew/nobody", "cycle", "api/crew/nobody"): "refused",
    ("", "", ""): "refused",  # not a request
}
DEAD = ("refused", "expired", "failed")

UNTOUCHED = ["gt-deacon", "gt-api-witness", *(f"gt-api-crew-{name}" for name in ("max", "ivy", "bo", "zoe"))]
REPLACED = {"eve": [], "tom": ["tom was here"], "dan": ["dan was here"]}
"""Crew members that get a successor, and the handoff that it reads."""

HISTORY = ("starts", "failures", "not_before", "quarantined_until", "trial", "failed", "judged_at")

Record = dict[str, str]
Sessions = dict[str, tuple[psutil.Process, str]]
"""The process and the token of each session, by its name."""


def connect(root: Path, **options: Any) -> Any:
    """A client of the town's server; it answers in bytes unless told otherwise."""
    return Redis(unix_socket_path=str(root / "daemon/redis/redis.sock"), **options)


class Left:
    """A copy of the town that was left behind."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.root = daemon, daemon.root
        self.redis = connect(self.root, decode_responses=True)

    def tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-L", "before-rooms", *words], env=self.daemon.environ, capture_output=True, text=True,
            timeout=DEADLINE, check=True,
        ).stdout  # fmt: skip

    def bring_sessions_back(self) -> None:
        """Recreate the sessions and their tmux options, and those of the tmux server."""
        left = json.loads((self.root / "sessions.json").read_text().replace("/tmp/town", str(self.root)))
        self.tmux("start-server", ";", "set-option", "-s", "exit-empty", "off")
        for name, value in left["server_options"].items():
            self.tmux("set-option", "-s", name, value)
        for session in left["sessions"]:
            self._bring_back(session)
        eventually(lambda: all(self.starts(Path(s["work_dir"]).name) for s in left["sessions"]))

    def _bring_back(self, session: dict[str, Any]) -> None:
        target = f"={session['name']}:"
        variables = [word for name, value in session["environ"].items() for word in ("-e", f"{name}={value}")]
        named = ("-s", session["name"], "-n", session["name"])
        self.tmux("new-session", "-d", *named, *variables, "-c", session["work_dir"], *session["command"])
        for kind in ("options", "window_options"):
            where = ["-w"] if kind == "window_options" else []
            for name, value in session[kind].items():
                self.tmux("set-option", *where, "-t", target, name, value)
        self.tmux("set-option", "-F", "-t", target, "@gastown_pane", "#{pane_id}")

    def sessions(self) -> Sessions:
        rows = self.tmux("list-panes", "-a", "-F", "#{session_name} #{pane_pid} #{@gastown_incarnation}")
        return {
            name: (psutil.Process(int(pid)), token) for name, pid, token in map(str.split, rows.splitlines())
        }

    def lines(self, name: str, file: str) -> list[str]:
        path = self.root / "work" / name / file
        return path.read_text().splitlines() if path.exists() else []

    def handoff(self, name: str) -> list[str]:
        """The handoff file of the crew member's successor."""
        path = self.root / f"daemon/handoff/gt-api-crew-{name}.md"
        return path.read_text().splitlines() if path.exists() else []

    def starts(self, name: str) -> list[str]:
        """The tokens that the agent's sessions recorded, the recreated one first."""
        return self.lines(name, "starts")

    def hashes(self, kind: str) -> dict[str, Record]:
        """All hashes `agent:<address>`, `request:<id>` or `work:<id>`, by address or id."""
        prefix = f"{KEYS}{kind}:"
        keys = list(self.redis.scan_iter(f"{prefix}*"))
        return {key.removeprefix(prefix): self.redis.hgetall(key) for key in keys}

    def requests(self) -> dict[tuple[str, str, str], Record]:
        """What `gastown-mail requests` shows, by sender, action and agent."""
        shown = self.daemon.document("requests", "--since", "876000h", "-n", "100")
        return {(record["from"], record["action"], record["to"]): record for record in shown}

    def events(self) -> list[Record]:
        return [fields for _, fields in self.redis.xrange(KEYS + "events")]

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "daemon/state.json").read_text())
        return found


@pytest.fixture
def left() -> Iterator[Left]:
    folder = Path(tempfile.mkdtemp(prefix="gmt-")).resolve()
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder)
        shutil.copytree(DATA, folder / "town")
        renew_tokens(folder / "town")
        daemon = Daemon(load_settings(folder / "town", environ={}))
        cleanup.callback(daemon.close)
        town = Left(daemon)
        cleanup.callback(town.redis.close)
        yield town


def renew_tokens(root: Path) -> None:
    """Give this copy its own tokens: with equal ones, two running copies would end each other's agents."""
    fresh: dict[bytes, bytes] = defaultdict(lambda: secrets.token_hex(16).encode())
    for file in (root / "sessions.json", *root.glob("daemon/redis/appendonlydir/*.aof")):
        file.write_bytes(TOKEN.sub(lambda found: fresh[found[0]], file.read_bytes()))


@contextmanager
def as_recorded(left: Left) -> Iterator[None]:
    """Serve the recorded data inside the block; the server is killed at its end."""
    with own_server(left.root / "daemon/redis"):
        yield


def functions(left: Left, queue: str) -> list[str]:
    """The functions of the queued jobs."""
    with connect(left.root) as redis:
        ids = redis.lrange(f"rq:queue:gastown-town-recorded-{queue}", 0, -1)
        data = [zlib.decompress(redis.hget(b"rq:job:" + ident, "data")) for ident in ids]
    return [json.loads(text)[0] for text in data]


def test_the_recording_holds_a_request_in_each_stage(left: Left) -> None:
    with as_recorded(left):
        lists = {name: left.redis.lrange(KEYS + name, 0, -1) for name in ("inbox", "taken")}
        senders = {name: [json.loads(text)["from"] for text in found] for name, found in lists.items()}
        assert senders == {"inbox": ["api/eve"], "taken": ["api/crew/tom"]}

        requests, work = left.hashes("request"), left.hashes("work")
        booked = [r["to"] for r in requests.values() if r["status"] == "received"]
        begun = {r["to"]: work[i] for i, r in requests.items() if r["status"] == "carrying"}
        assert booked == ["api/polecats/dag"] * 2
        assert all(notes["begun_at"] and notes["victim"] for notes in begun.values())
        announced = {address: "successors" in notes for address, notes in begun.items()}
        assert announced == {"api/crew/dan": False, "api/crew/sue": True, "api/crew/zoe": True}

        queued = ["carry_out", "carry_out", "start", "poke"]
        assert functions(left, "lifecycle") == [f"{JOBS}.{name}" for name in queued]
        assert functions(left, "heartbeat") == [f"{JOBS}.heartbeat"]
        assert left.redis.zcard(SCHEDULE) == 2
        assert left.state()["running"]


def test_a_town_is_taken_over_with_agents_alive_and_requests_open(left: Left) -> None:
    with as_recorded(left):
        agents, requests = left.hashes("agent"), left.hashes("request")
        dead, places = left.redis.zrange(KEYS + "dead", 0, -1), int(left.redis.get(KEYS + "places"))
    left.bring_sessions_back()
    before = left.sessions()

    started = left.daemon.command("start")
    assert started.returncode == 0, started.stderr
    eventually(lambda: is_work_done(left), deadline=DEADLINE)
    await_heartbeats(left, 2)

    assert_each_request_has_one_end(left)
    assert int(left.redis.get(KEYS + "places")) == places + 2, "the two that had no place yet"
    assert_what_was_settled_is_kept(left, requests, dead)
    assert_each_effect_came_once(left, before)
    assert_what_was_desired_is_desired(left)
    assert_start_histories_are_kept(left, agents)
    assert_heartbeats_go_on(left)
    assert_a_dead_letter_can_be_revived(left)
    assert_a_start_history_is_continued(left)


def await_heartbeats(left: Left, more: int) -> None:
    count = left.state()["heartbeat_count"]
    eventually(lambda: left.state()["heartbeat_count"] >= count + more, deadline=DEADLINE)


def is_work_done(left: Left) -> bool:
    """True when every request is settled and the queued start and poke have been carried out."""
    ended = [record for record in left.hashes("request").values() if record["finished_at"]]
    started = "incarnation" in left.hashes("agent")["api/polecats/ann"]
    return len(ended) == len(OPEN) + len(SETTLED) and started and bool(left.lines("max", "heard"))


def assert_each_request_has_one_end(left: Left) -> None:
    shown = left.requests()
    assert {key: record["status"] for key, record in shown.items()} == {**OPEN, **SETTLED}
    for key, record in shown.items():
        ends = [
            e for e in left.events() if e.get("request") == record["id"] and e["event"] == record["status"]
        ]
        assert len(ends) == 1, key
    for rest in ("inbox", "taken", "open", "waiting:api/polecats/dag", "waiting:api/crew/zoe"):
        assert not left.redis.exists(KEYS + rest), rest


def assert_what_was_settled_is_kept(left: Left, requests: dict[str, Record], dead: Any) -> None:
    now = left.hashes("request")
    settled = {ident: record for ident, record in requests.items() if record["finished_at"]}
    assert len(settled) == len(SETTLED)
    assert {ident: now[ident] for ident in settled} == settled
    cycle = left.requests()["api/crew/max", "cycle", "api/crew/max"]["id"]
    (whole,) = left.daemon.document("requests", cycle)
    assert [event["event"] for event in whole["events"]] == [
        "received",
        "carrying",
        "ended",
        "started",
        "done",
    ]
    shown = left.daemon.document("dead")
    assert [record["id"] for record in shown] == dead
    assert sorted(record["status"] for record in shown) == sorted(s for s in SETTLED.values() if s in DEAD)


def assert_each_effect_came_once(left: Left, before: Sessions) -> None:
    now = left.sessions()
    assert {name: now.get(name) for name in UNTOUCHED} == {name: before[name] for name in UNTOUCHED}
    for name, handoff in REPLACED.items():
        (old, token), (new, successor) = before[f"gt-api-crew-{name}"], now[f"gt-api-crew-{name}"]
        assert old != new
        assert not lives(old), name
        assert left.starts(name) == [token, successor], name
        assert left.lines(name, "handoff") == handoff, name
        assert left.handoff(name) == handoff, name
    assert "gt-api-dag" not in now
    assert not lives(before["gt-api-dag"][0])
    assert left.starts("sue") == [now["gt-api-crew-sue"][1]]
    assert left.starts("ann") == [now["gt-api-ann"][1]]
    once = ("deacon", "witness", "max", "ivy", "bo", "zoe", "dag")
    assert {name: len(left.starts(name)) for name in once} == dict.fromkeys(once, 1)
    assert left.handoff("max") == ["tests are green; next: merge #12"]
    assert left.lines("max", "heard") == ["by the way"]
    records = left.hashes("agent").values()
    recorded = {r["session"]: r["incarnation"] for r in records if r.get("session") in now}
    assert recorded == {name: token for name, (_, token) in now.items()}


def assert_what_was_desired_is_desired(left: Left) -> None:
    rows = {row["agent"]: (row["desired"], row["observed"]) for row in left.daemon.document("agents")}
    assert rows["api/crew/ivy"] == ("paused", "alive")
    assert rows["api/crew/lea"] == ("stopped", "none")
    assert rows["api/polecats/dag"] == ("stopped", "none")
    assert left.starts("lea") == []
    kept = json.loads((left.root / "daemon/private/desired.json").read_text())
    names = ("api/crew/ivy", "api/crew/lea", "api/polecats/dag")
    wished = [kept[name].partition(" #")[0] for name in names]
    assert wished == ["paused running", "stopped", "stopped"]


def assert_start_histories_are_kept(left: Left, agents: dict[str, Record]) -> None:
    now = left.hashes("agent")
    for address, record in agents.items():
        history = {field: record[field] for field in HISTORY if field in record}
        assert {field: now[address][field] for field in history} == history, address
    (kim,) = left.daemon.document("agents", "--agent", "api/polecats/kim")
    assert (kim["must_run"], kim["observed"], kim["waits"]) == (True, "none", "quarantine")
    assert left.starts("kim") == []


def assert_a_start_history_is_continued(left: Left) -> None:
    """Kill bo, which had died once before the takeover: the start after that is its third."""
    before = left.hashes("agent")["api/crew/bo"]
    left.sessions()["gt-api-crew-bo"][0].kill()
    eventually(lambda: len(left.hashes("agent")["api/crew/bo"]["starts"].split()) == 3, deadline=DEADLINE)
    now = left.hashes("agent")["api/crew/bo"]
    assert now["starts"].startswith(before["starts"])
    counts = [(record["failures"], record["restarts"]) for record in (before, now)]
    assert counts == [("2", "2"), ("3", "3")]


def assert_heartbeats_go_on(left: Left) -> None:
    due = left.redis.zrange(SCHEDULE, 0, -1)
    assert list(left.redis.scan_iter("rq:scheduler:*:scheduled_jobs")) == [SCHEDULE]
    assert sorted(due) == ["town_heartbeat_recorded", "town_sweep_recorded"]
    waiting = left.redis.lrange("rq:queue:gastown-town-recorded-heartbeat", 0, -1)
    assert waiting.count("town_heartbeat_recorded") <= 1
    pid = int((left.root / "daemon/daemon.pid").read_text())
    state = eventually(lambda: in_both_places(left))
    assert (state["running"], state["pid"]) == (True, pid)
    assert psutil.pid_exists(pid)
    events = left.events()
    since = max(number for number, event in enumerate(events) if event["event"] == "daemon_started")
    numbers = [int(event["number"]) for event in events[since:] if event["event"] == "heartbeat"]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= state["heartbeat_count"] >= 3
    assert "HEARTBEAT: run your rounds" in left.lines("deacon", "heard")


def in_both_places(left: Left) -> dict[str, Any]:
    """The state, as soon as Redis and the file say the same."""
    file, found = left.state(), left.redis.hgetall(KEYS + "state")
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in file.items()}
    return file if texts == found else {}


def assert_a_dead_letter_can_be_revived(left: Left) -> None:
    letter = left.requests()["operator", "restart", "api/crew/ivy"]["id"]
    assert left.daemon.command("resume", "api/crew/ivy").returncode == 0
    assert left.daemon.command("dead", "revive", letter).returncode == 0
    assert left.hashes("agent")["api/crew/ivy"]["desired"] == "running", "as before its pause"
    eventually(lambda: left.hashes("request").get(letter, {}).get("finished_at"), deadline=DEADLINE)
    assert left.hashes("request")[letter]["status"] == "done"
    eventually(lambda: len(left.starts("ivy")) == 2)
