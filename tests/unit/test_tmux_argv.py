"""Every `-t` that is ever sent is an id or `=name:`; every text is quoted."""

import inspect
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.address import Agent
from gastown_mail.programs.screen import Screen
from gastown_mail.sessions import commands

SPEC = commands.SessionSpec(
    Agent(
        address="rig/crew/max", role="crew", rig="rig", name="max", session="gt-crew-max",
        work_dir=Path("/tmp"), command="cat", poke=None, keep_running=False, stop_grace=1.0, env={},
        host="here",
    ),
    incarnation="t0ken", generation=3, started=datetime.fromtimestamp(1766225500.25, UTC), town="a-town",
    command="exec cat ~; #{pid}", environ={"A": "1", "B": "x\ny"}, base={"PATH": "/p", "TERM": "xterm"},
)  # fmt: skip
SAMPLES: dict[str, Callable[[], str | list[str]]] = {
    "line": lambda: commands.line("a", "b"),
    "target_by_name": lambda: commands.target_by_name("gt-crew-max"),
    "target_by_id": lambda: commands.target_by_id("$1"),
    "source_stdin": commands.source_stdin,
    "start_server": commands.start_server,
    "end_empty_server": commands.end_empty_server,
    "show_global_environment": commands.show_global_environment,
    "show_server": commands.show_server,
    "reap_children": commands.reap_children,
    "list_all": lambda: commands.list_all("#{pid}"),
    "list_session": lambda: commands.list_session(commands.target_by_name("gt-crew-max"), "#{pid}"),
    "attach": lambda: commands.attach("$1"),
    "capture": lambda: commands.capture("%1", 50),
    "kill": lambda: commands.kill("$1", "t0ken"),
    "kill_pane": lambda: commands.kill_pane("%1", "t0ken"),
    "release": lambda: commands.release("$1", "t0ken"),
    "is_incarnation": lambda: commands.is_incarnation("t0ken"),
    "is_agents": lambda: commands.is_agents(SPEC.agent),
    "new_session": lambda: commands.new_session(SPEC, ["A", "SECRET"]),
    "adopt": lambda: commands.adopt("$1", SPEC),
    "generation_option": lambda: commands.generation_option("gt-crew-max"),
    "show_last_generation": lambda: commands.show_last_generation("gt-crew-max"),
    "typing_condition": lambda: commands.typing_condition("t0ken", shell_seen=False),
    "set_buffer": lambda: commands.set_buffer("b", "text"),
    "delete_buffer": lambda: commands.delete_buffer("b"),
    "paste": lambda: commands.paste("%1", "b", "1", in_mode=True),
    "press": lambda: commands.press("%1", ["Enter"], "1", in_mode=False),
    "all_of": lambda: commands.all_of("1", "0"),
    "unchanged": lambda: commands.unchanged(Screen(("> hello",), 2, 0), [0]),
    "look": lambda: commands.look("%1", "mark"),
}
OWNERSHIP = {
    "incarnation": "t0ken",
    "generation": "3",
    "agent": "rig/crew/max",
    "town": "a-town",
    "started": "1766225500.250000",
    "pane": "#{pane_id}",
    "home": "#{session_id}",
}
EXACT = re.compile(r"[$%][0-9]+|=[A-Za-z0-9_-]+:")


def targets(built: str | list[str]) -> list[str]:
    text = built if isinstance(built, str) else " ".join(built)
    return re.findall(r"(?<!\S)-t\s+(\S+)", re.sub(r'[\\"]', "", text))


def test_every_builder_has_a_sample() -> None:
    builders = {
        n for n, v in vars(commands).items() if inspect.isfunction(v) and v.__module__ == commands.__name__
    }
    public = {name for name in builders if not name.startswith("_")}

    assert public == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_target_is_exact(name: str) -> None:
    assert [target for target in targets(SAMPLES[name]()) if not EXACT.fullmatch(target)] == []


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("kill", 2),
        ("new_session", 20),
        ("adopt", 16),
        ("paste", 3),
        ("press", 2),
        ("look", 2),
        ("attach", 1),
        ("capture", 1),
        ("list_session", 1),
    ],
)
def test_this_test_sees_targets_inside_guarded_commands(name: str, count: int) -> None:
    assert len(targets(SAMPLES[name]())) == count


@pytest.mark.parametrize(
    "name", ["", "a b", "a:b", "a.b", "$1", "=a", "a*", "#{x}", "ä", "a\n", "gt;kill-server"]
)
def test_a_name_that_tmux_could_misread_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="session name"):
        commands.target_by_name(name)


@pytest.mark.parametrize("ident", ["", "1", "gt-crew-max", "=a", "$", "$1;", "%1 ", "$1\n", "{marked}"])
def test_an_invalid_id_is_refused(ident: str) -> None:
    with pytest.raises(ValueError, match="not a tmux id"):
        commands.target_by_id(ident)


@pytest.mark.parametrize("token", ["", "a b", "a,b", "#{x}", "}", "a" * 129, "a\n"])
def test_a_token_that_could_change_the_condition_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        commands.kill("$1", token)


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_quoted_text_is_one_line_of_plain_quotes(text: str) -> None:
    quoted = commands.line(text)

    assert "\n" not in quoted
    assert re.sub(r"\\[0-7]{3}|\\.", "", quoted[1:-1]).find('"') == -1
    assert (quoted[0], quoted[-1]) == ('"', '"')


def test_the_guard_encloses_the_kill() -> None:
    condition, action = commands.kill("$7", "t0ken")[4:6]

    assert condition == "#{==:#{@gastown_incarnation},t0ken}"
    assert action.startswith('"kill-session" "-t" "\\$7" ;')


def test_a_session_is_created_by_these_commands_in_this_order() -> None:
    enter = 'PATH=$3 && export PATH && cd -- "$1" && exec /bin/sh -c "$2"'
    target, program = "=gt-crew-max:", ["/bin/sh", "-c", enter, "sh", "/tmp"]
    variables = ["-e", "PATH=/p", "-e", "A=1", "-e", "B=x\ny"]
    creation = [
        ["set-option", "-s", "@gastown_generation_gt-crew-max", "3"],
        ["new-session", "-d", "-s", "gt-crew-max", "-n", "gt-crew-max", "-x", "200", "-y", "50", *variables,
         "/bin/sh", "-c", "read _"],
        *(["set-option", *scope, "-F", "-t", target, "--", f"@gastown_{key}", value]
          for key, value in OWNERSHIP.items() for scope in ([], ["-p"])),
        ["set-option", "-t", target, "destroy-unattached", "off"],
        ["set-option", "-w", "-t", target, "remain-on-exit", "on"],
        ["set-option", "-w", "-t", target, "automatic-rename", "off"],
        ["set-option", "-w", "-t", target, "allow-rename", "off"],
        ["set-environment", "-t", target, "-r", "--", "TERM"],
        ["set-environment", "-t", target, "-r", "--", "SECRET"],
        ["respawn-pane", "-k", "-t", target, *program, "exec cat ~; #{pid}", "/p"],
        ["display-message", "-p", "started"],
    ]  # fmt: skip
    once = "#{e|<:#{@gastown_generation_gt-crew-max},3}"
    action = " ; ".join(commands.line(*words) for words in creation)

    assert commands.new_session(SPEC, ["A", "TERM", "SECRET"]) == commands.line(
        "if-shell", "-F", once, action, '"display-message" "-p" "stale"'
    )
