"""`daemon/state.json` and its copy in Redis (CONTRACTS section 5)."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from . import gojson
from .atomic import write_atomically
from .errors import StateFileError
from .shape import Timestamp, one_line_error
from .times import ZERO_TIME, format_time

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
        return gojson.dump_indented(self._written())

    @classmethod
    def decode(cls, text: str) -> Self:
        """The state of such a text. Raises StateFileError when a key is missing or bad."""
        try:
            return cls._complete(gojson.load_object(text))
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
