"""`daemon/state.json` and its copy in Redis, and the original program's `Config`.

Their shapes: docs/reference/contract.md#state-and-config.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gastown_mail.contracts import go_formats
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import SettingsError, StateFileError
from gastown_mail.contracts.go_formats import ZERO_TIME, format_time, parse_duration
from gastown_mail.contracts.validation import RedisHash, Timestamp, one_line_error, quote_value

_Interval = Annotated[
    timedelta,
    BeforeValidator(
        lambda value: (
            timedelta(seconds=parse_duration(value)) if isinstance(value, str | int | float) else value
        )
    ),
]
_Count = Annotated[int, Field(strict=True, ge=0, description="a whole number, 0 or more")]


class State(RedisHash):
    """What the daemon says about itself. The default is a daemon that never ran."""

    running: Annotated[bool, Field(strict=True, description="true or false")] = False
    pid: _Count = 0
    started_at: Timestamp = ZERO_TIME
    last_heartbeat: Timestamp = ZERO_TIME
    heartbeat_count: _Count = 0
    """Completed heartbeats since `started_at`."""

    def encode(self) -> str:
        """The text of state.json, byte for byte as the original program writes it."""
        times = {
            "started_at": format_time(self.started_at),
            "last_heartbeat": format_time(self.last_heartbeat),
        }
        return go_formats.dump_indented(self.model_dump() | times)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read the text of state.json. Raises StateFileError if a key is missing or bad."""
        try:
            values = go_formats.load_object(text)
            if missing := [key for key in cls.model_fields if key not in values]:
                raise ValueError(f"{missing[0]} is missing")
            return cls.model_validate(values)
        except ValueError as error:
            raise StateFileError(one_line_error(error, cls)) from None

    @classmethod
    def from_mapping(cls, fields: Mapping[str, Any]) -> Self:
        """Read the hash in Redis, whose fields may be missing. Raises StateFileError."""
        try:
            running = fields.get("running") or "false"
            if running not in ("true", "false"):  # pydantic would accept `yes` too
                raise ValueError(f"running = {quote_value(running)}: expected true or false")
            return super().from_mapping(fields)
        except ValueError as error:
            raise StateFileError(f"the state in Redis: {one_line_error(error, cls)}") from None


def state_file(town_root: Path | str) -> Path:
    """The path of the town's state.json."""
    return Path(town_root) / "daemon" / "state.json"


def load_state(town_root: Path | str) -> State:
    """Read state.json; the zero state if there is no file. Raises StateFileError, which names the file."""
    path = state_file(town_root)
    try:
        return State.decode(path.read_bytes().decode())
    except FileNotFoundError:
        return State()
    except (OSError, UnicodeDecodeError, StateFileError) as error:
        raise StateFileError(
            f"{path}: {error}; repair the file, or move it away to start with an empty state"
        ) from error


def save_state(town_root: Path | str, state: State) -> None:
    """Write state.json; a reader finds the old state or the new one. Raises StateFileError."""
    path = state_file(town_root)
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            path.parent.chmod(0o755)  # whatever the umask: other programs read the state
        write_atomically(path, state.encode().encode())
    except OSError as error:
        raise StateFileError(f"cannot write {path}: {error}; the file keeps the previous state") from error


class Config(BaseModel):
    """The folders and files of one daemon, and the interval of its heartbeat.

    `heartbeat_interval` is a timedelta; `"5m"` and a number of seconds work too.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    heartbeat_interval: _Interval = Field(
        default=timedelta(minutes=5), ge=timedelta(0), description='a duration such as "5m"'
    )
    town_root: Path = Field(description="a folder")
    log_file: Path = Field(description="a file")
    pid_file: Path = Field(description="a file")

    def encode(self) -> str:
        """JSON as the original program writes it, with the interval in whole nanoseconds."""
        nanos = self.heartbeat_interval // timedelta(microseconds=1) * 1000
        paths = {key: str(getattr(self, key)) for key in ("town_root", "log_file", "pid_file")}
        return go_formats.dump_indented({"heartbeat_interval": nanos, **paths})

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read such JSON; a number is nanoseconds, a text is a duration. Raises SettingsError."""
        try:
            values = go_formats.load_object(text)
            interval = values.get("heartbeat_interval")
            if isinstance(interval, int | float):
                if isinstance(interval, bool | float) or not 0 <= interval < 2**63:
                    raise ValueError(
                        f"heartbeat_interval = {interval}: expected whole nanoseconds, 0 or more"
                    )
                values["heartbeat_interval"] = timedelta(microseconds=interval // 1000)
            return cls.model_validate(values)
        except ValueError as error:
            raise SettingsError(f"this is not a daemon configuration: {one_line_error(error, cls)}") from None


def default_config(town_root: Path | str) -> Config:
    """The configuration of a town with default settings."""
    root = Path(town_root)
    folder = root / "daemon"
    return Config(town_root=root, log_file=folder / "daemon.log", pid_file=folder / "daemon.pid")
