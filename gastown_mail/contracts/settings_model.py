"""The tables of `town.toml` with their defaults. Durations are seconds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from gastown_mail.contracts.address import NAME_PATTERN, render_template
from gastown_mail.contracts.go_formats import parse_duration
from gastown_mail.contracts.redis_url import redis_url_error
from gastown_mail.contracts.shared_daemons import spared_programs

DURATION_HINT = 'a duration such as "5m", "90s" or a number of seconds'
_NAME_HINT = "a name from A-Z a-z 0-9 . _ -"
_SIZE_HINT = 'a size such as "10MB", "500kB" or a number of bytes'
_MIN_LOG_SIZE = 100_000

_SOCKET = re.compile(r"\A(?:/[^\x00-\x1f]+|[A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")
_HOST = re.compile(r"\A[A-Za-z0-9._-]+\Z")
_VARIABLE = re.compile(r"\A[^=\x00]+\Z")
_SIZE = re.compile(r"\A([0-9]{1,15}) ?(|B|kB|KB|MB|GB)\Z")
_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_TEXT = re.compile(r"\A[^\x00]*\Z")
_FILLED = re.compile(r"\A(?=[\s\S]*\S)[^\x00]*\Z")


def _size(value: object) -> object:
    match = _SIZE.match(value) if isinstance(value, str) else None
    return int(match[1]) * _UNITS[match[2].lower()] if match else _not_boolean(value)


def _not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


def _session(template: str) -> str:
    if not NAME_PATTERN.match(render_template(template, {"town": "x", "rig": "x", "name": "x", "role": "x"})):
        raise ValueError("tmux and file names cannot contain it")
    return template


def _spare(entries: tuple[str, ...]) -> tuple[str, ...]:
    spared_programs(entries)
    return entries


def _redis_url(url: str) -> str:
    if reason := redis_url_error(url):
        raise PydanticCustomError("redis_url", "{reason}", {"reason": reason})
    return url


_Duration = Annotated[
    float,
    BeforeValidator(lambda value: parse_duration(value) if isinstance(value, str | int | float) else value),
    Field(ge=0),
]
_Text = Annotated[str, StringConstraints(strict=True, pattern=_TEXT)]
_NonEmptyText = Annotated[str, StringConstraints(strict=True, pattern=_FILLED)]
_Host = Annotated[str, StringConstraints(strict=True, pattern=_HOST)]
_RedisUrl = Annotated[str, AfterValidator(_redis_url)]
_Programs = Annotated[
    tuple[_NonEmptyText, ...],
    BeforeValidator(lambda value: re.split(r"\s*,\s*", value.strip()) if isinstance(value, str) else value),
    AfterValidator(_spare),
]


def _seconds(default: float, least: float = 0.0) -> float:
    bound = f", at least {least:g} s" if least else ""
    field: float = Field(default=default, ge=least, description=DURATION_HINT + bound)
    return field


class DaemonSettings(BaseModel):
    """`[daemon]`: the settings of the daemon itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat_interval: _Duration = _seconds(300.0, least=1.0)
    """How often the daemon starts agents that should be running and pokes idle agents that are due."""
    log_file: Path | None = Field(default=None, description="a path")
    """The daemon's log, relative to the town's root; by default `daemon/daemon.log`."""
    pid_file: Path | None = Field(default=None, description="a path")
    """The daemon's pid file, relative to the town's root; by default `daemon/daemon.pid`."""
    redis_url: _RedisUrl | None = Field(
        default=None, description="a URL that begins with redis://, rediss://, unix:// or sentinel://"
    )
    """A Redis of your own; by default an embedded server for this town alone."""
    agent_redis_url: _RedisUrl | None = Field(
        default=None, description="a URL that begins with redis://, rediss://, unix:// or sentinel://"
    )
    """The URL that agents get instead of `redis_url`, with a Redis user that has fewer rights."""
    min_replicas: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=0, ge=0, le=10, description="a whole number from 0 to 10"
    )
    """How many replicas must have a request before it is accepted, and an intent before it is acted on."""
    tmux_socket: Annotated[str, StringConstraints(pattern=_SOCKET)] | None = Field(
        default=None, description="a name from A-Z a-z 0-9 . _ - or an absolute path"
    )
    """The tmux server of this town, by name (`tmux -L`) or path (`tmux -S`); by default one of its own."""
    host: _Host | None = Field(default=None, description=_NAME_HINT)
    """The name under which this machine's workers serve; by default its host name."""
    workers: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=2, ge=1, le=64, description="a whole number from 1 to 64"
    )
    """How many worker processes carry out requests on this host; each runs several at once."""
    sweep_interval: _Duration = _seconds(30.0, least=0.1)
    """How often, between heartbeats, to requeue work left by dead processes and start missing agents."""
    asks_after: _Duration = _seconds(600.0)
    """An agent that waits for a person's decision, or needs a person otherwise, for so long is a problem."""
    max_request_age: _Duration = _seconds(3600.0)
    """Requests older than this expire instead of running."""
    fresh_after: _Duration = _seconds(120.0)
    """An agent that was active within this time is not poked."""
    poke_backoff_factor: Annotated[float, BeforeValidator(_not_boolean)] = Field(
        default=1.5, ge=1, le=100, description="a number from 1 to 100"
    )
    """Each unanswered poke multiplies the wait for the next one by this factor."""
    poke_backoff_max: _Duration = _seconds(1800.0)
    """The longest time between two pokes."""
    restart_backoff: _Duration = _seconds(30.0)
    """How long an agent that died waits before its next start; doubles with each death."""
    restart_backoff_max: _Duration = _seconds(600.0)
    """The longest wait before such a start."""
    crash_loop_count: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=5, ge=1, description="a whole number, 1 or more"
    )
    """This many starts within `crash_loop_window` count as a crash loop."""
    crash_loop_window: _Duration = _seconds(900.0)
    """The sliding window in which starts are counted."""
    quarantine: _Duration = _seconds(1800.0)
    """How long an agent in a crash loop is left alone; then it is started once more."""
    require_incarnation: bool = Field(default=False, description="true or false")
    """Whether a request must carry the token of the session that it comes from."""
    log_size: Annotated[int, BeforeValidator(_size)] = Field(
        default=10_000_000, ge=_MIN_LOG_SIZE, description=f"{_SIZE_HINT}, at least 100kB"
    )
    """Bytes of the log and its rotated files together."""
    events_kept: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=10_000, ge=1, description="a whole number, 1 or more"
    )
    """About how many entries the events stream keeps."""
    requests_kept: _Duration = _seconds(7 * 24 * 3600.0, least=1.0)
    """How long a settled request can be looked up and revived; at least `max_request_age`."""
    spare: _Programs = Field(default=(), description='a list such as ["mydaemon", "mytool serve", "!tmux"]')
    """Shared daemons that are spared when the session that started them ends, besides those of the built-in
    list below. `!tmux` takes tmux off that list, `!*` everything."""


class RoleSettings(BaseModel):
    """`[roles.<role>]` or `[agents."<address>"]`: the settings of agents; None where nothing is set.

    `poke = ""`: the agent is not poked. Strings may contain `{town}`, `{rig}`, `{name}` and `{role}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: _NonEmptyText | None = Field(default=None, description="a command for the shell")
    """What `/bin/sh -c` runs in the session; `{prompt}` is the first prompt, quoted for the shell."""
    work_dir: _NonEmptyText | None = Field(default=None, description="a folder, relative to the town's root")
    """Where the command runs; the folder must exist."""
    session: Annotated[str, StringConstraints(strict=True), AfterValidator(_session)] | None = Field(
        default=None, description="a tmux session name from A-Z a-z 0-9 _ -"
    )
    """The name of the tmux session; no two agents may have the same."""
    poke: _Text | None = Field(default=None, description='a line of text, or "" for none')
    """The line typed into the session at a heartbeat when the agent is idle and due."""
    keep_running: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="true or false"
    )
    """Whether the agent is started again whenever it has no session."""
    stop_grace: _Duration | None = Field(default=None, description=DURATION_HINT)
    """How long the session's processes have to end on their own before they are killed."""
    env: Mapping[Annotated[str, StringConstraints(pattern=_VARIABLE)], _Text] = Field(
        default={}, description="a table of variables, each a string"
    )
    """Environment variables of the session; those of the role and of the agent are merged."""
    host: _Host | None = Field(default=None, description=_NAME_HINT)
    """The host on which the agent lives, if several serve one town."""
    program: Annotated[str, StringConstraints(strict=True, pattern=NAME_PATTERN)] | None = Field(
        default=None, description="the name of a profile, such as claude, or other"
    )
    """Which profile says what its screen means; by default the one for the first word of `command`."""
    env_pass: tuple[Annotated[str, StringConstraints(strict=True, pattern=_VARIABLE)], ...] | None = Field(
        default=None, description="a list of names of variables, or of beginnings that end with *"
    )
    """Variables of the daemon's environment that the session gets; by default those of its program."""
    cycle_at: Annotated[int, BeforeValidator(_not_boolean)] | None = Field(
        default=None, ge=1, le=100, description="a whole number from 1 to 100"
    )
    """How full its context may be, in percent, before the daemon asks for a cycle in its place."""

    def merged_over(self, base: "RoleSettings") -> "RoleSettings":
        """These settings, and those of `base` where nothing is set here; `env` is merged."""
        given = {key: value for key in self.model_fields_set if (value := getattr(self, key)) is not None}
        return base.model_copy(update={**given, "env": {**base.env, **self.env}})
