"""Runs the tests with the real programs: `python -m tests.agents [PYTEST ARGUMENTS]`.

What is missing of the programs is installed first; the tests run in a network namespace with only `lo`. With
AGENTS_TABLE=docs/agents.md they write the table of that page.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.agents import namespace
from tests.agents.install import install_missing

_ARGUMENTS = ["-n", "3", "--dist", "loadgroup", "-rs"]
_INSIDE = "inside"

_TESTS_FAILED = 1
"""The exit status of pytest when tests have failed, and nothing worse."""

_MOST_AGAIN = 8
"""How many failures may be due to programs that were too slow together; more are a fault."""


def main() -> None:
    """Install, then run; the exit status is that of pytest, or 0 where no namespace can be made."""
    if sys.argv[1:2] == [_INSIDE]:
        sys.exit(_run(sys.argv[2:]))
    if why := namespace.why_not():
        print(f"the real programs are not run: {why}")
        return
    missing = install_missing()
    words = [sys.executable, "-m", "tests.agents", _INSIDE, *sys.argv[1:]]
    status = subprocess.run(namespace.inside(words)).returncode
    for name, reason in missing.items():
        print(f"not installed: {name}: {reason}")
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run pytest in here, a few failures once more by themselves; end what the programs have left."""
    with tempfile.TemporaryDirectory() as folder:
        failed = Path(folder) / "failed"
        status = _pytest([str(Path(__file__).parent), *_ARGUMENTS, *arguments], failed)
        again = failed.read_text().splitlines() if failed.exists() else []
        if status == _TESTS_FAILED and len(again) <= _MOST_AGAIN and not os.environ.get("AGENTS_TABLE"):
            print(f"again, one at a time, on a machine that is less busy: {', '.join(again)}", flush=True)
            status = _pytest(again, failed)
    for left in namespace.end_others():
        print(f"ended after the tests: {left[:200]}")
    return status


def _pytest(arguments: list[str], failed: Path) -> int:
    """Run pytest; the ids of the tests that fail are in the file `failed` afterwards."""
    words = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(words, env={**os.environ, "AGENTS_FAILED": str(failed)}).returncode


if __name__ == "__main__":
    main()
