"""What this machine lacks: tests of it are skipped with the reason, or fail where it must be there."""

import os
import shutil
import sys
from pathlib import Path

import pytest

_EXPECTED_IN_CI = frozenset(("bash", "node", "zsh"))


def find(program: str) -> str:
    """The path of a program on the PATH or beside this Python, "" if it is in neither."""
    path = f"{os.environ.get('PATH', os.defpath)}:{Path(sys.executable).parent}"
    return shutil.which(program, path=path) or ""


def skip_without(*programs: str) -> None:
    """Skip the test unless these programs are installed; in CI fail for those that must be.

    `CI` is `true`, or names more programs that must be there.
    """
    missing = {name for name in programs if not find(name)}
    if not missing:
        return
    here = os.environ.get("CI", "").lower()
    if here and missing & (_EXPECTED_IN_CI | set(here.split())):
        pytest.fail(
            f"{', '.join(sorted(missing))}: not installed, and in CI nothing that needs it is skipped"
        )
    pytest.skip(f"{', '.join(sorted(missing))}: not installed, so what needs it was not run")
