"""The old version's record, and the suspicion that is measured by it."""

import random

import pytest

from gateway.core.judge.record import MAX_DISPERSION, RAISED_S, Record
from gateway.core.judge.suspicion import ALARM, Suspicion


def served(record: Record, seconds: int, rate: float, rng: random.Random, share: float = 1.0) -> Record:
    for _ in range(seconds // 10):
        record = record.plus(10.0, 100, sum(rng.random() < rate for _ in range(100)), share)
    return record


def test_a_short_outage_is_not_how_it_usually_is() -> None:
    rng = random.Random(1)
    record = served(served(served(Record(), 600, 0.005, rng), 180, 0.6, rng), 300, 0.005, rng).read()
    assert record.rate == pytest.approx(0.005, abs=0.002)


def test_a_change_for_good_is_how_it_is_now() -> None:
    rng = random.Random(2)
    record = served(served(Record(), 300, 0.005, rng), 1_200, 0.2, rng).read()
    assert record.rate == pytest.approx(0.2, abs=0.02)


def test_independent_errors_do_not_clump_and_runs_do() -> None:
    rng = random.Random(3)
    assert served(Record(), 900, 0.01, rng).read().dispersion(1.0) < 1.6
    record = Record()
    for index in range(90):
        record = record.plus(10.0, 100, 8 if index % 8 == 0 else 0, 1.0)
    assert record.read().dispersion(1.0) > 3
    assert record.read().dispersion(0.1) < 2
    assert record.read().dispersion(1.0) <= MAX_DISPERSION


def test_what_is_hardly_known_is_guessed_at_with_caution() -> None:
    record = Record().plus(10.0, 20, 0, 1.0).read()
    assert 0.01 < record.rate < 0.05
    assert Record().rate == 0.05
    assert Record().tolerated == 1


def test_what_an_ask_saw_counts_for_a_while() -> None:
    record = served(Record(), 600, 0.005, random.Random(4)).read().lifted(0.6)
    assert record.usual == 0.6 and not record.was_well
    record = record.passed(RAISED_S)
    assert record.usual < 0.02 and not record.was_well
    assert record.passed(RAISED_S).was_well


def test_a_trickle_is_remembered_for_longer_and_within_bounds() -> None:
    record = Record()
    for _ in range(10_000):
        record = record.plus(30.0, 1, 0, 0.05)
        assert len(record.chunks) <= 120
    assert 100 <= record.read().answers <= 120


def suspicion(errors_each: int, seconds: int, *, bad: int = 0, rate: float = 0.005) -> Suspicion:
    """Return it after good seconds of ten requests, one error in so many, and `bad` seconds at 20 %."""
    found, count = Suspicion(), 0
    for _ in range(seconds):
        count += 10
        failed, count = divmod(count, errors_each)
        found = found.times(rate, 1.0, failed, 10, 1.0)
    for _ in range(bad):
        found = found.times(rate, 1.0, 2, 10, 1.0)
    return found


def test_an_hour_of_good_answers_does_not_slow_it_down() -> None:
    assert suspicion(200, 60).value < ALARM
    for seconds in (0, 60, 3_600):
        assert suspicion(200, seconds, bad=4).value >= ALARM


def test_it_says_which_rate_is_suspected() -> None:
    assert 0.1 < suspicion(200, 60, bad=10).suspected(0.005) < 0.35


def test_errors_as_usual_seldom_raise_it() -> None:
    rng = random.Random(5)
    alarms = 0
    for _ in range(200):
        found = Suspicion()
        for _ in range(600):
            found = found.times(0.005, 1.0, sum(rng.random() < 0.005 for _ in range(10)), 10, 1.0)
            if found.value >= ALARM:
                alarms += 1
                break
    assert alarms <= 20
