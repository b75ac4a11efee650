"""How each program under test is prepared and started against the mock model server.

Telemetry, update checks and sign-in are off by the programs' own settings; the keys are invented.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("AGENTS_CACHE") or Path.home() / ".cache/gastown-mail/agents")
"""Where the programs are installed, outside of the repository."""

KEY = "sk-mock-key-of-the-test-suite-0123456789"


@dataclass(frozen=True)
class Place:
    """The folders of one run, and the port of its mock server."""

    home: Path
    work: Path
    port: int

    @property
    def url(self) -> str:
        """The mock server's address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Program:
    """A program and what it needs; `prepare` writes its files so that no first-run box opens."""

    name: str
    executable: Path
    package: Path
    environment: Callable[[Place], dict[str, str]]
    prepare: Callable[[Place], None]
    arguments: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version in the package's own file, or nothing: it is not installed."""
        if not self.package.exists():
            return ""
        return str(json.loads(self.package.read_text())["version"])

    def command(self, *arguments: str) -> list[str]:
        """Return the command that starts it."""
        return [str(self.executable), *self.arguments, *arguments]

    def full_environment(self, place: Place) -> dict[str, str]:
        """Return the whole environment of a start; nothing of the caller's gets in."""
        common = {
            "HOME": str(place.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TERM": "screen-256color",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "TZ": "UTC",
            "NO_PROXY": "127.0.0.1",
            "DO_NOT_TRACK": "1",
        }
        return common | self.environment(place)


def _npm(package: str, name: str, command: str) -> tuple[Path, Path]:
    modules = CACHE / "npm" / package / "node_modules"
    return modules / ".bin" / command, modules / name / "package.json"


def _claude_environment(place: Place) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": place.url,
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "IS_SANDBOX": "1",
    }


def _prepare_claude(place: Place) -> None:
    state = {
        "hasCompletedOnboarding": True,
        "lastOnboardingVersion": "2.1.197",
        "theme": "dark",
        "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
        "projects": {str(place.work): {"hasTrustDialogAccepted": True}},
    }
    (place.home / ".claude.json").write_text(json.dumps(state))
    settings = {"skipDangerousModePermissionPrompt": True}
    (place.home / ".claude").mkdir(exist_ok=True)
    (place.home / ".claude/settings.json").write_text(json.dumps(settings))


def _codex_environment(place: Place) -> dict[str, str]:
    return {"MOCK_KEY": KEY}


def _prepare_codex(place: Place) -> None:
    (place.home / ".codex").mkdir(exist_ok=True)
    (place.home / ".codex/config.toml").write_text(f"""\
model = "gpt-5.2-codex"
model_provider = "mock"
check_for_update_on_startup = false

[model_providers.mock]
name = "mock"
base_url = "{place.url}/v1"
wire_api = "responses"
env_key = "MOCK_KEY"

[analytics]
enabled = false

[feedback]
enabled = false

[projects."{place.work}"]
trust_level = "trusted"
""")


CLAUDE = Program(
    "claude",
    *_npm("claude-code", "@anthropic-ai/claude-code", "claude"),
    _claude_environment,
    _prepare_claude,
)
CODEX = Program("codex", *_npm("codex", "@openai/codex", "codex"), _codex_environment, _prepare_codex)
PROGRAMS = {program.name: program for program in (CLAUDE, CODEX)}
