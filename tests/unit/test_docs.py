"""The documents promise only what a test shows: every test they name exists, every link leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", file.read_text())
}


def test_the_thirty_lessons_have_a_test_each() -> None:
    rows = re.findall(r"^\| (\d+) \|.*`(test_\w+)` \|$", (ROOT / "docs" / "why.md").read_text(), re.MULTILINE)

    assert [int(number) for number, _ in rows] == list(range(1, 31))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))

    assert named <= TESTS, sorted(named - TESTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_to_a_file_leads_there(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []
