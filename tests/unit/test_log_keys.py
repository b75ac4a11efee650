"""The keys of the log's lines are those that its documentation lists."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gastown_mail
from gastown_mail.plumbing import log

DOCUMENTED = set(re.findall(r"^\| ([a-z_]+) +\|", log.__doc__ or "", re.MULTILINE)) - {"key"}
EVERYWHERE = {"time", "level", "logger", "event", "trace"}


def said() -> Iterator[tuple[str, str]]:
    """File and key of each field that the program gives to `log_event`."""
    for file in Path(gastown_mail.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_event":
                yield from ((file.name, word.arg or "**") for word in node.keywords)


def test_every_key_that_is_logged_is_documented_and_no_other() -> None:
    used = {key for _, key in said()} - {"level"}

    assert used == DOCUMENTED - EVERYWHERE
    assert "incarnation" not in used
