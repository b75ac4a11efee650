"""Builds pages in Markdown, and reads the docstrings that they are made of."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from types import ModuleType

WIDTH = 118
MADE = "<!-- Made from the code by `make docs`: change the code, not this page. -->"


def page(title: str, *parts: str) -> str:
    """A page of paragraphs, headings, tables and blocks; paragraphs are wrapped."""
    return "\n\n".join((f"# {title}", MADE, *map(_wrapped, parts))) + "\n"


def _wrapped(part: str) -> str:
    return part if part.startswith(("#", "|", "```")) else textwrap.fill(part, WIDTH, break_on_hyphens=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under headings."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: object) -> str:
    """The text as code; nothing for an empty one."""
    return f"`{text}`" if text != "" else ""


def listed(words: Iterable[object]) -> str:
    """The words as code, one after the other."""
    return ", ".join(code(word) for word in words)


def said_below(kind: type) -> dict[str, str]:
    """The docstring below each field or member in the source, by its name; "" for none."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for line, next_one in pairwise([*tree.body, ast.Pass()]):
        if isinstance(line, ast.Assign | ast.AnnAssign):
            name = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            found[ast.unparse(name)] = _text(next_one)
    return found


def _text(line: ast.stmt) -> str:
    return " ".join(str(ast.literal_eval(line.value)).split()) if isinstance(line, ast.Expr) else ""


def rows_at_head(module: ModuleType) -> Iterator[list[str]]:
    """The rows of the table in a module's docstring, their first cell as code."""
    lines = re.findall(r"^\|(.*)\|$", inspect.getdoc(module) or "", re.MULTILINE)
    for line in lines[2:]:
        first, *rest = (cell.strip() for cell in line.split("|"))
        yield [code(first), *rest]


def first_line(kind: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]
