"""Thresholds up and down, and what a probe's answer must be."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resilience.health import (
    MOVES,
    Health,
    HealthEvent,
    HealthSettings,
    HealthState,
    ProbeCheck,
    compile_check,
    judge_probe,
    move,
    parse_statuses,
)
from gateway.errors import IllegalTransition

SETTINGS = HealthSettings(healthy_threshold=2, unhealthy_threshold=3)


@pytest.mark.parametrize(("health", "event"), list(itertools.product(Health, HealthEvent)))
def test_every_pair_is_in_the_table_or_refused(health: Health, event: HealthEvent) -> None:
    if (health, event) in MOVES:
        assert move(health, event) is MOVES[health, event]
        return
    with pytest.raises(IllegalTransition):
        move(health, event)


def test_what_never_passed_is_not_usable_and_one_pass_suffices() -> None:
    state = HealthState(SETTINGS)
    assert not state.is_usable
    assert state.checked(ok=True)
    assert state.is_usable


def test_a_new_endpoint_that_never_answers_becomes_unhealthy() -> None:
    state = HealthState(SETTINGS)
    assert [state.checked(ok=False) for _ in range(4)] == [False, False, True, False]
    assert state.health is Health.UNHEALTHY


def test_stored_health_stands_after_a_restart_until_the_threshold() -> None:
    state = HealthState(SETTINGS, stored=Health.HEALTHY)
    assert state.is_usable
    assert [state.checked(ok=False) for _ in range(3)] == [False, False, True]
    assert not state.is_usable


def test_stored_unhealthy_needs_its_passes_in_a_row() -> None:
    state = HealthState(SETTINGS, stored=Health.UNHEALTHY)
    assert [state.checked(ok=ok) for ok in (True, False, True, True)] == [False, False, False, True]


def test_a_pass_between_failures_starts_the_count_again() -> None:
    state = HealthState(SETTINGS, stored=Health.HEALTHY)
    assert not any(state.checked(ok=ok) for ok in (False, False, True, False, False))
    assert state.failures == 2


def test_new_thresholds_hold_from_the_next_check() -> None:
    state = HealthState(SETTINGS, stored=Health.HEALTHY)
    state.reconfigure(HealthSettings(unhealthy_threshold=1))
    assert state.checked(ok=False)


@given(st.sampled_from(list(Health)), st.lists(st.booleans(), max_size=20))
def test_a_drained_thing_never_comes_back(stored: Health, checks: list[bool]) -> None:
    state = HealthState(SETTINGS, stored=stored)
    state.drain()
    assert not any(state.checked(ok=ok) for ok in checks)
    assert state.health is Health.DRAINED
    assert not state.is_usable
    assert not state.drain()


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_health_is_what_the_last_long_enough_run_says(checks: list[bool], up: int, down: int) -> None:
    state = HealthState(HealthSettings(healthy_threshold=up, unhealthy_threshold=down), stored=Health.HEALTHY)
    expected, run, last = True, 0, None
    for ok in checks:
        run = run + 1 if ok is last else 1
        last = ok
        if run >= (up if ok else down):
            expected = ok
        before = state.health
        assert state.checked(ok=ok) == (state.health is not before)
        assert state.is_usable == expected


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("200", ((200, 200),)),
        ("200-299", ((200, 299),)),
        (" 200 - 204 , 304 ", ((200, 204), (304, 304))),
        ("100-599", ((100, 599),)),
    ],
)
def test_statuses_and_ranges_are_read(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_statuses(text) == ranges


@pytest.mark.parametrize(
    "text", ["", "2xx", "99", "600", "200-", "-299", "299-200", "200,,204", "200;204", "２００"]
)
def test_other_texts_are_refused_with_the_part_that_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match="expected status '"):
        parse_statuses(text)


def test_a_bad_status_range_is_refused_with_the_settings() -> None:
    with pytest.raises(msgspec.ValidationError, match="the range runs backwards"):
        msgspec.convert({"expectedStatus": "299-200"}, HealthSettings)


@pytest.mark.parametrize("status", [200, 204, 299, 304])
def test_an_expected_status_passes(status: int) -> None:
    check = compile_check(HealthSettings(expected_status="200-299,304"))
    assert judge_probe(check, status=status, body=b"") is None


@pytest.mark.parametrize("status", [199, 300, 303, 305, 500])
def test_another_status_fails_and_says_what_was_expected(status: int) -> None:
    check = compile_check(HealthSettings(expected_status="200-299,304"))
    assert judge_probe(check, status=status, body=b"") == f"status {status}, expected 200-299,304"


def test_the_body_must_contain_the_text() -> None:
    check = ProbeCheck(statuses=((200, 200),), body="bereit ✓".encode())
    assert judge_probe(check, status=200, body="alles bereit ✓".encode()) is None
    assert judge_probe(check, status=200, body=b"starting") == "the body does not contain what it should"
