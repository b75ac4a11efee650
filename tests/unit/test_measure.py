"""The figures of the code, counted on a small package made for it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.measure import MAX_FILE_LINES, main, measure, table
from tools.references import dead_references

ONE = '''\
"""A module."""
LIMIT: int = 3
FIRST, SECOND = 1, 2
_hidden = kind = 4


class Box:
    """A box."""

    size = 1

    def __init__(self) -> None:
        self._fill()

    def _fill(self) -> None:
        """Fill it.

        To the top.
        """
        used_twice = _twice()
        print(used_twice, _twice())

    def weigh(self) -> int:
        return 1


def _twice() -> int:
    return 2


def _unused() -> int:
    return _unused_too


def shown(
    number: int,
) -> int:
    """Show it."""
    return number
'''
TWO = "async def wait() -> None:\n    pass\n" + "\n" * MAX_FILE_LINES


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a package of two modules."""
    package = tmp_path / "gastown_mail"
    package.mkdir()
    (package / "one.py").write_text(ONE)
    (package / "two.py").write_text(TWO)
    return tmp_path


def test_each_figure(checkout: Path) -> None:
    lines = len((ONE + TWO).splitlines())

    assert {figure.name: figure.value for figure in measure(checkout)} == {
        "product files": 2,
        "product lines": lines,
        "function lines: median / p95 / max": "1 / 3 / 3",
        "longest file": f"{MAX_FILE_LINES + 2} (gastown_mail/two.py)",
        f"files over {MAX_FILE_LINES} lines": 1,
        "public names": len(["LIMIT", "kind", "Box", "shown", "wait"]),
        "one-use private functions per 1,000 lines": f"{1000 / lines:.1f} (1)",
        "docstrings, % of public names": 50,  # Box and shown, not weigh and wait
        "dead references": 0,
    }


def test_what_was_counted_is_listed(checkout: Path) -> None:
    text = table(measure(checkout), full=True)

    assert f"    gastown_mail/two.py: {MAX_FILE_LINES + 2}\n" in text
    assert "    gastown_mail/one.py:15 _fill\n" in text
    assert "_fill" not in table(measure(checkout))


def test_json_is_one_document(checkout: Path) -> None:
    answer = CliRunner().invoke(main, ["--root", str(checkout), "--json"], catch_exceptions=False)

    assert json.loads(answer.stdout)["product files"] == {"value": 2, "items": []}


def test_a_document_that_is_not_there_is_a_dead_reference(checkout: Path) -> None:
    (checkout / "README.md").write_text(
        "[here](docs/here.md#top) [gone](docs/gone.md) [far](https://x.org/a)\n"
    )
    (checkout / "docs").mkdir()
    (checkout / "docs" / "here.md").write_text("See the GUIDE and [the page](../README.md).\n")
    (checkout / "tool.py").write_text(
        '''\
# first a comment

"""By MANUAL section 3; see one.py, docs/here.md and docs/old.md (README) (SIGTERM)."""
TEXT = "MANUAL section 4"
# the rule (MANUAL)
print(
    "docs/older.md"
)
'''
    )

    found = ["README.md:1 docs/gone.md", "tool.py:3 MANUAL", "tool.py:3 docs/old.md", "tool.py:5 MANUAL"]
    assert dead_references(checkout) == found
    assert dead_references(checkout, ["GUIDE"]) == sorted([*found, "docs/here.md:1 GUIDE"])


def test_hidden_folders_are_not_part_of_the_repository(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "README.md").write_text("[gone](gone.md)\n")

    assert dead_references(checkout) == []
