"""What a profile makes of screens that were made for one question."""

import pytest

from gastown_mail.contracts.profile import Profile
from gastown_mail.programs.library import built_in
from gastown_mail.programs.reader import context_used, read_screen
from gastown_mail.programs.screen import Screen


@pytest.mark.parametrize(
    "style", ["38;2;200;200;200", "48;2;30;30;30", "38;5;2", "38;5;7", "38:2::2:7:7", "32"]
)
def test_a_draft_in_any_colour_is_a_draft(style: str) -> None:
    rows = (f"❯\u00a0\x1b[{style}mrm -rf build\x1b[0m", "─" * 20)

    assert read_screen(built_in()["claude"], Screen(rows, x=2, y=0)).state == "draft"
    assert read_screen(built_in()["other"], Screen((f"\x1b[{style}mdelete all",), x=0, y=0)).state == "draft"


def test_faint_text_in_colour_is_a_placeholder() -> None:
    rows = ("›\x1b[2;38;2;90;90;90m Ask Codex to do anything\x1b[0m", "", "  gpt-5 · ~/work")

    assert read_screen(built_in()["codex"], Screen(rows, x=2, y=0)).state == "ready"


def test_a_hidden_cursor_tells_with_nothing_below_the_input_line_too() -> None:
    screen = Screen(("> ",), x=2, y=0, cursor_visible=False)

    assert read_screen(built_in()["aider"], screen).state == "busy"


def test_no_rule_makes_a_draft_ready() -> None:
    rule = {"state": "ready", "title": "Ready"}
    profile = Profile.model_validate(
        {"input": {"sign": "^> "}, "rules": [rule, {"state": "busy", "title": "."}]}
    )

    def state(row: str) -> str:
        return read_screen(profile, Screen((row,), x=len(row), y=0, title="Ready")).state

    assert state("> ") == "ready"
    assert state("> draft") == "busy"


@pytest.mark.parametrize("pattern", [r"context (\w+)", r"context (\S+)", r"context|(\d+)"])
def test_a_context_that_is_no_number_is_unknown(pattern: str) -> None:
    profile = Profile.model_validate({"context": {"used": pattern}})
    screen = Screen(("context full.1.2",), x=0, y=0)

    assert context_used(profile, screen, read_screen(profile, screen)) is None


def test_what_stands_aside_needs_no_group() -> None:
    profile = Profile.model_validate({"input": {"sign": "^> ", "aside": r" {3,}\S.*$"}})

    assert read_screen(profile, Screen((">       side bar",), x=2, y=0)).state == "ready"
