"""The original program's `Config`, as it reads and writes it (CONTRACTS section 5)."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from . import gojson
from .errors import SettingsError
from .shape import one_line_error
from .times import parse_duration

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
        return gojson.dump_indented({"heartbeat_interval": nanos, **paths})

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read such JSON: a number is nanoseconds, a text is a duration. Raises SettingsError."""
        try:
            values = gojson.load_object(text)
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
