"""The table program × version × check of docs/agents.md, made from the outcomes of a run."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.agents.checks import CHECKS
from tests.agents.known import KNOWN, NONE

CELL = "cell"
"""The property of a report that names its cell: check, program, version."""

BEGIN, END = "<!-- table: made by make agents -->", "<!-- end of the table -->"
PROGRAMS = {
    "claude": "Claude Code",
    "codex": "Codex",
    "gemini": "Gemini CLI",
    "qwen": "Qwen Code",
    "opencode": "opencode",
    "aider": "aider",
}
YES, NO, SKIPPED = "yes", "**no**", "not run"


@dataclass(eq=False)  # pytest wants plugins that can be hashed
class Outcomes:
    """A plugin of pytest's that collects what became of each cell.

    With AGENTS_TABLE it writes the table into that page.
    """

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of a cell."""
        cell = dict(report.user_properties).get(CELL)
        if not isinstance(cell, list | tuple) or (report.passed and report.when != "call"):
            return
        check, program, version = map(str, cell)
        self.versions[program] = version
        outcome = YES if report.passed else SKIPPED if report.skipped else NO
        if report.skipped and (program, check) not in NONE:
            self.skipped[_reason(report)].add(program)
        if self.cells.get((check, program)) != NO:
            self.cells[check, program] = outcome

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which programs did not run, and write the table if it is asked for."""
        for reason, programs in sorted(self.skipped.items()):
            terminalreporter.write_line(f"not run: {', '.join(sorted(programs))}: {reason}")
        if page := os.environ.get("AGENTS_TABLE"):
            text = Path(page).read_text()
            Path(page).write_text(with_table(text, table(self.cells, self.versions)))


def table(cells: dict[tuple[str, str], str], versions: dict[str, str]) -> str:
    """The table in Markdown, with notes on what is different."""
    notes: list[str] = []
    heads = [f"{label} {versions.get(name, '')}".strip() for name, label in PROGRAMS.items()]
    lines = ["| a poke, a request, an end | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for check, words in CHECKS.items():
        row = [_cell(cells, check, program, notes) for program in PROGRAMS]
        lines.append(f"| {words} | " + " | ".join(row) + " |")
    return "\n".join([*lines, "", *(f"{n}. {note}" for n, note in enumerate(notes, 1))])


def with_table(page: str, text: str) -> str:
    """The page with this table in the place of its own."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def table_of(page: str) -> tuple[list[str], list[str]]:
    """The heads of the table's columns and of its lines, without the corner."""
    rows = re.findall(r"^\| (.*) \|$", page.partition(BEGIN)[2].partition(END)[0], re.MULTILINE)
    heads, *lines = [row.split(" | ") for row in rows]
    return heads[1:], [line[0] for line in lines]


def _cell(cells: dict[tuple[str, str], str], check: str, program: str, notes: list[str]) -> str:
    if (program, check) in NONE:
        return "–"
    outcome = cells.get((check, program), SKIPPED)
    if outcome != YES or not (why := KNOWN.get((program, check))):
        return outcome
    note = f"{PROGRAMS[program]} {why}"
    if note not in notes:
        notes.append(note)
    return f"see {notes.index(note) + 1}"


def _reason(report: pytest.TestReport) -> str:
    where = report.longrepr
    return where[2].removeprefix("Skipped: ") if isinstance(where, tuple) else str(where)
