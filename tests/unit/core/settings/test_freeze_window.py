"""When a scheduled freeze is in force: cron fields, zones, and clocks that are set."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.core.settings.freeze_window import FreezeWindow, in_force, parse_cron, upcoming

HOUR = 3_600_000


def window(cron: str, hours: float = 1, tz: str = "UTC") -> FreezeWindow:
    return FreezeWindow(cron=cron, duration=round(hours * HOUR), tz=tz)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def is_frozen(frozen: FreezeWindow, text: str) -> bool:
    return in_force([frozen], utc(text)) is not None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("* * * *", "five"),
        ("* * * * * *", "five"),
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "weekday"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("1,, * * * *", "minute"),
        ("٣ * * * *", "minute"),
        ("1e1 * * * *", "minute"),
        ("* * * foo *", "month"),
        ("0 0 30 2 *", "none of its months"),
        ("0 0 31 feb,apr *", "none of its months"),
        ("@daily", "five"),
    ],
)
def test_a_cron_that_means_nothing_is_refused_by_its_field(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_cron(text)


def test_fields_are_lists_ranges_steps_and_names() -> None:
    cron = parse_cron("*/20,7 9-11,22 1 JAN,jun Mon-Wed,7")
    assert cron.minutes == (0, 7, 20, 40)
    assert cron.hours == (9, 10, 11, 22)
    assert cron.months == {1, 6}
    assert cron.weekdays == {0, 1, 2, 3}
    assert parse_cron("50/5 * * * *").minutes == (50, 55)


def test_a_window_begins_at_its_minute_and_lasts_as_long_as_it_says() -> None:
    friday = window("0 16 * * fri", 48)
    assert not is_frozen(friday, "2026-11-27T15:59:59")
    assert is_frozen(friday, "2026-11-27T16:00:00")
    assert is_frozen(friday, "2026-11-29T15:59:59")
    assert not is_frozen(friday, "2026-11-29T16:00:00")
    found = in_force([friday], utc("2026-11-28T10:00"))
    assert found is not None
    assert (found.start, found.end) == (utc("2026-11-27T16:00"), utc("2026-11-29T16:00"))
    following = upcoming(friday, utc("2026-11-28T10:00"))
    assert following is not None
    assert following.start == utc("2026-12-04T16:00")


def test_day_and_weekday_are_either_where_both_are_restricted() -> None:
    """As every cron has it."""
    either = window("0 0 13 * fri")
    assert is_frozen(either, "2026-11-13T00:30"), "a Friday, and the 13th"
    assert is_frozen(either, "2026-12-13T00:30"), "a Sunday"
    assert is_frozen(either, "2026-11-27T00:30"), "a Friday"
    assert not is_frozen(either, "2026-11-26T00:30")
    both = window("0 0 */2 * fri")
    assert not is_frozen(both, "2026-11-29T00:30"), "a field that begins with * restricts nothing by itself"


def test_a_zone_is_followed_through_the_year() -> None:
    berlin = window("0 18 * * *", 1, "Europe/Berlin")
    assert is_frozen(berlin, "2026-07-01T16:30")
    assert is_frozen(berlin, "2026-12-01T17:30")
    assert not is_frozen(berlin, "2026-12-01T16:30")


def test_a_time_that_is_left_out_begins_as_much_later() -> None:
    """29 March 2026: in Berlin 02:00 is 03:00."""
    gap = window("30 2 * * *", 1, "Europe/Berlin")
    assert not is_frozen(gap, "2026-03-29T01:29")
    assert is_frozen(gap, "2026-03-29T01:30"), "03:30 there"
    assert not is_frozen(gap, "2026-03-29T02:30")


def test_a_time_that_comes_twice_begins_once() -> None:
    """25 October 2026: in Berlin 02:30 comes at 00:30 and 01:30 UTC."""
    twice = window("30 2 * * *", 0.5, "Europe/Berlin")
    assert is_frozen(twice, "2026-10-25T00:45")
    assert not is_frozen(twice, "2026-10-25T01:45")
    hourly = window("30 * * * *", 0.5, "Europe/Berlin")
    assert is_frozen(hourly, "2026-10-25T00:45")
    assert is_frozen(hourly, "2026-10-25T01:45"), "every hour is every hour"


def test_a_duration_is_time_that_passes() -> None:
    """Eight hours over the night a clock is set back are eight hours, not nine."""
    night = window("0 22 * * *", 8, "Europe/Berlin")
    assert is_frozen(night, "2026-10-25T03:59")
    assert not is_frozen(night, "2026-10-25T04:00")


def test_windows_that_follow_each_other_end_with_the_last() -> None:
    touching = window("0 8,9,10 * * *", 1)
    found = in_force([touching], utc("2026-11-28T08:10"))
    assert found is not None
    assert found.end == utc("2026-11-28T11:00")
    always = in_force([window("* * * * *", 24 * 31)], utc("2026-11-28T08:10"))
    assert always is not None
    assert always.end - utc("2026-11-28T08:10") > timedelta(days=31)


def test_of_several_the_one_that_ends_last_is_named() -> None:
    now = utc("2026-11-28T12:30")
    found = in_force([window("0 12 * * *", 2), window("0 12 * * *", 5), window("0 3 * * *")], now)
    assert found is not None
    assert found.window.duration == 5 * HOUR
    assert in_force([], now) is None


def test_a_leap_day_is_found_years_ahead() -> None:
    leap = window("0 0 29 2 *")
    following = upcoming(leap, utc("2026-11-28T00:00"))
    assert following is not None
    assert following.start == utc("2028-02-29T00:00")
    assert is_frozen(leap, "2028-02-29T00:59")


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"tz": "Europe/Nowhere"}, "tz"),
        ({"tz": "../etc/passwd"}, "tz"),
        ({"tz": ""}, "tz"),
        ({"cron": "x"}, "cron"),
        ({"duration": 59_999}, "duration"),
        ({"duration": 32 * 24 * HOUR}, "duration"),
    ],
)
def test_a_wrong_window_is_refused_by_its_key(more: dict[str, Any], path: str) -> None:
    given = {"cron": "0 0 * * *", "duration": HOUR, **more}
    with pytest.raises(msgspec.ValidationError, match=path):
        msgspec.convert(given, FreezeWindow)
