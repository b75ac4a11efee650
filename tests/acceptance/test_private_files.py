"""What only the town's owner may read or lock: `daemon/private/`."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gastown_mail.contracts.private import PRIVATE_FILES
from tests.support.agents import MAX, MAXINE
from tests.support.daemon import Daemon, a_daemon
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(180)

STRANGER = 65534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv (util-linux)"
)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with a_daemon(quiet=True) as daemon:
        yield daemon


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def without_rights(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as a user who has no right to what another user owns."""
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    return subprocess.run(
        [*prefix, *words], cwd=daemon.root, env=daemon.environ, capture_output=True, text=True,
        timeout=DEADLINE, check=False,
    )  # fmt: skip


def give_to_a_stranger(daemon: Daemon) -> None:
    for path in daemon.settings.daemon_dir.iterdir():
        if not path.is_symlink():
            os.chown(path, STRANGER, STRANGER)


def back_to_the_old_places(daemon: Daemon) -> None:
    """Lay the files out as versions before `private/` did."""
    folder = daemon.settings.daemon_dir
    for name in ("daemon.lock", "daemon.log"):
        (folder / name).unlink()
    for file in (folder / "private").iterdir():
        file.replace(folder / file.name)
    (folder / "private").rmdir()


def test_locks_log_and_identity_are_for_their_owner(daemon: Daemon) -> None:
    daemon.up()
    folder = daemon.settings.daemon_dir
    daemon.run(MAX)
    daemon.done(daemon.ask("cycle", handoff="next: merge"))

    assert {file.name for file in (folder / "private").iterdir()} <= set(PRIVATE_FILES)
    assert (mode(folder), mode(folder / "private"), mode(folder / "handoff")) == (0o755, 0o700, 0o700)
    assert (mode(folder / "state.json"), mode(folder / "daemon.pid")) == (0o644, 0o644)
    assert (folder / "daemon.log").read_text() == daemon.settings.log_file.read_text()


def test_the_old_places_are_taken_over(daemon: Daemon) -> None:
    daemon.up()
    before = daemon.run(MAX)
    daemon.command("pause", MAXINE)
    assert daemon.stop() == 0
    back_to_the_old_places(daemon)
    log = (daemon.settings.daemon_dir / "daemon.log").read_text()
    assert daemon.command("status").returncode == 3

    daemon.up()

    assert daemon.living(MAX) == before
    assert daemon.settings.log_file.read_text().startswith(log)
    assert {row["agent"]: row["desired"] for row in daemon.document("agents")}[MAXINE] == "paused"
    links = {path.name for path in daemon.settings.daemon_dir.iterdir() if path.is_symlink()}
    assert links == {"daemon.lock", "daemon.log"}


def test_a_daemon_of_an_earlier_version_keeps_its_places(daemon: Daemon) -> None:
    daemon.up()
    assert daemon.stop() == 0
    back_to_the_old_places(daemon)
    before = sorted(path.name for path in daemon.settings.daemon_dir.iterdir())
    with (daemon.settings.daemon_dir / "daemon.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        refused = daemon.command("start")

    assert refused.returncode == 4, refused.stderr
    assert "another daemon holds this town" in refused.stderr
    assert sorted(path.name for path in daemon.settings.daemon_dir.iterdir()) == before


@needs_root
def test_another_user_reads_the_state_and_locks_nothing(daemon: Daemon) -> None:
    daemon.up()
    give_to_a_stranger(daemon)
    folder = daemon.settings.daemon_dir

    state = without_rights(daemon, "cat", str(folder / "state.json"), str(folder / "daemon.pid"))
    locked = without_rights(daemon, "cat", str(folder / "daemon.lock"))

    assert state.stdout.endswith(f"{daemon.process.pid}\n")
    assert (locked.returncode, "Permission denied" in locked.stderr) == (1, True)


@needs_root
@pytest.mark.parametrize("words", [["status"], ["stop"], ["start"], ["logs"], ["doctor"]])
def test_a_command_of_another_user_says_whose_town_it_is(daemon: Daemon, words: list[str]) -> None:
    daemon.up()
    give_to_a_stranger(daemon)

    done = without_rights(daemon, sys.executable, "-m", "gastown_mail", *words)

    assert done.returncode in (1, 2), done
    assert "run this as the owner" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["handoff", "private", "redis"])
def test_a_link_in_place_of_a_folder_is_refused(daemon: Daemon, tmp_path: Path, name: str) -> None:
    daemon.up()
    assert daemon.stop() == 0
    folder = daemon.settings.daemon_dir / name
    if folder.exists():
        folder.rename(tmp_path / "away")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "gt-gastown-crew-max.md").write_text("theirs")
    folder.symlink_to(tmp_path / "theirs")
    if name == "handoff":
        daemon.up()
        daemon.run(MAX)
        request = daemon.ask("cycle", handoff="next: merge")

        eventually(lambda: "symbolic link" in daemon.detail(request), deadline=DEADLINE)
        folder.unlink()
        daemon.done(request)
    else:
        refused = daemon.command("start")

        assert refused.returncode != 0
        assert "symbolic link" in refused.stderr
    assert [file.name for file in (tmp_path / "theirs").iterdir()] == ["gt-gastown-crew-max.md"]
    assert (tmp_path / "theirs" / "gt-gastown-crew-max.md").read_text() == "theirs"
