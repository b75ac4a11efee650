"""Runs the tests with the real programs: `python -m tests.agents [PYTEST ARGUMENTS]`.

What is missing of the programs is installed first; the tests run in a network namespace with only `lo`. With
AGENTS_TABLE=docs/agents.md they write the table of that page.
"""

import subprocess
import sys
from pathlib import Path

from tests.agents import namespace
from tests.agents.install import install_missing

_ARGUMENTS = ["-n", "3", "--dist", "loadgroup", "-rs"]
_INSIDE = "inside"


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
    """Run pytest in here; end what the programs have left."""
    status = subprocess.run(
        [sys.executable, "-m", "pytest", str(Path(__file__).parent), *_ARGUMENTS, *arguments]
    ).returncode
    for left in namespace.end_others():
        print(f"ended after the tests: {left[:200]}")
    return status


if __name__ == "__main__":
    main()
