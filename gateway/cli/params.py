"""Values people type: durations, steps, routes."""

import json
import re
from typing import Final

import click

UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> int:
    """Return `1h30m`, `5m`, `30s` or `250ms` as milliseconds; `0` is 0. Raises ValueError."""
    if text == "0":
        return 0
    total, at = 0.0, 0
    for match in _DURATION.finditer(text):
        if match.start() != at:
            break
        total += float(match[1]) * UNIT_MS[match[2]]
        at = match.end()
    if not text or at != len(text):
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m, 1h30m or 250ms")
    return round(total)


def format_duration(milliseconds: float) -> str:
    """Return milliseconds as people write them: `250ms`, `9s`, `4m05s`, `2h03m`."""
    if 0 < milliseconds < 1_000:
        return f"{round(milliseconds)}ms"
    seconds = round(milliseconds / 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def duration(text: str | int) -> int:
    """Take a duration option. Returns milliseconds."""
    if isinstance(text, int):
        return text
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def percents(text: str) -> list[int]:
    """Take `10,50,100`: what cannot be steps is said before a version is registered and waited for."""
    try:
        steps = [int(step) for step in text.split(",")]
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is not a list of percentages such as 10,50,100") from exc
    if steps != sorted(set(steps)) or steps[-1] != 100:
        raise click.BadParameter(f"{text!r} does not rise to 100, as 10,50,100 does")
    return steps


def route(text: str) -> dict[str, str]:
    """Take `/path` or `host/path`. Returns the route as the API takes it."""
    host, slash, path = text.partition("/")
    if not slash:
        raise click.BadParameter(f"{text!r} is not a route such as /api/v1/auth or example.com/api")
    return {"host": host or "*", "path": "/" + path}


def setting(text: str) -> tuple[str, object]:
    """Take `name=value`, the value as JSON if it is any, else as text. Returns both."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE, such as onBreach=pause")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
