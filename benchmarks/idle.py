"""What the daemon costs while nothing happens."""

import time
from pathlib import Path

import psutil

from benchmarks.figures import Figure, Goal, Samples
from benchmarks.town import BenchTown, running_daemon
from gastown_mail.plumbing.embedded import server_pid

NAME = "idle"
SECONDS, QUICK_SECONDS = 60.0, 20.0
SETTLE = 3.0
"""Seconds for the daemon to finish starting."""


def measure(bench: BenchTown) -> Figure:
    seconds = QUICK_SECONDS if bench.quick else SECONDS
    settings = bench.new_town(f'[daemon]\ntmux_socket = "{bench.folder}/tmux-idle"\n')
    with running_daemon(settings) as up:
        time.sleep(SETTLE)
        server = server_pid(settings.redis_dir)
        family = [up, *up.children(recursive=True), *([psutil.Process(server)] if server else [])]
        before, began = busy(family), time.monotonic()
        time.sleep(seconds)
        percent = 100 * (busy(family) - before) / (time.monotonic() - began)
        private, pss = memory(family)
    return Figure(
        NAME, f"the embedded server, scheduler, clerk and 2 + 1 workers, no agents, over {seconds:.0f} s",
        Samples.of([percent]), unit="%",
        goals=(
            Goal("CPU of one core", percent, 1, "<", unit="%"),
            Goal("unshared memory", private, 150, "<", unit="MB"),
        ),
        facts={"processes": len(family), "sum of PSS in MB": pss},
    )  # fmt: skip


def busy(family: list[psutil.Process]) -> float:
    """Return the seconds of CPU that these processes and their ended children have used."""
    times = [process.cpu_times() for process in family]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def memory(family: list[psutil.Process]) -> tuple[float, float]:
    """Return the megabytes of these processes alone, and the sum of their proportional shares."""
    sizes = [_rollup(process.pid) for process in family]
    private = sum(size["Private_Clean"] + size["Private_Dirty"] for size in sizes)
    return private / 1e6, sum(size["Pss"] for size in sizes) / 1e6


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) * 1024 for name, size in (line.split(":") for line in lines)}
