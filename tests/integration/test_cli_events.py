"""Following `events` and `logs`, and what the lists look like on a terminal."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gastown_mail.mail.events import EventName, record_event
from gastown_mail.town.town import Town
from tests.support.agents import TWO_AGENTS
from tests.support.parts import accept_inbox
from tests.support.processes import clean_environ
from tests.support.redis import OwnServer
from tests.support.town import a_town, element
from tests.support.wait import eventually

pytestmark = pytest.mark.timeout(300)

MAX, WITNESS = "gastown/crew/max", "gastown/witness"
ID = "01a213e31765-ea3000716a5535ee7c38"
LONG_ID = "x" * 64


def command(town: Town, *words: str) -> list[str]:
    return [sys.executable, "-m", "gastown_mail", "--town", str(town.settings.town_root), *words]


@pytest.fixture
def busy(make_town: Callable[..., Town], redis_url: str) -> Town:
    """A town whose settings name its Redis, with some events."""
    town = make_town(f'[daemon]\nredis_url = "{redis_url}"\n{TWO_AGENTS}')
    for number in range(1200):
        event = EventName.POKE if number % 2 else EventName.STARTED
        record_event(town.redis, town.keys, event, agent=WITNESS, number=number)
    record_event(town.redis, town.keys, EventName.POKE, agent=MAX, request=ID)
    return town


class Followed:
    """A command that runs, and its output so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    def out(self) -> str:
        return self._out.read_text()

    def err(self) -> str:
        return self._err.read_text()


@contextmanager
def following(town: Town, folder: Path, *words: str) -> Iterator[Followed]:
    """Run the command until the block ends."""
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command(town, *words), stdout=stdout, stderr=stderr, env=clean_environ())
    try:
        yield Followed(process, out, err)
    finally:
        process.kill()
        process.wait(60)


def events(town: Town, *words: str) -> list[dict[str, str]]:
    done = subprocess.run(
        command(town, "events", "--json", *words), capture_output=True, text=True, check=True, timeout=30,
        env=clean_environ(),
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_events_can_be_filtered(busy: Town) -> None:
    assert [one["event"] for one in events(busy, "-n", "3")] == ["started", "poke", "poke"]
    numbers = [
        one["number"] for one in events(busy, "-n", "3", "--agent", "gastown-witness", "--event", "poke")
    ]
    assert numbers == ["1195", "1197", "1199"], "the newest three of those, oldest first"
    assert len(events(busy)) == 20
    assert len(events(busy, "--since", "1h")) == 1201
    assert [one["request"] for one in events(busy, "--agent", "gastown/max")] == [ID]
    assert events(busy, "--since", "0s") == events(busy, "--event", "nonsense") == []


def test_events_are_followed_through_a_restart_of_redis(tmp_path: Path, server: OwnServer) -> None:
    with a_town(tmp_path, server.url, f'[daemon]\nredis_url = "{server.url}"\n{TWO_AGENTS}') as town:
        record_event(town.redis, town.keys, EventName.ADOPTED, agent=MAX)
        with following(town, tmp_path, "events", "-f", "--agent", "gastown-crew-max") as followed:
            eventually(lambda: "adopted" in followed.out(), deadline=30)
            record_event(town.redis, town.keys, EventName.POKE, agent=WITNESS)
            record_event(town.redis, town.keys, EventName.QUARANTINED, agent=MAX)
            eventually(lambda: "quarantined" in followed.out())

            server.kill()

            eventually(lambda: "Redis does not answer" in followed.err())
            server.start_again()
            record_event(town.redis, town.keys, EventName.CLEARED, agent=MAX)
            eventually(lambda: "cleared" in followed.out())
            assert followed.err().endswith("gastown-mail: Redis answers again\n")
            assert [line.split()[1] for line in followed.out().splitlines()] == [
                "adopted",
                "quarantined",
                "cleared",
            ]
            followed.process.send_signal(signal.SIGINT)
            assert followed.process.wait(60) == 130
            assert "Traceback" not in followed.err()


def test_the_log_is_followed_across_its_rotation(busy: Town, tmp_path: Path) -> None:
    log = busy.settings.log_file
    log.parent.mkdir(parents=True)
    log.write_text("one\n")
    with following(busy, tmp_path, "logs", "-f") as followed:
        eventually(lambda: followed.out() == "one\n", deadline=30)
        with log.open("a") as open_still:
            open_still.write("two\n")
            open_still.flush()
            eventually(lambda: followed.out() == "one\ntwo\n")
            log.replace(log.with_name("daemon.log.1"))
            open_still.write("three\n")
        log.write_text("four\n")

        eventually(lambda: followed.out() == "one\ntwo\nthree\nfour\n")

        followed.process.send_signal(signal.SIGINT)
        assert followed.process.wait(60) == 130
        assert followed.err().strip() == ""


def on_terminal(town: Town, columns: int, *words: str, **environ: str) -> str:
    """Return what the command prints on a terminal with so many columns."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        command(town, *words), stdin=terminal, stdout=terminal, stderr=terminal,
        env=clean_environ(TERM="xterm-256color", **environ),
    )  # fmt: skip
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(screen, 4096):
            said += chunk
    except OSError:  # The other end is closed.
        pass
    os.close(screen)
    assert process.wait(30) == 0, said
    return said.decode().replace("\r\n", "\n")


@pytest.fixture
def full(busy: Town) -> Town:
    """Requests with long ids, long reasons and long addresses; garbage in the inbox; a log."""
    for ident, to in ((ID, MAX), (LONG_ID, f"gastown/crew/{'y' * 40}"), ("short", WITNESS)):
        busy.redis.rpush(
            busy.keys.inbox, element("operator", "cycle", id=ident, to=to, reason="long words " * 50)
        )
    busy.redis.rpush(busy.keys.inbox, b"\xff\x1b[31mred\x1b]0;title\x07" + b"garbage " * 200)
    accept_inbox(busy)
    busy.redis.rpush(busy.keys.inbox, b"\xff\x1b[31mred\x1b]0;title\x07" + b"garbage " * 200)
    busy.settings.log_file.parent.mkdir(parents=True)
    busy.settings.log_file.write_text(
        json.dumps(
            {"time": "2026-01-01T00:00:00Z", "level": "INFO", "event": "said", "detail": "\x1b[31m" * 99}
        )
    )
    return busy


LISTS = (
    ("requests",), ("requests", "--since", "1h"), ("dead",), ("inbox",), ("events",), ("logs",),
    ("requests", LONG_ID),
)  # fmt: skip


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_list_fits_its_terminal_and_never_has_a_colour(full: Town, words: tuple[str, ...]) -> None:
    for columns, environ in ((80, {}), (200, {}), (80, {"NO_COLOR": "1"})):
        said = on_terminal(full, columns, *words, **environ)

        assert 0 < max(map(len, said.splitlines())) <= columns
        assert "\x1b" not in said
        assert "\x07" not in said


def test_no_id_and_no_reason_is_cut(full: Town) -> None:
    dead, whole = on_terminal(full, 80, "dead"), on_terminal(full, 80, "requests", ID)

    assert LONG_ID in dead
    assert f"there is no agent gastown/crew/{'y' * 40}" in " ".join(dead.split()).replace('"', "")
    assert whole.count("long") == whole.count("words") == 50
