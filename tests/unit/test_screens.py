"""What the profiles make of screens that were recorded from the real programs."""

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gastown_mail.contracts.lifecycle import AgentState
from gastown_mail.contracts.profile import Profile
from gastown_mail.programs.library import built_in
from gastown_mail.programs.reader import read_screen
from gastown_mail.programs.screen import Screen

SCREENS = sorted((Path(__file__).parent.parent / "agents" / "screens").glob("*/*.screen"))


def profile_of(file: Path) -> Profile:
    return built_in()[file.parent.name]


def state_in(file: Path) -> str:
    return file.stem.partition("-")[0]


SEEN_AS = {
    "codex/busy-streaming-still": "ready",  # without its title and its spinner, nothing shows that it works
    "codex/busy-streaming-no-title": "ready",
    "opencode/unknown-suspended": "starting",  # a blank screen; that the program is stopped is seen elsewhere
    "aider/starting-model-list": "unknown",
    "opencode/asks-help": "unknown",
    "shell/busy-working": "ready",  # what a loop without a prompt does is seen by its output alone
    "shell/unknown-bash-bare": "ready",  # what is in front is seen by the process, not by the screen
    "shell/unknown-bash-continued": "ready",
    "shell/unknown-node": "ready",
    "shell/unknown-bash": "draft",
    "shell/unknown-less": "draft",
    "shell/unknown-pdb": "draft",
    "shell/unknown-python": "draft",
    "shell/unknown-sh": "draft",
    "shell/unknown-vi": "draft",
}
"""What the screen alone does not tell, and what it is taken for."""


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", SCREENS, ids=name_of)
def test_a_recorded_screen_is_read_as_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert f"\nstate: {state_in(file)}\n" in text, "the file's name and its head disagree"

    seen = read_screen(profile_of(file), Screen.parse(text)).state
    assert seen == SEEN_AS.get(name_of(file), state_in(file))


def test_only_screens_that_exist_are_excused() -> None:
    assert SEEN_AS.keys() <= {name_of(file) for file in SCREENS}


@pytest.mark.parametrize("program", built_in())
def test_no_row_holds_up_a_pattern(program: str) -> None:
    rows = [text * 400 for text in ("a", "a ", " ", "a-", "❯", "> ", "┃  ", "é", "[", "(", "•", "1.")]

    def late(*_: object) -> None:
        raise AssertionError("a pattern takes more than 10 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    try:
        for y, row in enumerate(rows):
            for end in ("", "x", "?"):
                shown = (*rows[:y], row + end, *rows[y + 1 :])
                read_screen(built_in()[program], Screen(shown, len(row), y, title=row))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_each_program_has_screens_of_the_states_that_matter() -> None:
    for program in built_in().keys() - {"other"}:
        states = {state_in(file) for file in SCREENS if file.parent.name == program}
        assert {"ready", "draft", "asks"} <= states, program


NOT_READY = [f for f in SCREENS if state_in(f) in ("asks", "draft", "busy") and name_of(f) not in SEEN_AS]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(NOT_READY), st.data())
def test_no_text_in_the_transcript_makes_a_program_ready(file: Path, data: st.DataObject) -> None:
    screen = Screen.parse(file.read_text(encoding="utf-8"))
    lines = list(screen.lines)
    for y in range(max(0, screen.y - 20)):
        if data.draw(st.booleans()):
            lines[y] = data.draw(st.sampled_from(["", "❯\u00a0", "› ", " > ", "> ", "  ┃", "✻ Done", "• OK"]))

    changed = Screen(tuple(lines), screen.x, screen.y, screen.cursor_visible, screen.title)
    assert read_screen(profile_of(file), changed).state is not AgentState.READY
