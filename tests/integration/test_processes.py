"""Processes of one incarnation: all of them are found and ended, and no others."""

import os
import resource
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gastown_mail.contracts.errors import StateUnknown
from gastown_mail.sessions import process_table, processes
from gastown_mail.sessions.process_table import Process, ProcessTable
from gastown_mail.sessions.shared_daemons import SharedDaemons
from tests.support.wait import eventually

Children = list["subprocess.Popen[bytes]"]


@pytest.fixture
def token() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def children() -> Iterator[Children]:
    started: Children = []
    yield started
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()


def spawn(children: Children, token: str | None, *argv: str) -> Process:
    environ = {**os.environ, **({"GASTOWN_INCARNATION": token} if token else {})}
    child = subprocess.Popen(argv or ("sleep", "600"), env=environ)
    children.append(child)
    process = eventually(lambda: processes.child_of(os.getpid(), child.pid))
    assert process is not None
    if token:
        eventually(lambda: process in processes.with_incarnation(token))
    return process


def test_only_processes_with_exactly_this_token_are_found(children: Children, token: str) -> None:
    carrier = spawn(children, token)
    spawn(children, token + "x")
    spawn(children, "x" + token)
    spawn(children, None)

    assert processes.with_incarnation(token) == {carrier}


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError, match="empty token"):
        processes.with_incarnation("")


def test_a_zombie_is_not_alive(children: Children, token: str) -> None:
    process = spawn(children, token)
    os.kill(process.pid, signal.SIGKILL)

    eventually(lambda: not processes.alive(process))
    assert processes.with_incarnation(token) == set()
    assert processes.descendants([process]) == set()


@pytest.mark.skipif(not process_table.LINUX, reason="only /proc shows it")
def test_a_child_that_ended_unnoticed_is_seen(children: Children, token: str) -> None:
    process = spawn(children, token)
    assert not process_table.is_zombie(process.pid, os.getpid())
    os.kill(process.pid, signal.SIGKILL)

    eventually(lambda: process_table.is_zombie(process.pid, os.getpid()))
    assert not process_table.is_zombie(process.pid, os.getppid())
    assert not process_table.is_zombie(0, os.getpid())


def words_below(root: Process) -> list[list[str]]:
    return [words for one in processes.descendants([root]) if (words := process_table.arguments(one.pid))]


def test_descendants_without_the_token_are_found_except_an_excluded_branch(
    children: Children, token: str
) -> None:
    root = spawn(children, None, "sh", "-c", "sleep 600 & env -i sh -c 'sleep 601; :' & wait")
    # a child that was only forked still has its parent's words
    eventually(lambda: [words[0] for words in words_below(root)].count("sleep") == 2)
    found = processes.descendants([root])
    (inner,) = [one for one in found if process_table.arguments(one.pid)[:2] == ["sh", "-c"] and one != root]

    assert len(processes.descendants([root], exclude=[inner.pid])) == 2
    assert processes.descendants([root], exclude=[root.pid]) == set()
    assert processes.terminate_all(lambda: {root}, grace=1.0) == set()
    assert not any(processes.alive(one) for one in found)


def test_a_pid_with_another_start_time_is_another_process(children: Children, token: str) -> None:
    process = spawn(children, token)
    stranger = Process(process.pid, process.started - 1)

    processes.send_signal([stranger], signal.SIGKILL)

    assert not processes.alive(stranger)
    assert processes.descendants([stranger]) == set()
    assert processes.wait_ended([stranger], timeout=5.0) == set()
    assert processes.alive(process)
    assert processes.child_of(os.getpid(), process.pid) == process
    assert processes.child_of(1, process.pid) is None
    assert processes.child_of(os.getppid(), 0) is None


def test_processes_end_without_pidfds_too(
    children: Children, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = spawn(children, token)
    processes.send_signal([Process(process.pid, process.started - 1)], signal.SIGKILL)
    assert processes.wait_ended([process], timeout=0.05) == {process}

    assert processes.terminate_all(lambda: processes.with_incarnation(token), grace=5.0) == set()
    assert not processes.alive(process)


def test_a_process_that_ends_on_sigterm_does_not_use_up_the_grace(children: Children, token: str) -> None:
    spawn(children, token)
    begun = time.monotonic()

    assert processes.terminate_all(lambda: processes.with_incarnation(token), grace=80.0) == set()
    assert time.monotonic() - begun < 60


HUP_AND_TERM = 0x4001


def _ignored(status: str) -> int:
    """Return the mask of ignored signals; the tests' parent may ignore others too (make does)."""
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:"))


def test_a_process_that_ignores_signals_gets_the_grace_and_is_then_killed(
    children: Children, token: str
) -> None:
    stubborn = spawn(children, token, "sh", "-c", "trap '' TERM HUP; while :; do sleep 0.05; done")
    status = Path(f"/proc/{stubborn.pid}/status")
    eventually(lambda: _ignored(status.read_text()) & HUP_AND_TERM == HUP_AND_TERM)
    begun = time.monotonic()
    order: list[bool] = []

    left = processes.terminate_all(
        lambda: processes.with_incarnation(token),
        grace=0.4,
        before_kill=lambda: order.append(processes.alive(stubborn)),
    )

    assert left == set()
    assert order == [True]
    assert time.monotonic() - begun >= 0.4
    assert not processes.alive(stubborn)


def test_a_process_started_while_others_end_ends_too(children: Children, token: str) -> None:
    saver = "trap 'setsid sleep 600 & exit 0' TERM; while :; do sleep 0.05; done"
    spawn(children, token, "sh", "-c", saver)

    assert processes.terminate_all(lambda: processes.with_incarnation(token), grace=2.0) == set()
    assert processes.with_incarnation(token) == set()


def test_this_process_its_ancestors_and_excluded_ones_are_never_signalled(
    children: Children, token: str
) -> None:
    spared = spawn(children, token)
    ended = spawn(children, token)
    own = {row for pid in (os.getpid(), os.getppid()) if (row := process_table.read_process(pid))}
    assert {0, 1, os.getpid(), os.getppid()} <= processes._never_signalled()

    left = processes.terminate_all(lambda: own | {spared, ended}, grace=5.0, exclude=[spared.pid])

    assert left == set()
    assert processes.alive(spared)
    assert not processes.alive(ended)


def test_an_ancestor_with_the_token_and_the_ending_process_live(token: str) -> None:
    program = (
        "import sys; from gastown_mail.sessions import processes as p;"
        f"left = p.terminate_all(lambda: p.with_incarnation({token!r}), grace=1.0);"
        "print(len(left), flush=True)"
    )
    shell = f'sleep 600 & {sys.executable} -c "{program}"; echo lived'
    done = subprocess.run(
        ["sh", "-c", shell],
        env={**os.environ, "GASTOWN_INCARNATION": token},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.stdout == "0\nlived\n"
    assert processes.with_incarnation(token) == set()


def test_survivors_are_named() -> None:
    row = process_table.read_process(os.getpid())
    assert row is not None
    assert str(os.getpid()) in processes.describe([row])


def test_psutil_gives_the_same_answers_as_procfs(
    children: Children, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = spawn(children, token, "sleep", "600.5")
    has_terminal = process_table.has_terminal(process.pid)
    monkeypatch.setattr(process_table, "LINUX", False)

    (found,) = processes.with_incarnation(token)
    assert found.pid == process.pid
    assert processes.alive(found)
    assert not processes.alive(Process(found.pid, found.started - 1))
    assert process_table.arguments(found.pid) == ["sleep", "600.5"]
    assert process_table.has_terminal(found.pid) == has_terminal
    assert (found.parent, found.group, found.session) == (process.parent, process.group, process.session)
    assert processes.child_of(os.getpid(), found.pid) == found
    assert processes.terminate_all(lambda: processes.with_incarnation(token), grace=5.0) == set()


FORKS = """
import os, signal
if forked := os.fork():
    print(forked, flush=True)
signal.pause()
"""


def test_a_process_just_forked_by_a_server_is_not_signalled_before_its_exec() -> None:
    with subprocess.Popen([sys.executable, "-c", FORKS], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        forked = process_table.read_process(int(server.stdout.readline()))
        assert forked is not None
        unborn = {forked}
        try:
            assert processes.terminate_all(lambda: unborn, grace=0.2, exclude={server.pid}) == set()

            assert processes.alive(forked)
        finally:
            processes.send_signal(unborn, signal.SIGKILL)
            server.kill()


@pytest.mark.skipif(not process_table.LINUX, reason="only there a look takes a descriptor")
def test_a_process_that_cannot_be_read_for_lack_of_descriptors_is_not_dead(children: Children) -> None:
    process = spawn(children, None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(StateUnknown, match="unknown whether the process lives"):
            processes.alive(process)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


BLANKS = """
import ctypes, os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
print(os.getpid(), flush=True)
sys.stdin.read(1)
with open("/proc/self/stat") as file:
    start, end = map(int, file.read().rpartition(")")[2].split()[47:49])
ctypes.memset(start, 0, end - start)
print("blank", flush=True)
signal.pause()
"""


@pytest.mark.skipif(not process_table.LINUX, reason="only /proc shows it")
def test_what_wrote_over_its_environment_after_it_was_seen_ends_too(children: Children, token: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", BLANKS], env={**os.environ, "GASTOWN_INCARNATION": token},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    children.append(child)
    assert child.stdin
    assert child.stdout
    process = process_table.read_process(int(child.stdout.readline()))
    assert process
    assert processes.with_incarnation(token) == {process}
    child.stdin.write(b"x")
    child.stdin.flush()
    assert child.stdout.readline() == b"blank\n"
    assert token.encode() not in process_table.environment(process.pid)

    assert processes.terminate_all(lambda: processes.with_incarnation(token), grace=1.0) == set()

    assert not processes.alive(process)


def test_a_program_that_was_begun_with_another_environment_has_no_incarnation(
    children: Children, token: str
) -> None:
    shell = "read -r _; exec env -i sleep 600"
    child = subprocess.Popen(
        ["sh", "-c", shell], env={**os.environ, "GASTOWN_INCARNATION": token}, stdin=subprocess.PIPE
    )
    children.append(child)
    assert child.stdin
    eventually(lambda: {one.pid for one in processes.with_incarnation(token)} == {child.pid})
    child.stdin.write(b"\n")
    child.stdin.flush()

    eventually(lambda: process_table.arguments(child.pid)[:1] == ["sleep"])
    assert processes.with_incarnation(token) == set()


def test_a_daemon_of_the_list_that_got_a_signal_before_it_detached_is_not_spared(
    children: Children, token: str, tmp_path: Path
) -> None:
    stubborn = "trap '' TERM HUP; while :; do sleep 0.05; done"
    (tmp_path / "dockerd").symlink_to("/bin/bash")
    line = shlex.join([str(tmp_path / "dockerd"), "-c", stubborn])
    shell = subprocess.Popen(
        ["sh", "-c", f"{line} & wait"], env={**os.environ, "GASTOWN_INCARNATION": token},
        start_new_session=True,
    )  # fmt: skip
    children.append(shell)
    eventually(
        lambda: any(
            stubborn in process_table.arguments(p.pid) and p.pid != shell.pid
            for p in processes.with_incarnation(token)
        )
    )
    spare = SharedDaemons(["dockerd"])

    left = processes.terminate_all(lambda: processes.with_incarnation(token), grace=0.3, spare=spare)

    assert left == set()
    assert str(spare) == ""
    assert processes.with_incarnation(token) == set()


def test_a_failed_scan_is_not_cached(children: Children, token: str) -> None:
    table = ProcessTable()
    before = table.snapshot()
    process = spawn(children, token)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    since = time.monotonic()
    try:
        with pytest.raises((OSError, StateUnknown)):
            table.snapshot()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert process not in before
    assert process in table.snapshot(since)
