"""The screens of Claude Code."""

import json
import time
from pathlib import Path
from typing import Any

from tests.agents.driver import Terminal
from tests.agents.programs import Place
from tests.agents.record import TYPED, Recorder, Scenario

READY = r"(?m)^❯"


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _settings(**values: Any) -> Any:
    return lambda place: _change(place.home / ".claude/settings.json", **values)


def _say(terminal: Terminal, text: str, until: str = "", seconds: float = 20) -> None:
    """Paste a message, send it, and wait for what it brings about (by default the end of the answer)."""
    terminal.send(text)
    if until:
        terminal.wait(until, seconds)
    else:
        time.sleep(0.5)
        terminal.wait(lambda screen: screen.title.startswith("✳") and "esc to interrupt" not in screen.plain)
        terminal.settled()


def fresh(recorder: Recorder) -> None:
    """From the first moment to an empty input line."""
    with recorder.start() as terminal:
        recorder.take(terminal, "starting", "blank", "right after the start, nothing drawn yet")
        terminal.wait(READY)
        terminal.settled()
        recorder.take(terminal, "ready", "fresh", "started in a trusted folder, nothing typed")


def drafts(recorder: Recorder) -> None:
    """What a person has typed and not sent."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "Say hello")
        recorder.take(terminal, "ready", "answered", "after one answer")
        for what, typed, note in TYPED:
            terminal.type(typed)
            terminal.settled()
            recorder.take(terminal, "draft", what, note)
            if what == "letters":
                terminal.keys("Home")
                terminal.settled()
                recorder.take(terminal, "draft", "letters-home", "letters typed, then Home")
                terminal.keys("End")
            terminal.keys("Escape", *["C-u"] * 4, "BSpace")
            terminal.settled()
        _pasted_drafts(recorder, terminal)


def _pasted_drafts(recorder: Recorder, terminal: Terminal) -> None:
    terminal.type("one")
    terminal.keys("M-Enter")
    terminal.type("two")
    terminal.settled()
    recorder.take(terminal, "draft", "lines", "two lines typed with Alt-Enter")
    terminal.keys("C-u", "C-u")
    terminal.settled()
    recorder.take(terminal, "draft", "lines-first", "two lines typed, then C-u twice: the first is left")
    terminal.keys(*["C-u"] * 4)
    terminal.paste("\n".join(f"line {n}" for n in range(1, 11)))
    terminal.settled()
    recorder.take(terminal, "draft", "pasted", "ten lines pasted: shown as a placeholder")
    terminal.keys(*["C-u"] * 4)
    terminal.paste("word " * 100)
    terminal.settled()
    recorder.take(terminal, "draft", "wrapped", "500 characters pasted: wrapped in full")
    terminal.keys(*["C-u"] * 8, "?")
    terminal.settled()
    recorder.take(
        terminal, "ready", "shortcuts", "a question mark typed: the help is open below the empty line"
    )
    terminal.keys("?")
    terminal.type("draft to stash")
    terminal.settled()
    terminal.keys("C-s")
    terminal.settled()
    recorder.take(
        terminal, "ready", "stashed", "a draft put aside with C-s; it comes back after the next message"
    )


def modes(recorder: Recorder) -> None:
    """Permission modes and the views that a key opens."""
    with recorder.start(ready=READY) as terminal:
        for what in ("accept-edits", "plan-mode"):
            terminal.keys("BTab")
            terminal.settled()
            recorder.take(terminal, "ready", what, f"{what} chosen with Shift-Tab")
        terminal.keys("BTab")
        _say(terminal, "Say hello")
        terminal.keys("C-o")
        terminal.settled()
        recorder.take(terminal, "asks", "transcript", "the transcript is open (C-o)")
        terminal.keys("C-o")
        terminal.settled()
        terminal.keys("C-r")
        terminal.settled()
        recorder.take(terminal, "draft", "history-search", "searching the history (C-r)")
        terminal.keys("Escape", "C-u", "C-u")
        terminal.settled()
        terminal.keys("Escape", "Escape")
        terminal.settled()
        recorder.take(terminal, "asks", "rewind", "Escape twice on an empty line")
        terminal.keys("Escape")
        terminal.settled()
        terminal.keys("Left")
        terminal.settled()
        recorder.take(terminal, "asks", "agents", "the list of agents is open (Left on an empty line)")
    with recorder.start(ready=READY) as terminal:
        terminal.keys("C-z")
        terminal.settled()
        recorder.take(terminal, "ended", "suspended", "C-z without a shell that could bring it back")


def transcripts(recorder: Recorder) -> None:
    """Screens whose transcript looks like a question."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "1. Look at the tests\n2. Say hello")
        recorder.take(terminal, "ready", "numbered-poke", "after a message that begins with 1.")
        _say(terminal, "Do you want to proceed?\n❯ 1. Yes\n  2. No\nEsc to cancel")
        recorder.take(terminal, "ready", "question-poke", "after a message that looks like a question")
        _say(terminal, "LINES 120")
        recorder.take(terminal, "ready", "long", "after an answer longer than the screen")
    with recorder.start(
        "--model", "sonnet", ready=READY, env={"CLAUDE_CODE_DISABLE_1M_CONTEXT": "1"}
    ) as terminal:
        for tokens in (120_000, 160_000):
            _say(terminal, f"TOKENS {tokens}")
            recorder.take(terminal, "ready", f"context-{tokens}", f"{tokens} of 200,000 tokens are in use")
        terminal.type("/compact")
        terminal.settled()
        terminal.keys("Enter")
        terminal.wait("Compacting")
        recorder.take(terminal, "busy", "compacting", "/compact is at work")


def busy(recorder: Recorder) -> None:
    """While the model or a tool works."""
    with recorder.start(ready=READY) as terminal:
        _busy(recorder, terminal, "")


def _busy(recorder: Recorder, terminal: Terminal, suffix: str) -> None:
    _say(terminal, "SLOW 6", "piece 4")
    recorder.take(terminal, "busy", f"streaming{suffix}", "the answer streams")
    terminal.wait(lambda screen: screen.title.startswith("✳"))
    terminal.settled()
    _say(terminal, "SILENT 6", "esc to interrupt")
    recorder.take(terminal, "busy", f"begins{suffix}", "right after Enter")
    time.sleep(2)
    recorder.take(terminal, "busy", f"silent{suffix}", "waiting for the model's first byte")
    terminal.type("a draft")
    time.sleep(0.5)
    recorder.take(terminal, "busy", f"draft{suffix}", "a person types while the model is silent")
    terminal.keys("Enter")
    time.sleep(0.5)
    recorder.take(terminal, "busy", f"queued{suffix}", "a message waits for the end of the answer")
    terminal.wait(lambda screen: screen.title.startswith("✳"))
    terminal.settled()
    recorder.take(terminal, "ready", f"after-queue{suffix}", "the queued message was answered")


def tools(recorder: Recorder) -> None:
    """A tool: the question, the run, a shell in the background."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "TOOL sleep 6; touch made-by-tool", "Do you want")
        terminal.settled()
        recorder.take(terminal, "asks", "permission-bash", "may a command run?")
        terminal.keys("Enter")
        time.sleep(2.5)
        recorder.take(terminal, "busy", "tool", "a command runs")
        terminal.wait("DONE")
        terminal.settled()
        recorder.take(terminal, "ready", "after-tool", "after a command and its answer")
        _say(terminal, 'CALL Write {"file_path": "notes.txt", "content": "one\\ntwo\\n"}', "Do you want")
        terminal.settled()
        recorder.take(terminal, "asks", "permission-edit", "may a file be written?")
        terminal.keys("Tab")
        terminal.settled()
        recorder.take(terminal, "asks", "permission-amend", "the answer is amended (Tab)")
        terminal.keys("Escape")
        terminal.settled()
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "ready", "refused", "after a refused permission")


def background(recorder: Recorder) -> None:
    """A shell of the agent's in the background while it waits for input."""
    with recorder.start("--dangerously-skip-permissions", ready=READY) as terminal:
        recorder.take(terminal, "ready", "bypass", "permissions are skipped")
        _say(terminal, 'CALL Bash {"command": "sleep 300", "run_in_background": true}', "DONE")
        terminal.settled()
        recorder.take(
            terminal, "ready", "background-shell", "a command of the agent's runs in the background"
        )
        _busy(recorder, terminal, "-bypass")


def narrow(recorder: Recorder) -> None:
    """100 columns and 30 lines."""
    arguments = ("--dangerously-skip-permissions",)
    with recorder.start(*arguments, ready=READY, size=(100, 30)) as terminal:
        recorder.take(terminal, "ready", "fresh-100x30", "started, 100 x 30")
        _busy(recorder, terminal, "-100x30")
    with recorder.start(ready=READY, size=(100, 30)) as terminal:
        _say(terminal, "TOOL sleep 1; touch made-by-tool", "Do you want")
        terminal.settled()
        recorder.take(terminal, "asks", "permission-bash-100x30", "may a command run? 100 x 30")


def questions(recorder: Recorder) -> None:
    """Questions of the model's."""
    options = [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}]
    one = {"question": "Which colour?", "header": "Colour", "options": options, "multiSelect": False}
    with recorder.start(ready=READY) as terminal:
        _say(terminal, f"CALL AskUserQuestion {json.dumps({'questions': [one]})}", "Which colour")
        terminal.settled()
        recorder.take(terminal, "asks", "question", "the model asks with choices")
    with recorder.start("--permission-mode", "plan", ready=READY) as terminal:
        _say(terminal, 'CALL ExitPlanMode {"plan": "Read, then write"}', "Exit plan mode")
        terminal.settled()
        recorder.take(terminal, "asks", "plan", "the model wants to leave plan mode")


def pickers(recorder: Recorder) -> None:
    """Commands that open a picker or a page."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "Say hello")
        for command in ("model", "config", "resume", "permissions", "help", "effort", "theme", "login"):
            terminal.type(f"/{command}")
            terminal.settled()
            terminal.keys("Enter")
            terminal.settled()
            recorder.take(terminal, "asks", f"slash-{command}", f"/{command} is open")
            terminal.keys("Escape", "Escape")
            time.sleep(1.2)
            terminal.keys("Escape")
            terminal.settled()


def failures(recorder: Recorder) -> None:
    """Errors of the server."""
    with recorder.start(ready=READY, env={"CLAUDE_CODE_MAX_RETRIES": "3"}) as terminal:
        _say(terminal, "ERROR 529", "(?i)retry|attempt", 40)
        recorder.take(terminal, "busy", "retrying", "the server is overloaded, the program tries again")
        terminal.wait(lambda screen: screen.title.startswith("✳") and "API Error" in screen.plain, 60)
        terminal.settled()
        recorder.take(terminal, "ready", "api-error", "the last try failed")
        _say(terminal, "ERROR 401")
        recorder.take(terminal, "ready", "not-authorized", "the key was refused")


SUBSCRIBED = {
    "ANTHROPIC_API_KEY": "",
    "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-mock-token",
    "CLAUDE_CODE_SUBSCRIPTION_TYPE": "pro",
}


def limits(recorder: Recorder) -> None:
    """The usage limit of a subscription, and of a key."""
    with recorder.start(ready=READY, env=SUBSCRIBED) as terminal:
        recorder.take(terminal, "ready", "subscribed", "started with a subscription's token")
        _say(terminal, "LIMIT 7200", "(?i)limit")
        terminal.settled()
        recorder.take(
            terminal, "limited", "options", "the limit was reached: the wait screen with its options"
        )
        terminal.keys("Enter")
        terminal.settled()
        recorder.take(terminal, "limited", "session", "the limit was reached, the options are closed")
        _say(terminal, "Say hello")
        recorder.take(terminal, "ready", "after-limit", "a message after the limit was answered")
        _say(terminal, "NEAR 7200")
        recorder.take(terminal, "ready", "near-limit", "the limit is near")
    with recorder.start(ready=READY, env=SUBSCRIBED) as terminal:
        _say(terminal, "LIMIT 200000 seven_day", "(?i)hit your")
        terminal.settled()
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "limited", "weekly", "the weekly limit was reached, the options are closed")
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "LIMIT 7200", "(?i)limit|retry", 40)
        time.sleep(2)
        recorder.take(terminal, "limited", "key", "429 with a key")


def first_run(recorder: Recorder) -> None:
    """The boxes of a first start."""

    def _nothing(place: Place) -> None:
        (place.home / ".claude.json").unlink()
        (place.home / ".claude/settings.json").unlink()

    elsewhere = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "us-east-1"}
    with recorder.start(prepare=_nothing, env=elsewhere, ready="(?i)text style") as terminal:
        recorder.take(terminal, "asks", "onboarding-theme", "the first start of a home")
        terminal.keys("Enter")
        terminal.settled()
        recorder.take(terminal, "asks", "onboarding-security", "the first start: notes to read")

    def _untrusted(place: Place) -> None:
        _change(place.home / ".claude.json", projects={})
        _change(place.home / ".claude/settings.json", skipDangerousModePermissionPrompt=False)

    with recorder.start("--dangerously-skip-permissions", prepare=_untrusted, ready="(?i)trust") as terminal:
        recorder.take(terminal, "asks", "trust", "a folder that is not trusted")
        terminal.keys("Enter")
        terminal.settled()
        recorder.take(terminal, "asks", "bypass", "--dangerously-skip-permissions for the first time")

    def _key(place: Place) -> None:
        _change(place.home / ".claude.json", customApiKeyResponses={})

    with recorder.start(prepare=_key, ready="(?i)api key") as terminal:
        recorder.take(terminal, "asks", "key", "a key in the environment that was not approved")


def status_line(recorder: Recorder) -> None:
    """A status line that ticks each second."""
    line = {"type": "command", "command": "date +%T", "refreshInterval": 1}
    with recorder.start(prepare=_settings(statusLine=line)) as terminal:
        terminal.wait(r"\d\d:\d\d:\d\d")
        recorder.take(terminal, "ready", "status-line", "a status line that ticks")
        _say(terminal, "SILENT 4", "(?m)^. \\w+…")
        time.sleep(2)
        recorder.take(terminal, "busy", "status-line", "silent, with a status line that ticks")
        terminal.wait("OK")
        time.sleep(0.5)
        recorder.take(
            terminal, "ready", "status-line-answered", "after an answer, with a ticking status line"
        )
        terminal.type("hello")
        time.sleep(0.5)
        recorder.take(terminal, "draft", "status-line", "letters typed, with a ticking status line")


def vim(recorder: Recorder) -> None:
    """The vi keys of the input line."""
    with recorder.start(prepare=_settings(editorMode="vim"), ready=READY) as terminal:
        recorder.take(terminal, "ready", "vim-insert", "vi keys, insert mode, nothing typed")
        terminal.type("hello")
        terminal.settled()
        recorder.take(terminal, "draft", "vim-insert", "vi keys, insert mode, letters typed")
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "draft", "vim-normal", "vi keys, normal mode, letters typed")
        terminal.type("dd")
        terminal.settled()
        recorder.take(
            terminal, "ready", "vim-normal-empty", "vi keys, normal mode: letters would be commands"
        )


def placeholders(recorder: Recorder) -> None:
    """Ghost text on the empty input line; what no key and an unknown session look like."""

    def _sources(place: Place) -> None:
        for name in ("main.py", "README.md"):
            (place.work / name).write_text("print('hello')\n")

    env = {"CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "1"}
    with recorder.start(prepare=_sources, env=env, ready=READY) as terminal:
        recorder.take(
            terminal, "ready", "placeholder", "started in a folder with sources: a suggestion is shown"
        )
    with recorder.start(env={"ANTHROPIC_API_KEY": ""}, ready=READY) as terminal:
        recorder.take(terminal, "asks", "not-logged-in", "no key: each message would fail until /login")
    with recorder.start("--resume", "unknown", ready="(?i)no sessions") as terminal:
        recorder.take(terminal, "asks", "resume-unknown", "--resume with a session that is not there")


SCENARIOS: list[Scenario] = [
    fresh, drafts, modes, transcripts, busy, tools, background, narrow, questions, pickers,
    failures, limits, first_run, status_line, vim, placeholders,
]  # fmt: skip
