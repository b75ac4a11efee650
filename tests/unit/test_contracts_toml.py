from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.contracts.toml_file import TomlFile, read_toml

TEXT = '''\
# workers = 1
title = """
[daemon]
workers = 5
"""
[daemon]  # the daemon
log_file = "workers = 3"
workers = [
  1,
]
[agents."a/b".env]
HOME = "x\u2028y"
[agents]
"c/d" = { command = "x", poke = "" }
'''


def written(folder: Path, content: bytes) -> Path:
    path = folder / "town.toml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("daemon",), 6),
        (("daemon", "log_file"), 7),
        (("daemon", "workers"), 8),
        (("agents", "a/b"), 11),
        (("agents", "a/b", "env"), 11),
        (("agents", "a/b", "env", "HOME"), 12),
        (("agents", "c/d"), 14),
        (("agents", "c/d", "poke"), 14),
    ],
)
def test_a_key_is_found_on_its_line_and_not_in_texts_and_comments(
    tmp_path: Path, path: tuple[str, ...], line: int
) -> None:
    file = read_toml(written(tmp_path, TEXT.encode()))
    assert file.location_of(*path) == f"town.toml, line {line}"


def test_a_key_in_another_spelling_has_no_line(tmp_path: Path) -> None:
    file = read_toml(written(tmp_path, rb'"\u0061" = 1'))
    assert file.values == {"a": 1}
    assert file.location_of("a") == "town.toml"


@given(st.lists(st.from_regex(r"\A[a-z]{1,3}\Z"), min_size=1, max_size=12, unique=True))
def test_each_key_of_a_plain_file_is_on_its_line(keys: list[str]) -> None:
    file = TomlFile("t", "".join(f"{key} = 1\n" for key in keys), {})
    assert [file.location_of(key) for key in keys] == [
        f"t, line {number}" for number in range(1, len(keys) + 1)
    ]


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_toml(tmp_path / "town.toml").values == {}


def test_windows_lines_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = read_toml(written(tmp_path, b"\xef\xbb\xbfa = 1\r\nb = 2\r\n"))
    assert file.values == {"a": 1, "b": 2}
    assert file.location_of("b") == "town.toml, line 2"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"a = 1\n[daemon\n", 2),
        (b"a = 1\nb = \n", 2),
        (b"a = 1\na = 2\n", 2),
        (b'a = 1\nb = """x\n\n', 2),
        (b"a = 1\n\n# \xff\n", 3),
    ],
)
def test_bad_syntax_names_the_line(tmp_path: Path, content: bytes, line: int) -> None:
    with pytest.raises(SettingsError, match=rf"^town\.toml, line {line}: not (valid TOML|UTF-8 text)"):
        read_toml(written(tmp_path, content))


@pytest.mark.parametrize("content", [b"a = " + b"1" * 5000, b"a = " + b"[" * 5000])
def test_a_value_that_the_parser_cannot_hold_is_a_settings_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsError, match="not valid TOML"):
        read_toml(written(tmp_path, content))


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "town.toml").mkdir()
    with pytest.raises(SettingsError, match=r"cannot read .*town\.toml: Is a directory"):
        read_toml(tmp_path / "town.toml")
