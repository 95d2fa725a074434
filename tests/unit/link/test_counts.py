"""What a worker counts, and what of it goes up."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.buckets import bucket_of
from gateway.core.routing.service import ServiceSettings
from gateway.link.counts import EDGES_US, PLACES, VersionCounts, place_of, totals_of
from gateway.link.snapshot import ServiceSnap, Snapshot


def counted() -> VersionCounts:
    counts = VersionCounts("auth", "v1", "id-1")
    counts.request("GET", 200, 100, 90)
    counts.request("GET", 200, 100_000, 40_000)
    counts.request("POST", 502, 100, 100)
    counts.attempt("answered")
    counts.attempt("reset")
    counts.judge(3, 1000, None, 100)
    counts.judge(3, 1000, "reset", 100)
    counts.judge(4, 5000, "502", 100)
    return counts


def test_totals_hold_everything_that_was_counted() -> None:
    totals = totals_of(counted())
    assert totals.requests == [("GET", 200, 2), ("POST", 502, 1)]
    assert totals.attempts == {"answered": 1, "reset": 1}
    assert sum(totals.latency.values()) == 3
    assert totals.latency_us == 100_200
    assert [(each.generation, each.share, each.answers, each.errors) for each in totals.judged] == [
        (3, 1000, 2, {"reset": 1}),
        (4, 5000, 1, {"502": 1}),
    ]


def test_sending_totals_forgets_nothing_but_the_keys_handed_over() -> None:
    counts = counted()
    counts.cohort_errors.append((3, 1000, 77, "500"))
    first, second = totals_of(counts), totals_of(counts)
    assert first.cohort_errors == [(3, 1000, 77, "500")]
    assert second.cohort_errors == []
    assert (first.requests, first.judged) == (second.requests, second.judged)


def test_totals_sent_do_not_change_with_what_is_counted_later() -> None:
    counts = counted()
    totals = totals_of(counts)
    counts.attempt("reset")
    counts.judge(3, 1000, "reset", 100)
    assert totals.attempts["reset"] == 1
    assert totals.judged[0].errors == {"reset": 1}


PLAIN = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from([200, 204]),
    st.integers(0, 10**9),
    st.integers(1, 2),
    st.sampled_from([1000, 5000]),
)


@given(st.lists(st.one_of(PLAIN, st.none()), max_size=40))
def test_plain_answers_count_as_a_request_an_attempt_and_evidence(
    answers: list[tuple[str, int, int, int, int] | None],
) -> None:
    """None among the answers: what was counted is reported there."""
    short, long = VersionCounts("auth", "v1", "id-1"), VersionCounts("auth", "v1", "id-1")
    for answer in answers:
        if answer is None:
            totals_of(short)
            continue
        method, status, latency_us, generation, share = answer
        short.answer(method, status, latency_us, latency_us // 3, generation, share)
        long.request(method, status, latency_us, latency_us // 3)
        long.attempt("answered")
        long.judge(generation, share, None, latency_us)
    one, other = totals_of(short), totals_of(long)
    assert sorted(one.requests) == sorted(other.requests)
    assert (one.attempts, one.latency, one.latency_us) == (other.attempts, other.latency, other.latency_us)
    assert (one.seconds, one.upstream, one.own) == (other.seconds, other.upstream, other.own)
    assert (one.upstream_us, one.own_us) == (other.upstream_us, other.own_us)
    assert {(each.generation, each.share): each for each in one.judged} == {
        (each.generation, each.share): each for each in other.judged
    }


def test_evidence_is_bounded_and_the_oldest_goes_first() -> None:
    counts = VersionCounts("auth", "v1", "id-1")
    for generation in range(100):
        counts.judge(generation, 1000, None, 100)
    assert [generation for generation, _ in counts.judged] == list(range(36, 100))


def test_evidence_that_nothing_came_to_is_not_put_together_again() -> None:
    """Guards the worker's loop: a hundred weights gone by are in each report."""
    counts = counted()
    first = totals_of(counts).judged
    counts.judge(4, 5000, None, 100)
    counts.answer("GET", 200, 100, 90, 5, 1000)
    second = totals_of(counts).judged
    assert second[0] is first[0]
    assert [each.answers for each in second] == [2, 2, 1]


def snap(name: str, generation: int) -> ServiceSnap:
    return ServiceSnap(id=name, name=name, generation=generation, settings=ServiceSettings())


def test_merged_snapshots_lead_where_the_two_lead() -> None:
    first = Snapshot(1, False, {"a": snap("a", 1), "b": snap("b", 1)}, removed=("c",))
    second = Snapshot(2, False, {"a": snap("a", 2), "c": snap("c", 2)}, removed=("b",), workers=4)
    merged = first.merged(second)
    assert (merged.number, merged.whole, merged.workers) == (2, False, 4)
    assert {name: each.generation for name, each in merged.services.items()} == {"a": 2, "c": 2}
    assert merged.removed == ("b",)


def test_a_whole_snapshot_stays_whole_when_changes_are_merged_in() -> None:
    merged = Snapshot(1, True, {"a": snap("a", 1)}).merged(Snapshot(2, False, {}, removed=("a",)))
    assert (merged.whole, merged.services, merged.removed) == (True, {}, ())
    newest = Snapshot(3, True, {"z": snap("z", 3)})
    assert merged.merged(newest) is newest


@given(
    st.one_of(
        st.integers(0, 10**9), st.sampled_from(EDGES_US).flatmap(lambda edge: st.integers(edge - 1, edge + 1))
    )
)
def test_each_time_is_counted_under_the_smallest_bound_it_does_not_exceed(us: int) -> None:
    assert place_of(us, bucket_of(us)) == bisect_left(EDGES_US, us)


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), max_size=20))
def test_an_answers_time_is_its_upstreams_and_our_own(times: list[tuple[int, int]]) -> None:
    counts = VersionCounts("auth", "v1", "id-1")
    for upstream_us, own_us in times:
        counts.answer("GET", 200, upstream_us + own_us, upstream_us, 1, 1000)
    totals = totals_of(counts)
    for places, values in (
        (totals.seconds, [sum(each) for each in times]),
        (totals.upstream, [each for each, _ in times]),
        (totals.own, [each for _, each in times]),
    ):
        assert sum(places) == len(times)
        assert places == [sum(bisect_left(EDGES_US, us) == place for us in values) for place in range(PLACES)]
    assert totals.latency_us == totals.upstream_us + totals.own_us
