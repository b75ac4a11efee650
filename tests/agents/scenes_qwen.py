"""Scenes of Qwen Code for its recorded screens."""

import json
import time

from tests.agents.stage import Stage

_EMPTY = "Type your message"


def _ready(stage: Stage, *argv: str, width: int = 200, height: int = 50, **environment: str) -> None:
    stage.prepare()
    stage.begin(*argv, width=width, height=height, **environment)
    stage.terminal.wait(_EMPTY)
    stage.terminal.settled()


def starting(stage: Stage) -> None:
    """From the start of the process to its first picture."""
    stage.prepare()
    stage.begin()
    stage.save("starting-blank", "just started, nothing drawn yet", r"^")


def transcript(stage: Stage) -> None:
    """Fresh, after an answer, after a poke that begins with a number, after many lines."""
    _ready(stage)
    stage.save("ready-fresh", "just started, the provider is in settings.json")
    stage.send("hello there")
    stage.terminal.wait("OK [0-9a-f]{12}")
    stage.save("ready-answered", "after one answer: the footer says how much of the context is used")
    stage.send("1. read the mail")
    stage.terminal.wait(r"read the mail[\s\S]*OK [0-9a-f]{12}")
    stage.save("ready-numbered", "after a message that begins with 1.")
    stage.send("LINES 120")
    stage.terminal.wait("line 120 of 120")
    stage.save("ready-long", "after an answer of 120 lines")
    stage.send("/nosuch command")
    stage.save("ready-unknown-command", "after a command that does not exist", "Unknown command")
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
    stage.save("draft-home", "typed and not sent, cursor at Home")
    terminal.keys("End", "C-j")
    stage.save("draft-newline", "one line and a newline")
    terminal.type("second line")
    stage.save("draft-two-lines", "two lines")
    terminal.keys("C-c")
    terminal.type("   ")
    stage.save("draft-spaces", "three spaces")
    terminal.keys("C-u")
    terminal.type("/")
    stage.save("draft-slash", "after / : a list of commands is open", "/54")
    terminal.keys("C-u")
    (stage.place.work / "notes.md").write_text("notes\n")
    terminal.type("@")
    time.sleep(1.5)
    stage.save("draft-at", "after @")
    terminal.keys("C-u")
    terminal.type("!")
    stage.save("draft-shell-empty", "after ! : shell mode, nothing typed", "shell mode enabled")
    terminal.type("ls")
    stage.save("draft-shell", "shell mode with a command typed")
    terminal.keys("C-u")
    stage.save("draft-shell-killed", "shell mode after C-u: still shell mode")
    terminal.keys("Escape")
    time.sleep(1)
    terminal.paste("\n".join(f"line {n}" for n in range(12)))
    stage.save("draft-pasted-lines", "12 lines pasted and not sent", "Pasted")
    terminal.keys("C-u")
    terminal.paste("x" * 1200)
    stage.save("draft-pasted-chars", "1200 characters pasted and not sent", "Pasted")
    terminal.keys("C-u")
    terminal.type("?")
    stage.save("draft-help", "after ? on the empty line: the list of keys is open", "for shell mode")
    terminal.type("?")
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
    stage.terminal.keys("Enter")
    time.sleep(0.4)
    stage.save("busy-queued", "an answer is coming in, a message sent meanwhile waits in a queue", "a draft")
    stage.terminal.wait(r"OK [0-9a-f]{12}[\s\S]*OK [0-9a-f]{12}")
    stage.terminal.settled()
    stage.send("ERROR 503")
    time.sleep(1.5)
    stage.save("busy-retry", "the server answers 503 and the request is tried again", "esc to cancel")


def tools(stage: Stage) -> None:
    """A tool that asks, runs, is done."""
    _ready(stage)
    stage.send("TOOL python3 -c 'import time; time.sleep(5)'")
    stage.save("asks-permission", "asks whether a shell command may run", "llow execution|Yes, allow once")
    time.sleep(1)
    stage.save("asks-permission-later", "the same a second later")
    stage.terminal.keys("Enter")
    time.sleep(1.5)
    stage.save("busy-tool", "a shell command runs", "esc to cancel")
    stage.terminal.wait("DONE")
    stage.save("ready-tool", "after a tool has run")
    path = stage.place.work / "notes.txt"
    stage.send(f'CALL write_file {{"file_path": "{path}", "content": "one\\ntwo\\n"}}')
    stage.save("asks-permission-edit", "asks whether a file may be written", "pply this change|allow once")
    stage.terminal.keys("Escape")
    stage.save("ready-refused", "after a permission was refused with Esc")


def yolo(stage: Stage) -> None:
    """Tools run without a question."""
    _ready(stage, "--yolo")
    stage.save("ready-yolo", "started with --yolo: the sign of the input line is another")
    stage.send("TOOL python3 -c 'import time; time.sleep(5)'")
    time.sleep(2)
    stage.save("busy-tool-yolo", "a shell command runs that nobody was asked about", "esc to cancel")
    stage.terminal.wait("DONE")
    stage.terminal.keys("BTab")
    stage.save("ready-plan", "after Shift-Tab")
    stage.terminal.keys("BTab")
    stage.save("ready-default", "after another Shift-Tab")
    stage.terminal.keys("BTab")
    stage.save("ready-auto-edit", "after another Shift-Tab")


def _pick(stage: Stage, command: str, wanted: str) -> None:
    _ready(stage)
    stage.terminal.type(f"/{command} ")
    time.sleep(0.5)
    stage.terminal.keys("Enter")
    time.sleep(1)
    stage.save(f"asks-{command}", f"after /{command}", wanted)


def pick_theme(stage: Stage) -> None:
    """The list of themes."""
    _pick(stage, "theme", "heme")


def pick_model(stage: Stage) -> None:
    """The list of models."""
    _pick(stage, "model", "odel")


def pick_auth(stage: Stage) -> None:
    """The ways to sign in."""
    _pick(stage, "auth", "uthenti")


def pick_settings(stage: Stage) -> None:
    """The settings."""
    _pick(stage, "settings", "ettings")


def pick_help(stage: Stage) -> None:
    """The help box takes the keys until Esc."""
    _pick(stage, "help", "Esc to cancel")


def pick_resume(stage: Stage) -> None:
    """A resumed session and the list of sessions."""
    _ready(stage)
    stage.send("hello there")
    stage.terminal.wait("OK [0-9a-f]{12}")
    stage.terminal.settled()
    stage.begin("--continue")
    stage.terminal.wait(_EMPTY)
    stage.save("ready-resumed", "started with --continue")
    stage.begin("--resume")
    stage.save("asks-resume", "started with --resume: the list of sessions", "ession")


def trust(stage: Stage) -> None:
    """The question whether a folder may be trusted."""
    stage.prepare()
    file = stage.place.home / ".qwen/settings.json"
    settings = json.loads(file.read_text())
    settings["security"]["folderTrust"]["enabled"] = True
    file.write_text(json.dumps(settings))
    stage.begin()
    stage.save("asks-trust", "first start in a folder that is not known", "rust")


def first_start(stage: Stage) -> None:
    """Nothing was set up."""
    (stage.place.home / ".qwen").mkdir()
    settings = {"general": {"enableAutoUpdate": False}, "privacy": {"usageStatisticsEnabled": False}}
    (stage.place.home / ".qwen/settings.json").write_text(json.dumps(settings))
    stage.begin()
    stage.save("asks-auth-first", "first start without a provider: how to sign in", "uthenti|sign in|Sign in")


def limits(stage: Stage) -> None:
    """A limit of the provider's."""
    _ready(stage)
    stage.send("LIMIT 0")
    stage.save(
        "limited-quota",
        "429 insufficient_quota, after one and a half minutes: waits to try again",
        "API Error",
        400,
    )


def rate_limits(stage: Stage) -> None:
    """A limit of the provider's that says when it ends."""
    _ready(stage)
    stage.send("LIMIT 3600")
    time.sleep(20)
    stage.save(
        "busy-limit-hour",
        "429 with retry-after: 3600: tried again by itself, not a word of the limit",
        "esc to",
    )
    stage.save(
        "limited-hour",
        "the same after one and a half minutes: it says so and waits to try again",
        "API Error",
        400,
    )


def small(stage: Stage) -> None:
    """The same in 100 columns and 30 lines."""
    _ready(stage, width=100, height=30)
    stage.save("ready-fresh-small", "just started, 100 by 30")
    stage.send("SLOW 3")
    stage.save("busy-streaming-small", "an answer is coming in, 100 by 30", "piece 5 of")
    stage.terminal.wait("piece 15 of")
    stage.terminal.settled()
    stage.send("TOOL touch finished")
    stage.save("asks-permission-small", "asks whether a shell command may run, 100 by 30", "allow once")
