"""Installs the programs of the table into the cache folder, in the versions of versions.toml."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PathDistribution
from pathlib import Path

from tests.agents.namespace import inside
from tests.agents.programs import CACHE

VERSIONS = Path(__file__).with_name("versions.toml")
_AT_ONCE = 3
DEADLINE = 240.0
"""Seconds for one program."""


def install_missing(names: Sequence[str] = ()) -> dict[str, str]:
    """Install what is not there in its version, of all programs or of these; return why some are missing."""
    programs = [
        (kind, name, wanted)
        for kind, table in tomllib.loads(VERSIONS.read_text()).items()
        for name, wanted in table.items()
        if not names or name in names
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reasons = pool.map(lambda program: _installed(*program), programs)
        return {name: why for (_, name, _), why in zip(programs, reasons, strict=True) if why}


def _installed(kind: str, name: str, wanted: dict[str, str]) -> str:
    """Have this version; return why it is not there, or nothing."""
    version, install = _HOW[kind]
    folder = CACHE / _FOLDERS[kind] / name
    if version(folder, wanted) == wanted["version"]:
        return ""
    print(f"installing {wanted['package']} {wanted['version']} into {folder}", flush=True)
    return _tried(install, folder, wanted)


def _tried(install: Callable[[Path, dict[str, str]], None], folder: Path, wanted: dict[str, str]) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        install(folder, wanted)
    except subprocess.TimeoutExpired:
        return f"not done within {DEADLINE:g} s"
    except subprocess.CalledProcessError as error:
        return str((error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1])
    except OSError as error:
        return str(error)
    return ""


def _npm(folder: Path, wanted: dict[str, str]) -> None:
    words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    _run([*words, "--prefix", str(folder), f"{wanted['package']}@{wanted['version']}"], folder)
    if script := wanted.get("script"):
        # such a script may run the program itself
        file = folder / "node_modules" / wanted["package"] / script
        _run(inside(["node", str(file)]), VERSIONS.parents[2])


def _pip(folder: Path, wanted: dict[str, str]) -> None:
    _run([sys.executable, "-m", "venv", str(folder)], folder)
    words = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*words, "--only-binary", ":all:", f"{wanted['package']}=={wanted['version']}"], folder)


def _run(words: list[str], folder: Path) -> None:
    subprocess.run(
        words,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )


def _npm_version(folder: Path, wanted: dict[str, str]) -> str:
    file = folder / "node_modules" / wanted["package"] / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else ""


def _pip_version(folder: Path, wanted: dict[str, str]) -> str:
    name = wanted["package"].replace("-", "_")
    found = next(folder.glob(f"lib/python3*/site-packages/{name}-*.dist-info"), None)
    return PathDistribution(found).version if found else ""


_HOW = {"npm": (_npm_version, _npm), "pip": (_pip_version, _pip)}
_FOLDERS = {"npm": "npm", "pip": "."}
