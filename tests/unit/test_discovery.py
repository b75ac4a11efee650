"""The fingerprint of a town's folders, which tells whether its roster may have changed."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gastown_mail.town.discovery import fingerprint
from tests.unit.test_roster import make

LATER = 60.0
"""Seconds after the last change, when the folder counts as settled."""


def signs_of(root: Path) -> tuple[object, ...] | None:
    return fingerprint(root, time.time() + LATER)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "town.toml").write_text("[daemon]\nworkers = 3\n"),
        lambda root: (root / "mayor").mkdir(),
        lambda root: (root / "rig" / "crew" / "new").mkdir(),
        lambda root: (root / "rig" / "crew" / "max").rmdir(),
        lambda root: (root / "rig" / "polecats").mkdir(),
        lambda root: (root / "rig" / "witness").mkdir(),
        lambda root: (root / "other" / ".beads").mkdir(),
        lambda root: (root / "other").rename(root / "another"),
    ],
    ids=range(8),
)
def test_all_that_changes_the_roster_changes_its_fingerprint(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    root = make(tmp_path, "rig/.beads", "rig/crew/max", "other")
    before = signs_of(root)
    assert before == signs_of(root)
    assert before is not None

    change(root)

    assert signs_of(root) != before


def test_a_folder_that_has_just_changed_has_no_fingerprint_yet(tmp_path: Path) -> None:
    root = make(tmp_path, "rig/.beads")

    assert fingerprint(root, time.time()) is None


def test_the_daemons_own_files_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    root = make(tmp_path, "rig/.beads", "daemon")
    before = signs_of(root)

    (root / "daemon" / "state.json").touch()

    assert signs_of(root) == before
