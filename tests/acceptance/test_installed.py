"""The command as people install it for daily use: from a clone or a wheel, with uv or pipx."""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import REPOSITORY
from tests.support.machine import find, skip_without
from tests.support.wait import DEADLINE, eventually

INSTALL_DEADLINE = 300
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
TOWN = """
[agents."ann"]
command = "command -v gastown-mail >where; gastown-mail --version >part; mv part version; exec cat"
work_dir = "."
keep_running = true
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gm-home-") as folder:
        yield Path(folder)


def packaged(what: str, folder: Path) -> Path:
    """The clone itself, or a wheel of it."""
    if what == "clone":
        return REPOSITORY
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(REPOSITORY)]
    subprocess.run(words, check=True, timeout=INSTALL_DEADLINE, capture_output=True)
    return next(folder.glob("*.whl"))


def install(installer: str, package: Path, home: Path) -> Path:
    """Install the package for this home; return the command."""
    given = {
        "HOME": str(home), "UV_TOOL_DIR": f"{home}/uv", "UV_TOOL_BIN_DIR": f"{home}/bin",
        "PIPX_HOME": f"{home}/pipx", "PIPX_BIN_DIR": f"{home}/bin",
    }  # fmt: skip
    words = [find(installer), *(["tool"] if installer == "uv" else []), "install", str(package)]
    done = subprocess.run(
        words, env=os.environ | given, capture_output=True, text=True, timeout=INSTALL_DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return home / "bin" / "gastown-mail"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["clone", "wheel"])
@pytest.mark.parametrize("installer", ["uv", "pipx"])
def test_an_installed_command_serves_a_town_and_its_agents_find_it(
    installer: str, what: str, home: Path
) -> None:
    skip_without(installer)
    command, town = install(installer, packaged(what, home), home), home / "town"
    town.mkdir()
    (town / "town.toml").write_text(TOWN)
    environ = {"HOME": str(home), "PATH": "/usr/bin:/bin", "TMUX_TMPDIR": str(home)}

    def gastown_mail(*words: str) -> str:
        argv = [str(command), "--town", str(town), *words]
        return subprocess.run(
            argv, env=environ, capture_output=True, text=True, timeout=DEADLINE, check=True
        ).stdout

    assert VERSION in gastown_mail("--version")
    gastown_mail("start")
    try:
        eventually((town / "version").exists, deadline=DEADLINE)
        assert VERSION in (town / "version").read_text()
        assert Path((town / "where").read_text().strip()).name == "gastown-mail"
    finally:
        gastown_mail("send", "shutdown", "--to", "ann", "--wait", "30")
        gastown_mail("stop")
