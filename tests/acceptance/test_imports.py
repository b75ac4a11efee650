"""Nothing is imported from the town's folder, an agent's folder, or the one where a command is run."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import MAX
from tests.support.daemon import Daemon, a_daemon
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(180)

COMMAND = Path(sys.executable).with_name("gastown-mail")
TRAP = 'raise SystemExit("imported from the wrong folder")\n'


def set_traps(folder: Path) -> None:
    """Put modules into the folder that must not be imported."""
    for name in ("redis", "secrets", "gastown_mail", "rq"):
        (folder / f"{name}.py").write_text(TRAP)
    for name in ("logging", "click"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(TRAP)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A town whose folder, and whose agent's, are full of such modules; its daemon does not run."""
    with a_daemon(quiet=True) as daemon:
        set_traps(daemon.root)
        set_traps(daemon.agent().work_dir)
        yield daemon


def command(daemon: Daemon, folder: Path, *words: str, **environ: str) -> str:
    """Run the command in this folder, which must succeed; return what it prints."""
    done = subprocess.run(
        [COMMAND, *words], cwd=folder, env={**daemon.environ, **environ}, capture_output=True, text=True,
        timeout=2 * DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_daemon_in_the_background(daemon: Daemon) -> None:
    command(daemon, daemon.root, "start")

    command(daemon, daemon.root, "run", MAX)
    words = ("send", "restart", "--agent", MAX)
    sent = command(daemon, daemon.agent().work_dir, *words, GASTOWN_TOWN=str(daemon.root))
    daemon.done(sent.strip())
    assert command(daemon, daemon.root, "stop") == "stopped\n"


@pytest.mark.parametrize("script", ["worker.py", "scheduler.py"])
def test_the_two_processes(daemon: Daemon, script: str) -> None:
    process = daemon.script(script, environ={"GASTOWN_TOWN": str(daemon.root)})

    eventually(lambda: daemon.serves_redis() or process.has_ended(), deadline=DEADLINE)

    assert not process.has_ended(), process.words()
    assert "imported" not in process.words()


def test_a_module_run_in_that_folder(daemon: Daemon) -> None:
    (daemon.root / "gastown_mail.py").unlink()

    assert daemon.command("status").returncode == 3
