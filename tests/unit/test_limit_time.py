"""The end of a usage limit, read from texts that the programs have shown."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.programs.limit_time import JUST_OVER, limit_end

BERLIN = ZoneInfo("Europe/Berlin")
SEEN = datetime(2026, 11, 26, 12, 0, tzinfo=BERLIN)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def later(**span: float) -> datetime:
    return SEEN + timedelta(**span)


REAL = [
    # Claude Code; numbers are issues of anthropics/claude-code, a version is the text in that package
    ("77082", "You've hit your session limit · resets 8:30pm (Asia/Tokyo)", at("2026-11-26 12:30")),
    ("74079", "hit your session limit · resets 12:50am (America/Los_Angeles)", at("2026-11-27 09:50")),
    ("69160", "hit your session limit · resets 3:20am (Asia/Calcutta)", at("2026-11-26 22:50")),
    ("24687", "You've hit your limit · resets 4pm (Asia/Kuala_Lumpur)", at("2026-11-27 09:00")),
    ("25583", "⎿  You've hit your limit · resets Feb 16, 11am (Europe/Berlin)", at("2027-02-16 11:00")),
    ("55876", "You've hit your limit · resets May 5 at 9pm (America/New_York)", at("2027-05-06 03:00")),
    ("92834", "You've hit your weekly limit · resets Sep 15 at 7pm", at("2026-09-15 19:00")),
    ("2.1.197", "hit your weekly limit · resets Jan 3, 2027 at 9am (UTC)", at("2027-01-03 10:00")),
    (
        "80062",
        "hit your limit for Claude messages. Limits will reset at 9:30 AM. View",
        at("2026-11-27 09:30"),
    ),
    ("22603", "You're out of extra usage · resets Feb 4, 8pm (Europe/Budapest)", at("2027-02-04 20:00")),
    ("55417", "You're out of extra usage · resets 7pm (Europe/Barcelona)", at("2026-11-26 19:00")),
    ("6392", "5-hour limit reached ∙ resets 5am", at("2026-11-27 05:00")),
    ("12308", "5-hour limit reached · resets 2pm (Pacific/Auckland) · /upgrade", at("2026-11-27 02:00")),
    ("12686", "Weekly limit reached · resets Dec 2, 7pm (Europe/Moscow) ·", at("2026-12-02 17:00")),
    ("10333", "Opus weekly limit reached ∙ resets Oct 24", at("2026-10-24 00:00")),
    ("10333", "Opus weekly limit reached ∙ resets Oct 31, 9am", at("2026-10-31 09:00")),
    ("9236", "Your limit will reset \n     at 3pm (America/Santiago).", at("2026-11-26 19:00")),
    ("2087", "Your limit will reset at 1pm (Etc/GMT+5).", at("2026-11-26 19:00")),
    ("8835", "Claude AI usage limit reached|1760004000", at("2025-10-09 12:00")),
    ("2.1.197", "Session limit reached · Retrying in 3h (3:20pm) · attempt 1/10", at("2026-11-26 15:20")),
    ("2.1.197", "API error · Retrying in 38s · attempt 3/10", later(seconds=38)),
    # Codex; issues of openai/codex, and its texts for each plan
    ("3899", "or try again in 5 days 22 hours 11\nminutes.", later(days=5, hours=22, minutes=11)),
    ("3257", "usage limit. Try again in 4 days 20 hours 9 minutes.", later(days=4, hours=20, minutes=9)),
    ("26668", "or try again at Jul 5th, 2026 8:19 PM.", at("2026-07-05 20:19")),
    ("0.169.0", "to purchase more credits or try again at 5:32 PM.", at("2026-11-26 17:32")),
    (
        "0.169.0",
        "Switch to another model now, or try again at Dec 1st, 2026 12:05 AM.",
        at("2026-12-01 00:05"),
    ),
    ("earendil-works/pi 4172", '"resets_at":1777936568,"resets_in_seconds":13872', at("2026-05-05 01:16:08")),
    ("OpenAI API", "Limit 30000. Please try again in 6m0s.", later(minutes=6)),
    ("OpenAI API", "Please try again in 1.898s. Visit https://platform.openai.com", later(seconds=1.898)),
    ("OpenAI API", "Please try again in 20ms.", later(milliseconds=20)),
    # Gemini CLI; issues of google-gemini/gemini-cli
    ("22643", "Usage limit reached for gemini-3. Access resets at 10:57 PM GMT-3.", at("2026-11-27 02:57")),
    ("0.61.0", "│ Access resets at 3:45 PM PST. │", at("2026-11-27 00:45")),
    ("0.61.0", "Access resets at 3:45\u202fPM UTC.", at("2026-11-26 16:45")),
    ("0.61.0", "Access resets at 9:15 AM GMT+5:30.", at("2026-11-27 04:45")),
    ("13004", "Your quota will reset after 8h44m7s.", later(hours=8, minutes=44, seconds=7)),
    ("22107", "Your quota will reset after 5s.. Retrying after 6173ms...", later(seconds=5)),
    ("12386", "Expected quota reset within 24h.]", later(hours=24)),
    ("0.61.0", "429: Please retry in 38.601658672s.", later(seconds=38.601659)),
    ("0.61.0", "Suggested retry after 60s.", later(seconds=60)),
    ("0.61.0", "Limit reached, resets in 3h 20m", later(hours=3, minutes=20)),
    ("0.61.0", "resets in 2 hours 5 minutes at 2:06 PM GMT+1", at("2026-11-26 14:06")),
    ("Aider-AI/aider 3694", '"retryDelay": "44s"', later(seconds=44)),
    # opencode, issues of anomalyco/opencode; Qwen Code; aider
    ("49170", "weekly usage limit reached. It will reset in 5 days 10 hours. To", later(days=5, hours=10)),
    ("1.18.33", "Usage limit reached. It will reset in less than a minute. To", later(minutes=1)),
    ("47239", "The usage limit has been reached [retrying in 1m 3s attempt #2]", later(minutes=1, seconds=3)),
    ("50079", "Free usage exceeded [retrying in 20h 30m attempt #4]", later(hours=20, minutes=30)),
    ("1.18.33", "Free usage exceeded [retrying in ~3 days attempt #1]", later(days=3)),
    ("1.18.33", "Free usage exceeded [retrying in ~1 week attempt #1]", later(weeks=1)),
    ("49639", "wait until daily reset at 00:00 UTC.", at("2026-11-27 01:00")),
    ("qwen 0.15.10", "↻ Retrying in 60 seconds… (attempt 1/10)", later(seconds=60)),
    ("aider 0.86.2", "Retrying in 8.0 seconds...", later(seconds=8)),
]
OTHERS = [
    ("resets 15:30", at("2026-11-26 15:30")),
    ("resets Mon 12:00 AM", at("2026-11-30 00:00")),
    ("resets Thursday at 9am", at("2026-12-03 09:00")),
    ("available again tomorrow at 6:00", at("2026-11-27 06:00")),
    ("quota resets at 2026-11-27T07:00:00Z", at("2026-11-27 08:00")),
    ("quota resets at 2026-11-27 07:00", at("2026-11-27 07:00")),
    ("retry-after: 3600", later(hours=1)),
    ("usage limit reached|1760004000000", at("2025-10-09 12:00")),
    ("Requests from 12:03 on are refused; the limit resets in 5 minutes", later(minutes=5)),
    ("resets 3pm. West of here it is later", at("2026-11-26 15:00")),
    ("try again in 5 minutes. Your plan renews at 3pm", later(minutes=5)),
]
NO_TIME = [
    "You've hit your usage limit. Try again later.",
    "You've hit your monthly spend limit · raise it at claude.ai/settings/usage",
    "[API Error: You have exhausted your daily quota on this model.]",
    "Usage limit reached for all Pro models. /model to switch models.",
    "Claude Opus 4.1 with 1M context, 5-hour limit reached",
    "resets 25:00",
    "resets 13pm",
    "resets Feb 30, 3pm",
    "resets in 99999999 weeks",
    "resets next month",
    "",
]


@pytest.mark.parametrize(("source", "text", "end"), REAL)
def test_the_end_is_read_from_what_the_programs_show(source: str, text: str, end: datetime) -> None:
    assert limit_end(text, SEEN, BERLIN) == end


@pytest.mark.parametrize(("text", "end"), OTHERS)
def test_other_ways_to_name_a_time_are_read_too(text: str, end: datetime) -> None:
    assert limit_end(text, SEEN, BERLIN) == end


@pytest.mark.parametrize("text", NO_TIME)
def test_a_text_without_a_time_has_no_end(text: str) -> None:
    assert limit_end(text, SEEN, BERLIN) is None


@pytest.mark.parametrize(
    ("seen", "text", "end"),
    [
        ("2026-11-26 15:09", "resets 3pm", "2026-11-26 15:00"),
        ("2026-11-26 15:10", "resets 3pm", "2026-11-27 15:00"),
        ("2026-11-27 00:04", "resets 11:59pm", "2026-11-26 23:59"),
        ("2026-11-30 15:09", "resets Mon 3pm", "2026-11-30 15:00"),
        ("2026-12-31 23:00", "resets Jan 1, 9am", "2027-01-01 09:00"),
        ("2027-01-01 09:05", "resets Dec 31, 9am", "2026-12-31 09:00"),
        ("2028-02-20 12:00", "resets Feb 29, 9am", "2028-02-29 09:00"),
    ],
)
def test_a_time_that_has_just_passed_is_not_the_next_one(seen: str, text: str, end: str) -> None:
    assert limit_end(text, at(seen), BERLIN) == at(end)


def test_a_clock_time_means_the_clock_also_when_summer_time_ends() -> None:
    seen = at("2026-10-24 20:00")
    assert limit_end("resets 6am", seen, BERLIN) == seen.astimezone(UTC) + timedelta(hours=11)


def test_without_a_zone_the_machines_is_meant() -> None:
    end = limit_end("resets 3pm", SEEN)
    assert end is not None
    assert (end.astimezone().hour, end.astimezone().minute) == (15, 0)


ZONES = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC", "Etc/GMT+5"]
)
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.integers(60, 24 * 3600 - 3600), ZONES)
def test_a_clock_time_within_a_day_is_found_again(seen: datetime, ahead: int, name: str) -> None:
    end = (seen + timedelta(seconds=ahead)).replace(second=0, microsecond=0)
    local = end.astimezone(ZoneInfo(name))
    found = limit_end(f"You've hit your limit · resets {local:%I:%M%p} ({name})", seen)
    assert found is not None
    assert f"{found.astimezone(ZoneInfo(name)):%H:%M}" == f"{local:%H:%M}"
    assert seen - JUST_OVER < found < seen + timedelta(days=1, hours=1)


@given(MOMENTS, MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_a_whole_date_means_one_moment_whenever_it_is_seen(
    seen: datetime, end: datetime, offset: int
) -> None:
    zone = timezone(timedelta(minutes=offset))
    local = end.replace(second=0, microsecond=0).astimezone(zone)
    written = f"{local:%b} {local.day}th, {local.year} {local:%I:%M %p}"
    assert limit_end(f"You've hit your usage limit. Try again at {written}.", seen, zone) == local


@given(MOMENTS, st.integers(-170, 170))
def test_a_date_without_a_year_is_the_nearest(seen: datetime, days: int) -> None:
    end = (seen + timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
    assert limit_end(f"resets {end:%b} {end.day} at {end:%I%p}", seen, UTC) == end


@given(MOMENTS, st.integers(0, 30), st.integers(0, 23), st.integers(1, 59))
def test_a_span_counts_from_when_it_was_seen(seen: datetime, days: int, hours: int, minutes: int) -> None:
    end = seen + timedelta(days=days, hours=hours, minutes=minutes)
    assert limit_end(f"try again in {days} days {hours} hours {minutes} minutes.", seen) == end
    assert limit_end(f"reset after {days}d{hours}h{minutes}m", seen) == end


@given(MOMENTS, MOMENTS)
def test_seconds_of_unix_are_that_moment(seen: datetime, end: datetime) -> None:
    end = end.replace(microsecond=0)
    assert limit_end(f"Claude AI usage limit reached|{end.timestamp():.0f}", seen) == end


PIECES = st.sampled_from(
    "resets|try again|at|in|3pm|12:61|25:00|99|Feb|30th,|2027|(Europe|/Berlin)|(../../x/y)|GMT+99|Mon"
    "|tomorrow|0am|weeks|hours|ms|2026-13-45T99:99Z|retry-after:|10:00|PST|~|,".split("|")
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(PIECES, max_size=12).map(" ".join)), MOMENTS, ZONES)
def test_whatever_the_text_is_the_answer_is_a_moment_in_utc_or_none(
    text: str, seen: datetime, name: str
) -> None:
    end = limit_end(text, seen, ZoneInfo(name))
    assert end is None or end.utcoffset() == timedelta(0)
