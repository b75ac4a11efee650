"""The page about real programs has the table that the tests make, with the versions that are installed."""

import tomllib
from importlib import import_module
from pathlib import Path

from tests.agents import install, table
from tests.agents.cases import CASES
from tests.agents.checks import CHECKS
from tests.agents.known import KNOWN, NONE

AGENTS = Path(install.__file__).parent
PAGE = AGENTS.parents[1] / "docs/agents.md"


def marked() -> set[str]:
    """The checks that tests are marked with."""
    modules = [import_module(f"tests.agents.{file.stem}") for file in AGENTS.glob("test_*.py")]
    marks = [
        mark
        for module in modules
        for value in vars(module).values()
        for mark in getattr(value, "pytestmark", [])
    ]
    return {mark.args[0] for mark in marks if mark.name == "check"}


def test_each_check_has_a_test() -> None:
    assert marked() == set(CHECKS)


def test_the_page_has_the_table_of_these_checks_and_programs() -> None:
    heads, lines = table.table_of(PAGE.read_text())
    wanted = tomllib.loads(install.VERSIONS.read_text())
    versions = {name: one["version"] for kind in wanted.values() for name, one in kind.items()}

    assert lines == list(CHECKS.values())
    assert [head.rpartition(" ")[0] for head in heads] == list(table.PROGRAMS.values())
    assert {head.rpartition(" ")[2] for head in heads} == set(versions.values())


def test_every_exception_is_of_a_program_and_a_check() -> None:
    assert list(CASES) != []
    assert set(table.PROGRAMS) == set(CASES)
    assert {program for program, _ in (*KNOWN, *NONE)} <= set(CASES)
    assert {check for _, check in (*KNOWN, *NONE)} <= set(CHECKS)


def test_the_table_names_what_is_different() -> None:
    cells = {(check, program): table.YES for check in CHECKS for program in CASES}
    (program, _), why = next(iter(KNOWN.items()))
    cells["draft", "claude"] = table.NO
    text = table.with_table(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", table.table(cells, {}))

    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert f"| {CHECKS['draft']} | {table.NO} | {table.YES} |" in text
    assert f"{table.PROGRAMS[program]} {why}" in text
