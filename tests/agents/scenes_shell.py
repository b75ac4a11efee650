"""Scenes of shell loops and of other programs that take a line, for recorded screens.

Only a loop that reads lines is ready; an interpreter, a pager, an editor never is: a poke must not go there.
"""

import sys

from tests.agents.stage import Stage

_LOOP = 'while read -r line; do echo "got: $line"; done'
_PROMPTING = 'while read -r -p "> " line; do echo "got: $line"; done'


def _shell(stage: Stage, script: str) -> None:
    stage.end()
    stage.begin("bash", "-c", script)


def loops(stage: Stage) -> None:
    """Loops that read lines."""
    _shell(stage, _LOOP)
    stage.save("ready-loop", "while read: waits at the start of an empty line")
    stage.terminal.type("half a li")
    stage.save("draft-loop", "while read: half a line typed")
    stage.terminal.keys("C-u")
    stage.save("ready-loop-killed", "while read: after C-u")
    stage.send("1. read the mail")
    stage.save("ready-loop-answered", "while read: after a line that begins with 1.")
    stage.terminal.type("   ")
    stage.save("draft-loop-spaces", "while read: three spaces typed")
    _shell(stage, f"seq 1 70; {_LOOP}")
    stage.save("ready-loop-bottom", "while read: at the bottom of a full screen")
    _shell(stage, _PROMPTING)
    stage.save("ready-prompt", 'while read -p "> ": waits behind a prompt sign')
    stage.terminal.type("half a li")
    stage.save("draft-prompt", 'while read -p "> ": half a line typed')
    stage.terminal.keys("C-u")
    stage.send("hello there")
    stage.save("ready-prompt-answered", 'while read -p "> ": after a line')
    _shell(stage, 'while read -r line; do echo "working on $line"; sleep 5; done')
    stage.send("hello there")
    stage.save("busy-working", "while read: works on a line, which the screen does not tell", "working on")


def questions(stage: Stage) -> None:
    """What a script may ask."""
    _shell(stage, 'read -r -p "Overwrite? [y/N] " answer')
    stage.save("asks-yes-no", "read -p with a question")
    _shell(stage, 'read -r -p "Continue (yes/no)? " answer')
    stage.save("asks-continue", "read -p with another question")
    _shell(stage, 'echo "Press Enter to continue"; read -r answer')
    stage.save("asks-enter", "the question stands on the line above the cursor")
    _shell(stage, 'echo "Delete all files? [y/N]"; read -r answer')
    stage.save("asks-line-above", "a yes/no question on the line above the cursor")
    _shell(stage, 'PS3="Which one? "; select one in red blue green; do echo "$one"; done')
    stage.save("asks-select", "a select menu")
    _shell(stage, "select one in red blue green; do echo $one; done")
    stage.save("asks-select-bare", "a select menu with bash's own prompt")
    _shell(stage, 'read -r -s -p "Password: " answer')
    stage.save("asks-password", "read -s with a password")
    _shell(stage, 'stty -echo; printf "[sudo] password for dev: "; read -r answer')
    stage.save("asks-sudo", "as sudo asks for a password")


def interpreters(stage: Stage) -> None:
    """Prompts of interpreters and shells: what is typed there is run."""
    for name, command in (
        ("python", [sys.executable, "-i", "-q"]),
        ("node", ["node"]),
        ("bash", ["bash", "--norc", "--noprofile", "-i"]),
        ("sh", ["sh", "-i"]),
        ("pdb", [sys.executable, "-c", "breakpoint()"]),
    ):
        stage.begin(*command, PS1="dev@host:~/project$ ", HISTFILE="/dev/null", NODE_REPL_HISTORY="")
        stage.save(f"unknown-{name}", f"the prompt of {' '.join(command).replace(sys.executable, 'python3')}")
    stage.begin("bash", "--norc", "--noprofile", "-i", PS1="> ", HISTFILE="/dev/null")
    stage.save("unknown-bash-bare", "an interactive bash with the prompt '> ': looks like a loop's")
    stage.begin("bash", "--norc", "--noprofile", "-i", PS1="$ ", HISTFILE="/dev/null")
    stage.terminal.type('echo "open')
    stage.terminal.keys("Enter")
    stage.save("unknown-bash-continued", "an interactive bash inside a quotation: its second prompt is '> '")
    stage.begin("cat")
    stage.save("ready-cat", "cat waits for a line")


def screens(stage: Stage) -> None:
    """Pagers and editors."""
    text = stage.place.work / "text"
    text.write_text("".join(f"line {n}\n" for n in range(200)))
    stage.begin("less", str(text))
    stage.save("unknown-less", "less on a file of 200 lines")
    stage.begin("vi", "-u", "NONE", str(text))
    stage.save("unknown-vi", "vi on a file of 200 lines")
    stage.begin("bash", "-c", "echo done")
    stage.save("ended-exit", "a program that has ended with exit code 0", "Pane is dead")
    stage.begin("bash", "-c", "echo 'no key: set API_KEY' >&2; exit 3")
    stage.save("ended-exit-3", "a program that has ended with exit code 3", "Pane is dead")
    stage.begin("bash", "-c", "kill -9 $$")
    stage.save("ended-signal", "a program that was ended by a signal", "Pane is dead")


def small(stage: Stage) -> None:
    """The same in 100 columns and 30 lines."""
    stage.begin("bash", "-c", f"seq 1 40; {_PROMPTING}", width=100, height=30)
    stage.save("ready-prompt-small", 'while read -p "> ", 100 by 30')
    stage.begin("bash", "-c", 'read -r -p "Overwrite? [y/N] " answer', width=100, height=30)
    stage.save("asks-yes-no-small", "read -p with a question, 100 by 30")
