"""Replaying stored windows under other settings."""

from datetime import UTC, datetime, timedelta

import msgspec

from gateway.core.judge.record import Chunk, Record
from gateway.core.judge.replay import replay, windows_of
from gateway.core.judge.rules import Rules
from gateway.core.judge.tallies import Tally
from gateway.core.judge.window import WHOLE, Cell, Window

START = datetime(2026, 1, 1, tzinfo=UTC)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    version_id: str
    generation: int
    share: int
    started_at: datetime
    seconds: float = 10.0
    answers: int
    errors: dict[str, int] = {}
    latency: dict[int, int] = {}


def window(percent: int, new: tuple[int, int], old: tuple[int, int]) -> Window:
    return Window(
        seconds=10.0,
        percent=percent,
        new=(Cell(percent, percent * 100, new[0], {"500": new[1]} if new[1] else {}),),
        old=(Cell(percent, WHOLE - percent * 100, old[0], {"500": old[1]} if old[1] else {}),),
    )


RECORDED = [*[window(10, (10, 0), (90, 0))] * 30, *[window(50, (50, 2), (50, 0))] * 30]


def test_a_replay_says_when_it_would_have_stopped() -> None:
    result = replay(Rules(), RECORDED)
    assert result is not None
    assert (result.verdict, result.step, result.percent) == ("abort", 1, 50)
    assert 300_000 < result.after_ms < 600_000


def test_milder_settings_stop_later_or_never() -> None:
    strict, mild = replay(Rules(), RECORDED), replay(Rules(false_alarm_rate=1e-12), RECORDED)
    assert strict is not None and mild is not None
    assert mild.after_ms > strict.after_ms


def test_a_good_rollout_ends_with_the_judges_last_word() -> None:
    result = replay(Rules(), [window(10, (10, 0), (90, 0))] * 6)
    assert result is not None
    assert (result.verdict, result.after_ms) == ("advance", 60_000)


def test_a_switch_is_measured_by_what_the_old_version_did_before_it() -> None:
    """Both fail alike: held against the new version only by who knows nothing of the old one."""
    switch = [Window(seconds=10.0, percent=100, new=(Cell(1, WHOLE, 100, {"500": 10}),))] * 6
    blind = replay(Rules(), switch)
    assert blind is not None
    assert blind.verdict == "ask"
    seen = replay(Rules(), switch, Record((Chunk(10.0, Tally(1000, 100), 1.0),)).read())
    assert seen is not None
    assert seen.verdict == "advance"
    assert seen.decision.comparison == "record"


def test_what_the_rollouts_own_ask_saw_does_not_raise_the_measure_of_a_replay() -> None:
    """The stored record ends with what the last ask saw, and it excused anything."""
    record = Record((Chunk(10.0, Tally(1000, 2), 1.0),)).read()
    switch = [Window(seconds=1.0, percent=100, new=(Cell(1, WHOLE, 100, {"500": 65}),))] * 3
    seen = replay(Rules(), switch, record.lifted(0.69))
    assert seen is not None
    assert (seen.verdict, seen.after_ms) == ("ask", 1000)


def test_only_what_had_traffic_is_judged() -> None:
    before = Window(seconds=10.0, old=(Cell(1, WHOLE, 100),))
    after = Window(seconds=10.0, old=(Cell(3, WHOLE, 100),))
    result = replay(Rules(), [before, *[window(10, (10, 0), (90, 0))] * 6, after, after])
    assert result is not None
    assert (result.verdict, result.step, result.after_ms) == ("advance", 0, 60_000)
    assert replay(Rules(), [before, before]) is None


def test_nothing_stored_is_nothing_to_say() -> None:
    assert replay(Rules(), []) is None


def test_rows_become_the_windows_they_came_from() -> None:
    rows = [
        Row(version_id="old", generation=4, share=9000, started_at=START, answers=90, errors={"500": 1}),
        Row(version_id="new", generation=4, share=1000, started_at=START, answers=10, latency={3: 10}),
        Row(version_id="new", generation=4, share=10000, started_at=START, answers=2),
        Row(version_id="new", generation=5, share=5000, started_at=START + timedelta(seconds=10), answers=50),
        Row(version_id="old", generation=5, share=5000, started_at=START + timedelta(seconds=10), answers=50),
    ]
    windows = windows_of(rows, "old", "new")
    assert [(each.percent, len(each.old), len(each.new)) for each in windows] == [(10, 1, 2), (50, 1, 1)]
    assert windows[0].old[0] == Cell(4, 9000, 90, {"500": 1})
    assert windows[0].new[0].latency == {3: 10}


def test_a_generation_the_new_version_sat_out_is_known_by_the_old_ones_share() -> None:
    rows = [Row(version_id="old", generation=2, share=WHOLE, started_at=START, answers=5)]
    assert windows_of(rows, "old", "new")[0].percent == 0
