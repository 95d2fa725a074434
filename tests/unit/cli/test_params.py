"""Durations, steps and routes as people type them."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.params import duration, format_duration, parse_duration, percents, route, setting


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1_500),
        ("0", 0),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "5 m", "-5m", "5m!", "x5m", "ms"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)
    with pytest.raises(click.BadParameter):
        duration(text)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (250, "250ms"), (9_000, "9s"), (245_000, "4m05s"), (7_380_000, "2h03m")],
)
def test_durations_are_written_short(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


@given(st.integers(0, 10**9))
def test_what_is_written_can_be_typed(milliseconds: int) -> None:
    assert abs(parse_duration(format_duration(milliseconds)) - milliseconds) <= max(
        500, 60_000 * (milliseconds > 3_599_000)
    )


def test_steps_are_whole_numbers_that_rise_to_all() -> None:
    assert percents("10,50,100") == [10, 50, 100]
    for text in ("", "10,", "ten", "10;50", "10,5,100", "10,10,100", "10,50", "50,101"):
        with pytest.raises(click.BadParameter):
            percents(text)


def test_a_route_is_a_path_with_or_without_host() -> None:
    assert route("/api") == {"host": "*", "path": "/api"}
    assert route("example.com/api/v1") == {"host": "example.com", "path": "/api/v1"}
    with pytest.raises(click.BadParameter):
        route("api")


def test_a_setting_is_json_or_text() -> None:
    assert setting("maxLatencyRatio=1.5") == ("maxLatencyRatio", 1.5)
    assert setting("onBreach=pause") == ("onBreach", "pause")
    assert setting("dryRun=true") == ("dryRun", True)
    for text in ("onBreach", "=1"):
        with pytest.raises(click.BadParameter):
            setting(text)
