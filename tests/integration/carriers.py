"""Processes that carry out one request each, as a worker does; a test may kill them."""

import contextlib
import subprocess
import sys
from pathlib import Path

from gastown_mail.town.town import Town
from tests.support.processes import clean_environ

ANSWER_DEADLINE = 60.0

CARRY_OUT = """
import os, sys
from pathlib import Path
from gastown_mail.contracts.settings import load_settings
from gastown_mail.lifecycle.carry_out import carry_out_request
from gastown_mail.town.town import Town
root, url, ident = sys.argv[1:]
town = Town.open(load_settings(Path(root), environ=os.environ), url)
print("ready", flush=True)
sys.stdin.readline()
print(carry_out_request(town, ident))
"""


class Carrier:
    """A process that carries out one request after `go()`."""

    def __init__(self, town: Town, ident: str) -> None:
        words = [sys.executable, "-c", CARRY_OUT, str(town.settings.town_root), town.redis_url, ident]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environ(),
            cwd=Path.cwd(),
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Start to carry out the request."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """Wait for the end; return the result."""
        said, _ = self.process.communicate(timeout=ANSWER_DEADLINE)
        return said.strip()

    def die_after(self, seconds: float) -> None:
        """Send SIGKILL after so many seconds unless it has ended by then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(ANSWER_DEADLINE)


class Carriers:
    """All carriers of one test; none outlives the test."""

    def __init__(self) -> None:
        self.made: list[Carrier] = []

    def __call__(self, town: Town, ident: str) -> Carrier:
        self.made.append(Carrier(town, ident))
        return self.made[-1]

    def close(self) -> None:
        for carrier in self.made:
            carrier.kill()
            for stream in (carrier.process.stdin, carrier.process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
