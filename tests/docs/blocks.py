"""The fenced blocks of a document, and the marks that say how a test runs them.

A mark is an HTML comment before the block it is about, so that readers do not see it:

    <!-- test: skip because REASON -->          not run
    <!-- test: run by FILE -->                  not run here: every command is in FILE
    <!-- test: inside ADDRESS -->               run in the environment of that agent's session
    <!-- test: again -->                        run again until it shows the next block
    <!-- test: keys C-c after TEXT -->          run on a terminal; C-c is typed after TEXT was shown
    <!-- test: append to FILE -->               what a reader would write into that file
    <!-- test: picture -->                      text that no command prints

    <!-- test: before                           a block that is run and that readers need not see
    COMMANDS
    -->
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {
    "sh",
    "bash",
    "zsh",
    "text",
    "yaml",
    "toml",
    "json",
    "python",
    "js",
    "go",
    "ini",
    "dotenv",
    "dockerfile",
    "redis",
}
MARKS = {"", "before", "skip", "run", "inside", "again", "keys", "append", "picture"}

_PART = re.compile(
    r"^<!-- test: before\n(?P<hidden>.*?)^-->$|"
    r"^(?:[ ]*<!--[ ]test:[ ](?P<mark>[^\n]*?)[ ]-->\n+)?"
    r"(?P<indent>[ ]*)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block; `mark` is the mark's first word, `about` its rest, `line` where the text begins."""

    language: str
    text: str
    line: int
    mark: str = ""
    about: str = ""


def blocks(document: str) -> list[Block]:
    """Return all blocks of a document in order."""
    return [_block(document, found) for found in _PART.finditer(document)]


def _block(document: str, found: "re.Match[str]") -> Block:
    if found["hidden"] is not None:
        return Block("sh", found["hidden"], document.count("\n", 0, found.start("hidden")) + 1, "before")
    mark, _, about = (found["mark"] or "").partition(" ")
    line = document.count("\n", 0, found.start("text")) + 1
    return Block(found["language"], textwrap.dedent(found["text"]), line, mark, about)


def prose(document: str) -> str:
    """Return a document without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _PART.sub("", document), flags=re.DOTALL)
