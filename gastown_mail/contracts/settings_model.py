"""The tables of `town.toml` with their defaults (CONTRACTS section 6). Durations are seconds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from gastown_mail.contracts.address import NAME_PATTERN, render_template
from gastown_mail.contracts.go_formats import parse_duration

DURATION_HINT = 'a duration such as "5m", "90s" or a number of seconds'
NAME_HINT = "a name out of A-Z a-z 0-9 . _ -"
SIZE_HINT = 'a size such as "10MB", "500kB" or a number of bytes'
MIN_LOG_SIZE = 100_000

_SOCKET = re.compile(r"\A(?:/[^\x00-\x1f]+|[A-Za-z0-9_][A-Za-z0-9_.-]*)\Z")
_HOST = re.compile(r"\A[A-Za-z0-9._-]+\Z")
_REDIS_URL = re.compile(r"\A(?:redis|rediss|unix)://\S+\Z")
_VARIABLE = re.compile(r"\A[^=\x00]+\Z")
_SIZE = re.compile(r"\A([0-9]{1,15}) ?(|B|kB|KB|MB|GB)\Z")
_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_TEXT = re.compile(r"\A[^\x00]*\Z")
_FILLED = re.compile(r"\A(?=[\s\S]*\S)[^\x00]*\Z")


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str | int | float) else value


def _size(value: object) -> object:
    found = _SIZE.match(value) if isinstance(value, str) else None
    return int(found[1]) * _UNITS[found[2].lower()] if found else _not_boolean(value)


def _not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


def _session(template: str) -> str:
    if not NAME_PATTERN.match(render_template(template, {"town": "x", "rig": "x", "name": "x", "role": "x"})):
        raise ValueError("tmux and file names cannot hold it")
    return template


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0)]
Text = Annotated[str, StringConstraints(strict=True, pattern=_TEXT)]
NonEmptyText = Annotated[str, StringConstraints(strict=True, pattern=_FILLED)]
Host = Annotated[str, StringConstraints(strict=True, pattern=_HOST)]


def _seconds(default: float, least: float = 0.0) -> float:
    bound = f", at least {least:g} s" if least else ""
    field: float = Field(default=default, ge=least, description=DURATION_HINT + bound)
    return field


class DaemonSettings(BaseModel):
    """`[daemon]`: what the daemon itself goes by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat_interval: Duration = _seconds(300.0, least=1.0)
    """How often all agents are looked at: started if they must run, poked if they are due."""
    log_file: Path | None = Field(default=None, description="a path")
    """The daemon's log, from the town's root on; `daemon/daemon.log` if not said."""
    pid_file: Path | None = Field(default=None, description="a path")
    """The daemon's pid, from the town's root on; `daemon/daemon.pid` if not said."""
    redis_url: Annotated[str, StringConstraints(pattern=_REDIS_URL)] | None = Field(
        default=None, description="a URL that begins with redis://, rediss:// or unix://"
    )
    """A Redis of your own; if not said, an embedded server for this town alone."""
    agent_redis_url: Annotated[str, StringConstraints(pattern=_REDIS_URL)] | None = Field(
        default=None, description="a URL that begins with redis://, rediss:// or unix://"
    )
    """What agents are given instead of `redis_url`: the URL of a user that may do less."""
    tmux_socket: Annotated[str, StringConstraints(pattern=_SOCKET)] | None = Field(
        default=None, description="a name out of A-Z a-z 0-9 . _ - or an absolute path"
    )
    """The tmux server of this town, by name (`tmux -L`) or path (`tmux -S`); if not said, one of its own."""
    host: Host | None = Field(default=None, description=NAME_HINT)
    """The name under which this machine's workers serve; its host name if not said."""
    workers: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=2, ge=1, le=64, description="a whole number from 1 to 64"
    )
    """How many requests this host carries out at the same time."""
    sweep_interval: Duration = _seconds(30.0, least=0.1)
    """How soon, between heartbeats, what a dead process left is gone on with, and who must run is started."""
    max_request_age: Duration = _seconds(3600.0)
    """A request that is older is not carried out: it expires."""
    fresh_after: Duration = _seconds(120.0)
    """An agent that was active since then is not poked."""
    poke_backoff_factor: Annotated[float, BeforeValidator(_not_boolean)] = Field(
        default=1.5, ge=1, le=100, description="a number from 1 to 100"
    )
    """Each poke that nobody answered makes the next one later by this factor."""
    poke_backoff_max: Duration = _seconds(1800.0)
    """The longest time between two pokes."""
    restart_backoff: Duration = _seconds(30.0)
    """How long an agent that died again waits for its next start; it doubles with each."""
    restart_backoff_max: Duration = _seconds(600.0)
    """The longest such wait."""
    crash_loop_count: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=5, ge=1, description="a whole number from 1 up"
    )
    """So many starts within `crash_loop_window` are a crash loop."""
    crash_loop_window: Duration = _seconds(900.0)
    """The time in which starts are counted; it slides."""
    quarantine: Duration = _seconds(1800.0)
    """How long an agent in a crash loop is left alone; then it is tried once."""
    require_incarnation: bool = Field(default=False, description="true or false")
    """Whether a request counts only with the token of the session that it comes from."""
    log_size: Annotated[int, BeforeValidator(_size)] = Field(
        default=10_000_000, ge=MIN_LOG_SIZE, description=f"{SIZE_HINT}, at least 100kB"
    )
    """Bytes that the log and its past may take, all files together."""
    events_kept: Annotated[int, BeforeValidator(_not_boolean)] = Field(
        default=10_000, ge=1, description="a whole number from 1 up"
    )
    """About how many entries the events stream keeps."""
    requests_kept: Duration = _seconds(7 * 24 * 3600.0, least=1.0)
    """How long a settled request can be looked up and revived; never shorter than `max_request_age`."""


class RoleSettings(BaseModel):
    """`[roles.<role>]` or `[agents."<address>"]`: what is said of an agent; None where nothing is said.

    `poke = ""` means that the agent is not poked. Texts may hold `{town}`, `{rig}`, `{name}` and `{role}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: NonEmptyText | None = Field(default=None, description="a command for the shell")
    """What `/bin/sh -c` runs in the session; `{prompt}` is the first prompt, quoted for the shell."""
    work_dir: NonEmptyText | None = Field(default=None, description="a folder, from the town's root on")
    """Where the command runs; it must be there."""
    session: Annotated[str, StringConstraints(strict=True), AfterValidator(_session)] | None = Field(
        default=None, description="a tmux session name out of A-Z a-z 0-9 _ -"
    )
    """The name of the tmux session; no two agents have the same."""
    poke: Text | None = Field(default=None, description='a line of text, or "" for none')
    """What is typed into the session at a heartbeat when the agent is idle and due."""
    keep_running: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="true or false"
    )
    """Whether the agent is started again whenever it has no session."""
    stop_grace: Duration | None = Field(default=None, description=DURATION_HINT)
    """How long the session's processes may take to end by themselves before they are killed."""
    env: Mapping[Annotated[str, StringConstraints(pattern=_VARIABLE)], Text] = Field(
        default={}, description="a table of variables, each a text"
    )
    """What the session finds in its environment; that of a role and of an agent are merged."""
    host: Host | None = Field(default=None, description=NAME_HINT)
    """On which host the agent lives, where several serve one town."""

    def merged_over(self, base: "RoleSettings") -> "RoleSettings":
        """What holds when this is said besides `base`: this goes before, `env` is merged."""
        said = {key: value for key in self.model_fields_set if (value := getattr(self, key)) is not None}
        return base.model_copy(update={**said, "env": {**base.env, **self.env}})
