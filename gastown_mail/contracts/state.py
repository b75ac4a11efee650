"""`daemon/state.json` and its copy in Redis (CONTRACTS section 5).

The original program's `Config`, as it reads and writes it (CONTRACTS section 5)."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gastown_mail.contracts import go_formats
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import SettingsError, StateFileError
from gastown_mail.contracts.go_formats import ZERO_TIME, format_time, parse_duration
from gastown_mail.contracts.validation import Timestamp, one_line_error

REPAIR_HINT = "repair the file, or move it away to begin with an empty state"


Count = Annotated[int, Field(strict=True, ge=0, description="a whole number, 0 or more")]


class State(BaseModel):
    """What the daemon says of itself; as it stands by default, a daemon that never ran."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    running: Annotated[bool, Field(strict=True, description="true or false")] = False
    pid: Count = 0
    started_at: Timestamp = ZERO_TIME
    last_heartbeat: Timestamp = ZERO_TIME
    heartbeat_count: Count = 0
    """Completed heartbeats since `started_at`."""

    def encode(self) -> str:
        """The text of state.json, byte for byte as the original writes it."""
        return go_formats.dump_indented(self._written())

    @classmethod
    def decode(cls, text: str) -> Self:
        """The state of such a text. Raises StateFileError when a key is missing or bad."""
        try:
            return cls._complete(go_formats.load_object(text))
        except ValueError as error:
            raise StateFileError(one_line_error(error, cls)) from None

    def to_mapping(self) -> dict[str, str]:
        """The fields of the hash in Redis: the same words as in the file."""
        words = {False: "false", True: "true"}
        written = self._written()
        return {
            key: words[value] if isinstance(value, bool) else str(value) for key, value in written.items()
        }

    @classmethod
    def from_mapping(cls, fields: Mapping[str, str]) -> Self:
        """The state of such a hash; a field that is not there was never written. Raises StateFileError."""
        try:
            return cls.model_validate({key: _read(key, text) for key, text in fields.items()})
        except ValueError as error:
            raise StateFileError(f"the state in Redis: {one_line_error(error, cls)}") from None

    @classmethod
    def _complete(cls, values: dict[str, object]) -> Self:
        if missing := [key for key in cls.model_fields if key not in values]:
            raise ValueError(f"{missing[0]} is missing")
        return cls.model_validate(values)

    def _written(self) -> dict[str, object]:
        values = {key: getattr(self, key) for key in type(self).model_fields}
        return {
            k: format_time(value) if isinstance(value, datetime) else value for k, value in values.items()
        }


def state_file(town_root: Path | str) -> Path:
    """Where the town's state is written."""
    return Path(town_root) / "daemon" / "state.json"


def load_state(town_root: Path | str) -> State:
    """The town's state; the zero state when there is no file. Raises StateFileError, which names the file."""
    path = state_file(town_root)
    try:
        return State.decode(path.read_bytes().decode())
    except FileNotFoundError:
        return State()
    except (OSError, UnicodeDecodeError, StateFileError) as error:
        raise StateFileError(f"{path}: {error}; {REPAIR_HINT}") from error


def save_state(town_root: Path | str, state: State) -> None:
    """Write the town's state: a reader finds the old one or this one. Raises StateFileError."""
    path = state_file(town_root)
    try:
        _make_folder(path.parent)
        write_atomically(path, state.encode().encode())
    except OSError as error:
        raise StateFileError(f"cannot write {path}: {error}; the state before it stands") from error


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # whatever the umask says: other programs read the state


def _read(key: str, text: str) -> object:
    if key == "running":
        return {"true": True, "false": False}.get(text, text)
    return int(text) if key in ("pid", "heartbeat_count") and text.isdecimal() else text


HEARTBEAT_INTERVAL = timedelta(minutes=5)


def _interval(value: object) -> object:
    if isinstance(value, str | int | float):
        return timedelta(seconds=parse_duration(value))
    return value


class Config(BaseModel):
    """Where one daemon works and how often its heart beats.

    `heartbeat_interval` is a timedelta; where a person writes it, `"5m"` and a number of seconds work too.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    heartbeat_interval: Annotated[timedelta, BeforeValidator(_interval)] = Field(
        default=HEARTBEAT_INTERVAL, ge=timedelta(0), description='a duration such as "5m"'
    )
    town_root: Path = Field(description="a folder")
    log_file: Path = Field(description="a file")
    pid_file: Path = Field(description="a file")

    def encode(self) -> str:
        """JSON as the original writes it: the interval in whole nanoseconds."""
        nanos = self.heartbeat_interval // timedelta(microseconds=1) * 1000
        paths = {key: str(getattr(self, key)) for key in ("town_root", "log_file", "pid_file")}
        return go_formats.dump_indented({"heartbeat_interval": nanos, **paths})

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read such JSON: a number is nanoseconds, a text is a duration. Raises SettingsError."""
        try:
            values = go_formats.load_object(text)
            interval = values.get("heartbeat_interval")
            if isinstance(interval, int | float):
                values["heartbeat_interval"] = _from_nanoseconds(interval)
            return cls.model_validate(values)
        except ValueError as error:
            raise SettingsError(f"this is no daemon configuration: {one_line_error(error, cls)}") from None


def default_config(town_root: Path | str) -> Config:
    """The configuration of a town that says nothing else."""
    root = Path(town_root)
    folder = root / "daemon"
    return Config(town_root=root, log_file=folder / "daemon.log", pid_file=folder / "daemon.pid")


def _from_nanoseconds(nanos: int | float) -> timedelta:
    if isinstance(nanos, bool | float) or not 0 <= nanos < 2**63:
        raise ValueError(f"heartbeat_interval = {nanos}: expected whole nanoseconds, 0 or more")
    return timedelta(microseconds=nanos // 1000)
