"""Which command lines are those of shared daemons, and what the setting does to the list."""

import pytest

from gastown_mail.contracts.shared_daemons import SHARED_DAEMONS, spared_programs
from gastown_mail.sessions.shared_daemons import SharedDaemons, is_program

SPARED = [
    ("tmux -L x new-session -d", "tmux"),
    ("/usr/bin/SCREEN -d -m", "screen"),
    ("kwalletd6 --pam-login 7", "kwalletd"),
    ("emacs-29.1 --bg-daemon=3,4", "emacs --bg-daemon"),
    ("/home/u/.codex/bin/codex app-server --listen unix:// --managed-daemon", "codex app-server --listen"),
    ("git fsmonitor--daemon run --detach", "git fsmonitor--daemon"),
    ("bazel(my-project) --max_idle_secs=10800", "bazel"),
    ("buck2d[my-project] --isolation-dir v2 daemon", "buck2d"),
    ("node /x/node_modules/nx/dist/src/daemon/server/start.js", "node daemon/server/start.js"),
    ("adb -L tcp:5037 fork-server server --reply-fd 4", "adb fork-server"),
]
ENDED = (
    """
tmuxinator start|vim tmux|codex exec app-server|codex --listen|python -m http.server|postgres -D data
npm run dev|node server.js|node my-start.js|adb logcat|git status|emacs -nw|java -jar app.jar|ssh host
""".strip()
    .replace("\n", "|")
    .split("|")
)
TITLES = [
    ("ssh: /home/u/.ssh/cm-host [mux]", "ssh [mux]"),
    ("tmux: server (/tmp/tmux-1000/default)", "tmux"),
    ("pantsd [/home/u/project]", "pantsd"),
]


@pytest.mark.parametrize(("line", "entry"), SPARED)
def test_a_listed_program_is_known_by_its_name_and_arguments(line: str, entry: str) -> None:
    assert entry in SHARED_DAEMONS
    assert SharedDaemons(SHARED_DAEMONS).entry(line.split()) == entry


@pytest.mark.parametrize(("title", "entry"), TITLES)
def test_a_program_that_wrote_a_title_over_its_arguments_is_known_too(title: str, entry: str) -> None:
    assert SharedDaemons(SHARED_DAEMONS).entry([title, "", ""]) == entry


@pytest.mark.parametrize("line", ENDED)
def test_other_programs_are_not_shared_daemons(line: str) -> None:
    assert SharedDaemons(SHARED_DAEMONS).entry(line.split()) is None


def test_nothing_is_no_program() -> None:
    assert not is_program([], "tmux")


@pytest.mark.parametrize(
    ("command", "spared"),
    [
        ("tmux new claude", False),
        ("exec /usr/bin/tmux", False),
        ("bash -lc 'exec tmux new claude'", False),
        ("claude 'use tmux for servers'", True),
        ("claude {prompt}", True),
        ("claude 'unbalanced", True),
    ],
)
def test_what_the_agents_command_names_is_the_agent(command: str, spared: bool) -> None:
    daemons = SharedDaemons(SHARED_DAEMONS, command=command)

    assert (daemons.entry(["tmux"]) == "tmux") is spared
    assert daemons.entry(["watchman"]) == "watchman"


def test_codex_is_started_with_another_command_than_its_daemon() -> None:
    daemons = SharedDaemons(SHARED_DAEMONS, command="codex --dangerously-bypass-approvals-and-sandbox")

    assert daemons.entry(["codex", "app-server", "--listen", "unix://"])


def test_entries_are_added_and_taken_off_in_order() -> None:
    assert spared_programs(()) == SHARED_DAEMONS
    assert spared_programs(["mytool serve"]) == (*SHARED_DAEMONS, "mytool serve")
    assert spared_programs(["!*"]) == ()
    assert spared_programs(["!*", "tmux"]) == ("tmux",)
    assert set(SHARED_DAEMONS) - set(spared_programs(["!tmux"])) == {"tmux"}
    assert set(SHARED_DAEMONS) - set(spared_programs(["!codex app-server daemon"])) == {
        "codex app-server daemon"
    }
    assert len(SHARED_DAEMONS) - len(spared_programs(["!codex"])) == 2


@pytest.mark.parametrize("change", ["!tmx", "!", "!tmu", "! "])
def test_an_entry_that_takes_nothing_off_is_refused(change: str) -> None:
    with pytest.raises(ValueError, match="takes nothing off"):
        spared_programs([change])


def test_no_entry_of_the_list_is_there_twice() -> None:
    assert len(set(SHARED_DAEMONS)) == len(SHARED_DAEMONS)
