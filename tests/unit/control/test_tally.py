"""Counts from several workers, over their deaths and control's."""

from typing import Any

import msgspec
import pytest

from gateway.control import tally as module
from gateway.control.tally import Part, Tally
from gateway.link.messages import Counts
from gateway.link.totals import JudgedTotals, VersionTotals

V1, V2 = "id-1", "id-2"


def totals(version_id: str = V1, **changed: Any) -> VersionTotals:
    fields: dict[str, Any] = {
        "service": "auth",
        "version": version_id.replace("id", "v"),
        "version_id": version_id,
        "requests": [],
        "attempts": {},
        "latency": {},
        "latency_us": 0,
        "in_flight": 0,
        "streams": 0,
        "judged": [],
    }
    return VersionTotals(**{**fields, **changed})


def counts(*versions: VersionTotals, **changed: Any) -> Counts:
    return Counts(versions=versions, **changed)


def cell(answers: int, generation: int = 1, share: int = 1000, **errors: int) -> JudgedTotals:
    return JudgedTotals(generation, share, answers, errors, {3: answers})


def test_totals_of_workers_add_up() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)], latency={1: 3}, latency_us=30)))
    tally.on_counts(
        1, "b", counts(totals(requests=[("GET", 200, 4), ("GET", 500, 1)], attempts={"reset": 2}))
    )
    total = tally.version(V1)
    assert total.requests == {("GET", 200): 7, ("GET", 500): 1}
    assert (total.latency, total.latency_us, total.attempts) == ({1: 3}, 30, {"reset": 2})
    assert (total.service, total.version) == ("auth", "v-1")


def test_a_repeated_report_counts_nothing_twice() -> None:
    tally = Tally()
    for _ in range(3):
        tally.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)]), requests=3))
    tally.on_counts(0, "a", counts(requests=5))
    assert tally.version(V1).requests == {("GET", 200): 3}
    assert tally.workers().requests == 5


def test_a_dead_workers_totals_stay_and_its_gauges_go() -> None:
    tally = Tally()
    report = counts(totals(requests=[("GET", 200, 3)], in_flight=2, streams=1), connections=7, requests=3)
    tally.on_counts(0, "a", report)
    assert (tally.version(V1).in_flight, tally.workers().connections) == (2, 7)
    tally.on_absent("a")
    assert (tally.version(V1).in_flight, tally.workers().connections) == (0, 0)
    tally.on_ended("a")
    tally.on_counts(0, "b", counts(totals(requests=[("GET", 200, 10)]), requests=10))
    assert tally.version(V1).requests == {("GET", 200): 13}
    assert tally.version(V1).streams == 0
    assert tally.workers().requests == 13


def test_totals_of_a_worker_that_ended_are_to_be_saved_soon() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)])))
    assert not tally.has_ended
    tally.on_absent("a")
    assert tally.has_ended
    tally.dump()
    assert tally.has_ended, "a dump whose commit fails has saved nothing"
    tally.dump()
    tally.on_absent("b")
    tally.dump_stored()
    assert tally.has_ended, "it ended after that dump"
    tally.dump()
    tally.dump_stored()
    assert not tally.has_ended
    tally.on_ended("a")
    assert tally.has_ended


def test_a_restarted_control_goes_on_exactly_where_the_last_one_was() -> None:
    before = Tally()
    before.on_counts(0, "dead", counts(totals(requests=[("GET", 200, 5)], judged=[cell(5)])))
    before.on_ended("dead")
    before.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)], judged=[cell(3)])))
    before.on_counts(1, "gone", counts(totals(requests=[("GET", 200, 2)])))
    after = Tally()
    after.load(before.dump())
    assert after.version(V1).requests == {("GET", 200): 10}
    after.on_counts(0, "a", counts(totals(requests=[("GET", 200, 4)], judged=[cell(4)])))
    assert after.version(V1).requests == {("GET", 200): 11}
    assert after.judged("auth")[V1, 1, 1000].answers == 9


def test_a_dump_is_not_touched_by_what_comes_later() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(judged=[cell(3)])))
    dump = tally.dump()
    tally.on_counts(0, "a", counts(totals(judged=[cell(9)])))
    restored = Tally()
    restored.load(dump)
    assert restored.judged("auth")[V1, 1, 1000].answers == 3


def test_evidence_is_kept_apart_by_version_generation_and_share() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(judged=[cell(10, reset=1), cell(20, generation=2, share=5000)])))
    tally.on_counts(1, "b", counts(totals(judged=[cell(1, reset=1)]), totals(V2, judged=[cell(4)])))
    tally.on_counts(1, "b", counts(totals("id-3", service="other", judged=[cell(99)])))
    found = tally.judged("auth")
    assert {key: sum_.answers for key, sum_ in found.items()} == {
        (V1, 1, 1000): 11,
        (V1, 2, 5000): 20,
        (V2, 1, 1000): 4,
    }
    assert found[V1, 1, 1000].errors == {"reset": 2}
    assert found[V1, 1, 1000].latency == {3: 11}


def test_evidence_a_worker_has_evicted_is_not_lost() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(judged=[cell(10), cell(5, generation=2)])))
    tally.on_counts(0, "a", counts(totals(judged=[cell(6, generation=2)])))
    tally.on_counts(0, "a", counts(totals(judged=[cell(6, generation=2), cell(2)])))  # evicted, and made anew
    found = tally.judged("auth")
    assert found[V1, 1, 1000].answers == 12
    assert found[V1, 2, 1000].answers == 6
    tally.on_ended("a")
    assert tally.judged("auth") == found


def test_evidence_workers_evict_is_kept_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that change all day long: a cell for each change was kept until the worker ended."""
    monkeypatch.setattr(module, "MAX_JUDGED", 8)
    tally = Tally()
    for newest in range(100):
        held = [cell(3, generation) for generation in range(max(newest - 4, 0), newest + 1)]
        tally.on_counts(0, "a", counts(totals(judged=held)))
    assert {generation for _, generation, _ in tally.judged("auth")} == set(range(100 - 5 - 8, 100))


def test_no_evidence_is_forgotten_that_is_still_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sum would fall, and a rollout's window is the difference of two."""
    monkeypatch.setattr(module, "MAX_JUDGED", 2)
    tally = Tally()
    tally.on_counts(1, "slow", counts(totals(judged=[cell(7)])))
    for generation in range(1, 50):
        tally.on_counts(0, "quick", counts(totals(judged=[cell(3, generation)])))
        assert tally.judged("auth")[V1, 1, 1000].answers == 10


def test_asking_changes_nothing() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)], judged=[cell(3)])))
    tally.on_ended("a")
    tally.on_counts(0, "b", counts(totals(requests=[("GET", 200, 1)], judged=[cell(1)])))
    assert tally.versions() == tally.versions()
    assert tally.judged("auth") == tally.judged("auth")
    assert tally.workers() == tally.workers()


def test_errors_of_sticky_keys_are_taken_once() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(cohort_errors=[(1, 1000, 77, "500")])))
    tally.on_counts(
        1,
        "b",
        counts(totals(cohort_errors=[(1, 1000, 77, "500")]), totals(V2, cohort_errors=[(2, 1, 78, "500")])),
    )
    assert tally.take_cohort_errors("auth") == [
        (V1, 1, 1000, 77, "500"),
        (V1, 1, 1000, 77, "500"),
        (V2, 2, 1, 78, "500"),
    ]
    assert tally.take_cohort_errors("auth") == []


def test_errors_of_sticky_keys_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COHORT_ERRORS", 3)
    tally = Tally()
    for _ in range(4):
        tally.on_counts(0, "a", counts(totals(cohort_errors=[(1, 1000, 1, "500"), (1, 1000, 2, "500")])))
    assert len(tally.take_cohort_errors("auth")) == 3


def test_incarnations_nobody_heard_of_are_folded_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ABSENT", 2)
    dump, now = b"", [0.0]
    for number in range(6):
        tally = Tally(clock=lambda: now[0])
        if dump:
            tally.load(dump)
        tally.on_counts(0, f"i{number}", counts(totals(requests=[("GET", 200, 1)])))
        now[0] += module.LONG_S
        dump = tally.dump()
    assert tally.version(V1).requests == {("GET", 200): 6}
    assert len(msgspec.msgpack.decode(dump)["live"]) == 4, "under the name that older releases read"


def test_workers_that_live_through_a_restart_are_counted_once_however_many() -> None:
    """Of more than sixteen, some were taken for gone and added up for good, and then they reported again."""
    before = Tally()
    for number in range(40):
        before.on_counts(number, f"i{number}", counts(totals(requests=[("GET", 200, 1)], judged=[cell(1)])))
    part = msgspec.msgpack.decode(msgspec.msgpack.encode(before.part("auth")), type=Part)
    dump = before.dump()
    for _ in range(3):  # controls that die before they have heard of everybody
        after = Tally()
        after.load(dump, [part])
        dump = after.dump()
    for number in range(40):
        after.on_counts(number, f"i{number}", counts(totals(requests=[("GET", 200, 2)], judged=[cell(2)])))
    assert after.version(V1).requests == {("GET", 200): 80}
    assert after.judged("auth")[V1, 1, 1000].answers == 80


def test_a_control_that_dies_again_and_again_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    dump = b""
    for number in range(6):
        tally = Tally()
        if dump:
            tally.load(dump)
        tally.on_counts(0, f"i{number}", counts(totals(requests=[("GET", 200, 1)])))
        dump = tally.dump()
    assert tally.version(V1).requests == {("GET", 200): 6}
    assert len(msgspec.msgpack.decode(dump)["live"]) == 4


def test_a_deleted_versions_counts_go() -> None:
    tally = Tally()
    tally.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)]), totals(V2)))
    tally.forget([V1])
    assert set(tally.versions()) == {V2}
    assert tally.judged("auth") == {}


def test_a_deleted_versions_counts_do_not_come_back() -> None:
    """Workers count on what they no longer serve, and say all of it to each control they connect to."""
    tally = Tally()
    report = counts(totals(requests=[("GET", 200, 3)], judged=[cell(3)]), totals(V2))
    tally.on_counts(0, "a", report)
    tally.forget([V1])
    tally.on_counts(0, "a", report)
    assert set(tally.versions()) == {V2}
    assert tally.judged("auth") == {}
    after = Tally()
    after.on_counts(0, "a", report)  # before anybody has read the store
    after.load(tally.dump())
    after.keep(lambda version_id: version_id == V2)
    assert set(after.versions()) == {V2}
    after.on_counts(0, "a", report)
    assert set(after.versions()) == {V2}


def test_a_part_stored_later_replaces_what_a_dump_says_of_its_service() -> None:
    before = Tally()
    before.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)]), totals(V2, service="other")))
    early = msgspec.msgpack.decode(msgspec.msgpack.encode(before.part("auth")), type=Part)
    dump = before.dump()
    before.on_counts(0, "a", counts(totals(requests=[("GET", 200, 5)])))
    before.on_ended("a")
    before.on_counts(0, "b", counts(totals(requests=[("GET", 200, 2)])))
    late = before.part("auth")
    after = Tally()
    after.load(dump, [late, early])
    assert after.version(V1).requests == {("GET", 200): 7}
    assert V2 in after.versions()
    assert Tally.of(late).version(V1).requests == {("GET", 200): 7}
    assert Tally.of(late).versions().keys() == {V1}
    older = Tally()
    older.load(dump, [early])
    assert older.version(V1).requests == {("GET", 200): 3}


def test_what_is_stored_after_a_restart_is_newer_than_what_was_stored_before() -> None:
    before = Tally()
    before.on_counts(0, "a", counts(totals(requests=[("GET", 200, 3)])))
    dump, part = before.dump(), before.part("auth")
    after = Tally()
    after.load(dump, [part])
    assert after.part("auth").serial > part.serial
