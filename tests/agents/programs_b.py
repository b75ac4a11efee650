"""How Gemini CLI, Qwen Code, opencode and aider are prepared and started against the mock model server.

Telemetry, update checks and sign-in are off by the programs' own settings; the keys are invented.
"""

import json
import subprocess
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

from tests.agents.mock_chat import MODEL
from tests.agents.programs import CACHE, KEY, Place, Program

CONTEXT = 32_000
"""The context window that opencode and Qwen Code are told the mock model has, in tokens."""


@dataclass(frozen=True)
class PythonProgram(Program):
    """A program in a virtual environment; `package` is the `.dist-info` folder that pip made."""

    @property
    def version(self) -> str:
        """The version that pip installed, or nothing: it is not installed."""
        return PathDistribution(self.package).version if self.package.exists() else ""


def _gemini_environment(place: Place) -> dict[str, str]:
    return {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": place.url, "GEMINI_MODEL": "gemini-2.5-flash"}


def _prepare_gemini(place: Place) -> None:
    settings = {
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "ide": {"hasSeenNudge": True},
    }
    _write(place.home / ".gemini/settings.json", settings)
    _write(place.home / ".gemini/trustedFolders.json", {str(place.work): "TRUST_FOLDER"})


def _qwen_environment(place: Place) -> dict[str, str]:
    return {"MOCK_KEY": KEY}


def _prepare_qwen(place: Place) -> None:
    model = {
        "id": MODEL,
        "name": MODEL,
        "envKey": "MOCK_KEY",
        "baseUrl": f"{place.url}/v1",
        "generationConfig": {"contextWindowSize": CONTEXT},
    }
    settings = {
        # it sends copies of the conversation at times of its own
        "memory": {"enableManagedAutoMemory": False},
        "general": {"enableAutoUpdate": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "modelProviders": {"openai": [model]},
        "model": {"name": MODEL},
        "security": {"auth": {"selectedType": "openai"}, "folderTrust": {"enabled": False}},
    }
    _write(place.home / ".qwen/settings.json", settings)


def _opencode_environment(place: Place) -> dict[str, str]:
    return {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "OPENCODE_DISABLE_SHARE": "1",
    }


def _prepare_opencode(place: Place) -> None:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Mock",
        "options": {"baseURL": f"{place.url}/v1", "apiKey": KEY},
        "models": {MODEL: {"name": MODEL, "limit": {"context": CONTEXT, "output": 4096}}},
    }
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "enabled_providers": ["mock"],
        "provider": {"mock": provider},
        "model": f"mock/{MODEL}",
        "small_model": f"mock/{MODEL}",
        "permission": {"bash": "ask", "edit": "ask"},
    }
    _write(place.home / ".config/opencode/opencode.json", settings)


def _aider_environment(place: Place) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": KEY,
        "OPENAI_API_BASE": f"{place.url}/v1",
        "AIDER_ANALYTICS": "false",
        "AIDER_CHECK_UPDATE": "false",
        "AIDER_SHOW_RELEASE_NOTES": "false",
        "AIDER_SHOW_MODEL_WARNINGS": "false",
        "AIDER_DISABLE_PLAYWRIGHT": "true",
    }


def _prepare_aider(place: Place) -> None:
    """aider asks nothing at its start in a git repository that ignores its files and has a user's name."""
    (place.work / ".gitignore").write_text(".aider*\n.env\n")
    (place.home / ".gitconfig").write_text("[user]\n\tname = Dev\n\temail = dev@example.com\n")
    subprocess.run(["git", "init", "--quiet", str(place.work)], check=True, timeout=30)


def _write(path: Path, settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2))


def _npm(package: str, name: str, command: str) -> tuple[Path, Path]:
    modules = CACHE / "npm" / package / "node_modules"
    return modules / ".bin" / command, modules / name / "package.json"


_AIDER = CACHE / "aider"

GEMINI = Program(
    "gemini", *_npm("gemini-cli", "@google/gemini-cli", "gemini"), _gemini_environment, _prepare_gemini
)
QWEN = Program("qwen", *_npm("qwen-code", "@qwen-code/qwen-code", "qwen"), _qwen_environment, _prepare_qwen)
OPENCODE = Program(
    "opencode", *_npm("opencode-ai", "opencode-ai", "opencode"), _opencode_environment, _prepare_opencode
)
AIDER = PythonProgram(
    "aider",
    _AIDER / "bin/aider",
    next(_AIDER.glob("lib/python3*/site-packages/aider_chat-*.dist-info"), _AIDER / "missing"),
    _aider_environment,
    _prepare_aider,
    ("--model", f"openai/{MODEL}", "--no-auto-commits"),
)
PROGRAMS_B = {program.name: program for program in (GEMINI, QWEN, OPENCODE, AIDER)}
