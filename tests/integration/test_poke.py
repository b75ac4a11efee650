"""A poke arrives unchanged, and a batch of pokes costs a handful of tmux processes."""

import time
from pathlib import Path

import pytest

from gastown_mail.sessions.poke import _MAX_BYTES
from gastown_mail.sessions.session import Sessions
from gastown_mail.sessions.typing import PASTE_PAUSE
from tests.integration.tmux_world import Recorder, TmuxWorld, poke, poke_all, poke_of
from tests.support.wait import eventually

TEXTS = [
    "HEARTBEAT: check your rigs",
    "ends with a semicolon;",
    "-x leading dash",
    "--",
    "'single' \"double\" `reboot` $(reboot) ${HOME} $HOME",
    "~ \\ \\n %d #{pid} #(reboot) ##[x] {a} ;;",
    "grüße 🙂 漢字",
    "  spaces kept  ",
    "Enter",
    "C-c",
    "tab\there",
]


def arrived(record: Path, end: bytes) -> bytes:
    eventually(lambda: record.read_bytes().endswith(end))
    return record.read_bytes()


@pytest.mark.parametrize(("mode", "end"), [("raw", "\r"), ("lines", "\n")])
def test_texts_arrive_exactly_and_each_with_one_enter(
    world: TmuxWorld, recorder: Recorder, mode: str, end: str
) -> None:
    agents = [recorder(mode, f"agent-{number}") for number in range(len(TEXTS))]

    outcomes = poke_all(
        world.sessions, *(poke_of(session, text) for (session, _), text in zip(agents, TEXTS, strict=True))
    )

    assert set(outcomes.values()) == {"delivered"}
    for (_, record), text in zip(agents, TEXTS, strict=True):
        assert arrived(record, end.encode()).decode() == text + end


def test_lines_arrive_as_one_paste_where_the_program_asked_for_that(
    world: TmuxWorld, recorder: Recorder
) -> None:
    session, record = recorder("bracketed")
    eventually(lambda: world.sessions.capture_screen(session) == "")

    assert poke(world, session, "one\ntwo\r\nthree\n") == "delivered"

    assert arrived(record, b"\r") == b"\x1b[200~one\ntwo\nthree\x1b[201~\r"


def test_control_characters_are_not_typed(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()

    assert poke(world, session, "a\x03b\x1b[201~c\x04d\x7fe\x9bf\rg\x00") == "delivered"

    assert arrived(record, b"\r") == b"ab[201~cdefg\r"


def test_the_longest_text_arrives_whole(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()
    text = ("0123456789é;'\"\\$#" * 10_000)[: _MAX_BYTES - 10_000]
    text += "x" * (_MAX_BYTES - len(text.encode()))

    assert poke(world, session, text) == "delivered"

    assert arrived(record, b"\r") == text.encode() + b"\r"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("\x1b\x03", "empty"),
        ("x" * 102_401, "102401 bytes"),
        ("\udc80", "Unicode"),
    ],
)
def test_an_invalid_text_is_refused_without_a_call(
    world: TmuxWorld, recorder: Recorder, text: str, why: str
) -> None:
    session, record = recorder()

    before = world.tmux.calls

    outcome = poke(world, session, text)

    assert world.tmux.calls == before
    assert outcome.startswith("failed: ")
    assert why in outcome
    assert record.read_bytes() == b""


def test_enter_is_sent_separately_from_the_text(world: TmuxWorld, recorder: Recorder) -> None:
    session, record = recorder()
    at_pause: list[bytes] = []

    def pause(seconds: float) -> None:
        if seconds == PASTE_PAUSE:
            eventually(lambda: record.read_bytes() != b"")
            at_pause.append(record.read_bytes())
        time.sleep(seconds)

    sessions = Sessions(world.tmux, sleep=pause)
    assert poke_all(sessions, poke_of(session, "text")) == {session.name: "delivered"}

    assert at_pause == [b"text"]
    eventually(lambda: record.read_bytes() == b"text\r")


def test_no_buffer_of_a_batch_stays_in_the_server(world: TmuxWorld, recorder: Recorder) -> None:
    session, _ = recorder()

    assert poke(world, session, "text") == "delivered"
    assert world.tmux.run("list-buffers") == ""


def test_without_pokes_tmux_is_not_called(world: TmuxWorld) -> None:
    assert world.sessions.poke([]) == {}
    assert world.tmux.calls == 0


def test_two_hundred_sessions_take_a_handful_of_tmux_processes(world: TmuxWorld) -> None:
    tokens = [world.token() for _ in range(200)]
    lines = [
        f"new-session -d -s many-{number} -e GASTOWN_INCARNATION={token} cat ; "
        f"set-option -t =many-{number}: @gastown_incarnation {token}"
        for number, token in enumerate(tokens)
    ]
    world.tmux.run("start-server", ";", "set-option", "-s", "exit-empty", "off")
    world.tmux.script(lines)
    sessions = world.sessions.snapshot()
    eventually(lambda: {one.foreground for one in world.sessions.snapshot().values()} == {"cat"})
    before = world.tmux.calls

    outcomes = poke_all(world.sessions, *(poke_of(one, f"hello {one.name}") for one in sessions.values()))

    assert set(outcomes.values()) == {"delivered"}
    assert len(outcomes) == 200
    assert world.tmux.calls - before <= 30
    some = sessions["many-137"]
    eventually(lambda: world.sessions.capture_screen(some) == "hello many-137\nhello many-137")
