"""The picture in the README: complete, of existing commands, and self-contained."""

import re
from xml.etree import ElementTree

from tests.docs.blocks import ROOT
from tests.docs.commands import refusal
from tools.picture import DEMO, PICTURE, SHOWN, drawn


def words(svg: str) -> str:
    """Return the text in a picture, with plain spaces."""
    return " ".join("".join(ElementTree.fromstring(svg).itertext()).split())


def test_the_readme_shows_the_picture() -> None:
    assert f"]({PICTURE.relative_to(ROOT)})" in (ROOT / "README.md").read_text()


def test_the_picture_shows_these_commands() -> None:
    shown = words(PICTURE.read_text())

    assert [command for command in (DEMO, *SHOWN) if f"$ {command}" not in shown] == []
    assert [refusal(command) for command in SHOWN] == [None] * len(SHOWN)


def test_the_picture_fetches_nothing_and_names_no_local_path() -> None:
    text = PICTURE.read_text().replace("http://www.w3.org/2000/svg", "")

    assert re.findall(r"https?:|url\((?!#)|@import|@font-face|/tmp/|/home/|/root/", text) == []


def test_output_is_drawn_with_its_colours() -> None:
    svg = drawn([("gastown-mail status", "\x1b[32mmytown: running\x1b[0m\n  ok")])

    assert words(svg).endswith("mytown $ gastown-mail status mytown: running ok")
    assert "fill: #98c379" in svg
