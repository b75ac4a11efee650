"""Times, durations and JSON as the original Go program writes them, and durations as people do.

Standard library only.
"""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)
"""Stands for "never", like Go's zero `time.Time`."""

_MAX_DURATION = 2**63 / 1e9
"""Seconds that Go's `time.Duration` can hold (292 years); nothing longer is accepted."""

_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?!24)\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:[Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
_UNITS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # U+00B5, as Go writes it
    "μs": Decimal("1e-6"),  # U+03BC, which Go reads too
    "ns": Decimal("1e-9"),
}
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN_NUMBER = re.compile(_NUMBER, re.ASCII)
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|h|m|s)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def parse_time(text: str) -> datetime:
    """The time in an RFC 3339 text with a zone, truncated to microseconds.

    Raises ValueError with a readable reason.
    """
    _fraction_of(text)
    try:
        moment = datetime.fromisoformat(text.upper())
        moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{_short(text)} is not a valid time: {error}") from None
    return moment


def precision_of(text: str) -> timedelta:
    """The precision of an RFC 3339 text: 1 s without a fraction, at least 1 µs."""
    return timedelta(microseconds=10 ** (6 - min(len(_fraction_of(text)), 6)))


def format_time(moment: datetime) -> str:
    """Go's RFC3339Nano: offset or `Z`, no trailing zeros in the fraction. ValueError without a zone."""
    offset = moment.utcoffset()
    if offset is None:
        raise ValueError(f"{moment!r} has no time zone: give it one")
    if offset.total_seconds() % 60:  # old zones had seconds, which RFC 3339 cannot write
        moment = moment.astimezone(timezone(timedelta(minutes=offset // timedelta(minutes=1))))
    day_and_time = moment.replace(microsecond=0, tzinfo=None).isoformat()
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{day_and_time}{fraction}{moment.isoformat()[-6:] if offset else 'Z'}"


def format_local(moment: datetime) -> str:
    """A time as `format_time` writes it, but local and in whole seconds, for texts that people read."""
    return format_time(moment.replace(microsecond=0).astimezone())


def parse_duration(value: str | int | float) -> float:
    """The seconds of `"5m"`, `"90s"`, `"1h30m"`, `"1.5s"`, `"250ms"` or a bare number of seconds.

    Raises ValueError for anything else, and for a negative or infinite duration.
    """
    seconds = _spelled_seconds(value.strip()) if isinstance(value, str) else _number_of_seconds(value)
    if not 0 <= seconds <= _MAX_DURATION:
        shown = _short(value) if isinstance(value, str) else f"{seconds:g}"
        raise ValueError(f"{shown} is not a duration between 0 and 292 years")
    return seconds


def format_duration(seconds: float) -> str:
    """The seconds as people write them: `5m`, `1h30m`, `1.5s`, `-1m30s`."""
    nanos = round(abs(seconds) * 1e9)
    minutes, rest = divmod(nanos, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(rest, 10**9)
    last = f"{whole}.{fraction:09d}".rstrip("0").rstrip(".")
    parts = [f"{hours}h" * bool(hours), f"{minutes}m" * bool(minutes), f"{last}s" * bool(rest)]
    return "-" * (seconds < 0 and nanos > 0) + ("".join(parts) or "0s")


def format_elapsed(seconds: float) -> str:
    """How long ago something was, for people: `1h30m`, or `340 days` from two days on; 0 for the future."""
    days = int(seconds // 86_400)
    return f"{days} days" if days > 1 else format_duration(max(0, round(seconds)))


def _fraction_of(text: str) -> str:
    """The fractional digits of a time; raises ValueError unless it is RFC 3339 with a zone."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{_short(text)} is not RFC 3339 with a zone, such as 2025-12-20T10:12:21.5Z")
    return match[1] or ""


def _number_of_seconds(value: int | float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a duration")
    try:
        return math.nan if math.isnan(value) else float(value)
    except OverflowError:
        return math.inf


def _spelled_seconds(text: str) -> float:
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        raise ValueError(f'{_short(text)} is not a duration such as "5m", "90s" or a number of seconds')
    return float(sum(Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def _short(text: str, limit: int = 60) -> str:
    return ascii(text if len(text) <= limit else text[:limit] + "…")


_ESCAPED = str.maketrans({char: f"\\u{ord(char):04x}" for char in "&<>\u2028\u2029"})


def dump_compact(values: Mapping[str, object]) -> str:
    """One line as from `json.Marshal`: characters special to HTML and JavaScript are escaped."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def dump_indented(values: Mapping[str, object]) -> str:
    """Text as from `json.MarshalIndent(v, "", "  ")`: two spaces, no newline at the end."""
    return json.dumps(values, ensure_ascii=False, indent=2).translate(_ESCAPED)


def load_object(text: str) -> dict[str, object]:
    """Parse a JSON object; the last of duplicate keys wins. Raises ValueError with a reason."""
    try:
        value = json.loads(text, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(value, dict):
        kinds = {str: "a string", list: "a list", bool: "a boolean", type(None): "null"}
        raise ValueError(f"it is not a JSON object but {kinds.get(type(value), 'a number')}")
    return value


def _whole_number(digits: str) -> int | float:
    # Python refuses very long integers, so one unknown key could make an element invalid
    return int(digits) if len(digits) < 100 else float(digits)
