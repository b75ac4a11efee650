"""`gastown-mail` as users call it: its output and its exit codes."""

import json
import shutil
import signal

import pytest

from tests.support.agents import MAX, MAXINE, WITNESS
from tests.support.daemon import Daemon
from tests.support.town import identity
from tests.support.wait import DEADLINE, eventually

pytestmark = pytest.mark.timeout(300)


def one_sentence(stderr: str) -> str:
    """The error a user sees: one line, no traceback."""
    assert "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    return stderr


def test_start_stop_restart_and_status(daemon: Daemon) -> None:
    assert daemon.command("status").returncode == 3
    started = daemon.command("start")
    assert started.returncode == 0, started.stderr
    first = daemon.holder()
    assert first is not None
    assert str(first) in started.stdout
    healthy = daemon.command("status")
    assert healthy.returncode == 0, healthy.stdout

    assert daemon.command("start").returncode == 4
    assert daemon.holder() == first

    session = daemon.run(MAX)
    restarted = daemon.command("restart")
    assert restarted.returncode == 0, restarted.stderr
    second = daemon.holder()
    assert second not in (None, first)
    assert identity(daemon.living(MAX)) == identity(session)

    assert daemon.command("stop").returncode == 0
    assert daemon.command("stop").stdout == "no daemon is running\n"
    assert daemon.command("status").returncode == 3
    assert identity(daemon.living(MAX)) == identity(session)


def test_the_environment_of_whoever_starts_the_daemon_is_what_agents_may_get(daemon: Daemon) -> None:
    """The one who starts it is an agent here: what its own settings add is not passed on."""
    settings = (daemon.root / "town.toml").read_text()
    own = f'[agents."{MAX}"]\nenv_pass = ["SOLVER_*"]'
    (daemon.root / "town.toml").write_text(
        settings.replace(f'[agents."{MAX}"]', own) + '[agents."mayor/"]\nenv = { SOLVER_TOKEN = "mine" }\n'
    )
    shell = {"SOLVER_KEY": "k", "SOLVER_TOKEN": "mine", "GASTOWN_INCARNATION": "x", "GASTOWN_AGENT": "mayor/"}
    assert daemon.command("start", environ=shell).returncode == 0
    try:
        for address in (MAX, MAXINE):
            daemon.run(address)
        passed = [
            (daemon.work("env", address).read_bytes().count(b"SOLVER_KEY=k"), address)
            for address in (MAX, MAXINE)
        ]
        assert passed == [(1, MAX), (0, MAXINE)]
        assert b"SOLVER_TOKEN" not in daemon.work("env").read_bytes()
    finally:
        daemon.command("stop")


def test_status_distinguishes_a_killed_daemon_from_a_stopped_one(daemon: Daemon) -> None:
    up = daemon.up()

    up.stop(signal.SIGKILL)

    eventually(lambda: daemon.holder() is None, deadline=DEADLINE)
    degraded = daemon.command("status")
    assert degraded.returncode == 4
    assert "killed" in degraded.stdout
    assert daemon.command("restart").returncode == 0
    assert daemon.command("status").returncode == 0


def test_a_broken_town_toml_names_its_line_and_nothing_else_happens(daemon: Daemon) -> None:
    (daemon.root / "town.toml").write_text("[daemon]\nworkers = 2\nhartbeat_interval = 5\n")

    for command in ("up", "start", "status", "agents", "restart"):
        done = daemon.command(command)

        assert done.returncode == 2
        said = one_sentence(done.stderr)
        assert "town.toml, line 3" in said
        assert "heartbeat_interval" in said
    assert not (daemon.root / "daemon" / "redis").exists()
    assert not daemon.settings.lock_file.exists()


def test_without_tmux_nothing_is_started(daemon: Daemon) -> None:
    for command in ("up", "start"):
        done = daemon.command(command, environ={"PATH": "/nowhere"})

        assert done.returncode == 5
        assert "tmux" in one_sentence(done.stderr)
    assert not daemon.serves_redis()


def test_an_unreachable_redis_is_named(daemon: Daemon) -> None:
    nobody = {"GASTOWN_REDIS_URL": "redis://me:secret@127.0.0.1:1/0"}

    for words in (
        ("up",),
        ("agents",),
        ("requests",),
        ("inbox",),
        ("dead",),
        ("send", "restart", "--agent", MAX),
    ):
        done = daemon.command(*words, environ=nobody)

        assert done.returncode == 3, words
        said = one_sentence(done.stderr)
        assert "127.0.0.1:1" in said
        assert "secret" not in said
    assert daemon.holder() is None


def test_an_agent_that_is_not_in_the_town_is_named(daemon: Daemon) -> None:
    daemon.up()

    for words in (("poke", "gastown/crew/nobody"), ("run", "norig/witness"), ("attach", "who?")):
        done = daemon.command(*words)

        assert done.returncode == 1, words
        assert words[1] in one_sentence(done.stderr)


def test_an_operator_can_run_poke_and_send_and_see_the_outcome(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    eventually((daemon.root / "work" / "max" / "prompt").exists, deadline=DEADLINE)

    poked = daemon.command("poke", "gastown-crew-max", "look at #12")
    assert (poked.returncode, poked.stdout) == (0, f"{MAX}: delivered\n")
    lines = daemon.root / "work" / "max" / "lines"
    eventually(lambda: lines.exists() and lines.read_text() == "look at #12\n", deadline=DEADLINE)
    again = daemon.command("run", MAX)
    assert (again.returncode, again.stdout) == (0, f"{MAX}: runs already\n")

    sent = daemon.command(
        "send", "cycle", "--agent", "operator", "--to", MAX, "--handoff", "mine", "--wait", "30"
    )
    assert sent.returncode == 0, sent.stderr
    ident = sent.stdout.strip()
    [record] = daemon.document("requests", ident)
    assert (record["id"], record["status"], record["from"], record["to"]) == (ident, "done", "operator", MAX)
    late = daemon.command("send", "shutdown", "--agent", WITNESS, "--wait", "30")
    assert late.returncode == 1
    assert "superseded" in late.stderr


def test_every_json_is_one_document(daemon: Daemon) -> None:
    daemon.up()
    daemon.run(MAX)
    bad = daemon.ask("restart", "gastown/crew/nobody")
    eventually(lambda: daemon.status(bad) == "refused", deadline=DEADLINE)
    daemon.redis.rpush(daemon.town.keys.inbox, b"\xff not json")
    eventually(lambda: daemon.redis.zcard(daemon.town.keys.dead) == 2, deadline=DEADLINE)

    status = daemon.document("status")
    assert (status["town"], status["verdict"], status["mail"]["dead"]) == (
        daemon.settings.town_name,
        "running",
        2,
    )
    assert status["daemon"]["pid"] == daemon.holder()
    assert {row["agent"]: row["observed"] for row in daemon.document("agents")}[MAX] == "alive"
    assert daemon.document("requests") == []
    assert daemon.document("inbox") == {"waiting": 0, "oldest": []}
    dead = {row["id"]: row for row in daemon.document("dead")}
    assert dead[bad]["status"] == "refused"
    assert "nobody" in dead[bad]["detail"]
    for line in daemon.command("events", "--json", "-n", "5").stdout.splitlines():
        assert json.loads(line)["event"]


@pytest.mark.parametrize("words", [("frobnicate",), ("send", "explode"), ("status", "--nonsense")])
def test_a_usage_error_is_exit_2(daemon: Daemon, words: tuple[str, ...]) -> None:
    done = daemon.command(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_outside_a_town_the_command_says_how_to_make_one(daemon: Daemon) -> None:
    shutil.move(daemon.root / "town.toml", daemon.root / "elsewhere.toml")

    done = daemon.command("status")

    assert done.returncode == 2
    assert "gastown-mail init" in one_sentence(done.stderr)
    assert daemon.command("init").returncode == 0
    assert daemon.command("status").returncode == 3


def test_without_a_command_it_says_where_to_begin_and_a_similar_one_is_named(daemon: Daemon) -> None:
    bare, wrong = daemon.command(), daemon.command("strat")

    assert bare.returncode == 0
    assert "gastown-mail init mytown" in bare.stdout
    assert wrong.returncode == 2
    assert "Did you mean start?" in wrong.stderr
