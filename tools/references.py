"""Finds mentions of documents and files that are not in the checkout."""

import io
import os
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SKIPPED = {"build", "dist", "__pycache__"}
LINK = re.compile(r"\]\(([^)#\s]+)")
FILE = re.compile(r"[\w./-]*\w\.(?:md|py|svg)\b")
TITLE = re.compile(r"\b([A-Z]{5,}),? (?:sections?|parts?|chapters?) \d|\((?!SIG)([A-Z]{5,})\)")
"""A document's title: in capitals, before a section number or alone in parentheses; not a signal's name."""


def dead_references(root: Path, words: Sequence[str] = ()) -> list[str]:
    """One line for each mention, as `file:line mention`.

    Links in Markdown; in docstrings and comments, files and titles in capitals; `words` wherever prose is.
    """
    files = sorted(_files(root))
    known = {f"/{file.relative_to(root)}" for file in files}
    word = re.compile(rf"\b({'|'.join(map(re.escape, words))})\b") if words else None
    return [
        f"{file.relative_to(root)}:{line} {mention}"
        for file in files
        if file.suffix in (".md", ".py")
        for line, text in prose(file)
        for mention in dict.fromkeys((*_dead(file, text, known), *(word.findall(text) if word else ())))
    ]


def _files(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in SKIPPED]
        yield from (Path(folder, name) for name in names)


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a document, or of a program's docstrings and comments, with their numbers."""
    text = file.read_text(errors="replace")
    if file.suffix == ".md":
        yield from enumerate(text.splitlines(), 1)
        return
    begins = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and begins):
            yield from enumerate(token.string.splitlines(), token.start[0])
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            begins = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def _dead(file: Path, text: str, known: Iterable[str]) -> Iterator[str]:
    titles = ["".join(match) for match in TITLE.findall(text)]
    yield from (title for title in titles if not any(f"/{title}" in name for name in known))
    if file.suffix == ".md":
        links = [link for link in LINK.findall(text) if "://" not in link]
        yield from (link for link in links if not (file.parent / link).exists())
    else:
        named = [name.lstrip("./") for name in FILE.findall(text)]
        yield from (name for name in named if not any(path.endswith(f"/{name}") for path in known))
