"""Prints figures of the code: `python -m tools.measure`; `make lint` prints them too.

Counted over the package's .py files:

- product lines: all their lines, including blank lines and comments
- function lines: those below the line of `def`, without the docstring
- public names: functions, classes and assigned names at the top of a module without a leading underscore;
  `A, B = 1, 2` counts as none
- one-use private functions: functions and methods with one leading underscore whose name the product reads
  exactly once, as a name or as an attribute
- docstrings: the share of public functions, methods and classes that have one
"""

import ast
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tools.references import dead_references

PACKAGE = "gastown_mail"
MAX_FILE_LINES = 400

Function = ast.FunctionDef | ast.AsyncFunctionDef
Trees = Mapping[str, ast.Module]


@dataclass(frozen=True)
class Figure:
    """One line of the table; `items` are what was counted, where a list of them helps."""

    name: str
    value: object
    items: Sequence[str] = ()


@click.command()
@click.option("--root", default=".", type=click.Path(exists=True, file_okay=False), help="The checkout.")
@click.option("--word", "words", multiple=True, help="Also look for this name of a document in prose.")
@click.option("--cycle", is_flag=True, help="Run a small town and count the files that one cycle enters.")
@click.option("--list", "full", is_flag=True, help="List what was counted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, lists included.")
def main(root: str, words: Sequence[str], cycle: bool, full: bool, as_json: bool) -> None:
    """Print the figures of a checkout."""
    folder = Path(root).resolve()
    figures = [*measure(folder, words), *(_cycle(folder) if cycle else ())]
    by_name = {figure.name: {"value": figure.value, "items": list(figure.items)} for figure in figures}
    click.echo(json.dumps(by_name, indent=1) if as_json else table(figures, full=full))


def table(figures: Iterable[Figure], *, full: bool = False) -> str:
    """The figures as text, one per line; when `full`, with their items below."""
    lines = []
    for figure in figures:
        lines.append(f"{figure.name:<46} {figure.value}")
        lines += [f"    {item}" for item in figure.items if full]
    return "\n".join(lines)


def measure(root: Path, words: Sequence[str] = ()) -> list[Figure]:
    """The figures that need no running town; `words` are passed to `dead_references`."""
    sources = {str(f.relative_to(root)): f.read_text() for f in sorted((root / PACKAGE).rglob("*.py"))}
    trees = {name: ast.parse(text) for name, text in sources.items()}
    lengths = {name: len(text.splitlines()) for name, text in sources.items()}
    longest, dead = max(lengths, key=lengths.__getitem__), dead_references(root, words)
    too_long = [f"{name}: {lines}" for name, lines in lengths.items() if lines > MAX_FILE_LINES]
    return [
        Figure("product files", len(sources)),
        Figure("product lines", sum(lengths.values())),
        Figure("function lines: median / p95 / max", function_lines(trees)),
        Figure("longest file", f"{lengths[longest]} ({longest})"),
        Figure(f"files over {MAX_FILE_LINES} lines", len(too_long), too_long),
        Figure("public names", sum(len(list(public_names(tree))) for tree in trees.values())),
        one_use(trees, sum(lengths.values())),
        Figure("docstrings, % of public names", documented(trees)),
        Figure("dead references", len(dead), dead),
    ]


def function_lines(trees: Trees) -> str:
    """The median, the 95th percentile and the maximum."""
    lengths = sorted(_length(function) for _, function in _functions(trees))
    return f"{statistics.median(lengths):g} / {lengths[len(lengths) * 95 // 100]} / {lengths[-1]}"


def _length(function: Function) -> int:
    text, first = ast.get_docstring(function), function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if text else 0
    return (function.end_lineno or 0) - function.lineno - docstring


def public_names(tree: ast.Module) -> Iterator[str]:
    """The names that a module offers."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        if isinstance(node, Function | ast.ClassDef):
            named = [node.name]
        yield from (name for name in named if not name.startswith("_"))


def one_use(trees: Trees, lines: int) -> Figure:
    """How many private functions per 1,000 lines have exactly one use, and which."""
    uses = Counter(name for tree in trees.values() for name in _used(tree))
    found = [
        f"{file}:{function.lineno} {function.name}"
        for file, function in _functions(trees)
        if function.name.startswith("_") and not function.name.startswith("__") and uses[function.name] == 1
    ]
    value = f"{len(found) * 1000 / lines:.1f} ({len(found)})"
    return Figure("one-use private functions per 1,000 lines", value, found)


def _used(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def documented(trees: Trees) -> int:
    """The percentage of public functions, methods and classes with a docstring."""
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    public = [n for n in nodes if isinstance(n, Function | ast.ClassDef) and not n.name.startswith("_")]
    return round(100 * sum(1 for node in public if ast.get_docstring(node)) / max(1, len(public)))


def _functions(trees: Trees) -> Iterator[tuple[str, Function]]:
    for file, tree in trees.items():
        yield from ((file, node) for node in ast.walk(tree) if isinstance(node, Function))


def _cycle(root: Path) -> Iterator[Figure]:
    from tools.entered import files_of_one_cycle

    in_worker, in_sender = files_of_one_cycle(root)
    yield Figure("files entered by one cycle: the worker", len(in_worker), sorted(in_worker))
    both = in_worker | in_sender
    yield Figure("files entered by one cycle: worker and sender", len(both), sorted(both))


if __name__ == "__main__":
    main()
