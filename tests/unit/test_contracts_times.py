from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.go_formats import (
    _MAX_DURATION,
    ZERO_TIME,
    format_duration,
    format_elapsed,
    format_time,
    parse_duration,
    parse_time,
    precision_of,
)
from tests.unit.moments import MOMENTS


@given(MOMENTS)
def test_a_written_time_reads_as_the_same_instant_in_the_same_zone(moment: datetime) -> None:
    read = parse_time(format_time(moment))
    assert read == moment
    assert read.utcoffset() == moment.utcoffset()


@given(MOMENTS.map(lambda moment: moment.replace(microsecond=0)), st.text("0123456789", max_size=9))
def test_any_number_of_digits_is_cut_off_at_microseconds(moment: datetime, digits: str) -> None:
    text = moment.isoformat()
    text = text[:19] + (f".{digits}" if digits else "") + text[19:]
    micros = int(digits.ljust(9, "0")[:6])
    assert parse_time(text) == moment + timedelta(microseconds=micros)
    assert precision_of(text) == timedelta(microseconds=max(1, round(10 ** (6 - len(digits)))))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("2025-12-20T10:12:21Z", timedelta(seconds=1)),
        ("2025-12-20T10:12:21.5Z", timedelta(milliseconds=100)),
        ("2025-12-20T10:12:21.123456+01:00", timedelta(microseconds=1)),
        ("2025-12-20T10:12:21.123456789+01:00", timedelta(microseconds=1)),
    ],
)
def test_the_span_is_that_of_the_last_digit(text: str, span: timedelta) -> None:
    assert precision_of(text) == span


def test_lower_case_letters_are_read() -> None:
    assert parse_time("2025-12-20t10:12:21z") == datetime(2025, 12, 20, 10, 12, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2025-12-20T10:12:21",
        "2025-12-20 10:12:21Z",
        "2025-12-20T10:12:21.Z",
        "2025-12-20T10:12:21.1234567890Z",
        "2025-12-20T10:12:21+0100",
        "2025-12-20T10:12:21+24:00",
        "2025-12-20T10:12:21+01:60",
        "2025-13-20T10:12:21Z",
        "2025-02-29T10:12:21Z",
        "2025-12-20T24:00:00Z",
        "2025-12-20T24:12:21Z",
        "2025-12-20T10:12:60Z",
        "0000-12-20T10:12:21Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "2025-12-20T10:12:21Z\n",
        "٢٠٢٥-12-20T10:12:21Z",
    ],
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|not a valid time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (ZERO_TIME, "0001-01-01T00:00:00Z"),
        (datetime(2025, 12, 20, 10, 12, 21, 120000, tzinfo=UTC), "2025-12-20T10:12:21.12Z"),
        (datetime(2025, 12, 20, 1, tzinfo=timezone(timedelta(hours=-8))), "2025-12-20T01:00:00-08:00"),
        (datetime(2025, 6, 1, tzinfo=ZoneInfo("Europe/London")), "2025-06-01T00:00:00+01:00"),
        (datetime(2025, 1, 1, tzinfo=ZoneInfo("Europe/London")), "2025-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_as_go_does(moment: datetime, text: str) -> None:
    assert format_time(moment) == text


def test_a_zone_with_seconds_is_written_in_minutes_for_the_same_instant() -> None:
    moment = datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=1, minutes=2, seconds=3)))
    assert format_time(moment) == "1899-12-31T23:59:57+01:02"
    assert parse_time(format_time(moment)) == moment


def test_a_time_without_zone_is_not_written() -> None:
    with pytest.raises(ValueError, match="time zone"):
        format_time(datetime(2025, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5m", 300.0),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("1h2m3.5s", 3723.5),
        (".5h", 1800.0),
        ("0.1h", 360.0),
        ("7µs", 7e-6),
        ("7μs", 7e-6),
        ("7us", 7e-6),
        ("7ns", 7e-9),
        (" 5m ", 300.0),
        ("300", 300.0),
        ("0.5", 0.5),
        ("0", 0.0),
        (300, 300.0),
        (0.25, 0.25),
    ],
)
def test_durations(value: str | float, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "soon",
        "-5m",
        "+5m",
        "5 m",
        "5d",
        "m",
        "5m3",
        "1e3",
        "nan",
        "inf",
        "9" * 400,
        "9" * 400 + "h",
        "٣m",
        -1,
        -0.1,
        float("nan"),
        float("inf"),
        10**400,
        _MAX_DURATION * 2,
        True,
    ],
)
def test_an_invalid_duration_is_refused(value: str | float) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (300, "5m"),
        (5400, "1h30m"),
        (1.5, "1.5s"),
        (90, "1m30s"),
        (3600, "1h"),
        (3601, "1h1s"),
        (-90, "-1m30s"),
        (-1e-12, "0s"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 2**62))
def test_a_written_duration_reads_as_the_same_to_the_nanosecond(nanos: int) -> None:
    seconds = nanos / 1e9
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-15, abs=1e-9)


@given(st.text("0123456789hmsnuµ. -", max_size=12))
def test_an_infinite_duration_is_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= _MAX_DURATION


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0.4, "0s"),
        (61, "1m1s"),
        (172_799, "47h59m59s"),
        (172_800, "2 days"),
        (29_421_555, "340 days"),
    ],
)
def test_what_was_long_ago_is_told_in_days(seconds: float, text: str) -> None:
    assert format_elapsed(seconds) == text
