import os
import stat
import threading
import time
from pathlib import Path

import pytest

from gastown_mail.contracts.atomic import _STALE_TEMP_SECONDS, write_atomically


def test_the_file_holds_the_bytes_with_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "a", b"one")
        write_atomically(tmp_path / "b", b"two", mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        write_atomically(tmp_path / "a", text)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failure_keeps_the_old_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a", b"one")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "a", b"one")


def test_files_of_a_killed_writer_are_removed_and_files_in_use_stay(tmp_path: Path) -> None:
    names = {"old": ".a.x.tmp", "young": ".a.y.tmp", "other": ".b.z.tmp"}
    for name in names.values():
        (tmp_path / name).touch()
    long_ago = time.time() - _STALE_TEMP_SECONDS - 5
    for which in ("old", "other"):
        os.utime(tmp_path / names[which], (long_ago, long_ago))
    write_atomically(tmp_path / "a", b"one")
    assert {path.name for path in tmp_path.iterdir()} == {"a", names["young"], names["other"]}


def test_a_reader_only_ever_sees_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = {letter * 50_000 for letter in (b"a", b"b")}
    write_atomically(path, b"a" * 50_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_atomically(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {path.read_bytes() for _ in range(500)}
    finally:
        stop.set()
        writer.join(timeout=60)
    assert seen <= contents
