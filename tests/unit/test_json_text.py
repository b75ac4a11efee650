"""Changes to a JSON text: what was not meant keeps its bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.cli.json_text import Path, append, parse_object, remove, value_at
from gastown_mail.contracts.errors import SettingsError

PATH = ("hooks", "PreCompact")
NEW = {"matcher": "auto", "hooks": [{"command": 'say "hi" {}[],:'}]}

KEYS = st.sampled_from(["hooks", "PreCompact", "other", "b c", 'q"}', "ü"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
GROUPS = st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=2), min_size=1, max_size=3)
DOCUMENTS = st.one_of(
    st.dictionaries(KEYS.filter(lambda key: key != "hooks"), VALUES, max_size=3),
    st.builds(
        lambda rest, groups, more: {**rest, "hooks": {**more, "PreCompact": groups}},
        st.dictionaries(KEYS, VALUES, max_size=2),
        GROUPS,
        st.dictionaries(KEYS, VALUES, max_size=2),
    ),
)
LAYOUTS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"indent": 2},
        {"indent": 4, "ensure_ascii": False},
        {"indent": "\t"},
        {"separators": (",", ":")},
        {"indent": 0},
    ]
)


def spelled(document: Any, layout: dict[str, Any], newline: str, end: str) -> str:
    return json.dumps(document, **layout).replace("\n", newline) + end


@given(DOCUMENTS.filter(bool), LAYOUTS, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\n", " \n"]))
def test_what_was_added_is_there_and_gone_again_to_the_byte(
    document: dict[str, Any], layout: dict[str, Any], newline: str, end: str
) -> None:
    text = spelled(document, layout, newline, end)

    more = append(text, PATH, NEW)

    groups = [*(value_at(document, PATH) or []), NEW]
    expected = {**document, "hooks": {**document.get("hooks", {}), "PreCompact": groups}}
    assert json.loads(more) == expected
    assert list(json.loads(more)) == list(expected)
    if "\r\n" in text:
        assert more.replace("\r\n", "").count("\n") == text.replace("\r\n", "").count("\n")
    assert remove(more, (*PATH, len(groups) - 1)) == text


@given(DOCUMENTS, st.data())
def test_any_element_can_be_removed(document: dict[str, Any], data: st.DataObject) -> None:
    groups = value_at(document, PATH) or [1]
    document = {**document, "hooks": {**document.get("hooks", {}), "PreCompact": groups}}
    index = data.draw(st.integers(0, len(groups) - 1))

    less = remove(json.dumps(document, indent=2), (*PATH, index))

    kept = [group for place, group in enumerate(groups) if place != index]
    if kept:
        assert value_at(json.loads(less), PATH) == kept
    else:
        assert value_at(json.loads(less), PATH) is None
        assert json.loads(less).get("hooks") != {}


def test_a_new_item_is_laid_out_like_the_one_before_it() -> None:
    text = '{\n    "a": 1,\n    "hooks": {\n        "Stop": []\n    }\n}\n'

    assert append(text, ("hooks", "PreCompact"), 5) == (
        '{\n    "a": 1,\n    "hooks": {\n        "Stop": [],\n        "PreCompact": [\n            5\n'
        "        ]\n    }\n}\n"
    )


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_blank_text_becomes_a_whole_document(text: str) -> None:
    assert append(text, ("a", "b"), 1) == '{\n  "a": {\n    "b": [\n      1\n    ]\n  }\n}\n'


def test_a_key_that_stands_twice_means_its_last_value() -> None:
    text = '{"a": [1], "a": [2]}'

    assert append(text, ("a",), 3) == '{"a": [1], "a": [2, 3]}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n"a": 1,\n\n"b"}', "f, line 4: not valid JSON"),
        ("// a comment\n{}", "f, line 1: not valid JSON"),
        ("[]", "f: expected a JSON object"),
        ("[" * 100_000, "f: not valid JSON"),
    ],
)
def test_a_text_that_is_no_object_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_object(text, "f")


@pytest.mark.parametrize("path", [("x",), ("a", 5), ("a", "b"), ("b", "c", "d")])
def test_a_path_that_leads_nowhere_is_none(path: Path) -> None:
    assert value_at({"a": [1], "b": {"c": "text"}}, path) is None
