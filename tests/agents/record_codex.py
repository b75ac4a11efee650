"""The screens of Codex."""

import json
import subprocess
import time
from collections.abc import Callable

from tests.agents.driver import Screen, Terminal
from tests.agents.programs import Place
from tests.agents.record import TYPED, Recorder, Scenario

DRAWN = r"(?m)^› "
READY = r"← for agents"
_SPINS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def _idle(screen: Screen) -> bool:
    return screen.title[:1] not in _SPINS and "esc to interrupt" not in screen.plain


def _say(terminal: Terminal, text: str, until: str = "", seconds: float = 20) -> None:
    """Paste a message, send it, and wait for what it brings about (by default the end of the answer)."""
    terminal.send(text)
    if until:
        terminal.wait(until, seconds)
    else:
        time.sleep(0.5)
        terminal.wait(_idle)
        terminal.settled()


def _config(*lines: str) -> Callable[[Place], None]:
    """Add lines to config.toml."""

    def prepare(place: Place) -> None:
        path = place.home / ".codex/config.toml"
        path.write_text(path.read_text() + "\n".join(lines) + "\n")

    return prepare


def fresh(recorder: Recorder) -> None:
    """From the first moment to an empty input line."""
    with recorder.start() as terminal:
        recorder.take(terminal, "starting", "blank", "right after the start, nothing drawn yet")
        terminal.wait(DRAWN)
        terminal.settled(0.3)
        recorder.take(terminal, "starting", "daemon", "the input line is there, the background server starts")
        terminal.send("Say hello")
        terminal.settled(0.3)
        recorder.take(
            terminal, "starting", "entered", "a message entered before the background server is there"
        )
    with recorder.start(ready=READY) as terminal:
        recorder.take(terminal, "ready", "fresh", "started in a trusted folder, nothing typed")
        terminal.keys("F2")
        terminal.settled()
        recorder.take(terminal, "asks", "warnings", "the warnings are open (F2)")


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
    terminal.keys("C-j")
    terminal.type("two")
    terminal.settled()
    recorder.take(terminal, "draft", "lines", "two lines typed with C-j")
    terminal.keys(*["C-u"] * 4)
    terminal.paste("word " * 300)
    terminal.settled()
    recorder.take(terminal, "draft", "pasted", "1,500 characters pasted: shown as a placeholder")
    terminal.keys(*["C-u"] * 4)
    terminal.paste("word " * 100)
    terminal.settled()
    recorder.take(terminal, "draft", "wrapped", "500 characters pasted: wrapped in full")
    terminal.keys(*["C-u"] * 8)
    terminal.send("/nonsense here")
    terminal.settled()
    recorder.take(
        terminal, "draft", "slash-refused", "an unknown command entered: it stays, the cursor before it"
    )
    terminal.keys("End", *["C-u"] * 4, "?")
    terminal.settled()
    recorder.take(
        terminal, "ready", "shortcuts", "a question mark typed: the help is open above the empty line"
    )


def views(recorder: Recorder) -> None:
    """Modes and the views that a key opens."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "Say hello")
        terminal.keys("BTab")
        terminal.settled()
        recorder.take(terminal, "ready", "plan-mode", "plan mode chosen with Shift-Tab")
        terminal.keys("BTab")
        terminal.settled()
        terminal.keys("C-r")
        terminal.settled()
        recorder.take(terminal, "draft", "history-search", "searching the history (C-r)")
        terminal.keys("Escape")
        terminal.settled()
        terminal.keys("C-u")
        time.sleep(2)
        terminal.keys("Escape")
        terminal.settled(0.3)
        recorder.take(terminal, "ready", "escape", "Escape on an empty line")
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "asks", "browsing", "Escape twice on an empty line: Enter would rewind")
        terminal.keys("Escape")
        terminal.settled()
        terminal.keys("Left")
        time.sleep(2)
        terminal.settled()
        recorder.take(terminal, "asks", "agents", "the list of agents is open (Left on an empty line)")


def transcripts(recorder: Recorder) -> None:
    """Screens whose transcript looks like a question, and a long one."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "1. Look at the tests\n2. Say hello")
        recorder.take(terminal, "ready", "numbered-poke", "after a message that begins with 1.")
        _say(terminal, "Do you want to proceed?\n› 1. Yes\n  2. No\nPress enter to confirm or esc to cancel")
        recorder.take(terminal, "ready", "question-poke", "after a message that looks like a question")
        _say(terminal, "LINES 120")
        recorder.take(terminal, "ready", "long", "after an answer longer than the screen")
        _say(terminal, "TOKENS 150000")
        recorder.take(terminal, "ready", "context", "the model says that 150,000 tokens are in use")


def busy(recorder: Recorder) -> None:
    """While the model works."""
    with recorder.start(ready=READY) as terminal:
        _busy(recorder, terminal, "")


def _busy(recorder: Recorder, terminal: Terminal, suffix: str) -> None:
    _say(terminal, "SLOW 6", "piece 4")
    recorder.take(terminal, "busy", f"streaming{suffix}", "the answer streams")
    terminal.wait("Worked for")
    terminal.settled()
    _say(terminal, "SILENT 7", "esc to interrupt")
    recorder.take(terminal, "busy", f"begins{suffix}", "right after Enter")
    time.sleep(2)
    recorder.take(terminal, "busy", f"silent{suffix}", "waiting for the model's first byte")
    terminal.type("a draft")
    time.sleep(0.5)
    recorder.take(terminal, "busy", f"draft{suffix}", "a person types while the model is silent")
    terminal.keys("Tab")
    time.sleep(0.5)
    recorder.take(terminal, "busy", f"queued{suffix}", "a message waits for the end of the answer (Tab)")
    terminal.wait(lambda screen: screen.plain.count("OK") > 1)
    time.sleep(0.5)
    terminal.settled()
    recorder.take(terminal, "ready", f"after-queue{suffix}", "the queued message was answered")


def tools(recorder: Recorder) -> None:
    """A tool: the run, the questions."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "TOOL sleep 8", "esc to interrupt")
        time.sleep(2.5)
        recorder.take(terminal, "busy", "tool", "a command runs")
        terminal.send("a poke while it works")
        time.sleep(0.5)
        recorder.take(terminal, "busy", "steered", "a message entered while a command runs")
        terminal.wait(lambda screen: "OK" in screen.plain and _idle(screen), 30)
        terminal.settled()
        recorder.take(terminal, "ready", "after-tool", "after a command and its answer")
        wish = {
            "cmd": "touch /opt/made",
            "sandbox_permissions": "require_escalated",
            "justification": "Needed",
        }
        _say(terminal, f"CALL exec_command {json.dumps(wish)}", "(?i)would you like|allow")
        time.sleep(1)
        recorder.take(terminal, "asks", "permission-bash", "may a command run outside of the sandbox?")
        time.sleep(0.8)
        recorder.take(
            terminal, "asks", "permission-blink", "the same question a moment later (the title blinks)"
        )
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "ready", "refused", "after a refused permission")


def questions(recorder: Recorder) -> None:
    """Questions of the model's, in plan mode."""
    options = [{"label": "Red", "description": "warm"}, {"label": "Blue", "description": "cold"}]
    one = {"id": "colour", "header": "Colour", "question": "Which colour?", "options": options}
    with recorder.start(ready=READY) as terminal:
        terminal.keys("BTab")
        terminal.settled()
        _say(terminal, f"CALL request_user_input {json.dumps({'questions': [one]})}", "Which colour")
        time.sleep(1)
        recorder.take(terminal, "asks", "question", "the model asks with choices")


def pickers(recorder: Recorder) -> None:
    """Commands that open a picker or a page."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "Say hello")
        for command in ("model", "permissions", "resume", "experimental", "review", "keymap", "theme"):
            terminal.type(f"/{command}")
            terminal.settled()
            terminal.keys("Enter")
            time.sleep(0.5)
            terminal.settled()
            recorder.take(terminal, "asks", f"slash-{command}", f"/{command} is open")
            terminal.keys("Escape")
            terminal.settled()
        terminal.send("/status")
        time.sleep(1)
        terminal.settled()
        recorder.take(terminal, "ready", "status", "after /status")


def limits(recorder: Recorder) -> None:
    """The usage limit, and errors of the server."""
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "LIMIT 7200", "(?i)limit.*try again")
        terminal.settled()
        recorder.take(
            terminal, "limited", "usage-picker", "the usage limit was reached; another model is offered"
        )
        terminal.keys("2")
        terminal.settled()
        recorder.take(terminal, "limited", "usage", "the usage limit was reached; it ends today")
        _say(terminal, "Say hello")
        recorder.take(terminal, "ready", "after-limit", "a message after the limit was answered")
        _say(terminal, "LIMIT 200000", r"(?s)(limit\W.*try again.*){2}")
        terminal.settled()
        recorder.take(terminal, "limited", "usage-days", "the usage limit was reached; it ends in two days")
    with recorder.start(ready=READY) as terminal:
        _say(terminal, "NEAR 7200")
        recorder.take(
            terminal, "asks", "near-limit", "the limit is near: another model is offered after the answer"
        )
        terminal.keys("2")
        terminal.settled()
        recorder.take(terminal, "ready", "near-limit", "the limit is near, the offer was declined")
        _say(terminal, "ERROR 500", "(?i)reconnect|retry")
        recorder.take(terminal, "busy", "retrying", "the server fails, the program tries again")
        terminal.wait(_idle, 60)
        terminal.settled()
        recorder.take(terminal, "ready", "api-error", "the last try failed")


def first_run(recorder: Recorder) -> None:
    """The boxes of a first start."""

    def _untrusted(place: Place) -> None:
        path = place.home / ".codex/config.toml"
        path.write_text(path.read_text().partition("[projects.")[0])
        subprocess.run(["git", "init", "-q", str(place.work)], check=True, timeout=20)

    with recorder.start(prepare=_untrusted, ready="(?i)trust") as terminal:
        recorder.take(terminal, "asks", "trust", "a folder that is not trusted")

    def _signed_out(place: Place) -> None:
        path = place.home / ".codex/config.toml"
        kept = "check_for_update_on_startup = false\n[analytics]\nenabled = false\n"
        path.write_text(kept + f'[projects."{place.work}"]\ntrust_level = "trusted"\n')

    with recorder.start(prepare=_signed_out, env={"MOCK_KEY": ""}, ready="(?i)sign in") as terminal:
        recorder.take(terminal, "asks", "sign-in", "no provider and no key")

    def _update(place: Place) -> None:
        path = place.home / ".codex/config.toml"
        path.write_text(path.read_text().replace("on_startup = false", "on_startup = true"))
        version = {"latest_version": "9.9.9", "last_checked_at": "2099-01-01T00:00:00Z"}
        (place.home / ".codex/version.json").write_text(json.dumps(version))

    with recorder.start(prepare=_update, ready="9.9.9|for agents") as terminal:
        terminal.settled()
        recorder.take(terminal, "asks", "update", "a newer version is known")


def full_access(recorder: Recorder) -> None:
    """Without sandbox and approvals, without the background server."""
    arguments = ("--dangerously-bypass-approvals-and-sandbox", "--no-daemon")
    with recorder.start(*arguments, ready=READY) as terminal:
        terminal.settled()
        recorder.take(
            terminal, "ready", "full-access", "--dangerously-bypass-approvals-and-sandbox --no-daemon"
        )
        _busy(recorder, terminal, "-full-access")


def narrow(recorder: Recorder) -> None:
    """100 columns and 30 lines."""
    with recorder.start(ready=READY, size=(100, 30)) as terminal:
        terminal.settled()
        recorder.take(terminal, "ready", "fresh-100x30", "started, 100 x 30")
        _busy(recorder, terminal, "-100x30")
        wish = {
            "cmd": "touch /opt/made",
            "sandbox_permissions": "require_escalated",
            "justification": "Needed",
        }
        _say(terminal, f"CALL exec_command {json.dumps(wish)}", "(?i)would you like|allow")
        time.sleep(1)
        recorder.take(terminal, "asks", "permission-bash-100x30", "may a command run? 100 x 30")


def inline(recorder: Recorder) -> None:
    """Without the alternate screen."""
    with recorder.start("--no-alt-screen", ready=READY) as terminal:
        terminal.settled()
        recorder.take(terminal, "ready", "inline", "--no-alt-screen")
        _busy(recorder, terminal, "-inline")


def without_title(recorder: Recorder) -> None:
    """With settings that take the activity out of the title."""
    with recorder.start(prepare=_config("[tui]", "terminal_title = []"), ready=READY) as terminal:
        terminal.settled()
        recorder.take(terminal, "ready", "no-title", "terminal_title = []")
        _busy(recorder, terminal, "-no-title")
    with recorder.start(prepare=_config("[tui]", "animations = false"), ready=READY) as terminal:
        terminal.settled()
        _busy(recorder, terminal, "-still")


def vim(recorder: Recorder) -> None:
    """The vi keys of the input line."""
    with recorder.start(prepare=_config("[tui]", "vim_mode_default = true"), ready=READY) as terminal:
        terminal.settled()
        recorder.take(terminal, "ready", "vim-insert", "vi keys, insert mode, nothing typed")
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "draft", "vim-normal-empty", "vi keys, normal mode, nothing typed")
        terminal.keys("i")
        terminal.type("hello")
        terminal.settled()
        recorder.take(terminal, "draft", "vim-insert", "vi keys, insert mode, letters typed")
        terminal.keys("Escape")
        terminal.settled()
        recorder.take(terminal, "draft", "vim-normal", "vi keys, normal mode, letters typed")


SCENARIOS: list[Scenario] = [
    fresh, drafts, views, transcripts, busy, tools, questions, pickers,
    limits, first_run, full_access, narrow, inline, without_title, vim,
]  # fmt: skip
