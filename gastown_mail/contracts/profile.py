"""A program profile: what the screen of an agent's program means and how it is typed into, as data.

The built-in profiles are the TOML files in `gastown_mail/programs/`; `[programs.<name>]` in `town.toml` has
the same keys. Patterns are Python regular expressions.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gastown_mail.contracts.lifecycle import AgentState

_PATTERN_HINT = "a Python regular expression"
_Words = tuple[Annotated[str, Field(strict=True)], ...]


def _pattern(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(_PATTERN_HINT)
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"{_PATTERN_HINT}: {error}") from None


_Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def merged_over(self, base: Self) -> Self:
        """This table, and what `base` says where nothing is set here."""
        return base.model_copy(update={key: getattr(self, key) for key in self.model_fields_set})


class Rule(_Table):
    """One sign of a state. Every pattern that is set must be found; the first rule that holds decides.

    One of `ready` holds only where the cursor is in an empty input line.
    """

    state: Annotated[AgentState, Field(description="ready, busy, asks, limited, starting, draft or ended")]
    input: bool | None = Field(default=None, strict=True, description="true or false")
    """Whether the cursor is in an input line."""
    cursor: bool | None = Field(default=None, strict=True, description="true or false")
    """Whether the cursor is visible."""
    title: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Searched in the terminal's title."""
    row: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Searched in the cursor's row."""
    text: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Searched in each row of what looks like the input line."""
    above: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Searched in the last rows above the input line, since the last entered text; without an input line
    the rule does not hold."""
    below: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Searched in the rows below the input line; without an input line in the last rows of the screen."""
    lacks: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Must not be found in those rows, of which there must be some."""


class InputLine(_Table):
    """Where the program takes text, and how to type there."""

    sign: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """What the input line begins with, up to the column where text starts; without it nothing is typed."""
    continued: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """What the further rows of a longer text begin with."""
    end: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """The first row after the input."""
    drawn_cursor: bool = Field(default=False, strict=True, description="true or false")
    """Whether the program draws a cursor of its own, a cell in reverse, and leaves the real one elsewhere."""
    aside: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Its group is what stands in a row of the input line beside the text, such as a side bar."""
    placeholder: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """The text that the program shows in an empty line; faint text is always taken for such."""
    entered: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """What a row begins with that shows a text that was entered earlier."""
    scrolled: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """What the first row shows behind its text when earlier rows of the text are scrolled out of sight."""
    pasted: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """What the program shows instead of a long text that was pasted."""
    clear: _Words = Field(default=("C-u",), description="a list of tmux keys")
    """The keys that empty the line; pressed again until it is empty."""
    acts: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Searched in a text without blanks around it: such a text would be a command of the program."""
    suffix: str = Field(default="", strict=True, description="a text")
    """Typed after each text, such as a blank that closes a list of completions."""
    several_lines: bool = Field(default=False, strict=True, description="true or false")
    """Whether a text may have several lines."""
    max_bytes: int = Field(default=4000, ge=1, strict=True, description="a whole number, 1 or more")
    """The longest text that the program takes."""


class ContextLog(_Table):
    """The log that the program keeps of a conversation, as JSON lines. Keys are paths such as `a.b.c`."""

    files: str = Field(default="", strict=True, description="a pattern of paths")
    """Below the program's home; `{slug}` is the work dir, its other characters than A-Z a-z 0-9 as `-`.

    Has the fields of strftime for the moment of the session's start.
    """
    home: str = Field(default="~", strict=True, description="a folder")
    """The program's home."""
    home_variable: str = Field(default="", strict=True, description="the name of a variable")
    """The variable that names another home."""
    work_dir_key: str = Field(default="", strict=True, description="a path of keys")
    """Where the first line names the work dir."""
    used: _Words = Field(default=(), description="a list of paths of keys")
    """Where the last line that has them tells the tokens in use; they are added up."""
    window: int = Field(default=200_000, ge=1, strict=True, description="a whole number, 1 or more")
    """The size of the context, in tokens."""
    window_key: str = Field(default="", strict=True, description="a path of keys")
    """Where the same line tells that size."""


class Context(_Table):
    """How the fullness of the program's context is read."""

    used: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Its group is how much is used, in percent; searched around the input line."""
    left: _Pattern | None = Field(default=None, description=_PATTERN_HINT)
    """Its group is how much is left, in percent."""
    log: ContextLog | None = Field(default=None, description="a table")
    """Read when the screen does not tell, for agents with `cycle_at`."""

    def merged_over(self, base: Self) -> Self:
        """This table, and what `base` says where nothing is set here."""
        log = self.log.merged_over(base.log) if self.log and base.log else self.log or base.log
        return super().merged_over(base).model_copy(update={"log": log})


class Answer(_Table):
    """What shows that a question was answered: this key in a file, the file itself, or a variable."""

    file: str = Field(default="", strict=True, description="a path")
    """A JSON or TOML file; `~` and `${NAME:-default}` are the session's, `{work_dir}` is the agent's."""
    key: _Words = Field(default=(), description="a list of keys")
    """The keys that lead to the answer; `{work_dir}` stands for the work dir or any folder above it."""
    value: bool = Field(default=True, strict=True, description="true or false")
    """False if the answer is `false`; otherwise it is true, or any text."""
    variable: str = Field(default="", strict=True, description="the name of a variable")
    """A variable that answers the question by being set."""


class FirstRun(_Table):
    """A question that the program asks until it is answered once; an agent that runs into it waits."""

    asks: str = Field(strict=True, description="a text")
    """What the program does, after its name: "asks whether it may trust the work dir"."""
    answers: tuple[Answer, ...] = Field(default=(), description="tables [[…answers]]")
    """Any of these answers it."""
    options: _Words = Field(default=(), description="a list of options")
    """It is asked only when the command has one of these options."""
    variables: _Words = Field(default=(), description="a list of names")
    """It is asked only when one of these variables is set."""
    beside: _Words = Field(default=(), description="a list of names of files")
    """It is asked only when one of these files is in the work dir or a folder above."""


class Root(_Table):
    """What the program refuses to do as root."""

    refuses: _Words = Field(default=(), description="a list of options")
    """The options with which it ends at once."""
    allows: Mapping[str, str] = Field(default={}, description="a table of variables, each a string")
    """The variables that make it accept them: each of them alone, with this value."""


class Profile(_Table):
    """What is known about one agent program."""

    label: str = Field(default="", strict=True, description="a name for people")
    """The program's name, for people."""
    commands: _Words = Field(default=(), description="a list of names")
    """The first words of a command that choose this profile."""
    env_pass: _Words = Field(default=(), description="a list of names, or of beginnings that end with *")
    """The variables of the daemon's environment that a session gets."""
    login_shell: bool = Field(default=False, strict=True, description="true or false")
    """Whether it runs commands with the variables of a login shell, whose files may set PATH anew."""
    greedy_options: _Words = Field(default=(), description="a list of options")
    """The options that take all words up to the next option, and so a prompt that follows."""
    root: Root = Field(default=Root(), description="a table")
    """What it refuses to do as root."""
    first_run: tuple[FirstRun, ...] = Field(default=(), description="tables [[…first_run]]")
    """What it asks at its first start, for `doctor`."""
    quiet: bool = Field(default=False, strict=True, description="true or false")
    """Whether it is ready only while its screen does not change and the agent's own process is in front."""
    above: int = Field(default=6, ge=1, le=50, strict=True, description="a whole number from 1 to 50")
    """How many rows above the input line count."""
    below: int = Field(default=8, ge=1, le=50, strict=True, description="a whole number from 1 to 50")
    """How many of the last rows count when there is no input line."""
    input: InputLine = Field(default=InputLine(), description="a table")
    """Where it takes text."""
    example: str = Field(default="", strict=True, description="a command")
    """A command with the place of the first prompt, for people."""
    resume: str = Field(default="", strict=True, description="a command")
    """The command that resumes its last conversation, for people."""
    logs: str = Field(default="", strict=True, description="a path")
    """Where it keeps the logs of its conversations, for people."""
    context: Context = Field(default=Context(), description="a table")
    """How full its context is."""
    rules: tuple[Rule, ...] = Field(default=(), description="tables [[…rules]]")
    """In a profile of one's own with a built-in name, they come before the built-in ones."""

    def merged_over(self, base: Self) -> Self:
        """This profile, and what `base` says where nothing is set here."""
        merged = super().merged_over(base)
        update: Mapping[str, Any] = {
            "input": self.input.merged_over(base.input),
            "context": self.context.merged_over(base.context),
            "rules": self.rules + base.rules,
        }
        return merged.model_copy(update=update)
