"""On what machine, and of what commit, a run was."""

import os
import platform
import re
import subprocess
from pathlib import Path


def machine() -> dict[str, str | int]:
    """The machine and the programs, as far as they decide about speed."""
    return {
        "cores": os.cpu_count() or 0,
        "cpu": _cpu(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tmux": _said("tmux", "-V"),
        "commit": _said("git", "describe", "--always", "--dirty") or "unknown",
    }


def load() -> float:
    """The load of the last minute: what else the machine was doing."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _said(*words: str) -> str:
    """What a program prints, "" when there is no such program or it fails."""
    try:
        done = subprocess.run(
            words, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
