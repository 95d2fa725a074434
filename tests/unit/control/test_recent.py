"""Rates are of the last seconds, not of what came before, nor of what a worker had counted before."""

from gateway.control.recent import Recent
from gateway.link.totals import VersionTotals


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def report(ok: int, failed: int = 0) -> VersionTotals:
    requests = [("GET", 200, ok), ("GET", 503, failed)]
    return VersionTotals(
        service="auth",
        version="v1",
        version_id="v",
        requests=requests,
        attempts={},
        latency={10: ok, 20: failed},
        latency_us=0,
        in_flight=0,
        streams=0,
        judged=[],
    )


def steady(recent: Recent, clock: Clock, *, seconds: int, begun: int = 0, worker: str = "a") -> int:
    """Report ten answers, one of them failed, every tenth of a second. Returns the answers so far."""
    for tick in range(seconds * 10):
        recent.note(worker, report(begun + tick * 9, tick))
        clock.now += 0.1
    return seconds * 10


def test_a_steady_rate_is_seen_as_it_is() -> None:
    clock = Clock()
    recent = Recent(clock)
    steady(recent, clock, seconds=60)
    seen = recent.version("v")
    assert 95 <= seen.rate <= 105
    assert 8.5 <= 100 * seen.errors / seen.answers <= 11.5
    assert sum(seen.latency.values()) == seen.answers


def test_silence_is_no_rate_however_long_it_was_busy() -> None:
    clock = Clock()
    recent = Recent(clock)
    steady(recent, clock, seconds=30)
    clock.now += 10.1
    assert recent.version("v").rate == 0
    assert recent.version("v").answers == 0


def test_a_burst_after_silence_is_not_spread_over_it() -> None:
    clock = Clock()
    recent = Recent(clock)
    steady(recent, clock, seconds=5)
    clock.now += 3600
    recent.note("a", report(1000, 49))
    assert recent.version("v").rate > 40


def test_what_a_worker_counted_before_it_was_heard_is_not_lately() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.note("a", report(1_000_000))
    clock.now += 0.1
    recent.note("a", report(1_000_005))
    assert recent.version("v").answers == 5
    assert recent.version("v").rate <= 5


def test_workers_are_added_up_and_forgotten() -> None:
    clock = Clock()
    recent = Recent(clock)
    for worker in ("a", "b"):
        recent.note(worker, report(0))
    clock.now += 5
    for worker in ("a", "b"):
        recent.note(worker, report(50))
    assert recent.version("v").answers == 100
    assert recent.version("v").rate == 20
    recent.forget_worker("a")
    assert recent.version("v").answers == 50
    recent.forget_version("v")
    assert recent.version("v").rate == 0


def test_few_marks_are_kept() -> None:
    clock = Clock()
    recent = Recent(clock)
    steady(recent, clock, seconds=120)
    assert len(recent._marks["v"]["a"]) < 10
