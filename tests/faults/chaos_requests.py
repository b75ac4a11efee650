"""The requests of a chaos run, sent at random from outside and inside, and a watcher of their statuses."""

import json
import random
import secrets
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redis.exceptions import RedisError

from gastown_mail.contracts.errors import RequestNotAccepted
from gastown_mail.contracts.go_formats import format_time
from gastown_mail.contracts.lifecycle import FINAL_STATUSES, content_id
from gastown_mail.mail.send import send_lifecycle
from gastown_mail.plumbing.connections import connect, to_strs
from tests.faults.chaos_town import CREW, RIG
from tests.support.daemon import Daemon

WATCH_EVERY = 0.25
REMEMBERED = 40
DEACON = "deacon/"
GARBAGE = (
    b"", b"{", b"null", b"[1, 2]", b"\xff\xfe\x00", b'{"from": "gastown/crew/ann"}', b"{}" * 1000,
    b'{"from": "gastown/crew/ann", "action": "explode", "timestamp": "2025-12-20T10:12:21Z"}',
    b'{"from": "nobody/crew/x", "action": "cycle", "timestamp": "2125-12-20T10:12:21Z"}',
)  # fmt: skip


@dataclass
class Ledger:
    """How each accepted request was sent, by its id, and the number of unanswered ones."""

    accepted: dict[str, str] = field(default_factory=dict)
    unanswered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, ident: str, way: str) -> None:
        with self.lock:
            self.accepted.setdefault(ident, way)

    def ids(self) -> list[str]:
        with self.lock:
            return list(self.accepted)


class Sender:
    """Sends requests of every kind, each with its share; everything is drawn from one seed."""

    def __init__(self, daemon: Daemon, ledger: Ledger, chance: random.Random) -> None:
        self.daemon, self.ledger, self.chance = daemon, ledger, chance
        self.redis = connect(daemon.town.redis_url)
        self.addresses = [*(f"{RIG}/crew/{name}" for name in CREW), DEACON]
        self.sent = 0
        self._pushed: deque[bytes] = deque([b"null"], maxlen=REMEMBERED)
        self._ways: list[tuple[int, Callable[[], None]]] = [
            (30, self.raw), (15, self.as_agent), (10, self.typed), (10, self.doubled_id),
            (10, self.doubled_bytes), (10, self.late_copy), (25, self.by_superior), (5, self.garbage),
        ]  # fmt: skip

    def send(self) -> None:
        """Send one request, or two copies of it."""
        weights, ways = zip(*self._ways, strict=True)
        self.sent += 1
        try:
            self.chance.choices(ways, weights)[0]()
        except (RedisError, RequestNotAccepted, subprocess.TimeoutExpired):
            self.ledger.unanswered += 1

    def raw(self) -> None:
        """By RPUSH, for the sender itself, with its token, an old one, or none."""
        address = self.chance.choice(self.addresses)
        request = self._request(address)
        token = self._token(address) if self.chance.random() < 0.5 else ""
        self._push("raw", request | ({"incarnation": token} if token else {}))

    def as_agent(self) -> None:
        """By `send_lifecycle`, as inside a session."""
        address = self.chance.choice(self.addresses)
        environ = {
            "GASTOWN_AGENT": address, "GASTOWN_INCARNATION": self._token(address),
            "GASTOWN_REDIS_URL": self.daemon.town.redis_url,
            "GASTOWN_TOWN_NAME": self.daemon.settings.town_name,
        }  # fmt: skip
        self.ledger.enter(send_lifecycle(self._action(), environ=environ).id, "send_lifecycle")

    def typed(self) -> None:
        """By the command, inside the session; its output is read at the end."""
        agent = self.daemon.town.roster().agents[self.chance.choice(self.addresses)]
        line = f"ask {self._action()} --reason typed"
        subprocess.run(
            ["tmux", "-L", self.daemon.settings.tmux_socket,
             "send-keys", "-t", f"={agent.session}:", line, "Enter"],
            capture_output=True, timeout=5, check=False,
        )  # fmt: skip

    def doubled_id(self) -> None:
        """Two different elements with one id."""
        address, ident = self.chance.choice(self.addresses), secrets.token_hex(8)
        for _ in range(2):
            self._push("doubled id", self._request(address) | {"id": ident})

    def doubled_bytes(self) -> None:
        """The same bytes twice, without an id."""
        request = self._request(self.chance.choice(self.addresses))
        for _ in range(2):
            self._push("doubled bytes", request)

    def late_copy(self) -> None:
        """The same bytes as an earlier request that may be settled already."""
        self.redis.rpush(self.daemon.town.keys.inbox, self.chance.choice(self._pushed))

    def by_superior(self) -> None:
        """For another agent; mostly a request that starts it again after a shutdown."""
        request = self._request(self.chance.choice(["operator", DEACON]))
        action = self.chance.choices(["restart", "cycle", "shutdown"], [6, 3, 1])[0]
        self._push("for another", request | {"to": self.chance.choice(self.addresses), "action": action})

    def garbage(self) -> None:
        """An element that is not a request."""
        element = self.chance.choice(GARBAGE) + b" " * self.sent
        self.redis.rpush(self.daemon.town.keys.inbox, element)
        self.ledger.enter(content_id(element), "garbage")

    def typed_ids(self) -> None:
        """Enter the requests that the sessions sent themselves."""
        for address in self.addresses:
            file = self.daemon.work("sent", address)
            for ident in file.read_text().split() if file.exists() else []:
                self.ledger.enter(ident, "typed")

    def _push(self, way: str, request: dict[str, str]) -> None:
        element = json.dumps(request).encode()
        self.redis.rpush(self.daemon.town.keys.inbox, element)
        self._pushed.append(element)
        self.ledger.enter(request.get("id", content_id(element)), way)

    def _request(self, address: str) -> dict[str, str]:
        return {"from": address, "action": self._action(), "timestamp": format_time(datetime.now(UTC))}

    def _action(self) -> str:
        return self.chance.choices(["cycle", "restart", "shutdown"], [5, 3, 2])[0]

    def _token(self, address: str) -> str:
        starts = self.daemon.starts(address)
        return self.chance.choice(starts[-2:]) if starts else ""


@dataclass
class Watcher:
    """Polls the statuses of all accepted requests; a final one must never change."""

    daemon: Daemon
    ledger: Ledger
    final: dict[str, tuple[str, ...]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        redis = connect(self.daemon.town.redis_url)
        while not stop.wait(WATCH_EVERY):
            try:
                self.read(redis.pipeline(transaction=False))
            except RedisError:
                continue

    def read(self, pipe: object) -> None:
        """Read all records once."""
        ids, keys = self.ledger.ids(), self.daemon.town.keys
        for ident in ids:
            pipe.hmget(keys.request(ident), ["status", "finished_at", "detail"])  # type: ignore[attr-defined]
        for ident, answer in zip(ids, pipe.execute(), strict=True):  # type: ignore[attr-defined]
            self._compare(ident, tuple(to_strs(answer)))

    def _compare(self, ident: str, now: tuple[str, ...]) -> None:
        if now[0] in FINAL_STATUSES or ident in self.final:
            before = self.final.setdefault(ident, now)
            if before != now:
                self.changed.append(f"request {ident} was {before} and became {now}")
                self.final[ident] = now

    def open(self) -> list[str]:
        """Return the accepted requests without a final status."""
        return [ident for ident in self.ledger.ids() if ident not in self.final]

    def by_status(self) -> Counter[str]:
        return Counter(status for status, *_ in self.final.values())
