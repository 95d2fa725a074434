"""Times at which changes are frozen by schedule: a cron expression, how long, and in whose clock."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta

from gateway.core.settings.base import Settings
from gateway.core.settings.faults import wrong

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST_MS: Final = 31 * 86_400_000
AHEAD: Final = timedelta(days=366 * 5)
"""How far the next one is looked for."""
FAR: Final = timedelta(days=2)
"""Where windows follow each other without a gap, their end is looked for no further than this."""


class Cron(NamedTuple):
    """A cron expression of five fields. Where day and weekday are both restricted, either is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    is_any_day: bool
    is_any_weekday: bool
    is_hourly: bool
    """Every hour: also the one that a clock set back repeats."""

    def is_on(self, day: date) -> bool:
        """Return whether a local day is one of its days."""
        if day.month not in self.months:
            return False
        is_day, is_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.is_any_day or self.is_any_weekday:
            return is_day and is_weekday
        return is_day or is_weekday


@lru_cache(maxsize=256)
def parse_cron(text: str) -> Cron:
    """Return `minute hour day month weekday`. Raises ValueError naming the field."""
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"{text!r} has {len(fields)} fields, not five: minute hour day month weekday")
    minute, hour, day, month, weekday = fields
    weekdays = {each % 7 for each in _values("weekday", weekday, 0, 7, DAYS, 0)}
    cron = Cron(
        minutes=tuple(sorted(_values("minute", minute, 0, 59))),
        hours=tuple(sorted(_values("hour", hour, 0, 23))),
        days=frozenset(_values("day", day, 1, 31)),
        months=frozenset(_values("month", month, 1, 12, MONTHS, 1)),
        weekdays=frozenset(weekdays),
        is_any_day=day.startswith("*"),
        is_any_weekday=weekday.startswith("*"),
        is_hourly=hour == "*",
    )
    longest = max(29 if each == 2 else 30 if each in (4, 6, 9, 11) else 31 for each in cron.months)
    if cron.is_any_weekday and min(cron.days) > longest:
        raise ValueError(f"{text!r} names a day that none of its months has")
    return cron


def _values(
    field: str, text: str, low: int, high: int, names: tuple[str, ...] = (), first: int = 0
) -> set[int]:
    """Return what one field stands for: `*`, `5`, `1-5`, `*/15`, `mon,wed`."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        begin_text, dash, end_text = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(field, begin_text, names, first)
            end = _number(field, end_text, names, first) if dash else high if slash else begin
        step = _number(field, step_text, (), 0) if slash else 1
        if not low <= begin <= end <= high or step < 1:
            raise ValueError(f"{part!r} is no {field} between {low} and {high}")
        found.update(range(begin, end + 1, step))
    return found


def _number(field: str, text: str, names: tuple[str, ...], first: int) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + first
    if not (text.isascii() and text.isdecimal() and len(text) <= 2):
        raise ValueError(f"{text!r} is no {field}")
    return int(text)


class FreezeWindow(Settings, frozen=True, kw_only=True):
    """When changes are frozen, again and again. Rollbacks never are."""

    cron: Annotated[str, Meta(max_length=200)]
    """When it begins: minute, hour, day, month, weekday, by the clock of `tz`."""
    duration: Annotated[int, Meta(ge=60_000, le=LONGEST_MS)]
    """Milliseconds, as they pass: a clock that is set does not change it."""
    tz: str = "UTC"
    """A zone of the IANA database, as Europe/Berlin."""
    reason: Annotated[str, Meta(max_length=1000)] = ""

    def __post_init__(self) -> None:
        try:
            parse_cron(self.cron)
        except ValueError as exc:
            raise wrong("cron", str(exc)) from exc
        try:
            ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise wrong("tz", f"{self.tz!r} is no time zone such as Europe/Berlin") from exc


class Occurrence(NamedTuple):
    """One time that a window is in force, or will be. Times are UTC."""

    window: FreezeWindow
    start: datetime
    end: datetime
    """Where others follow without a gap: of the last."""

    @property
    def title(self) -> str:
        """What people call it."""
        named = f"{self.window.cron} {self.window.tz}"
        return f"{self.window.reason} ({named})" if self.window.reason else named


def in_force(windows: Iterable[FreezeWindow], now: datetime) -> Occurrence | None:
    """Return the window in force at `now` (aware); of several the one that ends last."""
    found = [each for window in windows if (each := _current(window, now)) is not None]
    return max(found, key=lambda each: each.end, default=None)


def upcoming(window: FreezeWindow, now: datetime) -> Occurrence | None:
    """Return the next time a window begins after `now`; None: not within years."""
    begun = next((start for start in _starts(window, now, now + AHEAD) if start > now), None)
    return Occurrence(window, begun, _end(window, begun)) if begun is not None else None


def _current(window: FreezeWindow, now: datetime) -> Occurrence | None:
    """Return the window if it is in force: all are of one length, so the newest beginning decides."""
    length = timedelta(milliseconds=window.duration)
    day = now.astimezone(ZoneInfo(window.tz)).date() + timedelta(days=1)
    for _ in range(length.days + 4):
        begun = [start for start in _starts_on(window, day) if start <= now]
        if begun:
            return (
                Occurrence(window, begun[-1], _end(window, begun[-1])) if now < begun[-1] + length else None
            )
        day -= timedelta(days=1)
    return None


def _end(window: FreezeWindow, start: datetime) -> datetime:
    """Return when a window ends that began at `start`, and those that follow without a gap."""
    length = timedelta(milliseconds=window.duration)
    end = start + length
    for later in _starts(window, start, start + length + FAR):
        if later > end:
            break
        end = max(end, later + length)
    return end


def _starts(window: FreezeWindow, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yield when a window begins, UTC, in order, from about `since` to about `until`."""
    zone = ZoneInfo(window.tz)
    day = since.astimezone(zone).date() - timedelta(days=1)
    last = until.astimezone(zone).date() + timedelta(days=1)
    while day <= last:
        yield from _starts_on(window, day)
        day += timedelta(days=1)


def _starts_on(window: FreezeWindow, day: date) -> list[datetime]:
    """Return when a window begins on one local day, UTC, in order.

    A time that a clock set forward leaves out begins as much later; of one that comes twice the first
    counts, for crons of every hour both do.
    """
    cron, zone = parse_cron(window.cron), ZoneInfo(window.tz)
    if not cron.is_on(day):
        return []
    folds = (0, 1) if cron.is_hourly else (0,)
    return sorted(
        {
            datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC)
            for hour in cron.hours
            for minute in cron.minutes
            for fold in folds
        }
    )
