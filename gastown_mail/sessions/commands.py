"""Builds every tmux command, as argv or as one line of a script.

`-t` gets only ids (`$1`, `%1`) or `=name:`. A plain name also matches by prefix and by pattern; `set-option`
does not understand `=name` without the colon, and `list-panes` takes it for the name of a window.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import StartFailed
from gastown_mail.programs.screen import Screen

NAME = re.compile(r"[A-Za-z0-9_-]+")
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
HEIGHT = 50
"""Lines of a session's screen while no person is attached."""

PANE_TITLE = "#{s/[\x01-\x1f\x7f]/_/:pane_title}"
"""A pane's title without control characters: its program chooses it."""

MARKERS = frozenset(("killed", "kept", "started", "stale"))
"""The words by which a guarded command reports what it did."""

_WIDTH = 200
_ID = re.compile(r"[$@%][0-9]+")
_ESCAPES = {ord(char): f"\\{char}" for char in '\\"$~'}
_ESCAPES |= {code: f"\\{code:03o}" for code in (*range(1, 32), 127)}
_SHELLS = "^-?(ba|da|z|fi|k|mk|a|tc|c)?sh$"
_NO_MODE = "#{?pane_in_mode,0,1}"

_PLACEHOLDER = ("/bin/sh", "-c", "read _")
_ENTER_COMMAND = 'PATH=$3 && export PATH && cd -- "$1" && exec /bin/sh -c "$2"'
"""tmux gives the first program of a session the PATH of the client that made it, whatever `-e` says."""


@dataclass(frozen=True)
class SessionSpec:
    """What a session is created from: its command, run in `environ` over `base`.

    Raises StartFailed for what tmux or the kernel would not pass on unchanged.
    """

    agent: Agent
    incarnation: str
    generation: int
    started: datetime
    town: str = ""
    command: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        agent, environ = self.agent, self.environ
        texts = [self.command, os.fspath(agent.work_dir), *environ, *environ.values()]
        name = f"{agent.session!r} is not a session name of letters, digits, - and _"
        checks = {
            name: NAME.fullmatch(agent.session),
            f"{self.incarnation!r} is not an incarnation token": TOKEN.fullmatch(self.incarnation),
            f"the work dir {agent.work_dir} is not absolute": agent.work_dir.is_absolute(),
            "a variable's name is empty or contains =": all(name and "=" not in name for name in environ),
            "the command, the work dir, or the environment contains a NUL": "\0" not in "".join(texts),
        }
        for problem, fine in checks.items():
            if not fine:
                raise StartFailed(f"{agent.address} cannot be started: {problem}; correct it in town.toml")

    @property
    def variables(self) -> dict[str, str]:
        """The session's environment. TERM is tmux's own, whatever the worker's terminal is."""
        return {key: value for key, value in self.base.items() if key != "TERM"} | dict(self.environ)


def line(*words: str) -> str:
    """Return one command as text; each word is quoted, so tmux reads exactly that. None contains a NUL."""
    return " ".join(f'"{word.translate(_ESCAPES)}"' for word in words)


def _block(*lines: str) -> str:
    """Return commands as one text; tmux stops at the first that fails."""
    return " ; ".join(lines)


def target_by_name(session: str) -> str:
    """Return the target of exactly this session. Raises ValueError for a name that tmux could misread."""
    if not NAME.fullmatch(session):
        raise ValueError(f"session name {session!r} is not made of letters, digits, - and _")
    return f"={session}:"


def target_by_id(ident: str) -> str:
    """Return the target of a tmux id. Raises ValueError for any other text."""
    if not _ID.fullmatch(ident):
        raise ValueError(f"{ident!r} is not a tmux id")
    return ident


def source_stdin() -> list[str]:
    return ["source-file", "-"]


def start_server() -> list[str]:
    """Start a server that outlives its last session, because it stores the generations."""
    return ["start-server", ";", "set-option", "-s", "exit-empty", "off"]


def end_empty_server() -> list[str]:
    """End a server on which no program lives, in one step of the server."""
    return ["if-shell", "-F", "#{==:#{S:#{W:#{P:#{?pane_dead,,x}}}},}", "kill-server"]


def show_global_environment() -> list[str]:
    return ["show-environment", "-g"]


def show_server() -> list[str]:
    return ["display-message", "-p", "#{pid} #{start_time}"]


def reap_children() -> list[str]:
    """Make the server reap its children: tmux 3.3a sometimes misses the end of one."""
    return ["run-shell", "true"]


def list_all(form: str, condition: str = "1") -> list[str]:
    """List the panes of all sessions for which the condition holds."""
    return ["list-panes", "-a", "-F", form, "-f", condition]


def list_session(target: str, form: str) -> list[str]:
    return ["list-panes", "-s", "-t", target, "-F", form]


def attach(session_id: str) -> list[str]:
    return ["attach-session", "-t", target_by_id(session_id)]


def capture(pane: str, lines: int) -> list[str]:
    return ["capture-pane", "-p", "-S", f"-{lines}", "-t", target_by_id(pane)]


def is_incarnation(token: str) -> str:
    """Return the condition that holds only in the panes of this token; without a target it is false."""
    if not TOKEN.fullmatch(token):
        raise ValueError(f"{token!r} is not an incarnation token")
    return f"#{{==:#{{@gastown_incarnation}},{token}}}"


def is_agents(agent: Agent) -> str:
    """Return the condition that holds in the panes of this agent, and of the session that has its name."""
    address = re.sub(r"[^A-Za-z0-9/_-]", "?", agent.address)
    named = f"#{{==:#{{session_name}},{agent.session}}}" if NAME.fullmatch(agent.session) else "0"
    return f"#{{||:#{{==:#{{@gastown_agent}},{address}}},{named}}}"


def all_of(first: str, *rest: str) -> str:
    return f"#{{&&:{first},{all_of(*rest)}}}" if rest else first


def _if_else(target: str, condition: str, action: str, otherwise: str) -> list[str]:
    """Do `action` if the condition holds in the target, else `otherwise`, in one step of the server."""
    return ["if-shell", "-F", "-t", target, condition, action, otherwise]


def _print_word(word: str) -> str:
    """Print a word: how a guarded command reports what it did."""
    return line("display-message", "-p", word)


def kill(session_id: str, token: str) -> list[str]:
    """End the session of this id if it has this token; prints `killed` or `kept`."""
    target = target_by_id(session_id)
    action = _block(line("kill-session", "-t", target), _print_word("killed"))
    return _if_else(target, is_incarnation(token), action, _print_word("kept"))


def kill_pane(pane: str, token: str) -> list[str]:
    """End this pane if it has this token; prints `killed` or `kept`."""
    target = target_by_id(pane)
    action = _block(line("kill-pane", "-t", target), _print_word("killed"))
    return _if_else(target, is_incarnation(token), action, _print_word("kept"))


def release(session_id: str, token: str) -> list[str]:
    """Make a session with this token one that is not managed, under another name."""
    target = target_by_id(session_id)
    action = _block(
        line("rename-session", "-t", target, "#{session_name}-#{@gastown_generation}"),
        *(line("set-option", "-u", "-t", target, f"@gastown_{key}") for key in _OWNERSHIP),
        _print_word("killed"),
    )
    return _if_else(target, is_incarnation(token), action, _print_word("kept"))


def new_session(spec: SessionSpec, server_names: Iterable[str]) -> str:
    """Create a session and start its command, at most once per generation; prints `started` or `stale`.

    The server does all of it in one step, so a command that ends at once stays visible. Variables of the
    server's own environment (`server_names`) that the spec does not set are removed. That affects only what
    starts after the session, so a placeholder holds its pane until then.
    """
    session, counter = spec.agent.session, generation_option(spec.agent.session)
    target, variables = target_by_name(session), spec.variables
    given = [word for key, value in variables.items() for word in ("-e", f"{key}={value}")]
    create = ("new-session", "-d", "-s", session, "-n", session, "-x", str(_WIDTH), "-y", str(HEIGHT), *given)
    arguments = (os.fspath(spec.agent.work_dir), spec.command, variables.get("PATH", os.defpath))
    program = ("/bin/sh", "-c", _ENTER_COMMAND, "sh", *arguments)
    removed = [name for name in server_names if name not in variables]
    action = _block(
        line("set-option", "-s", counter, str(spec.generation)),
        line(*create, *(_PLACEHOLDER if removed else program)),
        *_set_ownership(target, spec),
        line("set-option", "-t", target, "destroy-unattached", "off"),
        line("set-option", "-w", "-t", target, "remain-on-exit", "on"),
        line("set-option", "-w", "-t", target, "automatic-rename", "off"),
        line("set-option", "-w", "-t", target, "allow-rename", "off"),
        *(line("set-environment", "-t", target, "-r", "--", name) for name in removed),
        *([line("respawn-pane", "-k", "-t", target, *program)] if removed else []),
        _print_word("started"),
    )
    return line("if-shell", "-F", f"#{{e|<:#{{{counter}}},{spec.generation}}}", action, _print_word("stale"))


_OWNERSHIP = ("incarnation", "generation", "agent", "town", "started", "pane", "home")


def _set_ownership(target: str, spec: SessionSpec) -> list[str]:
    """Set the options by which a session is known as managed; its active pane is the agent's.

    The pane has them too: it keeps them when a person moves it to another session.
    """
    values = (
        spec.incarnation, str(spec.generation), spec.agent.address, spec.town,
        f"{spec.started.timestamp():.6f}", "#{pane_id}", "#{session_id}",
    )  # fmt: skip
    return [
        line("set-option", *scope, "-F", "-t", target, "--", f"@gastown_{key}", value)
        for key, value in zip(_OWNERSHIP, values, strict=True)
        for scope in ((), ("-p",))
    ]


def generation_option(session: str) -> str:
    """The server's option that has the last generation of this session; it outlives the session."""
    return f"@gastown_generation_{session}"


def show_last_generation(session: str) -> list[str]:
    return ["show-options", "-sqv", generation_option(session)]


def adopt(session_id: str, spec: SessionSpec) -> str:
    """Set the ownership options of a session that has no token; prints `adopted` or `kept`."""
    target = target_by_id(session_id)
    action = _block(
        line("set-option", "-s", generation_option(spec.agent.session), str(spec.generation)),
        *_set_ownership(target, spec),
        line("set-option", "-w", "-t", target, "remain-on-exit", "on"),
        _print_word("adopted"),
    )
    return line(*_if_else(target, "#{==:#{@gastown_incarnation},}", action, _print_word("kept")))


def typing_condition(token: str, *, shell_seen: bool, viewers: bool = False) -> str:
    """Return the condition to type into a pane: this token, no viewer, no shell in front unless expected.

    `shell_seen`: the pane was checked just before, and its shell runs a program. `viewers`: they may look on.
    """
    conditions = [
        is_incarnation(token),
        *([] if viewers else ["#{==:#{session_attached},0}", "#{==:#{window_active_clients},0}"]),
        "#{!=:#{pane_dead},1}",
        "#{!=:#{pane_input_off},1}",
    ]
    if not shell_seen:
        conditions.append(f"#{{?#{{m/r:{_SHELLS},#{{pane_current_command}}}},0,1}}")
    return all_of(*conditions)


def unchanged(screen: Screen, rows: Iterable[int]) -> str:
    """Return the condition that the cursor, the title and these rows are as this look gave them."""
    checks = [
        f"#{{==:#{{cursor_x}},{screen.x}}}",
        f"#{{==:#{{cursor_y}},{screen.y}}}",
        f"#{{==:#{{cursor_flag}},{int(screen.cursor_visible)}}}",
        f"#{{m/r:{_exactly(screen.title)},{PANE_TITLE}}}",
    ]
    for pattern in dict.fromkeys(_exactly(screen.rows[y]) for y in rows):
        # `C` gives the number of the first row that matches
        first = next(n for n, row in enumerate(screen.rows, 1) if re.fullmatch(pattern, row))
        checks.append(f"#{{==:#{{C/r:{pattern}}},{first}}}")
    return all_of(*checks)


def _exactly(text: str) -> str:
    """Return a pattern for this text; `.` stands for what tmux or the pattern could misread."""
    return "^" + re.sub(r"[^\w <>=/_-]", ".", text) + "$"


def look(pane: str, mark: str, above: int = 0) -> list[str]:
    """Print a line that begins with `mark` and has the pane's number, cursor and title; then its screen.

    The screen has so many more rows `above` it, if there are any.
    """
    target = target_by_id(pane)
    form = f"{mark} {pane[1:]} #{{cursor_x}} #{{cursor_y}} #{{cursor_flag}} {PANE_TITLE}"
    screen = line("capture-pane", "-p", "-e", "-S", f"-{above}" if above else "0", "-t", target)
    return [line("display-message", "-p", "-t", target, form), screen]


def set_buffer(buffer: str, text: str) -> str:
    return line("set-buffer", "-b", buffer, "--", text)


def delete_buffer(buffer: str) -> str:
    return line("delete-buffer", "-b", buffer)


def paste(pane: str, buffer: str, condition: str, *, in_mode: bool) -> str:
    """Type a buffer into a pane (bracketed if its program asks for that); prints `typed N` for pane `%N`.

    Prints `kept N` instead if the condition does not hold, or the pane is in a mode such as copy mode. A pane
    that is known to be `in_mode` leaves it first.
    """
    typing = line("paste-buffer", "-p", "-r", "-b", buffer, "-t", target_by_id(pane))
    return _send_to(pane, condition, typing, in_mode)


def press(pane: str, keys: Iterable[str], condition: str, *, in_mode: bool) -> str:
    """Press keys in a pane; prints what `paste` prints."""
    return _send_to(pane, condition, line("send-keys", "-t", target_by_id(pane), *keys), in_mode)


def _send_to(pane: str, condition: str, typing: str, in_mode: bool) -> str:
    number = pane[1:]
    leave = [line("copy-mode", "-q", "-t", target_by_id(pane))] if in_mode else []
    allowed = condition if in_mode else all_of(condition, _NO_MODE)
    action = _block(*leave, typing, _print_word(f"typed {number}"))
    return line(*_if_else(target_by_id(pane), allowed, action, _print_word(f"kept {number}")))
