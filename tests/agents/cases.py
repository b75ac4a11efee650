"""The programs of the table: how each is started as a town's agent, and what is its own in the checks."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gastown_mail.contracts.lifecycle import AgentState
from tests.agents.programs import CLAUDE, CODEX, Place, Program
from tests.agents.programs_b import AIDER, GEMINI, OPENCODE, QWEN

Change = Callable[[Place], None]
"""Changes the files of a program that is prepared already."""


def _nothing(place: Place) -> None:
    pass


@dataclass(frozen=True)
class Opened:
    """What opens a box when the program starts: a change of its files, variables, what a person says then."""

    change: Change = _nothing
    env: Mapping[str, str] = field(default_factory=dict)
    say: str = ""


@dataclass(frozen=True)
class Case:
    """A program of the table.

    `arguments`: with these its tools ask; `free`: with these they run at once, after the change `allow`.
    `asks`: a message after which the model wants to make the file `allowed`. `quits`: the ways in which a
    person ends it, with the exit status. `picker`: what a person types to open one. `limit`: what keeps a
    usage limit from opening a box. `suspended`: its state after Ctrl-Z.
    """

    program: Program
    arguments: str
    free: str
    quits: Mapping[str, int]
    asks: str = "TOOL touch allowed"
    allow: Change = _nothing
    picker: str = ""
    trust: Opened | None = None
    login: Opened | None = None
    limit: Opened = field(default_factory=Opened)
    suspended: AgentState = AgentState.READY

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name


def _change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _claude_forgets_the_folder(place: Place) -> None:
    _change(place.home / ".claude.json", projects={})


def _claude_forgets_the_key(place: Place) -> None:
    _change(place.home / ".claude.json", customApiKeyResponses={})


_CLAUDE_SUBSCRIBED = {
    "ANTHROPIC_API_KEY": "",
    "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-mock-token",
    "CLAUDE_CODE_SUBSCRIPTION_TYPE": "max",
    "CLAUDE_CODE_RATE_LIMIT_TIER": "default_claude_max_20x",
}


def claude_ticks(place: Place) -> None:
    """Give Claude Code a status line that changes each second."""
    line = {"type": "command", "command": "date +%T", "refreshInterval": 1}
    _change(place.home / ".claude/settings.json", statusLine=line)


_ESCALATED = {"cmd": "touch allowed", "sandbox_permissions": "require_escalated", "justification": "Needed"}


def _codex_config(place: Place) -> Path:
    return place.home / ".codex/config.toml"


def _codex_forgets_the_folder(place: Place) -> None:
    path = _codex_config(place)
    path.write_text(path.read_text().partition("[projects.")[0])
    subprocess.run(["git", "init", "--quiet", str(place.work)], check=True, timeout=30)


def _codex_is_signed_out(place: Place) -> None:
    kept = "check_for_update_on_startup = false\n[analytics]\nenabled = false\n"
    _codex_config(place).write_text(kept + f'[projects."{place.work}"]\ntrust_level = "trusted"\n')


def _codex_suggests_no_model(place: Place) -> None:
    path = _codex_config(place)
    path.write_text(path.read_text() + "\n[notice]\nhide_rate_limit_model_nudge = true\n")


def _gemini_forgets_the_folder(place: Place) -> None:
    (place.home / ".gemini/trustedFolders.json").unlink()


def _gemini_is_signed_out(place: Place) -> None:
    path = place.home / ".gemini/settings.json"
    _change(path, security={})


def _qwen_asks_for_trust(place: Place) -> None:
    path = place.home / ".qwen/settings.json"
    security = json.loads(path.read_text())["security"]
    _change(path, security={**security, "folderTrust": {"enabled": True}})


def _qwen_is_signed_out(place: Place) -> None:
    _change(place.home / ".qwen/settings.json", security={"folderTrust": {"enabled": False}})


def _opencode_allows(place: Place) -> None:
    _change(place.home / ".config/opencode/opencode.json", permission={"*": "allow"})


def _aider_has_no_repository(place: Place) -> None:
    (place.work / ".git").rename(place.home / "git")


CASES = {
    case.name: case
    for case in (
        Case(
            CLAUDE,
            arguments="{prompt}",
            free="--dangerously-skip-permissions {prompt}",
            quits={"/exit": 0, "C-d C-d": 0},
            picker="/model",
            trust=Opened(_claude_forgets_the_folder),
            login=Opened(_claude_forgets_the_key),
            limit=Opened(env=_CLAUDE_SUBSCRIBED),
            suspended=AgentState.ENDED,
        ),
        Case(
            CODEX,
            arguments="--no-daemon {prompt}",
            free="--no-daemon --dangerously-bypass-approvals-and-sandbox {prompt}",
            quits={"/quit": 0, "C-d": 0},
            asks=f"CALL exec_command {json.dumps(_ESCALATED)}",
            picker="/model",
            trust=Opened(_codex_forgets_the_folder),
            login=Opened(_codex_is_signed_out, {"MOCK_KEY": ""}),
            limit=Opened(_codex_suggests_no_model),
        ),
        Case(
            GEMINI,
            arguments="-i {prompt}",
            free="--yolo -i {prompt}",
            quits={"/quit": 0, "C-d C-d": 0},
            picker="/theme",
            trust=Opened(_gemini_forgets_the_folder),
            login=Opened(_gemini_is_signed_out, {"GEMINI_API_KEY": ""}),
        ),
        Case(
            QWEN,
            arguments="-i {prompt}",
            free="--yolo -i {prompt}",
            quits={"/quit": 0, "C-d C-d": 0},
            picker="/theme",
            trust=Opened(_qwen_asks_for_trust),
            login=Opened(_qwen_is_signed_out, {"MOCK_KEY": ""}),
        ),
        Case(
            OPENCODE,
            arguments="--prompt {prompt}",
            free="--prompt {prompt}",
            quits={"/exit": 0, "C-d": 0},
            allow=_opencode_allows,
            picker="/models",
            login=Opened(say="/connect"),
            suspended=AgentState.STARTING,
        ),
        Case(
            AIDER,
            arguments="--edit-format diff",
            free="--edit-format diff",
            quits={"/exit": 0, "C-d": 0},
            trust=Opened(_aider_has_no_repository),
        ),
    )
}
