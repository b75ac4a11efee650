"""The machine and the commit of a run."""

import os
import platform
import re
import subprocess
from pathlib import Path


def machine() -> dict[str, str | int]:
    """Return what determines the speed: the machine and the versions of programs."""
    return {
        "cores": os.cpu_count() or 0,
        "cpu": _cpu(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tmux": _output_of("tmux", "-V"),
        "commit": _output_of("git", "describe", "--always", "--dirty") or "unknown",
    }


def load() -> float:
    """Return the load of the last minute."""
    return round(os.getloadavg()[0], 2)


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _output_of(*words: str) -> str:
    """Return what a program prints, "" if it is missing or fails."""
    try:
        done = subprocess.run(
            words, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
