"""What a profile makes of screens that were made for one question."""

import pytest

from gastown_mail.programs.library import built_in
from gastown_mail.programs.reader import read_screen
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
