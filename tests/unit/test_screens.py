"""What the profiles make of screens that were recorded from the real programs."""

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


@pytest.mark.parametrize("file", SCREENS, ids=[f"{file.parent.name}-{file.stem}" for file in SCREENS])
def test_a_recorded_screen_is_read_as_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert f"\nstate: {state_in(file)}\n" in text, "the file's name and its head disagree"

    assert read_screen(profile_of(file), Screen.parse(text)).state == state_in(file)


def test_each_program_has_screens_of_the_states_that_matter() -> None:
    for program in built_in().keys() - {"other"}:
        states = {state_in(file) for file in SCREENS if file.parent.name == program}
        assert {"ready", "draft", "asks"} <= states, program


NOT_READY = [file for file in SCREENS if state_in(file) in ("asks", "draft", "busy")]


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
