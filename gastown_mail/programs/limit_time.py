"""When a usage limit ends, read from the text in which an agent's program tells of it."""

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

JUST_OVER = timedelta(minutes=10)
"""A bare clock time that passed no longer ago than this is meant, not the next day's: the text stood on
the screen for a while before it was seen."""

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS = "mon tue wed thu fri sat sun".split()
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_HOURS_EAST = {
    "UTC": 0, "GMT": 0, "Z": 0, "WET": 0, "WEST": 1, "CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3,
    "JST": 9, "KST": 9, "AEST": 10, "AEDT": 11, "NZST": 12, "NZDT": 13, "EST": -5, "EDT": -4, "CST": -6,
    "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "AKST": -9, "AKDT": -8, "HST": -10,
}  # fmt: skip
"""What programs abbreviate, without what means several zones (IST, BST): that is left to the machine's own
zone, from which a program that runs on it took the abbreviation."""

_LEAD = re.compile(
    r"\bresets?\b|\b(?:try|trying|available) again\b|\bretry(?:ing)?\b|\bcome back\b|\buntil\b", re.I
)
_UNIX = re.compile(r"(?:\||\bresets?_at\W{1,4})(\d{10})(?:\d{3})?\b", re.I)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z\b|[+-]\d\d:?\d\d\b)?", re.I)
_CLOCK = (
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?(?::\d\d)?(?:\s*(?P<half>[ap])\.?m\b\.?|(?<=:\d\d)(?!\d))"
    r"(?:\s*\(?(?P<zone>[a-z]+(?:/[a-z0-9_+-]+)+|(?:utc|gmt)[+-]\d{1,2}(?::?\d\d)?|(?-i:[A-Z]{1,4}))\b)?"
)
_NAMES = "|".join(_MONTHS)
_DATE = (
    rf"\b(?P<month>{_NAMES})(?:uary|ruary|ch|il|e|y|ust|t|tember|ober|ember)?\b\.?\s+"
    r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\b(?:,?\s+(?P<year>20\d\d)\b)?"
)
_WEEKDAY = rf"\b(?P<weekday>{'|'.join(_WEEKDAYS)})(?:s|nes|rs|ur)?(?:day)?\b"
_DAY = rf"(?:{_DATE}|{_WEEKDAY}|\b(?P<tomorrow>tomorrow)\b)(?:,|\s|at\b)*"
_WHEN = re.compile(
    rf"(?:{_DAY})?(?<![\w:.-]){_CLOCK}(?:\s+on\s+(?P<on_day>\d{{1,2}})\s+(?P<on_month>{_NAMES})\b)?"
    rf"|{_DATE.replace('P<', 'P<only_')}",
    re.I,
)
_UNIT = r"(?:(?:ms|[smhdw])(?![a-z])|(?:sec|min|hr|second|minute|hour|day|week)s?\b)"
_SPAN = re.compile(
    rf"\b(?:in|after|within)\s+~?(?P<parts>(?:\d{{1,9}}(?:\.\d+)?\s*{_UNIT}[\s,]*(?:and\s+)?)+)"
    r"|\bin (?P<less>less than a minute)|\bretry[-_ ]?(?:after|delay)\W{1,5}(?P<bare>\d{1,9}(?:\.\d+)?)",
    re.I,
)
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})", re.I)


def limit_end(text: str, seen: datetime, zone: tzinfo | None = None) -> datetime | None:
    """The moment, in UTC, at which the limit that `text` names ends; None when it names no time.

    `text` is a line of the screen, or a few that belong together. `seen` is when it was first seen: spans
    count from it, and a bare clock time is the next such one. A date that is past gives that past moment, and
    one without a year is the nearest. `zone` is where a time is meant that names none: the machine's, if left
    out.
    """
    text = " ".join(text.split())
    try:
        return next(_moments(text, seen, zone), None)
    except (ValueError, OverflowError):  # a 31st of June, a clock of 25 hours, a year beyond 9999
        return None


def _moments(text: str, seen: datetime, zone: tzinfo | None) -> Iterator[datetime]:
    """What the text can mean, the surest first: before all else, what follows `resets` and the like."""
    if unix := _UNIX.search(text):
        yield datetime.fromtimestamp(int(unix[1]), UTC)
    for start in [*(lead.start() for lead in _LEAD.finditer(text)), 0]:
        iso, when, span = (regex.search(text, start) for regex in (_ISO, _WHEN, _SPAN))
        if iso:
            yield _in_utc(datetime.fromisoformat(iso[0].upper()), zone)
        elif when and not (span and span.end() + 4 < when.start()):  # of "in 3h (3:20pm)" the exact one
            yield _at(when, seen, zone)
        elif span:
            yield (seen + _length(span)).astimezone(UTC)


def _length(span: re.Match[str]) -> timedelta:
    if span["less"]:
        return timedelta(minutes=1)
    if span["bare"]:
        return timedelta(seconds=float(span["bare"]))
    parts = _PART.findall(span["parts"])
    return timedelta(seconds=sum(float(number) * _SECONDS[_short(unit.lower())] for number, unit in parts))


def _short(unit: str) -> str:
    return unit if unit == "ms" else unit[0]


def _at(when: re.Match[str], seen: datetime, zone: tzinfo | None) -> datetime:
    named = {name.split("_")[-1]: value.lower() for name, value in when.groupdict().items() if value}
    zone = _zone(when["zone"] or "") or zone
    dates = _dates(named, seen.astimezone(zone).date())
    moments = [_in_utc(datetime.combine(day, _clock(named)), zone) for day in dates]
    if "month" in named:
        return min(moments, key=lambda moment: abs(moment - seen))
    return next((moment for moment in moments if moment > seen - JUST_OVER), moments[-1])


def _dates(named: dict[str, str], today: date) -> list[date]:
    """The days that can be meant, in their order."""
    if "month" in named:
        month, day = _MONTHS.index(named["month"]) + 1, int(named["day"])
        years = [int(named["year"])] if "year" in named else [today.year - 1, today.year, today.year + 1]
        return [date(year, month, day) for year in years if 1 <= day <= monthrange(year, month)[1]]
    if "tomorrow" in named:
        return [today + timedelta(days=1)]
    step = timedelta(days=7 if "weekday" in named else 1)
    if "weekday" in named:
        today += timedelta(days=(_WEEKDAYS.index(named["weekday"]) - today.weekday()) % 7)
    return [today - step, today, today + step]


def _clock(named: dict[str, str]) -> time:
    """The time of day; without one, the day's beginning."""
    hour, half = int(named.get("hour", 0)), named.get("half")
    if half and not 1 <= hour <= 12:
        raise ValueError(f"there is no {hour} {half}m")
    return time(hour % 12 + 12 * (half == "p") if half else hour, int(named.get("minute", 0)))


def _in_utc(moment: datetime, zone: tzinfo | None) -> datetime:
    """In UTC. A moment without a zone is meant in `zone`, or where the machine is."""
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)


def _zone(name: str) -> tzinfo | None:
    """The zone of that name or abbreviation; None when it is not known."""
    if offset := re.fullmatch(r"(?:utc|gmt)([+-])(\d{1,2}):?(\d\d)?", name, re.I):
        minutes = int(offset[2]) * 60 + int(offset[3] or 0)
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    if name.upper() in _HOURS_EAST:
        return timezone(timedelta(hours=_HOURS_EAST[name.upper()]))
    try:
        return ZoneInfo(name) if "/" in name else None
    except (LookupError, ValueError, OSError):
        return None
