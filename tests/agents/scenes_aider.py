"""Scenes of aider for its recorded screens."""

import subprocess
import time

from tests.agents.stage import Stage


def _ready(stage: Stage, *argv: str, width: int = 200, height: int = 50, **environment: str) -> None:
    stage.prepare()
    (stage.place.work / "notes.txt").write_text("notes\n")
    for command in (["add", "."], ["commit", "--quiet", "-m", "begin"]):
        env = {"HOME": str(stage.place.home), "PATH": "/usr/bin:/bin"}
        subprocess.run(["git", "-C", str(stage.place.work), *command], check=True, timeout=30, env=env)
    stage.begin(*argv, width=width, height=height, **environment)
    stage.terminal.wait(r"Repo-map: .*\n[\s\S]*>", 60)
    stage.terminal.settled(quiet=1.5)


def starting(stage: Stage) -> None:
    """From the start of the process to its first picture."""
    stage.prepare()
    stage.begin()
    stage.save("starting-blank", "just started, nothing drawn yet", r"^")
    stage.save("starting-model-list", "has asked a public host for a list of models", "HTTPSConn", 60)


def transcript(stage: Stage) -> None:
    """Fresh, after an answer, after a poke that begins with a number, after many lines."""
    _ready(stage)
    stage.save("ready-fresh", "just started in a git repository")
    stage.send("hello there")
    stage.terminal.wait("Tokens:")
    stage.save("ready-answered", "after one answer")
    stage.send("1. read the mail")
    stage.terminal.wait(r"read the mail[\s\S]*Tokens:")
    stage.save("ready-numbered", "after a message that begins with 1.")
    stage.send("LINES 120")
    stage.terminal.wait(r"line 120 of 120[\s\S]*Tokens:")
    stage.save("ready-long", "after an answer of 120 lines")
    stage.send("/nosuch command")
    stage.save("ready-unknown-command", "after a command that does not exist", "Invalid command")
    stage.send("/ask")
    stage.save("ready-ask", "after /ask: the prompt names the mode", "ask>")
    stage.send("/architect")
    stage.save("ready-architect", "after /architect", "architect>")
    stage.send("/code")
    stage.terminal.settled()
    stage.send("/add notes.txt")
    stage.save("ready-files", "a file is in the chat: its name stands above the prompt", "Added notes.txt")
    stage.send("/multiline-mode")
    stage.save(
        "draft-multiline-empty", "multiline mode: Enter makes a new line, Alt-Enter sends", "Multiline mode"
    )
    stage.send("first line")
    stage.save("draft-multiline", "multiline mode: what was typed and Enter are a draft of two lines")


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
    terminal.keys("End", "M-Enter")
    stage.save(
        "draft-newline", "one line and a newline: the cursor stands behind a second, empty prompt sign"
    )
    terminal.type("second line")
    stage.save("draft-two-lines", "two lines")
    terminal.keys("C-u", "C-u", "C-u")
    terminal.type("   ")
    stage.save("draft-spaces", "three spaces")
    terminal.keys("C-u")
    terminal.type("/")
    stage.save("draft-slash", "after / : a list of commands is open", "/tokens")
    terminal.keys("C-u")
    terminal.type("!ls")
    stage.save("draft-shell", "after !ls : nothing but text, though Enter runs it in a shell")
    terminal.keys("C-u")
    terminal.type("not")
    stage.save("draft-completion", "letters that begin a file's name")
    terminal.keys("C-u")
    terminal.paste("\n".join(f"line {n}" for n in range(12)))
    stage.save("draft-pasted-lines", "12 lines pasted and not sent")
    terminal.keys("C-c")
    terminal.settled()
    terminal.keys("C-r")
    stage.save("draft-search", "after Ctrl-R: search in the history", "search")


def busy(stage: Stage) -> None:
    """Answers that take their time."""
    _ready(stage)
    stage.send("SILENT 8")
    time.sleep(2)
    stage.save("busy-silent", "waits for the first byte of an answer", "Waiting for")
    stage.terminal.wait("Tokens:")
    stage.terminal.settled()
    stage.send("SLOW 6")
    stage.save("busy-streaming", "an answer is coming in", "piece 9 of")
    stage.terminal.type("a draft")
    stage.save("busy-draft", "an answer is coming in, letters were typed meanwhile", "piece 20 of")
    stage.terminal.wait(r"piece 30 of[\s\S]*Tokens:")
    stage.save("draft-typed-ahead", "after the answer: what was typed meanwhile is in the input line")
    stage.terminal.keys("C-u")
    stage.send("ERROR 503")
    stage.save("busy-retry", "the server answers 503 and the request is tried again", "Retrying in")


def questions(stage: Stage) -> None:
    """Its yes/no questions."""
    _ready(stage, "--edit-format", "diff")
    stage.save("ready-diff", "another edit format than the model's own: the prompt names it")
    stage.send("!echo hello")
    stage.save("asks-output", "a shell command was run: its output may go to the chat", r"\[Yes\]:")
    stage.terminal.keys("n", "Enter")
    stage.terminal.settled()
    stage.send("TOOL sleep 3; echo done")
    stage.save("asks-command", "the answer holds a shell command", r"Run shell command.*\[Yes\]:")
    stage.terminal.keys("y", "Enter")
    time.sleep(1)
    stage.save("busy-command", "the shell command runs", "Running|sleep")
    stage.save(
        "asks-command-output", "it has run: its output may go to the chat", r"Add command output.*\[Yes\]:"
    )
    stage.terminal.keys("n", "Enter")
    stage.terminal.settled()
    stage.send("please look at notes.txt")
    stage.save("asks-add-file", "the message names a file: it may go to the chat", r"Add file.*\[Yes\]:")
    stage.terminal.keys("n", "Enter")
    stage.terminal.settled(quiet=2)
    stage.send("please look at http://127.0.0.1/page please")
    stage.save("asks-add-url", "the message holds an address: it may be read", r"Add URL.*\[Yes\]:")
    stage.terminal.keys("x")
    stage.save("asks-answer-typed", "the same, an answer half typed", r"\[Yes\]: x")


def first_start(stage: Stage) -> None:
    """A folder without git, without a key."""
    stage.begin(OPENAI_API_KEY="")
    stage.save("asks-git", "a folder without git: may it make a repository", r"\[Yes\]:", 60)
    stage.terminal.keys("y", "Enter")
    stage.save("ready-no-user", "yes was answered: it has made the repository", r"Repo-map[\s\S]*>", 60)


def limits(stage: Stage) -> None:
    """Limits of the provider's."""
    _ready(stage)
    stage.send("LIMIT 3600")
    stage.save(
        "busy-limit-hour", "429 with retry-after: 3600: tried again by itself for a minute", "Retrying in"
    )
    stage.save("ready-limit-given-up", "the same when it has given up", r"Retrying in 32[\s\S]*\n> ", 200)


def quota(stage: Stage) -> None:
    """An empty account."""
    _ready(stage)
    stage.send("LIMIT 0")
    stage.save("busy-quota", "429 insufficient_quota: tried again as any other", "Retrying in 4")


def small(stage: Stage) -> None:
    """The same in 100 columns and 30 lines."""
    _ready(stage, "--edit-format", "diff", width=100, height=30)
    stage.save("ready-fresh-small", "just started, 100 by 30")
    stage.send("SLOW 3")
    stage.save("busy-streaming-small", "an answer is coming in, 100 by 30", "piece 5 of")
    stage.terminal.wait(r"piece 15 of[\s\S]*Tokens:")
    stage.terminal.settled()
    stage.send("TOOL echo done")
    stage.save("asks-command-small", "the answer holds a shell command, 100 by 30", r"\[Yes\]:")


def no_pretty(stage: Stage) -> None:
    """Without colours and rules."""
    _ready(stage, "--no-pretty", "--no-fancy-input")
    stage.save("ready-no-pretty", "--no-pretty --no-fancy-input: a bare prompt sign")
