"""`gastown-mail` as its users call it: what it says, and with which exit code it ends."""

import json
import shutil
import signal

import pytest

from tests.acceptance.daemons import DEADLINE, Place
from tests.integration.stage import MAX, WITNESS, identity
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


def one_sentence(stderr: str) -> str:
    """The error a user sees: one line, no traceback."""
    assert "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    return stderr


def test_start_stop_restart_and_status(place: Place) -> None:
    assert place.command("status").returncode == 3
    started = place.command("start")
    assert started.returncode == 0, started.stderr
    first = place.holder()
    assert first is not None
    assert str(first) in started.stdout
    healthy = place.command("status")
    assert healthy.returncode == 0, healthy.stdout

    assert place.command("start").returncode == 4
    assert place.holder() == first

    session = place.run(MAX)
    restarted = place.command("restart")
    assert restarted.returncode == 0, restarted.stderr
    second = place.holder()
    assert second not in (None, first)
    assert identity(place.living(MAX)) == identity(session)

    assert place.command("stop").returncode == 0
    assert place.command("stop").stdout == "no daemon is running\n"
    assert place.command("status").returncode == 3
    assert identity(place.living(MAX)) == identity(session)


def test_a_daemon_that_was_killed_is_told_from_one_that_was_stopped(place: Place) -> None:
    up = place.up()

    up.stop(signal.SIGKILL)

    eventually(lambda: place.holder() is None, deadline=DEADLINE)
    degraded = place.command("status")
    assert degraded.returncode == 4
    assert "killed" in degraded.stdout
    assert place.command("restart").returncode == 0
    assert place.command("status").returncode == 0


def test_a_broken_town_toml_names_its_line_and_nothing_else_happens(place: Place) -> None:
    (place.root / "town.toml").write_text("[daemon]\nworkers = 2\nhartbeat_interval = 5\n")

    for command in ("up", "start", "status", "agents", "restart"):
        done = place.command(command)

        assert done.returncode == 2
        said = one_sentence(done.stderr)
        assert "town.toml, line 3" in said
        assert "heartbeat_interval" in said
    assert not (place.root / "daemon" / "redis").exists()
    assert not (place.root / "daemon" / "daemon.lock").exists()


def test_without_tmux_nothing_is_begun(place: Place) -> None:
    for command in ("up", "start"):
        done = place.command(command, environ={"PATH": "/nowhere"})

        assert done.returncode == 5
        assert "tmux" in one_sentence(done.stderr)
    assert not place.serves_redis()


def test_a_redis_that_nobody_serves_is_named(place: Place) -> None:
    nobody = {"GASTOWN_REDIS_URL": "redis://me:secret@127.0.0.1:1/0"}

    for words in (
        ("up",),
        ("agents",),
        ("requests",),
        ("inbox",),
        ("dead",),
        ("send", "restart", "--agent", MAX),
    ):
        done = place.command(*words, environ=nobody)

        assert done.returncode == 3, words
        said = one_sentence(done.stderr)
        assert "127.0.0.1:1" in said
        assert "secret" not in said
    assert place.holder() is None


def test_an_agent_that_the_town_does_not_have_is_named(place: Place) -> None:
    place.up()

    for words in (("poke", "gastown/crew/nobody"), ("run", "norig/witness"), ("attach", "who?")):
        done = place.command(*words)

        assert done.returncode == 1, words
        assert words[1] in one_sentence(done.stderr)


def test_an_operator_can_run_poke_and_send_and_see_what_became_of_it(place: Place) -> None:
    place.up()
    place.run(MAX)
    eventually((place.root / "work" / "max" / "prompt").exists, deadline=DEADLINE)

    poked = place.command("poke", "gastown-crew-max", "look at #12")
    assert (poked.returncode, poked.stdout) == (0, f"{MAX}: delivered\n")
    lines = place.root / "work" / "max" / "lines"
    eventually(lambda: lines.exists() and lines.read_text() == "look at #12\n", deadline=DEADLINE)
    again = place.command("run", MAX)
    assert (again.returncode, again.stdout) == (0, f"{MAX}: runs already\n")

    sent = place.command(
        "send", "cycle", "--agent", "operator", "--to", MAX, "--handoff", "mine", "--wait", "30"
    )
    assert sent.returncode == 0, sent.stderr
    ident = sent.stdout.strip()
    [record] = place.document("requests", ident)
    assert (record["id"], record["status"], record["from"], record["to"]) == (ident, "done", "operator", MAX)
    late = place.command("send", "shutdown", "--agent", WITNESS, "--wait", "30")
    assert late.returncode == 1
    assert "superseded" in late.stderr


def test_every_json_is_one_document(place: Place) -> None:
    place.up()
    place.run(MAX)
    bad = place.ask("gastown/crew/nobody", "restart")
    eventually(lambda: place.status(bad) == "refused", deadline=DEADLINE)
    place.redis.rpush(place.town.keys.inbox, b"\xff not json")
    eventually(lambda: place.redis.zcard(place.town.keys.dead) == 2, deadline=DEADLINE)

    status = place.document("status")
    assert (status["town"], status["verdict"], status["mail"]["dead"]) == (
        place.settings.town_name,
        "running",
        2,
    )
    assert status["daemon"]["pid"] == place.holder()
    assert {row["agent"]: row["observed"] for row in place.document("agents")}[MAX] == "alive"
    assert place.document("requests") == []
    assert place.document("inbox") == {"waiting": 0, "oldest": []}
    dead = {row["id"]: row for row in place.document("dead")}
    assert dead[bad]["status"] == "refused"
    assert "nobody" in dead[bad]["detail"]
    for line in place.command("events", "--json", "-n", "5").stdout.splitlines():
        assert json.loads(line)["event"]


@pytest.mark.parametrize("words", [("frobnicate",), ("send", "explode"), ("status", "--nonsense")])
def test_a_usage_error_is_exit_2(place: Place, words: tuple[str, ...]) -> None:
    done = place.command(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_outside_of_a_town_the_command_says_how_to_make_one(place: Place) -> None:
    shutil.move(place.root / "town.toml", place.root / "elsewhere.toml")

    done = place.command("status")

    assert done.returncode == 2
    assert "gastown-mail init" in one_sentence(done.stderr)
    assert place.command("init").returncode == 0
    assert place.command("status").returncode == 3
