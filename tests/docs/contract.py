"""The parts of `docs/reference/contract.md`, for the tests that compare them with the code."""

import re

from tests.docs.blocks import ROOT, blocks

PAGE = (ROOT / "docs" / "reference" / "contract.md").read_text()


def section(heading: str) -> str:
    """Return the text under a heading, up to the next one."""
    return re.split(r"^#+ .*$", PAGE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, without its head."""
    lines = re.findall(r"^\|(.*)\|$", section(heading), re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def words(text: str) -> list[str]:
    """Return the texts between backticks."""
    return re.findall(r"`([^`]+)`", text)


def example(heading: str) -> str:
    """Return the text of the code block under a heading."""
    (block,) = blocks(section(heading))
    return block.text
