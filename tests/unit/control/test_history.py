"""The last hour in windows: what came in each, over workers that come and go and over a restart."""

from pathlib import Path

from gateway.control.history import KEPT_S, WINDOW_S, History
from gateway.link.totals import VersionTotals
from gateway.store.sqlite import SqliteStore
from tests.unit.store.rows import opened

START = 1_800_000_000


class Clock:
    def __init__(self) -> None:
        self.now = float(START + WINDOW_S)

    def __call__(self) -> float:
        return self.now


def report(ok: int, failed: int = 0, version_id: str = "v") -> VersionTotals:
    return VersionTotals(
        service="auth",
        version="v1",
        version_id=version_id,
        requests=[("GET", 200, ok), ("GET", 503, failed)],
        attempts={},
        latency={10: ok, 80: failed},
        latency_us=0,
        in_flight=0,
        streams=0,
        judged=[],
    )


def known(history: History, *workers: str) -> None:
    """Let workers have reported before they served anything."""
    for worker in workers:
        history.report(worker, [])


def test_a_window_holds_what_came_in_it_over_all_workers() -> None:
    history = History(Clock())
    known(history, "a", "b")
    history.report("a", [report(5)])
    history.report("a", [report(10, 1)])
    history.report("b", [report(20)])
    history.close(START)
    history.report("a", [report(13, 1)])
    history.close(START + WINDOW_S)
    first, second = history.version("v")
    assert (first.start, first.classes) == (START, (0, 30, 0, 0, 1))
    assert (second.start, second.classes) == (START + WINDOW_S, (0, 3, 0, 0, 0))
    assert first.p50_us < 1000 < first.p99_us
    assert second.p99_us == first.p50_us


def test_what_a_worker_had_counted_before_it_was_met_is_of_no_window() -> None:
    history = History(Clock())
    history.report("orphan", [report(1_000_000)])
    history.report("orphan", [report(1_000_002)])
    history.close(START)
    assert [each.requests for each in history.version("v")] == [2]


def test_the_first_request_of_a_version_counts() -> None:
    """A version with one request an hour shows one."""
    history = History(Clock())
    known(history, "a")
    history.report("a", [report(1)])
    history.close(START)
    assert [each.requests for each in history.version("v")] == [1]


def test_a_worker_that_ended_is_counted_to_its_last_report() -> None:
    history = History(Clock())
    known(history, "a")
    history.report("a", [report(4)])
    history.close(START)
    history.report("a", [report(9)])
    history.forget_worker("a")
    history.close(START + WINDOW_S)
    assert [each.requests for each in history.version("v")] == [4, 5]
    assert not history._counted
    assert not history._known


def test_a_window_without_answers_is_left_out_and_an_hour_is_kept() -> None:
    clock = Clock()
    history = History(clock)
    known(history, "a")
    for n in range(400):
        history.report("a", [report(n // 2 + 1)])
        history.close(START + n * WINDOW_S)
    clock.now = START + 400.0 * WINDOW_S
    found = history.version("v")
    assert all(each.requests for each in found)
    assert found[0].start >= clock.now - KEPT_S
    clock.now += KEPT_S
    assert history.version("v") == []


def test_minutes_end_with_the_one_under_way() -> None:
    clock = Clock()
    history = History(clock)
    known(history, "a")
    for n in range(12):
        history.report("a", [report(n + 1, n + 1)])
        history.close(START + n * WINDOW_S)
    clock.now = START + 115.0
    answers, failed = history.minutes(["v", "unknown"])
    assert (answers[-2:], failed[-2:], sum(answers)) == ([12, 12], [6, 6], 24)


def test_a_version_that_was_deleted_leaves_nothing() -> None:
    history = History(Clock())
    known(history, "a")
    history.report("a", [report(1), report(1, version_id="w")])
    history.close(START)
    history.report("a", [report(2)])
    history.forget_version("v")
    history.close(START + WINDOW_S)
    assert (history.version("v"), len(history.version("w"))) == ([], 1)


async def test_charts_go_on_after_a_restart_within_the_same_window(tmp_path: Path) -> None:
    store = await opened(tmp_path / "s.db")
    clock = Clock()
    history = History(clock)
    known(history, "a")
    history.report("a", [report(4)])
    history.close(START)
    await history.save(store, START)
    history.report("a", [report(10)])
    clock.now = START + WINDOW_S + 3.0
    await history.flush(store)
    later = await restarted(store, clock)
    known(later, "b")
    later.report("b", [report(5)])
    later.close(START + WINDOW_S)
    assert [(each.start, each.requests) for each in later.version("v")] == [
        (START, 4),
        (START + WINDOW_S, 11),
    ]
    clock.now += KEPT_S + 60
    assert (await restarted(store, clock)).version("v") == [], "an hour later the minutes are others'"
    await store.close()


async def restarted(store: SqliteStore, clock: Clock) -> History:
    history = History(clock)
    await history.load(store)
    return history


async def test_a_stored_minute_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    store = await opened(tmp_path / "s.db")
    clock = Clock()
    history = History(clock)
    known(history, "a")
    history.report("a", [report(4)])
    history.close(START)
    await history.save(store, START)
    async with store.transaction() as tx:
        tx.set_meta(f"history/{(START // 60 + 1) % 60:02}", b"\xc1")
    assert [each.requests for each in (await restarted(store, clock)).version("v")] == [4]
    await store.close()
