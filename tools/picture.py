"""Draws `docs/picture.svg`, a terminal with the output of the real program: `make picture`.

First the demo, then a town of three agents in a temporary folder.
"""

import io
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from gastown_mail.cli.demo_town import demo_folder
from gastown_mail.plumbing.environment import without_town

PICTURE = Path(__file__).parents[1] / "docs" / "picture.svg"
WIDTH = 118
DEADLINE = 60.0
READY_WAIT, LOOK_PAUSE = 20.0, 0.2

TOWN = """\
town_name = "mytown"
[daemon]
host = "here"
tmux_socket = "{folder}/tmux"
[roles.crew]
command = "while read -r line; do echo $line; done"
work_dir = "."
keep_running = true
[roles.witness]
command = "while read -r line; do echo $line; done"
work_dir = "."
keep_running = true
[agents."demo/witness"]
[agents."demo/crew/ada"]
[agents."demo/crew/max"]
"""
DEMO = "gastown-mail demo | grep ^ok"
SHOWN = (
    'gastown-mail send cycle --agent operator --to demo/crew/ada --handoff "next: merge #12" --wait 10',
    "gastown-mail send shutdown --agent operator --to demo/crew/max --wait 10",
    "gastown-mail status",
)

THEME = TerminalTheme(
    (24, 27, 33), (216, 219, 226),
    [(24, 27, 33), (240, 113, 120), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221),
     (86, 182, 194), (216, 219, 226)],
)  # fmt: skip

TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" xml:space="preserve">
<title>gastown-mail at work in a terminal</title>
<style>
.{unique_id}-matrix {{
  font: {char_height}px/{line_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""What rich fills in; nothing is fetched, not even a font."""


def main() -> None:
    """Draw the picture."""
    with demo_folder() as folder:
        shown = [(DEMO, said(DEMO, folder))]
        with a_town(folder):
            shown += [(command, said(command, folder)) for command in SHOWN]
    PICTURE.write_text(drawn(shown))


@contextmanager
def a_town(folder: Path) -> Iterator[None]:
    """A town in the folder whose agents are all ready; its daemon ends with the block."""
    (folder / "town.toml").write_text(TOWN.replace("{folder}", str(folder)))
    said("gastown-mail start", folder)
    until = time.monotonic() + READY_WAIT
    while said("gastown-mail agents", folder).count("ready") < TOWN.count("[agents."):
        if time.monotonic() > until:
            raise TimeoutError("the agents of the picture's town did not come up")
        time.sleep(LOOK_PAUSE)
    try:
        yield
    finally:
        said("gastown-mail stop", folder)


def said(command: str, folder: Path) -> str:
    """What a command prints on a terminal, with its colours."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, WIDTH))
    environ = without_town(os.environ) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
    }
    environ.pop("NO_COLOR", None)
    with subprocess.Popen(
        ["sh", "-c", command], cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        words = b"".join(iter(lambda: _read(ours), b""))
        process.wait(DEADLINE)
    os.close(ours)
    return words.decode().replace("\r\n", "\n").rstrip("\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # no process writes there any more
        return b""


def drawn(shown: list[tuple[str, str]]) -> str:
    """The commands and their output, as SVG."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for command, words in shown:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=True)
        console.print(Text.from_ansi(words), soft_wrap=True)
        console.print()
    return console.export_svg(title="mytown", theme=THEME, code_format=TEMPLATE, unique_id="picture")


if __name__ == "__main__":
    main()
