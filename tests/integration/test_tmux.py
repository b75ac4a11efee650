"""A real tmux server: its answers, the meaning of its silence, and words that reach it unchanged."""

import os
import secrets
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gastown_mail.contracts.errors import StateUnknown, TmuxMissing
from gastown_mail.sessions import commands, process_table
from gastown_mail.sessions.session import Sessions
from gastown_mail.sessions.tmux import NoServer, TargetNotFound, Tmux
from tests.integration.tmux_world import TmuxWorld
from tests.support.wait import eventually

NASTY = (
    "~a; b 'c' \"d\" $HOME ${HOME} #{pid} #(reboot) ##[x] \\ \\n {e} %if -f é🙂\t\x01\n  # no comment\nend;"
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def server_pid(world: TmuxWorld) -> int:
    return int(world.tmux.run("display-message", "-p", "#{pid}"))


def server_socket(world: TmuxWorld) -> Path:
    return Path(world.tmux.run("display-message", "-p", "#{socket_path}").strip())


def test_without_a_server_there_is_no_session(world: TmuxWorld) -> None:
    assert world.sessions.snapshot() == {}
    assert world.find("gt-mayor") is None
    with pytest.raises(NoServer):
        world.tmux.run("list-sessions")


def test_a_server_without_sessions_has_no_session(world: TmuxWorld) -> None:
    world.tmux.run(*commands.start_server())

    assert world.sessions.snapshot() == {}
    assert world.find("gt-mayor") is None


def test_a_killed_server_has_no_session(world: TmuxWorld) -> None:
    session = world.start()
    os.kill(session.server, signal.SIGKILL)

    eventually(lambda: process_table.read_process(session.server) is None)
    assert world.find(session.name) is None
    assert world.sessions.snapshot() == {}


def test_a_stopped_server_is_unknown_after_the_deadline_and_leaves_no_client(world: TmuxWorld) -> None:
    session = world.start()
    hasty = Sessions(Tmux(world.socket, deadline=0.3, environ=world.environ))
    os.kill(session.server, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        for act in (
            hasty.snapshot,
            lambda: hasty.find(world.agent("nobody")),
            lambda: hasty.end(session, grace=0.1),
        ):
            with pytest.raises(StateUnknown, match=r"did not answer within 0\.3 s"):
                act()
    finally:
        os.kill(session.server, signal.SIGCONT)

    assert time.monotonic() - begun < 30
    assert [child for child in psutil.Process().children() if child.name().startswith("tmux")] == []
    assert world.living() == {session.name: session.incarnation}


def test_without_a_tmux_binary(world: TmuxWorld, tmp_path: Path) -> None:
    tmux = Tmux(world.socket, environ={"PATH": str(tmp_path)})

    with pytest.raises(TmuxMissing, match="install tmux"):
        Sessions(tmux).snapshot()


def test_a_missing_socket_in_an_existing_folder_means_no_server(tmp_path: Path, world: TmuxWorld) -> None:
    assert Sessions(Tmux(str(tmp_path / "s"), environ=world.environ)).snapshot() == {}


def test_a_missing_socket_folder_is_unknown(tmp_path: Path, world: TmuxWorld) -> None:
    sessions = Sessions(Tmux(str(tmp_path / "not-mounted" / "s"), environ=world.environ))

    with pytest.raises(StateUnknown, match="not-mounted is missing") as caught:
        sessions.snapshot()
    assert not isinstance(caught.value, NoServer)


@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="only Linux tells of sockets without a file")
def test_a_living_server_whose_socket_file_was_deleted_is_unknown(world: TmuxWorld) -> None:
    session = world.start()
    path = server_socket(world)
    path.rename(path.with_suffix(".hidden"))
    try:
        with pytest.raises(StateUnknown, match="SIGUSR1") as caught:
            world.find(session.name)
        assert not isinstance(caught.value, NoServer)
        with pytest.raises(StateUnknown, match="SIGUSR1"):
            world.start(session=session.name)
    finally:
        path.with_suffix(".hidden").rename(path)
    assert world.living() == {session.name: session.incarnation}


def test_a_file_in_place_of_the_socket_does_not_mean_no_server(tmp_path: Path, world: TmuxWorld) -> None:
    (tmp_path / "s").mkdir()

    with pytest.raises(StateUnknown):
        world.tmux.run("no-such-command")
    with pytest.raises(StateUnknown) as caught:
        Tmux(str(tmp_path / "s" / ("x" * 200)), environ=world.environ).run("list-sessions")
    assert not isinstance(caught.value, NoServer)


def test_names_are_exact(world: TmuxWorld) -> None:
    world.start(session="gt-crew-maxine")

    assert world.find("gt-crew-max") is None
    assert world.find("gt-crew-maxin*") is None
    assert world.find("") is None
    found = world.find("gt-crew-maxine")
    assert found is not None
    assert found.name == "gt-crew-maxine"


def test_a_name_with_special_characters_is_found_when_a_person_made_it(world: TmuxWorld) -> None:
    world.tmux.run(*commands.start_server(), ";", "new-session", "-d", "-s", "my own|#{pid} é", "cat")

    (name,) = world.sessions.snapshot()
    found = world.sessions.snapshot()[name]
    assert (found.name, found.incarnation) == (name, "")


def test_programs_cannot_forge_a_line_of_the_snapshot(world: TmuxWorld) -> None:
    session = world.start()
    world.tmux.run("set-option", "-p", "-t", session.pane, "--", "@gastown_agent", "a|b\nc|d")
    world.tmux.run("new-session", "-d", "-s", "plain", "exec -a 'evil|\n$9|%9' sleep 60")

    assert eventually(lambda: world.sessions.snapshot()["plain"].foreground.startswith("evil"))
    assert world.sessions.snapshot()[session.name].agent == "a_b_c_d"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts)
@example(NASTY)
@example("-")
@example("~")
@example(";")
@example("a;")
@example("\\")
@example("\n \t#x\n")
def test_every_text_passes_two_parsers_unchanged(world: TmuxWorld, text: str) -> None:
    store = commands.line("set-environment", "-g", "--", "TEXT", text)
    nested = commands.line(
        "if-shell", "-F", "1", f"{store} ; {commands.line('display-message', '-p', 'stored')}"
    )
    world.tmux.run(*commands.start_server())

    answer = world.tmux.script([nested])

    assert (answer.lines, answer.errors) == (["stored"], "")
    assert world.tmux.run("show-environment", "-g", "TEXT") == f"TEXT={text}\n"


def test_a_failing_line_of_a_script_does_not_stop_the_others(world: TmuxWorld) -> None:
    world.tmux.run(*commands.start_server())

    answer = world.tmux.script(
        [
            commands.line("display-message", "-p", "one"),
            commands.line("kill-session", "-t", "=nobody:"),
            commands.line("display-message", "-p", "two"),
        ]
    )

    assert answer.lines == ["one", "two"]
    assert answer.errors == "no current target"
    assert answer.status != 0


def test_a_missing_target_is_distinguished_from_other_failures(world: TmuxWorld) -> None:
    world.start()

    for argv in (["list-panes", "-s", "-t", "$99"], ["send-keys", "-t", "%99", "x"]):
        with pytest.raises(TargetNotFound):
            world.tmux.run(*argv)
    with pytest.raises(StateUnknown) as caught:
        world.tmux.run("list-panes", "--what")
    assert not isinstance(caught.value, TargetNotFound)


def test_a_wrong_protocol_is_unknown(tmp_path: Path, world: TmuxWorld) -> None:
    fake = tmp_path / "bin" / "tmux"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'protocol version mismatch (client 8, server 7)' >&2\nexit 1\n")
    fake.chmod(0o755)
    environ = {"PATH": f"{fake.parent}:{os.defpath}"}

    with pytest.raises(StateUnknown, match="protocol version mismatch") as caught:
        Sessions(Tmux(world.socket, environ=environ)).snapshot()
    assert not isinstance(caught.value, (NoServer, TargetNotFound))


def test_pipes_held_open_by_others_do_not_block_a_call(tmp_path: Path, world: TmuxWorld) -> None:
    marker = f"6{secrets.randbelow(10**6)}"
    fake = tmp_path / "tmux"
    fake.write_text(f"#!/bin/sh\n{shutil.which('sleep')} {marker} &\nwait\n")
    fake.chmod(0o755)
    begun = time.monotonic()

    with pytest.raises(StateUnknown, match="did not answer"):
        Tmux("any", deadline=0.2, environ={"PATH": f"{tmp_path}:{os.defpath}"}).run("list-sessions")

    assert time.monotonic() - begun < 30
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[-1:] == [marker]:
            process.kill()


def test_calls_are_counted(world: TmuxWorld) -> None:
    world.start()
    before = world.tmux.calls

    world.sessions.snapshot()

    assert world.tmux.calls == before + 1


def test_the_server_does_not_keep_its_starters_folder(world: TmuxWorld, tmp_path: Path) -> None:
    session = world.start(work_dir=tmp_path)

    assert psutil.Process(session.server).cwd() == "/"
