"""The database's clock, as one gateway knows it."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.store.postgres.clock import DatabaseClock
from tests.unit.store.rows import NOW


class Monotonic:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def machine() -> Monotonic:
    return Monotonic()


def known(machine: Monotonic) -> DatabaseClock:
    """Heard without any delay."""
    return DatabaseClock(NOW, machine.at, clock=machine)


def test_it_goes_on_without_a_word(machine: Monotonic) -> None:
    clock = known(machine)
    assert clock.now() == NOW
    machine.at += 90
    assert clock.now() == NOW + timedelta(seconds=90)
    assert clock.now().tzinfo is UTC


@pytest.mark.parametrize("said_after_s", [0.0, 1.5, 3.0])
def test_an_answer_that_was_long_under_way_moves_nothing(machine: Monotonic, said_after_s: float) -> None:
    clock, asked_at = known(machine), machine.at
    machine.at += 3
    clock.hear(NOW + timedelta(seconds=said_after_s), asked_at)
    assert clock.now() == NOW + timedelta(seconds=3)


@pytest.mark.parametrize("set_by_s", [-3_600.0, -0.5, 0.5, 3_600.0])
def test_a_clock_that_is_set_is_followed_to_what_the_answer_leaves_open(
    machine: Monotonic, set_by_s: float
) -> None:
    clock, asked_at = known(machine), machine.at
    machine.at += 0.25
    said = NOW + timedelta(seconds=set_by_s)
    clock.hear(said, asked_at)
    assert said <= clock.now() <= said + timedelta(seconds=0.25)
    assert abs(clock.now() - said) in (timedelta(0), timedelta(seconds=0.25))


def test_what_was_heard_first_was_said_before_it_was_heard(machine: Monotonic) -> None:
    asked_at = machine.at
    machine.at += 2
    clock = DatabaseClock(NOW, asked_at, clock=machine)
    assert NOW <= clock.now() <= NOW + timedelta(seconds=2)


def test_a_quick_answer_makes_it_more_exact(machine: Monotonic) -> None:
    asked_at = machine.at
    machine.at += 2
    clock = DatabaseClock(NOW, asked_at, clock=machine)  # said as soon as it was asked, or only now
    clock.hear(NOW, machine.at)
    assert clock.now() == NOW
    assert isinstance(clock.now(), datetime)


def test_it_never_goes_back_because_an_answer_was_quicker(machine: Monotonic) -> None:
    asked_at = machine.at
    machine.at += 1.5
    clock = DatabaseClock(NOW + timedelta(seconds=1.4), asked_at, clock=machine)  # said late, heard soon
    before, asked_at = clock.now(), machine.at
    machine.at += 0.01
    clock.hear(NOW + timedelta(seconds=1.505), asked_at)
    assert before <= clock.now() <= NOW + timedelta(seconds=1.515)
