"""Scenes of opencode for its recorded screens."""

import json
import time

from tests.agents.stage import Stage

_EMPTY = "Ask anything"


def _ready(stage: Stage, *argv: str, width: int = 200, height: int = 50, **environment: str) -> None:
    stage.prepare()
    stage.begin(*argv, width=width, height=height, **environment)
    stage.terminal.wait(_EMPTY, 40)
    stage.terminal.settled()


def _answered(stage: Stage, width: int = 200, height: int = 50) -> None:
    """Past the first answer: the box has moved from the middle to the bottom, its placeholder is gone."""
    _ready(stage, width=width, height=height)
    stage.send("hello there")
    stage.terminal.wait("OK [0-9a-f]{12}", 40)
    stage.terminal.settled(quiet=1.5)


def starting(stage: Stage) -> None:
    """From the start of the process to its first picture."""
    stage.prepare()
    stage.begin()
    stage.save("starting-blank", "just started, nothing drawn yet", r"^")
    time.sleep(3)
    stage.save("starting-dark", "some seconds later: an empty picture, the cursor off", r"^")


def transcript(stage: Stage) -> None:
    """Fresh, after an answer, after a poke that begins with a number, after many lines."""
    _ready(stage)
    stage.save("ready-fresh", "just started: the box is in the middle of the screen")
    stage.send("hello there")
    stage.terminal.wait("OK [0-9a-f]{12}", 40)
    stage.terminal.settled(quiet=1.5)
    stage.save("ready-answered", "after one answer: the box is at the bottom, without a placeholder")
    stage.send("1. read the mail")
    stage.terminal.wait(r"read the mail[\s\S]*OK [0-9a-f]{12}")
    stage.save("ready-numbered", "after a message that begins with 1.")
    stage.send("LINES 120")
    stage.terminal.wait("line 120 of 120")
    stage.save("ready-long", "after an answer of 120 lines")
    stage.terminal.keys("Escape")
    stage.save("ready-escape", "after Esc on the empty input line")
    stage.terminal.keys("Tab")
    stage.save("ready-plan", "after Tab: another agent's name below the box")


def drafts(stage: Stage) -> None:
    """What a person may leave in the input line."""
    _answered(stage)
    terminal = stage.terminal
    terminal.type("please look at the")
    stage.save("draft-letters", "typed and not sent")
    terminal.keys("C-a")
    stage.save(
        "draft-home", "typed and not sent, cursor at its start (Ctrl-A): it stands as on an empty line"
    )
    terminal.keys("C-e", "C-j")
    stage.save("draft-newline", "one line and a newline: the cursor stands on an empty second line")
    terminal.type("second line")
    stage.save("draft-two-lines", "two lines")
    terminal.keys("Up", "C-a")
    stage.save("draft-two-lines-home", "two lines, the cursor at the start of the first")
    terminal.keys("C-c")
    terminal.type("   ")
    stage.save("draft-spaces", "three spaces")
    terminal.keys("C-u")
    terminal.type("/")
    stage.save("draft-slash", "after / : a list of commands is open", "/agents")
    terminal.keys("C-u")
    terminal.type("@")
    stage.save("draft-at", "after @ : a list of agents and files is open", "@general")
    terminal.keys("C-u")
    terminal.type("!")
    stage.save("draft-shell-empty", "after ! : shell mode, nothing typed", "exit shell mode")
    terminal.type("ls")
    stage.save("draft-shell", "shell mode with a command typed")
    terminal.keys("C-u")
    stage.save("draft-shell-killed", "shell mode after C-u: still shell mode")
    terminal.keys("Escape")
    time.sleep(1)
    terminal.paste("\n".join(f"line {n}" for n in range(12)))
    stage.save("draft-pasted-lines", "12 lines pasted and not sent", "Pasted")
    terminal.keys("C-u")
    terminal.paste("x" * 200)
    stage.save("draft-pasted-chars", "200 characters pasted and not sent", "Pasted")
    terminal.keys("C-u")


def busy(stage: Stage) -> None:
    """Answers that take their time."""
    _answered(stage)
    stage.send("SILENT 8")
    time.sleep(2)
    stage.save("busy-silent", "waits for the first byte of an answer", "esc interrupt")
    stage.terminal.wait(r"OK [0-9a-f]{12}[\s\S]*OK [0-9a-f]{12}")
    stage.terminal.settled()
    stage.send("SLOW 6")
    stage.save("busy-streaming", "an answer is coming in", "piece 9 of")
    stage.terminal.type("a draft")
    stage.save("busy-draft", "an answer is coming in, a draft in the input line", "a draft")
    stage.terminal.keys("Enter")
    time.sleep(0.5)
    stage.save("busy-queued", "an answer is coming in, a message sent meanwhile waits", "QUEUED|a draft")
    stage.terminal.wait("piece 30 of")
    stage.terminal.settled(quiet=1.5)
    stage.send("ERROR 503")
    time.sleep(2)
    stage.save("busy-retry", "the server answers 503 and the request is tried again", "esc interrupt")
    stage.terminal.keys("Escape")
    time.sleep(0.5)
    stage.save("busy-escape", "busy, after one Esc: another one interrupts", "again to interrupt")
    stage.terminal.keys("Escape")
    stage.save("ready-interrupted", "after the second Esc")


def tools(stage: Stage) -> None:
    """A tool that asks, runs, is done."""
    _ready(stage)
    stage.send("TOOL sleep 4; touch finished")
    stage.save("asks-permission", "asks whether a shell command may run", "Permission required", 40)
    time.sleep(1)
    stage.save("asks-permission-later", "the same a second later")
    stage.terminal.keys("Right")
    stage.save("asks-permission-always", "the same, the next answer is chosen")
    stage.terminal.keys("Right")
    stage.terminal.keys("Enter")
    stage.save("ready-rejected", "Reject was chosen: the turn is over")


def tool_runs(stage: Stage) -> None:
    """A tool that was allowed."""
    _ready(stage)
    stage.send("TOOL sleep 4; touch finished")
    stage.terminal.wait("Permission required", 40)
    stage.terminal.keys("Enter")
    time.sleep(1.5)
    stage.save("busy-tool", "a shell command runs", "esc interrupt")
    stage.terminal.wait("DONE")
    stage.terminal.settled(quiet=1.5)
    stage.save("ready-tool", "after a tool has run")
    path = stage.place.work / "notes.txt"
    stage.send(f'CALL write {{"filePath": "{path}", "content": "one\\ntwo\\n"}}')
    stage.save("asks-permission-edit", "asks whether a file may be written", "Permission required")


def question(stage: Stage) -> None:
    """The model asks a question by its own tool."""
    _ready(stage)
    questions = [
        {
            "question": "Which colour?",
            "header": "Colour",
            "options": [
                {"label": "Red", "description": "a warm one"},
                {"label": "Blue", "description": "a cold one"},
            ],
        }
    ]
    stage.send(f"CALL question {json.dumps({'questions': questions})}")
    stage.save("asks-question", "the model asks by its question tool", "esc dismiss", 40)


def _pick(stage: Stage, command: str, wanted: str) -> None:
    _answered(stage)
    stage.terminal.type(f"/{command}")
    time.sleep(1)
    stage.terminal.keys("Enter")
    time.sleep(1)
    stage.save(f"asks-{command}", f"after /{command}", wanted)


def pick_models(stage: Stage) -> None:
    """The list of models."""
    _pick(stage, "models", "odel")


def pick_sessions(stage: Stage) -> None:
    """The list of sessions."""
    _pick(stage, "sessions", "ession")


def pick_themes(stage: Stage) -> None:
    """The list of themes."""
    _pick(stage, "themes", "heme")


def pick_agents(stage: Stage) -> None:
    """The list of agents."""
    _pick(stage, "agents", "gent")


def pick_connect(stage: Stage) -> None:
    """The list of providers."""
    _pick(stage, "connect", "rovider")


def pick_help(stage: Stage) -> None:
    """The help box."""
    _pick(stage, "help", "elp")


def palette(stage: Stage) -> None:
    """The list of all commands, and a session that was resumed."""
    _answered(stage)
    stage.terminal.keys("C-p")
    stage.save("asks-palette", "after Ctrl-P: the list of commands", "ommands")
    stage.begin("--continue")
    stage.terminal.wait("OK [0-9a-f]{12}", 40)
    stage.terminal.settled(quiet=1.5)
    stage.save("ready-resumed", "started with --continue")


def first_start(stage: Stage) -> None:
    """Nothing was set up."""
    stage.begin()
    stage.terminal.wait(_EMPTY, 60)
    stage.save(
        "ready-unconfigured", "first start without a provider: it would use a free model of its maker's"
    )


def limits(stage: Stage) -> None:
    """A limit that says when it ends."""
    _answered(stage)
    stage.send("LIMIT 3600")
    time.sleep(4)
    stage.save("limited-hour", "429 with retry-after: 3600: it says so and tries again by itself", "etry")


def quota(stage: Stage) -> None:
    """An empty account."""
    _answered(stage)
    stage.send("LIMIT 0")
    time.sleep(4)
    stage.save("busy-quota", "429 insufficient_quota", r"^")


def small(stage: Stage) -> None:
    """The same in 100 columns and 30 lines."""
    _ready(stage, width=100, height=30)
    stage.save("ready-fresh-small", "just started, 100 by 30")
    stage.send("SLOW 5")
    stage.save("busy-streaming-small", "an answer is coming in, 100 by 30", "piece 5 of", 40)
    stage.terminal.wait("piece 25 of")
    stage.terminal.settled(quiet=1.5)
    stage.save("ready-answered-small", "after an answer, 100 by 30")
    stage.send("TOOL touch finished")
    stage.save("asks-permission-small", "may a shell command run, 100 by 30", "Permission required")


def first_message(stage: Stage) -> None:
    """The first message of a session makes the box move from the middle of the screen to its bottom."""
    _ready(stage)
    stage.send("SILENT 5")
    stage.terminal.wait(lambda screen: screen.cursor_x == 5)
    stage.save("busy-first-message", "the first message was sent a moment ago", r"^")


def suspended(stage: Stage) -> None:
    """After Ctrl-Z."""
    _answered(stage)
    stage.terminal.keys("C-z")
    time.sleep(2)
    stage.save("unknown-suspended", "after Ctrl-Z: an empty screen")
