"""Compares texts with their pinned forms.

Forms are patterns separated by ` | `. Each text must match one of them, and each pattern some text, unless it
begins with `?`. `()` matches an empty text; the words of `PATTERNS` stand for what differs between runs.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

PATTERNS = {
    "ADDRESS": r"gastown/(?:crew/)?[a-z]+",
    "EPOCH": r"\d{10}(?:\.\d+)?",
    "ID": r"(?:[0-9a-f]{12}-[0-9a-f]{20}|sha-[0-9a-f]{32}|test-[0-9a-f]{12}|gastown-crew-max|nobody)",
    "LEASE": r"[a-z0-9-]+\|pid:\[\d+\](?:@[0-9a-f-]{36})?\|\d+\|\d+\.\d+\|\d+",
    "MACHINE": r"[0-9a-f]{16,64}",
    "MILLIS": r"\d{10}\.\d{3}",
    "NUMBER": r"\d+",
    "SESSION": r"gt-gastown-(?:crew-)?[a-z]+",
    "TIME": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)",
    "TOKEN": r"[0-9a-f]{32}",
}
SHOWN = 3
"""How many texts without a form are shown for each name."""

_WORD = re.compile(rf"(?<![A-Z])(?:{'|'.join(PATTERNS)})(?![A-Z])")


def table(text: str) -> dict[str, str]:
    """Return the forms by name from lines `name: forms`; an indented line belongs to the one above."""
    lines = re.sub(r"\n +", " ", text.strip()).split("\n")
    return dict(line.split(": ", 1) for line in lines)


def compared(name: str, found: Iterable[str], forms: str) -> Iterator[str]:
    """Yield a line for each text without a form, and for each form without a text."""
    words = [" ".join(form.split()) for form in forms.split(" | ")]
    patterns = {word: re.compile(_pattern(word.removeprefix("?")), re.DOTALL) for word in words}
    matched = {text: [word for word in words if patterns[word].fullmatch(text)] for text in set(found)}
    strange = sorted(text for text, hits in matched.items() if not hits)
    yield from (f"{name}: {text!r} is not pinned" for text in strange[:SHOWN])
    seen = {word for hits in matched.values() for word in hits}
    yield from (f"{name}: {word!r} does not occur" for word in words if word not in seen and word[:1] != "?")


def _pattern(word: str) -> str:
    return _WORD.sub(lambda found: PATTERNS[found[0]], word)


def compared_all(found: Mapping[str, Iterable[str]], forms: Mapping[str, str]) -> Iterator[str]:
    """Yield the same for each name of a table, and a line for each name that is not in both."""
    yield from (f"{name} is not pinned" for name in sorted(found.keys() - forms.keys()))
    for name, each in forms.items():
        yield from compared(name, found.get(name, ()), each)


def same_words(name: str, found: set[str], pinned: set[str]) -> Iterator[str]:
    """Yield a line for each word that is not in both."""
    yield from (f"{name}: {word!r} is not pinned" for word in sorted(found - pinned))
    yield from (f"{name}: {word!r} does not occur" for word in sorted(pinned - found))


def same(name: str, found: object, pinned: object) -> Iterator[str]:
    """Yield a line when these are not equal."""
    if found != pinned:
        yield f"{name}: {found} is not {pinned}"


def paths(document: object, path: str = "") -> Iterator[str]:
    """Yield the path to each value of a JSON document; `[]` stands for every element of a list."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from paths(value, f"{path}.{key}".lstrip("."))
    elif isinstance(document, list) and document:
        for value in document:
            yield from paths(value, f"{path}[]")
    else:
        yield path
