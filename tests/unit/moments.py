"""Moments for property tests: any instant that RFC 3339 can write, in any zone of whole minutes."""

from datetime import datetime, timedelta, timezone

from hypothesis import strategies as st

OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(
    datetime(2, 1, 1),  # noqa: DTZ001
    datetime(9998, 12, 31),  # noqa: DTZ001
    timezones=OFFSETS,
)
