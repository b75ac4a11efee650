"""A network namespace that holds nothing but `lo`: the only place where the programs under test may run.

`python -m tests.agents.namespace COMMAND...` runs the command inside.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import psutil

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def only_loopback() -> bool:
    """Say whether this process sees no network interface but `lo`."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines} == {"lo"}


def why_not() -> str:
    """Say why no namespace can be made here, or return nothing: it can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "network namespaces need Linux and the command unshare (util-linux)"
    tried = subprocess.run([*_unshare(), "true"], capture_output=True, text=True, timeout=30)
    return f"{' '.join(_unshare())} is not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


def inside(argv: list[str]) -> list[str]:
    """Return the command that runs `argv` in a namespace of its own."""
    return [*_unshare(), sys.executable, "-m", __spec__.name, *argv]


def isolate() -> None:
    """Begin this program again inside a namespace, unless it is in one already."""
    if not only_loopback():
        argv = inside(sys.orig_argv)
        os.execvp(argv[0], argv)


def end_others(spare: tuple[str, ...] = ()) -> list[str]:
    """Kill what else lives in this namespace (daemons that a program left), and return their commands.

    A process with a text of `spare` in its command is left alone.
    Raises RuntimeError outside of a namespace of one's own.
    """
    if not only_loopback():
        raise RuntimeError("this is no namespace of its own: nothing is ended")
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    ended = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if process.pid not in mine and _network(process.pid) == _network(os.getpid()):
                command = " ".join(process.cmdline())
                if not any(text in command for text in spare):
                    process.kill()
                    ended.append(command)
    return ended


def _network(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _unshare() -> list[str]:
    return ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def main() -> None:
    """Bring `lo` up and become the command of the arguments."""
    if not only_loopback():
        sys.exit("this is no namespace of its own: start it with unshare -n")
    _raise_loopback()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
