"""The sliding window is exact and forgets nobody it should remember."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.ratelimit import RateLimiter, SlidingWindow


def test_the_limit_th_event_passes_and_the_next_waits() -> None:
    window = SlidingWindow(3, 60.0)
    for now in (0.0, 1.0, 2.0):
        assert window.wait_s("a", now) == 0.0
        window.record("a", now)
    assert window.wait_s("a", 10.0) == 50.0
    assert window.wait_s("b", 10.0) == 0.0


def test_an_event_frees_its_place_after_the_window() -> None:
    window = SlidingWindow(1, 60.0)
    window.record("a", 5.0)
    assert window.wait_s("a", 64.5) == 0.5
    assert window.wait_s("a", 65.0) == 0.0


def test_the_key_unused_for_longest_is_forgotten_first() -> None:
    window = SlidingWindow(1, 60.0, keys_kept=2)
    for key in ("a", "b", "a", "c"):
        window.record(key, 0.0)
    assert window.wait_s("a", 1.0) > 0
    assert window.wait_s("b", 1.0) == 0.0


@given(st.lists(st.floats(0, 300), max_size=60), st.integers(1, 5))
def test_no_window_ever_holds_more_than_the_limit(times: list[float], limit: int) -> None:
    window, taken = SlidingWindow(limit, 60.0), []
    for now in sorted(times):
        if window.wait_s("k", now) == 0.0:
            window.record("k", now)
            taken.append(now)
    for start in taken:
        assert sum(start <= t < start + 59.999 for t in taken) <= limit


def test_a_refused_call_takes_from_no_allowance() -> None:
    limiter = RateLimiter(starts_per_minute=1, changes_per_minute=2)
    assert limiter.admit("starts", ("token:a", "address:x"), 0.0) == 0.0
    assert limiter.admit("starts", ("token:b", "address:x"), 1.0) == 59.0
    assert limiter.admit("starts", ("token:b", "address:y"), 1.0) == 0.0


def test_starts_and_changes_are_separate_allowances() -> None:
    limiter = RateLimiter(starts_per_minute=1, changes_per_minute=1)
    assert limiter.admit("starts", ("token:a",), 0.0) == 0.0
    assert limiter.admit("changes", ("token:a",), 0.0) == 0.0
    assert limiter.admit("changes", ("token:a",), 0.0) == 60.0
