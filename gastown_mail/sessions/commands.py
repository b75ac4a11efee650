"""Every tmux command that is sent, built in one place: as argv, or as one line of a script.

`-t` gets only ids (`$1`, `%1`) or `=name:`. A plain name would match by prefix and by pattern too; `=name`
without the colon is not understood by `set-option`, and is a window's name to `list-panes`."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.errors import StartFailed

NAME = re.compile(r"[A-Za-z0-9_-]+")
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
WIDTH, HEIGHT = 200, 50

_ID = re.compile(r"[$@%][0-9]+")
_SPECIAL = re.compile(r'[\\"$~\x01-\x1f\x7f]')
_SHELLS = "^-?(ba|da|z|fi|k|mk|a|tc|c)?sh$"
# A list with its cursor, or a line that ends in a question of yes or no: Enter would answer it.
_DIALOG = "(❯|›) +[0-9]+[.]|[[(][yY]/[nN][])][?:]? *$"
MARKERS = frozenset(("killed", "kept", "started", "stale"))
"""The words by which a guarded command says how far it came."""

NO_DIALOG = f"#{{==:#{{C/r:{_DIALOG}}},0}}"
"""The condition that no question is on the pane's screen that a poke could answer by mistake."""

_NO_MODE = "#{?pane_in_mode,0,1}"

_PLACEHOLDER = ("/bin/sh", "-c", "read _")
_ENTER_COMMAND = 'cd -- "$1" && exec /bin/sh -c "$2"'


@dataclass(frozen=True)
class SessionSpec:
    """What a session is created from: its command, run in `environ` over `base`.

    Raises StartFailed for what tmux or the kernel would change.
    """

    agent: Agent
    incarnation: str
    generation: int
    started: datetime
    command: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        agent, environ = self.agent, self.environ
        texts = [self.command, os.fspath(agent.work_dir), *environ, *environ.values()]
        name = f"{agent.session!r} is no session name of letters, digits, - and _"
        checks = {
            name: NAME.fullmatch(agent.session),
            f"{self.incarnation!r} is no incarnation token": TOKEN.fullmatch(self.incarnation),
            f"the work dir {agent.work_dir} is not absolute": agent.work_dir.is_absolute(),
            "a variable's name is empty or holds =": all(name and "=" not in name for name in environ),
            "the command, the work dir, or the environment holds a NUL": not any(
                "\0" in text for text in texts
            ),
        }
        for problem, fine in checks.items():
            if not fine:
                raise StartFailed(f"{agent.address} cannot be started: {problem}; correct it in town.toml")

    @property
    def variables(self) -> dict[str, str]:
        """The session's environment. TERM is tmux's own, whatever the worker's terminal is."""
        return {key: value for key, value in self.base.items() if key != "TERM"} | dict(self.environ)


def quote(text: str) -> str:
    """Return the word of tmux's command language that means exactly `text` (which holds no NUL)."""
    return '"' + _SPECIAL.sub(_escaped, text) + '"'


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    return f"\\{ord(char):03o}" if char < " " or char == "\x7f" else "\\" + char


def line(*words: str) -> str:
    """One command as text, each word quoted."""
    return " ".join(map(quote, words))


def block(*lines: str) -> str:
    """Commands as one text; tmux stops at the first that fails."""
    return " ; ".join(lines)


def target_by_name(session: str) -> str:
    """The target that is this session alone. Raises ValueError for a name that tmux could read otherwise."""
    if not NAME.fullmatch(session):
        raise ValueError(f"session name {session!r} is not of letters, digits, - and _")
    return f"={session}:"


def target_by_id(ident: str) -> str:
    """The target of an id that tmux gave. Raises ValueError when it is none."""
    if not _ID.fullmatch(ident):
        raise ValueError(f"{ident!r} is no id of tmux")
    return ident


def source_stdin() -> list[str]:
    return ["source-file", "-"]


def start_server() -> list[str]:
    """Start a server that stays when its last session ends: it remembers the generations."""
    return ["start-server", ";", "set-option", "-s", "exit-empty", "off"]


def show_global_environment() -> list[str]:
    return ["show-environment", "-g"]


def show_server_pid() -> list[str]:
    return ["display-message", "-p", "#{pid}"]


def reap_children() -> list[str]:
    """Make the server look after its children: 3.3a now and then misses that one ended."""
    return ["run-shell", "true"]


def list_all(form: str) -> list[str]:
    return ["list-panes", "-a", "-F", form]


def list_session(target: str, form: str) -> list[str]:
    return ["list-panes", "-s", "-t", target, "-F", form]


def attach(session_id: str) -> list[str]:
    return ["attach-session", "-t", target_by_id(session_id)]


def capture(pane: str, lines: int) -> list[str]:
    return ["capture-pane", "-p", "-S", f"-{lines}", "-t", target_by_id(pane)]


def is_incarnation(token: str) -> str:
    """The condition that holds in a session of this token only; without a target it is false."""
    if not TOKEN.fullmatch(token):
        raise ValueError(f"{token!r} is no incarnation token")
    return f"#{{==:#{{@gastown_incarnation}},{token}}}"


def all_of(first: str, *rest: str) -> str:
    return f"#{{&&:{first},{all_of(*rest)}}}" if rest else first


def if_else(target: str, condition: str, action: str, otherwise: str) -> list[str]:
    """Do `action` if the condition holds in the target, in one step of the server."""
    return ["if-shell", "-F", "-t", target, condition, action, otherwise]


def print_word(word: str) -> str:
    """Print a word; used to learn how far a guarded command came."""
    return line("display-message", "-p", word)


def kill(session_id: str, token: str) -> list[str]:
    """End the session of this id if it carries this token; prints `killed` or `kept`."""
    target = target_by_id(session_id)
    action = block(line("kill-session", "-t", target), print_word("killed"))
    return if_else(target, is_incarnation(token), action, print_word("kept"))


def new_session(spec: SessionSpec, server_names: Iterable[str]) -> str:
    """Create a session and start its command, at most once per generation; prints `started` or `stale`.

    The server does all of it in one step, so a command that ends at once stays visible. What `server_names`
    (the variables of the server's own environment) has beyond the spec's is removed. That affects only what
    starts after the session, so a placeholder holds its pane until then.
    """
    session, counter = spec.agent.session, f"@gastown_generation_{spec.agent.session}"
    target, variables = target_by_name(session), spec.variables
    given = [word for key, value in variables.items() for word in ("-e", f"{key}={value}")]
    size = ("-x", str(WIDTH), "-y", str(HEIGHT))
    program = ("/bin/sh", "-c", _ENTER_COMMAND, "sh", os.fspath(spec.agent.work_dir), spec.command)
    unset = [
        line("set-environment", "-t", target, "-r", "--", name)
        for name in server_names
        if name not in variables
    ]
    action = block(
        line("set-option", "-s", counter, str(spec.generation)),
        line(
            "new-session",
            "-d",
            "-s",
            session,
            "-n",
            session,
            *size,
            *given,
            *(_PLACEHOLDER if unset else program),
        ),
        *_set_ownership(target, spec),
        line("set-option", "-t", target, "destroy-unattached", "off"),
        line("set-option", "-w", "-t", target, "remain-on-exit", "on"),
        line("set-option", "-w", "-t", target, "automatic-rename", "off"),
        line("set-option", "-w", "-t", target, "allow-rename", "off"),
        *unset,
        *([line("respawn-pane", "-k", "-t", target, *program)] if unset else []),
        print_word("started"),
    )
    return line("if-shell", "-F", f"#{{e|<:#{{{counter}}},{spec.generation}}}", action, print_word("stale"))


def _set_ownership(target: str, spec: SessionSpec) -> list[str]:
    """Set the options by which a session is known as managed; its active pane is the agent's."""
    options = {
        "incarnation": spec.incarnation,
        "generation": str(spec.generation),
        "agent": spec.agent.address,
        "started": f"{spec.started.timestamp():.6f}",
    }
    return [
        *(line("set-option", "-t", target, "--", f"@gastown_{key}", value) for key, value in options.items()),
        line("set-option", "-F", "-t", target, "@gastown_pane", "#{pane_id}"),
    ]


def adopt(session_id: str, spec: SessionSpec) -> str:
    """Set the ownership options of a session that has no token; prints `adopted` or `kept`."""
    target = target_by_id(session_id)
    action = block(
        line("set-option", "-s", f"@gastown_generation_{spec.agent.session}", str(spec.generation)),
        *_set_ownership(target, spec),
        line("set-option", "-w", "-t", target, "remain-on-exit", "on"),
        print_word("adopted"),
    )
    return line(*if_else(target, "#{==:#{@gastown_incarnation},}", action, print_word("kept")))


def typing_condition(token: str, *, shell_seen: bool) -> str:
    """The condition to type into a pane: our token, nobody there, no shell in front unless seen before."""
    conditions = [
        is_incarnation(token),
        "#{==:#{session_attached},0}",
        "#{==:#{window_active_clients},0}",
        "#{!=:#{pane_dead},1}",
        "#{!=:#{pane_input_off},1}",
    ]
    if not shell_seen:
        conditions.append(f"#{{?#{{m/r:{_SHELLS},#{{pane_current_command}}}},0,1}}")
    return all_of(*conditions)


def set_buffer(buffer: str, text: str) -> str:
    return line("set-buffer", "-b", buffer, "--", text)


def delete_buffer(buffer: str) -> str:
    return line("delete-buffer", "-b", buffer)


def paste(pane: str, buffer: str, condition: str, *, in_mode: bool) -> str:
    """Type a buffer into a pane (bracketed if its program asks for that); prints `typed N` for pane `%N`.

    Instead `kept N` when the condition does not hold, a question is on the screen, or the pane is in a mode
    (copy mode and the like); one that is `in_mode` already leaves it first.
    """
    typing = line("paste-buffer", "-p", "-r", "-b", buffer, "-t", target_by_id(pane))
    return _send_to(pane, condition, typing, in_mode)


def enter(pane: str, condition: str, *, in_mode: bool) -> str:
    """Press Enter in a pane; prints what `paste` does."""
    return _send_to(pane, condition, line("send-keys", "-t", target_by_id(pane), "Enter"), in_mode)


def _send_to(pane: str, condition: str, typing: str, in_mode: bool) -> str:
    number = pane[1:]
    leave = [line("copy-mode", "-q", "-t", target_by_id(pane))] if in_mode else []
    welcome = all_of(condition, NO_DIALOG) if in_mode else all_of(condition, NO_DIALOG, _NO_MODE)
    action = block(*leave, typing, print_word(f"typed {number}"))
    return line(*if_else(target_by_id(pane), welcome, action, print_word(f"kept {number}")))


def detect_dialog(pane: str) -> str:
    """Print `dialog N` when a question is on the pane's screen."""
    return line(*if_else(target_by_id(pane), NO_DIALOG, "", print_word(f"dialog {pane[1:]}")))
