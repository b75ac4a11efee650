"""Nothing is imported from the town's folder, an agent's folder, or the one where a command is run."""

from pathlib import Path

import pytest

from tests.support.agents import MAX
from tests.support.daemon import Daemon, a_daemon

pytestmark = pytest.mark.timeout(180)

TRAP = 'raise SystemExit("imported from the wrong folder")\n'


def set_traps(folder: Path) -> None:
    """Put modules into the folder that must not be imported."""
    for name in ("redis", "secrets", "gastown_mail", "rq"):
        (folder / f"{name}.py").write_text(TRAP)
    for name in ("logging", "click"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(TRAP)


def test_a_daemon_in_the_background_and_its_commands(daemon_with_traps: Daemon) -> None:
    daemon = daemon_with_traps

    started = daemon.command("start")

    assert started.returncode == 0, started.stderr
    assert daemon.command("run", MAX).returncode == 0
    assert daemon.outcome(daemon.ask("restart")) == "done"
    assert daemon.command("stop").returncode == 0


@pytest.mark.parametrize("script", ["worker.py", "scheduler.py"])
def test_the_two_processes(daemon_with_traps: Daemon, script: str) -> None:
    daemon = daemon_with_traps
    daemon.command("start")

    process = daemon.script(script, environ={"GASTOWN_TOWN": str(daemon.root)})

    assert "imported" not in process.words()
    assert not process.has_ended()


@pytest.fixture
def daemon_with_traps():  # type: ignore[no-untyped-def]
    """A town whose folder is full of modules that must not be imported."""
    with a_daemon(quiet=True) as daemon:
        set_traps(daemon.root)
        set_traps(daemon.agent().work_dir)
        yield daemon
