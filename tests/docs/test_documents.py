"""Every code block of README and docs does what the document says, run in order in an empty folder."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCUMENTS, LANGUAGES, MARKS, ROOT, blocks
from tests.docs.play import Play, a_shell
from tests.support.machine import skip_without
from tools.reference import FOLDER, PAGES

MADE = {FOLDER / name for name in PAGES}
PLAYED = [
    document
    for document in DOCUMENTS
    if document not in MADE  # test_reference.py compares them with the code
    and not document.name.startswith("compose")  # test_compose_documents.py
]


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("document", PLAYED, ids=name_of)
def test_every_block_does_what_the_document_says(document: Path) -> None:
    _play(document)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["README.md", "docs/how-to/other-languages.md"])
def test_the_examples_work_in_a_folder_whose_path_a_url_encodes(name: str) -> None:
    _play(ROOT / name, "w ö")


def _play(document: Path, folder: str = "w") -> None:
    with a_shell(folder) as shell:
        play = Play(shell)
        for block in blocks(document.read_text()):
            try:
                play.block(block)
            except AssertionError as error:
                raise AssertionError(f"{name_of(document)}, line {block.line}: {error}") from None
    skip_without(*play.lacks)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_block_has_a_known_language_and_mark(document: Path) -> None:
    text = document.read_text()
    found = blocks(text)

    assert len(re.findall("<!-- *test", text)) == len([block for block in found if block.mark])
    assert [block for block in found if block.language not in LANGUAGES] == []
    assert [block for block in found if block.mark not in MARKS] == []
    assert [block for block in found if block.mark == "skip" and not block.about.startswith("because ")] == []
