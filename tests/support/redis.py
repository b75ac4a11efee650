"""A Valkey server that belongs to one test."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from gastown_mail.plumbing.embedded import ensure_server, server_pid
from tests.support.processes import clear_away, kill, stopped


@dataclass
class OwnServer:
    """A Valkey server that a test may kill, stop and empty."""

    folder: Path
    url: str

    @property
    def pid(self) -> int:
        pid = server_pid(self.folder)
        assert pid is not None
        return pid

    def kill(self) -> None:
        kill(psutil.Process(self.pid))

    def start_again(self) -> None:
        assert ensure_server(self.folder) == self.url

    def copy(self) -> Path:
        """Copy its data, as a backup or a lagging replica would have it."""
        return Path(shutil.copytree(self.folder / "appendonlydir", self.folder.parent / secrets.token_hex(4)))

    def come_back_as(self, copy: Path) -> None:
        """Die, and start again with older data."""
        self.kill()
        shutil.rmtree(self.folder / "appendonlydir")
        shutil.copytree(copy, self.folder / "appendonlydir")
        self.start_again()

    def frozen(self) -> AbstractContextManager[None]:
        """Stop the server inside the block."""
        return stopped(self.pid)


@contextmanager
def own_server(folder: Path) -> Iterator[OwnServer]:
    """A server in `folder`, gone after the test."""
    try:
        yield OwnServer(folder, ensure_server(folder))
    finally:
        for process in psutil.process_iter(["cwd"]):
            # Valkey changes into its data folder.
            if process.info["cwd"] == str(folder):
                clear_away(process)
