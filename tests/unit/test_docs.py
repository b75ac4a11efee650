"""The documents promise only what a test shows: every test, link, heading and command they name exists."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, ROOT, blocks, prose
from tests.docs.commands import inline, refusal

TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", file.read_text())
}
CODE = ("gastown_mail", "docker", "benchmarks")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def anchors(document: Path) -> set[str]:
    """Return a document's headings as links name them: lower case, hyphens for spaces, no punctuation."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def links(document: Path) -> list[tuple[Path, str]]:
    """Return the links to files here: the file, and the heading or ""."""
    found = LINK.findall(prose(document.read_text()))
    here = [(path, anchor) for path, anchor in found if "://" not in path]
    return [(document.parent / path if path else document, anchor) for path, anchor in here]


def test_each_of_the_thirty_promises_has_a_test() -> None:
    rows = re.findall(r"^\| (\d+) \|.*`(test_\w+)` \|$", (ROOT / "docs" / "why.md").read_text(), re.MULTILINE)

    assert [int(number) for number, _ in rows] == list(range(1, 31))


@each_document
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))

    assert named <= TESTS, sorted(named - TESTS)


@each_document
def test_every_link_has_a_target(document: Path) -> None:
    found = links(document)

    assert [path for path, _ in found if not path.exists()] == []
    assert [(path, anchor) for path, anchor in found if anchor and anchor not in anchors(path)] == []


def test_every_document_that_the_code_names_exists() -> None:
    files = [*ROOT.glob("*.*"), *(file for folder in CODE for file in (ROOT / folder).rglob("*.*"))]
    texts = [file.read_text() for file in files if file.suffix in (".py", ".toml", ".yml")]
    named = {match for text in texts for match in re.findall(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?", text)}

    assert named
    assert [path for path, _ in named if not (ROOT / path).exists()] == []
    assert [(path, anchor) for path, anchor in named if anchor and anchor not in anchors(ROOT / path)] == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop().resolve()
        if document not in reached and document.suffix == ".md":
            reached.add(document)
            waiting += [path for path, _ in links(document)]

    assert set(DOCUMENTS) - reached == set()


@each_document
def test_the_parser_accepts_every_command_in_the_text(document: Path) -> None:
    assert [why for why in map(refusal, inline(prose(document.read_text()))) if why] == []


@each_document
def test_code_is_in_fences_where_it_is_found_and_run(document: Path) -> None:
    text = document.read_text()
    fences = re.findall(r"^ *```", text, re.MULTILINE)
    indented = re.findall(r"\n\n(    \S.*)", prose(text))

    assert len(fences) == 2 * len([block for block in blocks(text) if block.mark != "before"])
    assert indented == []
