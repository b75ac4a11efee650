"""`python -m benchmarks` runs, leaves nothing behind and prints what it measured; speed is not tested."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.suite import MEASURES
from gastown_mail.sessions import process_table
from tests.support.daemon import REPOSITORY
from tests.support.processes import clean_environ
from tests.support.wait import DEADLINE, eventually

WORDS = [sys.executable, "-m", "benchmarks", "--quick", "--agents", "10"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets; no process of it may be left."""
    made = Path(tempfile.mkdtemp(prefix="gbt-"))
    yield made
    left = [pid for pid in process_table.pids() if str(made) in " ".join(process_table.arguments(pid))]
    assert (left, list(made.glob("gb-*"))) == ([], [])
    shutil.rmtree(made)


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run it with its folders in `folder`."""
    return subprocess.run(
        [*WORDS, *words], env=clean_environ(TMPDIR=str(folder)), cwd=REPOSITORY,
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


def test_it_prints_one_table_and_writes_one_document(folder: Path) -> None:
    file = folder / "run.json"
    done = run(folder, "--only", "cycle", "heartbeat", "send-warm", "--json", str(file))

    assert done.returncode == 0, done.stderr
    lines, document = done.stdout.splitlines(), json.loads(file.read_text())
    file.unlink()
    assert {
        "agents", "quick", "at", "took_s", "machine", "load_before", "load_after", "busy", "figures",
        "failures",
    } == document.keys()  # fmt: skip
    assert {"cores", "cpu", "memory_gb", "system", "python", "tmux", "commit"} == document["machine"].keys()
    assert document["failures"] == {}
    assert [figure["name"] for figure in document["figures"]] == ["heartbeat", "send-warm", "cycle"]
    for figure in document["figures"]:
        assert {"name", "what", "unit", "measured", "limits", "goals", "facts"} == figure.keys()
        assert {"n", "p50", "p95", "samples"} == figure["measured"].keys()
        assert all(
            {"what", "n", "p50", "p95", "samples", "ratio_p50", "ratio_p95"} == limit.keys()
            for limit in figure["limits"]
        )
        assert all({"goal", "value", "sign", "bound", "met"} == goal.keys() for goal in figure["goals"])
        assert [line for line in lines if line.startswith(f"{figure['name']} ")]


def test_the_document_goes_into_a_file(folder: Path) -> None:
    file = folder / "run.json"

    done = run(folder, "--only", "send-warm", "--json", str(file))

    assert json.loads(file.read_text())["figures"][0]["name"] == "send-warm"
    assert "{" not in done.stdout


def test_an_unknown_measure_is_named(folder: Path) -> None:
    done = run(folder, "--only", "nothing")

    assert done.returncode == 2
    assert all(name in done.stderr for name in MEASURES)


def test_a_machine_that_is_too_small_is_reported_plainly(folder: Path) -> None:
    done = run(folder, "--agents", "10000000")

    assert done.returncode == 1
    assert "choose fewer --agents" in done.stderr
    assert "Traceback" not in done.stderr


def test_after_ctrl_c_nothing_is_left(folder: Path) -> None:
    environ = clean_environ(TMPDIR=str(folder))
    with subprocess.Popen(
        [*WORDS, "--only", "cycle"],
        env=environ,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as running:
        eventually(lambda: list(folder.glob("gb-*/t*/daemon/daemon.pid")), deadline=DEADLINE)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=DEADLINE)

    assert running.returncode == 130
    assert b"Traceback" not in errors
