"""Changes to a JSON text that leave every other byte as it is. Standard library only."""

import json
from dataclasses import dataclass
from typing import Any

from gastown_mail.contracts.errors import SettingsError

Path = tuple[str | int, ...]
"""The keys and indexes that lead from the root to a value."""

_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class _Item:
    """A member of an object or an element of an array, as places in the text; `start` is that of its key."""

    key: str | int
    start: int
    value: int
    end: int


def parse_object(text: str, name: str) -> dict[str, Any]:
    """The object in this text of the file `name`; {} if it is blank. Raises SettingsError."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{name}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{name}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{name}: expected a JSON object")
    return value


def value_at(document: Any, path: Path) -> Any:
    """The value at `path`; None if there is none."""
    for key in path:
        try:
            document = document[key]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def append(text: str, path: Path, value: Any) -> str:
    """Add `value` at the end of the array at `path`; what is missing of that path is made."""
    if not text.strip():
        return json.dumps(_nested(path, [value]), indent=2, ensure_ascii=False) + "\n"
    document, depth = json.loads(text), len(path)
    while value_at(document, path[:depth]) is None:
        depth -= 1
    key = f"{json.dumps(path[depth])}: " if depth < len(path) else ""
    new = _nested(path[depth + 1 :], [value]) if key else value
    return _insert(text, _find(text, path[:depth]).value, key, new)


def remove(text: str, path: Path) -> str:
    """Remove the value at `path`, and each array and object around it, but the root, that this empties."""
    items = _items(text, _find(text, path[:-1]).value)
    if len(items) == 1 and len(path) > 1:
        return remove(text, path[:-1])
    index = [item.key for item in items].index(path[-1])
    if index > 0:
        return text[: items[index - 1].end] + text[items[index].end :]
    if len(items) > 1:
        return text[: items[0].start] + text[items[1].start :]
    opening = text.index("{")
    return text[: opening + 1] + text[_skip(text, items[0].end) :]


def _nested(path: Path, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _insert(text: str, container: int, key: str, value: Any) -> str:
    """Add an item to the object or array that starts at `container`, laid out like the item before it."""
    items = _items(text, container)
    if not items:
        margin = _margin(text, container)
        newline, inner = _newline(text), margin + _unit(text)
        item = newline + inner + key + _dump(value, text, inner) + newline + margin
        return text[: container + 1] + item + text[_skip(text, container + 1) :]
    start, end = items[-1].start, items[-1].end
    lead = text[len(text[:start].rstrip(_SPACE)) : start]
    if "\n" in lead:
        item = key + _dump(value, text, lead.rpartition("\n")[2])
    else:
        item = key + json.dumps(value, ensure_ascii=False)
    return text[:end] + "," + (lead or " ") + item + text[end:]


def _dump(value: Any, text: str, margin: str) -> str:
    lines = json.dumps(value, ensure_ascii=False, indent=_unit(text)).split("\n")
    return (_newline(text) + margin).join(lines)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _unit(text: str) -> str:
    """What the text indents by: the margin of its first member."""
    items = _items(text, _skip(text, 0))
    return (_margin(text, items[0].start) if items else "") or "  "


def _margin(text: str, place: int) -> str:
    """The white space at the beginning of the line that holds this place."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip(_SPACE))]


def _find(text: str, path: Path) -> _Item:
    start = _skip(text, 0)
    found = _Item("", start, start, _end(text, start))
    for key in path:
        # a key that stands twice means its last value, as for every reader of JSON
        found = [item for item in _items(text, found.value) if item.key == key][-1]
    return found


def _items(text: str, container: int) -> list[_Item]:
    """The members of the object, or the elements of the array, that starts at `container`."""
    items: list[_Item] = []
    place = _skip(text, container + 1)
    while text[place] not in "]}":
        start, key = place, len(items)
        if text[container] == "{":
            name, place = _DECODER.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)
            items.append(_Item(name, start, place, _end(text, place)))
        else:
            items.append(_Item(key, start, place, _end(text, place)))
        place = _skip(text, items[-1].end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return items


def _end(text: str, start: int) -> int:
    return int(_DECODER.raw_decode(text, start)[1])


def _skip(text: str, place: int) -> int:
    """The next place that holds no white space."""
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place
