"""Scenes of Gemini CLI for its recorded screens."""

import json
import time

from tests.agents.stage import Stage

_EMPTY = "Type your message"


def _ready(stage: Stage, *argv: str, width: int = 200, height: int = 50, **environment: str) -> None:
    stage.prepare()
    stage.begin(*argv, width=width, height=height, **environment)
    stage.terminal.wait(_EMPTY)
    stage.terminal.settled(quiet=2)


def starting(stage: Stage) -> None:
    """From the start of the process to its first picture."""
    stage.prepare()
    stage.begin()
    stage.save("starting-blank", "just started, nothing drawn yet", r"^")


def transcript(stage: Stage) -> None:
    """Fresh, after an answer, after a poke that begins with a number, after many lines."""
    _ready(stage)
    stage.save("ready-fresh", "just started, the folder is trusted, an API key is in the environment")
    stage.send("hello there")
    stage.terminal.wait("OK [0-9a-f]{12}")
    stage.save("ready-answered", "after one answer")
    stage.send("1. read the mail")
    stage.terminal.wait(r"read the mail[\s\S]*OK [0-9a-f]{12}")
    stage.save("ready-numbered", "after a message that begins with 1.")
    stage.send("LINES 120")
    stage.terminal.wait("line 120 of 120")
    stage.save("ready-long", "after an answer of 120 lines")
    stage.send("\n".join(f"line {n} of a long message" for n in range(30)))
    stage.terminal.wait("Press Ctrl\\+O to expand pasted text")
    stage.save("ready-pasted", "after a message of 30 lines was sent")
    stage.terminal.keys("Escape")
    stage.save("ready-escape", "after Esc on the empty input line")
    stage.terminal.keys("C-c")
    stage.save(
        "ready-ctrl-c",
        "after Ctrl-C on the empty input line, which says that a second one exits",
        "again to exit",
    )


def drafts(stage: Stage) -> None:
    """What a person may leave in the input line."""
    _ready(stage)
    terminal = stage.terminal
    terminal.type("please look at the")
    stage.save("draft-letters", "typed and not sent")
    terminal.keys("Home")
    stage.save(
        "draft-home", "typed and not sent, cursor at Home: it stands where it stands when the line is empty"
    )
    terminal.keys("End", "C-j")
    stage.save("draft-newline", "one line and a newline: the cursor stands on an empty second line")
    terminal.type("second line")
    stage.save("draft-two-lines", "two lines")
    terminal.keys("C-c")
    terminal.type("   ")
    stage.save("draft-spaces", "three spaces")
    terminal.keys("C-u")
    terminal.type("/")
    stage.save("draft-slash", "after / : a list of commands is open", "quit  ")
    terminal.keys("C-u")
    terminal.type("@")
    stage.save("draft-at", "after @ : a list of agents and files is open", "Agent")
    terminal.keys("C-u")
    terminal.type("!")
    stage.save("draft-shell-empty", "after ! : shell mode, nothing typed", "shell mode enabled")
    terminal.type("ls")
    stage.save("draft-shell", "shell mode with a command typed")
    terminal.keys("C-u")
    stage.save("draft-shell-killed", "shell mode after C-u: still shell mode")
    terminal.keys("Escape")
    terminal.paste("\n".join(f"line {n}" for n in range(12)))
    stage.save("draft-pasted-lines", "12 lines pasted and not sent", "Pasted Text")
    terminal.keys("C-u")
    terminal.paste("x" * 600)
    stage.save("draft-pasted-chars", "600 characters pasted and not sent", "Pasted Text")
    terminal.keys("C-u")
    terminal.type("?")
    stage.save("draft-help", "after ? on the empty line: the list of keys is open", "Shortcuts See")
    terminal.keys("Escape")
    terminal.keys("C-r")
    stage.save("draft-search", "after Ctrl-R: search in the history")


def busy(stage: Stage) -> None:
    """Answers that take their time."""
    _ready(stage)
    stage.send("SILENT 8")
    time.sleep(2)
    stage.save("busy-silent", "waits for the first byte of an answer", "esc to cancel")
    stage.terminal.wait("OK [0-9a-f]{12}")
    stage.terminal.settled()
    stage.send("SLOW 6")
    stage.save("busy-streaming", "an answer is coming in", "piece 9 of")
    stage.terminal.type("a draft")
    stage.save("busy-draft", "an answer is coming in, a draft in the input line", "a draft")
    stage.terminal.keys("C-u")
    stage.terminal.wait("piece 30 of")
    stage.terminal.settled()
    stage.send("ERROR 503")
    time.sleep(8)
    stage.save("busy-retry", "the server answers 503 and the request is tried again", "esc to cancel")


def tools(stage: Stage) -> None:
    """A tool that asks, runs, is done."""
    _ready(stage)
    stage.send("TOOL sleep 4; echo finished")
    stage.save("asks-permission", "asks whether a shell command may run", "Allow once")
    time.sleep(1)
    stage.save("asks-permission-later", "the same a second later")
    stage.terminal.keys("Enter")
    time.sleep(1.5)
    stage.save("busy-tool", "a shell command runs", "sleep 4")
    stage.terminal.wait("DONE")
    stage.save("ready-tool", "after a tool has run")
    stage.send('CALL write_file {"file_path": "notes.txt", "content": "one\\ntwo\\n"}')
    stage.save("asks-permission-edit", "asks whether a file may be written", "Allow once")
    stage.terminal.keys("Escape")
    stage.save("ready-refused", "after a permission was refused with Esc")


def yolo(stage: Stage) -> None:
    """Tools run without a question."""
    _ready(stage, "--yolo")
    stage.save("ready-yolo", "started with --yolo: the sign of the input line is another")
    stage.send("TOOL sleep 4; echo finished")
    time.sleep(2)
    stage.save("busy-tool-yolo", "a shell command runs that nobody was asked about", "sleep 4")
    stage.terminal.wait("DONE")
    stage.terminal.keys("C-y", "BTab")
    stage.save("ready-auto-edit", "after Ctrl-Y and Shift-Tab: edits are accepted")
    stage.terminal.keys("BTab")
    stage.save("ready-plan", "after another Shift-Tab: plan mode")


def pickers(stage: Stage) -> None:
    """Dialogs that a command opens."""
    _ready(stage)
    for command, wanted in (
        ("theme", "heme"),
        ("model", "odel"),
        ("auth", "authenticate"),
        ("settings", "Settings"),
        ("editor", "ditor"),
        ("permissions", "rust"),
    ):
        stage.terminal.type(f"/{command} ")
        time.sleep(0.5)
        stage.terminal.keys("Enter")
        time.sleep(1)
        stage.save(f"asks-{command}", f"after /{command}", wanted)
        stage.terminal.keys("Escape", "Escape")
        time.sleep(1)
        stage.terminal.keys("C-u")


def trust(stage: Stage) -> None:
    """The question whether a folder may be trusted."""
    stage.prepare()
    (stage.place.home / ".gemini/trustedFolders.json").unlink()
    stage.begin()
    stage.save("asks-trust", "first start in a folder that is not known", "rust")


def first_start(stage: Stage) -> None:
    """Nothing was set up, no key is there."""
    (stage.place.home / ".gemini").mkdir()
    settings = {"general": {"enableAutoUpdate": False}, "privacy": {"usageStatisticsEnabled": False}}
    (stage.place.home / ".gemini/settings.json").write_text(json.dumps(settings))
    stage.begin(GEMINI_API_KEY="", GEMINI_CLI_TRUST_WORKSPACE="true")
    stage.save("asks-auth-first", "first start without a key: how to sign in", "authenticate")
    stage.terminal.keys("Down")
    stage.terminal.keys("Enter")
    stage.save("asks-key", "asks for an API key", "API")


def limits(stage: Stage) -> None:
    """A quota is used up."""
    _ready(stage)
    stage.send("LIMIT 7200")
    stage.save(
        "limited-subscription", "the quota of a subscription is used up, two hours to go", "resets at", 60
    )
    time.sleep(2)
    stage.save("limited-subscription-later", "the same two seconds later")
    stage.terminal.keys("Down", "Down", "Up")
    stage.save("limited-subscription-stop", "the same, the cursor on another answer")


def daily_limit(stage: Stage) -> None:
    """The daily quota of a free key is used up."""
    _ready(stage)
    stage.send("LIMIT 0")
    stage.save(
        "asks-limit-day", "the daily quota of a free key is used up: no time is said", "limit reached", 60
    )
    stage.terminal.keys("Down")
    stage.terminal.keys("Enter")
    stage.terminal.wait(lambda screen: "Ready" in screen.title)
    stage.save("ready-limit-stopped", "the dialog was answered with Stop")


def quiet_limits(stage: Stage) -> None:
    """Limits of which the screen says nothing: the request is tried again when its time has come."""
    _ready(stage)
    stage.terminal.settled(quiet=3)
    stage.send("LIMIT 20")
    time.sleep(6)
    stage.save(
        "busy-limit-minute", "a quota of a minute: the request is tried again by itself", "esc to cancel"
    )
    stage.terminal.keys("Escape")
    stage.terminal.wait("cancelled")
    stage.send("ERROR 429")
    time.sleep(15)
    stage.save(
        "busy-limit-capacity", "a subscription's quota for two hours: not a word of it", "esc to cancel"
    )


def after_resume(stage: Stage) -> None:
    """A session that was resumed."""
    _ready(stage)
    stage.send("hello there")
    stage.terminal.wait("OK [0-9a-f]{12}")
    stage.terminal.settled()
    stage.begin("--resume")
    stage.terminal.wait(_EMPTY)
    stage.save("ready-resumed", "started with --resume")


def small(stage: Stage) -> None:
    """The same in 100 columns and 30 lines."""
    _ready(stage, width=100, height=30)
    stage.save("ready-fresh-small", "just started, 100 by 30")
    stage.send("SLOW 3")
    stage.save("busy-streaming-small", "an answer is coming in, 100 by 30", "piece 5 of")
    stage.terminal.wait("piece 15 of")
    stage.terminal.settled()
    stage.send("TOOL touch finished")
    stage.save("asks-permission-small", "asks whether a shell command may run, 100 by 30", "Allow once")
