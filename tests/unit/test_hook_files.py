"""Our hook in the settings files of programs: put in, shown, taken out; the rest stays."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

from gastown_mail.cli import cli
from gastown_mail.cli.hook_files import PROGRAMS, HookFile
from gastown_mail.contracts.errors import SettingsError

THEIRS = {"type": "command", "command": "theirs", "timeout": 5}
every_program = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home in this test."""
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "GEMINI_CLI_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def hooks(*words: str, answer: str = "") -> click.testing.Result:
    """Run `gastown-mail hooks …` without a terminal."""
    return click.testing.CliRunner().invoke(cli, ["hooks", *words], input=answer)


def handlers(path: Path, program: str) -> list[dict[str, Any]]:
    groups = json.loads(path.read_text())["hooks"][PROGRAMS[program].event]
    return [handler for group in groups for handler in group["hooks"]]


@every_program
def test_a_missing_file_is_made_and_removed_again(home: Path, program: str) -> None:
    path = PROGRAMS[program].path(None)

    shown = hooks("install", program, "--yes")

    assert shown.exit_code == 0
    assert "--- /dev/null\n" in shown.output
    (handler,) = handlers(path, program)
    assert handler["type"] == "command"
    assert f"hooks ask {program}" in handler["command"]
    assert handler["timeout"] == (10_000 if program == "gemini" else 10)

    assert hooks("uninstall", program, "--yes").exit_code == 0
    assert not path.exists()


@every_program
def test_installing_twice_changes_nothing(home: Path, program: str) -> None:
    path = PROGRAMS[program].path(None)
    hooks("install", program, "--yes")
    before = path.read_bytes(), path.stat().st_mtime_ns

    shown = hooks("install", program, "--yes")

    assert "nothing to change" in shown.output
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@every_program
@pytest.mark.parametrize(
    "text",
    [
        '{"theme":"dark",  "n": 1.50}',
        '{\n\t"permissions": {\n\t\t"allow": ["Bash(a  b)"]\n\t}\n}\n',
        '{\r\n    "hooks": {"Stop": [ {"hooks": []} ] },\r\n    "z": "\\u00e9é"\r\n}',
        '{"hooks": {"EVENT": [{"matcher": "manual", "hooks": [THEIRS]}]}, "z": []}\n',
    ],
)
def test_the_rest_of_a_file_keeps_its_bytes(home: Path, program: str, text: str) -> None:
    text = text.replace("EVENT", PROGRAMS[program].event).replace("THEIRS", json.dumps(THEIRS))
    path = PROGRAMS[program].path(None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(0o600)

    hooks("install", program, "--yes")

    assert len([each for each in handlers(path, program) if "hooks ask" in each["command"]]) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    hooks("uninstall", program, "--yes")
    assert path.read_bytes() == text.encode()


def test_a_handler_of_the_users_in_our_group_stays(home: Path) -> None:
    hooks("install", "claude", "--yes")
    path = home / ".claude/settings.json"
    document = json.loads(path.read_text())
    document["hooks"]["PreCompact"][0]["hooks"].append(THEIRS)
    path.write_text(json.dumps(document))

    hooks("uninstall", "claude", "--yes")

    assert handlers(path, "claude") == [THEIRS]


def test_an_earlier_version_is_replaced(home: Path) -> None:
    hooks("install", "codex", "--yes")
    path = home / ".codex/hooks.json"
    path.write_text(path.read_text().replace("exit 0", "exit  0"))
    assert "another version" in hooks("show").output

    hooks("install", "codex", "--yes")

    assert handlers(path, "codex") == [PROGRAMS["codex"].handler]


def test_without_a_terminal_the_change_is_only_shown(home: Path) -> None:
    shown = hooks("install", "claude", answer="y\n")

    assert shown.exit_code == 1
    assert "hooks ask claude" in shown.output
    assert "--yes" in str(shown.exception)
    assert not (home / ".claude").exists()


def test_a_project_has_its_own_file(home: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for program in PROGRAMS:
        hooks("install", program, "--dir", str(project), "--yes")

    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    assert made == [
        "project/.claude/settings.local.json",
        "project/.codex/hooks.json",
        "project/.gemini/settings.json",
    ]


def test_the_programs_own_variables_move_their_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "GEMINI_CLI_HOME"):
        monkeypatch.setenv(variable, f"/{variable}")

    assert [str(program.path(None)) for program in PROGRAMS.values()] == [
        "/CLAUDE_CONFIG_DIR/settings.json",
        "/CODEX_HOME/hooks.json",
        "/GEMINI_CLI_HOME/.gemini/settings.json",
    ]


def test_a_symlink_stays_one(home: Path) -> None:
    (home / "dotfiles").mkdir()
    real = home / "dotfiles/claude.json"
    real.write_text('{"theme": "dark"}')
    (home / ".claude").mkdir()
    link = home / ".claude/settings.json"
    link.symlink_to("../dotfiles/claude.json")

    hooks("install", "claude", "--yes")
    assert link.is_symlink()
    assert "hooks ask claude" in real.read_text()

    hooks("uninstall", "claude", "--yes")
    assert (link.is_symlink(), real.read_text()) == (True, '{"theme": "dark"}')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1,}', "line 1: not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"hooks": []}', "hooks is not an object"),
        (b'{"hooks": null}', "hooks is not an object"),
        (b'{"hooks": {"PreCompact": {}}}', "hooks.PreCompact is not an array"),
        (b'{"a": "\xff"}', "not UTF-8"),
    ],
)
@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_file_that_cannot_be_understood_is_left_alone(
    home: Path, text: bytes, words: str, command: str
) -> None:
    path = home / ".claude/settings.json"
    path.parent.mkdir()
    path.write_bytes(text)

    shown = hooks(command, "claude", "--yes")

    assert isinstance(shown.exception, SettingsError)
    assert str(path) in str(shown.exception)
    assert words in str(shown.exception)
    assert path.read_bytes() == text
    assert f"claude: unknown: {path}" in hooks("show").output


@pytest.mark.parametrize("change", [HookFile.installed, HookFile.removed])
def test_a_file_that_changes_while_the_user_thinks_is_not_written(
    home: Path, change: Callable[[HookFile], str]
) -> None:
    hooks("install", "claude", "--yes")
    path = home / ".claude/settings.json"
    file = HookFile(PROGRAMS["claude"], path)
    path.write_text('{"theme": "light"}')

    with pytest.raises(SettingsError, match="has changed meanwhile"):
        file.write(change(file))

    assert path.read_text() == '{"theme": "light"}'


@pytest.mark.parametrize(
    ("program", "off"),
    [("claude", {"disableAllHooks": True}), ("gemini", {"hooksConfig": {"enabled": False}})],
)
def test_hooks_that_are_switched_off_are_said(home: Path, program: str, off: dict[str, object]) -> None:
    path = PROGRAMS[program].path(None)
    path.parent.mkdir()
    path.write_text(json.dumps(off))

    assert "switches all hooks off" in hooks("install", program, "--yes").output
    assert f"{program}: {path} switches all hooks off" in hooks("show").output


def test_show_names_each_file(home: Path) -> None:
    hooks("install", "gemini", "--yes")

    assert hooks("show").output.splitlines() == [
        f"claude: not in {home}/.claude/settings.json; hooks install shows the change",
        f"codex: not in {home}/.codex/hooks.json; hooks install shows the change",
        f"gemini: installed in {home}/.gemini/settings.json",
    ]
