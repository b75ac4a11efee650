"""`doctor` names what is wrong with a town, each finding with its remedy."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from gastown_mail.contracts.identity import load_identity
from gastown_mail.contracts.settings import load_settings
from tests.support.agents import MAX
from tests.support.daemon import Daemon
from tests.support.processes import stopped
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)


def _findings(daemon: Daemon, **environ: str) -> tuple[int, dict[str, str]]:
    done = daemon.command("doctor", "--json", environ=environ)
    findings: dict[str, str] = {}
    for one in json.loads(done.stdout)["findings"]:
        findings[one["check"]] = "\n".join(filter(None, (findings.get(one["check"]), one["finding"])))
    return done.returncode, findings


def _seen(daemon: Daemon) -> list[str]:
    """Return the line of each check."""
    verdict, headings, *lines = daemon.command("doctor").stdout.splitlines()
    assert verdict.startswith(f"{daemon.settings.town_name}: ")
    assert headings.split() == ["CHECK", "RESULT"]
    return lines


ALL = {
    "folder", "agents", "programs", "tmux", "redis", "clock", "hosts", "tmux socket", "tmux server",
    "daemon", "stopping",
}  # fmt: skip


def test_a_healthy_town_has_no_finding(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    eventually(lambda: daemon.state().heartbeat_count > 0)

    assert _findings(daemon) == (0, {})
    seen = _seen(daemon)
    assert {line.split("  ")[1].strip() for line in seen} == ALL
    for text in (
        "answers", "append-only file on, eviction policy noeviction", "agree to 0.0 s", "MB are free",
        f"pid {daemon.holder()} holds the town", "agents of this host that can be started: 3",
        "the shells of all programs find and run gastown-mail",
        f"workers alive on {daemon.settings.host}: 2 lifecycle, 1 heartbeat",
        "1 sessions, 1 of them managed",
        "the heartbeat is on the schedule, every 2s", "the sweep is on the schedule, every 1s",
    ):  # fmt: skip
        assert text in "\n".join(seen)


def test_missing_parts_are_named_with_a_remedy(daemon: Daemon) -> None:
    (daemon.root / "town.toml").write_text('[roles.deacon]\ncommand = "no-such-program"\n')
    (daemon.root / "deacon").mkdir()

    code, findings = _findings(daemon)

    assert code == 6
    assert "'no-such-program' is not on the PATH; install it" in findings["agents"]
    assert "it starts with the daemon: gastown-mail up or start" in findings["redis"]
    assert findings["daemon"] == "the daemon does not run: gastown-mail up or start runs it"
    assert {"?   clock        Redis does not answer"} <= set(_seen(daemon))
    assert "Redis does not answer: the town's own server does not run" in findings["redis"]


def test_a_dead_worker_is_not_counted_though_redis_still_lists_it(daemon: Daemon) -> None:
    up = daemon.up()
    children = eventually(lambda: found if len(found := daemon.children()) == 5 else None)
    assert children is not None
    with stopped(up.pid):
        for name in ("lifecycle-1", "lifecycle-2"):
            os.kill(children[name], signal.SIGKILL)

        _, findings = _findings(daemon)

    assert f"no lifecycle worker on {daemon.settings.host}: gastown-mail logs says why" in findings["daemon"]
    assert "gastown-mail restart" in findings["daemon"]


def test_a_tmux_other_than_the_servers_is_named(daemon: Daemon, tmp_path: Path) -> None:
    daemon.up()
    daemon.run(MAX)
    other = tmp_path / "tmux"
    other.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && echo "tmux 3.9" && exit\nexec {shutil.which("tmux")} "$@"\n'
    )
    other.chmod(0o755)

    code, findings = _findings(daemon, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert code == 6
    assert "the client is tmux 3.9; use the same version for both" in findings["tmux server"]


def test_the_socket_is_the_one_in_use_whatever_tmux_tmpdir_says(daemon: Daemon, tmp_path: Path) -> None:
    daemon.up()
    daemon.run(MAX)
    used = daemon.command("doctor").stdout

    elsewhere = daemon.command("doctor", environ={"TMUX_TMPDIR": str(tmp_path)}).stdout

    socket = load_identity(daemon.settings.daemon_dir).tmux_socket
    assert f"{socket}, user {os.getuid()}" in used
    assert f"{socket}, user {os.getuid()}" in elsewhere


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket to another user")
def test_a_socket_of_another_user_is_named(daemon: Daemon) -> None:
    socket = daemon.root / "tmux.sock"
    (daemon.root / "town.toml").write_text(f'[daemon]\ntmux_socket = "{socket}"\n')
    assert load_settings(daemon.root, environ={}).tmux_socket == str(socket)
    daemon.up()
    socket.touch()
    os.chown(socket, 12345, 12345)

    code, findings = _findings(daemon)

    assert code == 6
    assert f"{socket} belongs to user 12345, and this is user 0" in findings["tmux socket"]


def test_agents_with_the_same_fault_are_named_together(daemon: Daemon) -> None:
    crew = "".join(f'[agents."gastown/crew/{name}"]\n' for name in "abcde")
    (daemon.root / "town.toml").write_text(
        f'[roles.crew]\ncommand = "no-such-program"\nwork_dir = "."\n{crew}'
        '[agents."gastown/witness"]\nhost = "elsewhere"\n'
    )

    _, findings = _findings(daemon)

    assert findings["agents"] == (
        "gastown/crew/a, gastown/crew/b, gastown/crew/c and 2 more cannot be started: "
        "the command 'no-such-program' is not on the PATH; install it, or set command"
    )
    assert "?   agents       agents that live on other hosts: 1; run doctor there too" in _seen(daemon)


def test_commands_are_searched_on_the_daemons_path_not_on_that_of_whoever_asks(
    daemon: Daemon, tmp_path: Path
) -> None:
    program = tmp_path / "tools" / "solve"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncat\n")
    program.chmod(0o755)
    (daemon.root / "town.toml").write_text('[agents."solver"]\ncommand = "solve"\n')
    own = daemon.environ["PATH"]
    daemon.environ["PATH"] = f"{program.parent}:{own}"
    daemon.up()

    assert _findings(daemon, PATH=own) == (0, {})
    shown = daemon.command("explain", "solver", environ={"PATH": own}).stdout
    assert "is not on the PATH" not in shown
    daemon.stop()
    assert "'solve' is not on the PATH" in _findings(daemon, PATH=own)[1]["agents"]


def test_colliding_sessions_are_a_finding_and_stop_no_other_check(daemon: Daemon) -> None:
    (daemon.root / "town.toml").write_text(
        '[agents."a/crew/b"]\nsession = "same"\n[agents."a/crew/c"]\nsession = "same"\n'
    )

    code, findings = _findings(daemon)

    assert code == 6
    assert (
        "the session same would be that of a/crew/b and of a/crew/c: give one of them" in findings["agents"]
    )
    assert len({line.split("  ")[1].strip() for line in _seen(daemon)}) == len(ALL)


def test_a_killed_daemon_and_a_tmux_that_does_not_answer_are_named(daemon: Daemon) -> None:
    up = daemon.up()
    daemon.run(MAX)
    up.stop(signal.SIGKILL)
    eventually(lambda: daemon.holder() is None, deadline=DEADLINE)
    server = daemon.tmux_pid()
    os.kill(server, signal.SIGSTOP)
    try:
        code, findings = _findings(daemon)
    finally:
        os.kill(server, signal.SIGCONT)

    assert code == 6
    assert "tmux did not answer within 1.5 s" in findings["tmux server"]
    assert "kill -CONT" in findings["tmux server"]
    assert "no daemon holds the town: it was killed, or runs elsewhere" in findings["daemon"]


def test_a_redis_that_may_lose_requests_is_named(daemon: Daemon) -> None:
    daemon.up()
    daemon.redis.config_set("appendonly", "no")
    daemon.redis.config_set("maxmemory-policy", "allkeys-lru")

    code, findings = _findings(daemon)

    assert code == 6
    assert "set appendonly yes" in findings["redis"]
    assert "set maxmemory-policy noeviction" in findings["redis"]


def test_a_socket_folder_that_is_open_to_others_is_named(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    folder = Path(os.environ["TMUX_TMPDIR"]) / f"tmux-{os.getuid()}"
    folder.chmod(0o750)
    try:
        _, findings = _findings(daemon)
    finally:
        folder.chmod(0o700)

    assert findings["tmux socket"] == f"{folder} is open to others (mode 0750); chmod 700 {folder}"


def test_a_broken_state_file_is_named(daemon: Daemon) -> None:
    daemon.settings.daemon_dir.mkdir(exist_ok=True)
    (daemon.settings.daemon_dir / "state.json").write_text("{broken")

    code, findings = _findings(daemon)

    assert code == 6
    assert "state.json" in findings["folder"]
