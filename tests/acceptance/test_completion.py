"""What bash and zsh complete, with real shells and the script from the documentation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gastown_mail.cli import COMMANDS
from tests.support.machine import skip_without
from tests.support.processes import clean_environ
from tests.support.town import write_town

pytestmark = pytest.mark.timeout(300)

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "completion.md"
AGENTS = ["gastown/witness", "gastown/crew/max"]
BASH = """
echo ---
COMP_WORDS=({words}); COMP_CWORD={place}; COMPREPLY=()
_gastown_mail_completion gastown-mail
[ -z "$COMPREPLY" ] || printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
echo ---
words=({words}); CURRENT=$(({place} + 1))
_gastown_mail_completion
"""


def lines_of(shell: str) -> str:
    """Return the documentation's line for this shell."""
    found = re.search(rf"```{shell}\n(.+?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    return found[1]


ASK = {"bash": BASH, "zsh": ZSH}
SILENT = {"bash": ["--norc"], "zsh": ["-f"]}
SETUP = {
    "bash": lines_of("bash"),
    "zsh": f"""
autoload -U compinit; compinit -D -u
{lines_of("zsh")}
compadd() {{ print -l -- $completions }}
_describe() {{ print -l -- ${{completions_with_descriptions%%:*}} }}
""",
}
"""The documentation's lines; zsh's own functions, which show the offers, print them instead."""


class Shell:
    """A real shell in a town's folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.environ = clean_environ(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def completed(self, *lines: str, **environ: str) -> list[list[str]]:
        """Return what the shell offers for the last word of each line."""
        done = subprocess.run(
            [self.name, *SILENT[self.name], "-c", "".join([SETUP[self.name], *map(self._ask, lines)])],
            cwd=self.folder, env={**self.environ, **environ}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.stderr == "", done.stderr
        return [offered.split() for offered in done.stdout.split("---")[1:]]

    def _ask(self, line: str) -> str:
        words = line.split(" ")
        return ASK[self.name].format(words=" ".join(f"'{word}'" for word in words), place=len(words) - 1)


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    skip_without(request.param)
    return Shell(request.param, write_town(tmp_path).town_root)


def test_commands_options_and_words_complete(shell: Shell) -> None:
    offered = {
        "gastown-mail re": ["restart", "requests", "resume"],
        "gastown-mail ": list(COMMANDS),
        "gastown-mail requests --s": ["--status", "--since"],
        "gastown-mail requests --status exp": ["expired"],
        "gastown-mail dead re": ["revive"],
        "gastown-mail send c": ["cycle"],
        "gastown-mail frobnicate ": list(COMMANDS),
    }

    assert dict(zip(offered, shell.completed(*offered), strict=True)) == offered


def test_agents_complete_where_an_agent_is_expected(shell: Shell) -> None:
    commands = ("poke", "run", "attach", "pause", "resume", "clear", "adopt", "explain")
    options = ("send cycle --to", "send cycle --agent", "requests --agent", "inbox --agent", "agents --agent")

    offered = shell.completed(
        *(f"gastown-mail {words} gast" for words in (*commands, *options, "events --agent"))
    )

    assert offered == [AGENTS] * (len(commands) + len(options) + 1)
    assert shell.completed("gastown-mail poke gastown/c") == [[AGENTS[1]]]


def test_the_town_that_is_named_is_read(shell: Shell, tmp_path: Path) -> None:
    other = write_town(tmp_path, '[agents."other/crew/eve"]\n').town_root

    lines = (f"gastown-mail --town {other} poke ", f"gastown-mail poke --town {other} ")
    assert shell.completed(*lines) == [["other/crew/eve"]] * 2
    assert shell.completed("gastown-mail poke ", GASTOWN_TOWN=str(other)) == [["other/crew/eve"]]


def test_completion_is_silent_about_errors(shell: Shell) -> None:
    (shell.folder / "town.toml").write_text("[broken")
    assert shell.completed("gastown-mail poke ", "gastown-mail --town /nowhere poke ") == [[], []]
    (shell.folder / "town.toml").unlink()
    assert shell.completed("gastown-mail poke ") == [[]]


def test_the_script_is_valid_for_its_shell(shell: Shell) -> None:
    script = subprocess.run(
        ["gastown-mail"], env={**shell.environ, "_GASTOWN_MAIL_COMPLETE": f"{shell.name}_source"},
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip

    assert "gastown-mail" in script
    subprocess.run([shell.name, "-n"], input=script, text=True, check=True, timeout=120)
