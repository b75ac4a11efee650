"""The keys of the log's lines are the documented ones."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gastown_mail
from gastown_mail.plumbing import log

DOCUMENTED = set(re.findall(r"^\| ([a-z_]+) +\|", log.__doc__ or "", re.MULTILINE)) - {"key"}
EVERYWHERE = {"time", "level", "logger", "event", "trace"}


def said() -> Iterator[tuple[str, str]]:
    """Yield the file and the key of each field that the program passes to `log_event`."""
    for file in Path(gastown_mail.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_event":
                yield from ((file.name, word.arg or "**") for word in node.keywords)


def test_exactly_the_logged_keys_are_documented() -> None:
    used = {key for _, key in said()} - {"level"}

    assert used == DOCUMENTED - EVERYWHERE
    assert "incarnation" not in used
