"""The judge: what each gate acts on, and what it leaves alone."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.judge.evidence import seeded
from gateway.core.judge.judge import (
    Decision,
    Evidence,
    Rules,
    begin_step,
    decide,
    forgive,
    judge,
    observe,
    step_live,
)
from gateway.core.judge.tallies import Tally
from gateway.core.judge.users import MAX_LATELY, MAX_USERS
from gateway.core.judge.window import WHOLE, Cell, KeyError64, Window, bucket_of


class Trial:
    """A new version at some share, fed second by second."""

    def __init__(self, percent: int = 10, **rules: Any) -> None:
        self.rules = Rules(**rules)
        self.evidence = Evidence()
        self.generation = 0
        self.percent = 0
        self.decision: Decision
        self.at(percent)

    def at(self, percent: int) -> "Trial":
        """Begin a step."""
        self.generation += 1
        self.percent = percent
        self.evidence = step_live(begin_step(self.evidence, percent), self.generation)
        self.decision = decide(self.evidence, self.rules)
        return self

    def feed(
        self,
        new: tuple[int, int] = (0, 0),
        old: tuple[int, int] = (0, 0),
        seconds: int = 1,
        share: int | None = None,
        **window: Any,
    ) -> "Trial":
        """Let seconds pass, each with (answers, errors) of both; stops at an abort."""
        share = self.percent * 100 if share is None else share
        for _ in range(seconds):
            self.see(
                Window(
                    seconds=1.0,
                    old=_cells(self.generation, WHOLE - share, old),
                    new=_cells(self.generation, share, new),
                    percent=self.percent,
                    **window,
                )
            )
            if self.decision.verdict == "abort":
                break
        return self

    def see(self, window: Window) -> "Trial":
        self.evidence, self.decision = judge(self.evidence, window, self.rules)
        return self

    @property
    def verdict(self) -> tuple[str, str]:
        return self.decision.verdict, self.decision.gate


def _cells(generation: int, share: int, counts: tuple[int, int]) -> tuple[Cell, ...]:
    answers, errors = counts
    return (Cell(generation, share, answers, {"500": errors} if errors else {}),) if answers else ()


def test_before_the_weights_are_live_nothing_advances() -> None:
    evidence = begin_step(Evidence(), 10)
    decision = decide(evidence, Rules())
    assert (decision.verdict, decision.gate) == ("hold", "weights")


def test_no_traffic_is_neither_success_nor_failure() -> None:
    trial = Trial().feed(seconds=10_000)
    assert trial.verdict == ("hold", "requests")
    assert "0 of 20" in trial.decision.reason


def test_enough_good_requests_advance() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=19)
    assert trial.verdict == ("hold", "requests")
    trial.feed(new=(1, 0), old=(9, 0))
    assert trial.verdict == ("advance", "clear")
    assert trial.decision.new_answers == 20


def test_requests_are_counted_anew_in_each_step_and_the_statistic_is_not() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 1), seconds=30)
    before = trial.evidence.comparison.value
    assert before < 0.9
    trial.at(50)
    assert trial.verdict == ("hold", "requests")
    assert trial.evidence.comparison.value == before


def test_answers_chosen_under_earlier_weights_are_not_the_steps() -> None:
    trial = Trial().at(50)
    trial.see(Window(seconds=1.0, new=(Cell(trial.generation - 1, 1000, 40),)))
    assert trial.decision.new_answers == 0
    assert trial.evidence.new.answers == 40


def test_errors_that_fall_on_the_new_version_beyond_its_share_abort() -> None:
    trial = Trial()
    for second in range(400):
        trial.feed(new=(1, second % 10 == 0), old=(9, second % 20 == 0))
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict == ("abort", "comparison")
    assert trial.decision.statistic >= trial.decision.limit == 125
    assert "The new version fails 1" in trial.decision.reason


@pytest.mark.parametrize("rate", [0.005, 0.08, 0.6])
@pytest.mark.parametrize("percent", [10, 50, 90])
def test_errors_shared_fairly_never_abort(percent: int, rate: float) -> None:
    rng = random.Random(f"{percent}:{rate}")
    trial = Trial(percent)
    for _ in range(600):
        errors = [sum(rng.random() < rate for _ in range(n)) for n in (percent // 10, 10 - percent // 10)]
        trial.feed(new=(percent // 10, errors[0]), old=(10 - percent // 10, errors[1]))
    assert trial.decision.verdict == ("hold" if rate > 0.05 else "advance")


def test_the_threshold_blames_only_at_the_odds_that_the_false_alarm_rate_leaves() -> None:
    """Both fail 30 %: that the old one happens to fail less than half as often proves little."""
    trial = Trial(50, false_alarm_rate=0.001)
    for _ in range(20):
        trial.feed(new=(1, 1), old=(1, 0))
        if trial.decision.verdict == "abort":
            break
    assert trial.decision.verdict == "abort"
    assert trial.evidence.comparison.value >= 1 / (0.9 * 0.001)


def test_a_rate_over_the_threshold_that_both_have_holds_and_says_so() -> None:
    trial = Trial(50)
    for second in range(500):
        trial.feed(new=(5, second % 5 < 2), old=(5, second % 5 < 2))
    assert trial.verdict == ("hold", "rate")
    assert "not proven" in trial.decision.reason


def test_an_error_no_other_version_could_have_had_is_no_evidence() -> None:
    trial = Trial().feed(new=(10, 10), seconds=60, share=WHOLE, old_usable=False)
    assert trial.decision.verdict == "hold"
    assert trial.evidence.comparison.value == pytest.approx(1)


def test_half_of_ten_and_more_requests_failing_aborts_at_once() -> None:
    trial = Trial().feed(new=(2, 2), old=(18, 0), seconds=10)
    assert trial.decision.verdict == "abort"
    assert trial.evidence.new.answers <= 12


def test_the_ceiling_names_the_last_requests() -> None:
    trial = Trial().feed(new=(10, 10), old=(90, 0))
    assert trial.verdict == ("abort", "ceiling")
    assert "10 of the new version's last 10 requests failed" in trial.decision.reason


def test_the_ceiling_does_not_look_back_over_a_change_of_weights() -> None:
    trial = Trial().feed(new=(10, 0), old=(90, 0), seconds=5).at(50)
    assert trial.evidence.recent == ()


def test_the_threshold_aborts_when_the_old_version_is_better() -> None:
    trial = Trial(50, error_threshold=0.01).feed(new=(5, 0), old=(5, 0), seconds=60)
    for second in range(200):
        trial.feed(new=(5, second % 3 == 0), old=(5, 0))
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict[0] == "abort"


def test_ten_seconds_out_abort_while_the_old_version_works() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=30)
    trial.feed(old=(10, 0), seconds=10, share=0, new_usable=False)
    assert trial.decision.verdict != "abort"
    trial.feed(old=(10, 0), share=0, new_usable=False)
    assert trial.verdict == ("abort", "unavailable")


def test_coming_back_starts_the_ten_seconds_anew() -> None:
    trial = Trial()
    for _ in range(20):
        trial.feed(old=(10, 0), seconds=9, share=0, new_usable=False).feed(new=(1, 0), old=(9, 0))
    assert trial.decision.verdict != "abort"


def test_both_out_is_not_the_new_versions_doing() -> None:
    trial = Trial().feed(seconds=600, old_usable=False, new_usable=False)
    assert trial.decision.verdict == "hold"


def test_after_trouble_both_had_the_new_version_gets_longer_to_come_back() -> None:
    trial = Trial().feed(seconds=30, old_usable=False, new_usable=False)
    trial.feed(old=(10, 0), seconds=69, share=0, new_usable=False)
    assert trial.decision.verdict == "hold"
    trial.feed(old=(10, 0), seconds=2, share=0, new_usable=False)
    assert trial.verdict == ("abort", "unavailable")


def test_an_old_version_that_fails_meanwhile_keeps_the_new_one_from_being_blamed() -> None:
    trial = Trial().feed(old=(10, 2), seconds=300, share=0, new_usable=False)
    assert trial.decision.verdict == "hold"


def test_a_good_old_versions_unlucky_seconds_do_not_shield_a_dead_new_one() -> None:
    """Five of 90 failed by chance shortly before: one rollout in two thousand waited a minute for that."""
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=30)
    trial.feed(new=(1, 0), old=(9, 1), seconds=5).feed(new=(1, 0), old=(9, 0), seconds=20)
    trial.feed(old=(10, 1), seconds=2, share=0, new_usable=False)
    trial.feed(old=(10, 0), seconds=9, share=0, new_usable=False)
    assert trial.verdict == ("abort", "unavailable")


@pytest.mark.parametrize(
    ("tally", "is_failing", "may_be_failing"),
    [
        (Tally(0, 0), False, False),
        (Tally(100, 1), False, False),
        (Tally(10, 1), False, True),  # one more among ten says nothing yet
        (Tally(90, 5), False, False),
        (Tally(30, 4), False, True),
        (Tally(90, 20), True, True),
        (Tally(9, 4), True, True),
        (Tally(900, 120), True, True),
        (Tally(0, 1), False, False),
    ],
)
def test_trouble_is_told_from_odd_errors(tally: Tally, is_failing: bool, may_be_failing: bool) -> None:
    assert (tally.is_failing, tally.may_be_failing) == (is_failing, may_be_failing)


def test_at_full_traffic_the_new_version_is_held_against_what_the_old_one_did() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=100).at(100)
    assert trial.decision.comparison == "baseline"
    for second in range(100):
        trial.feed(new=(10, second % 2))
        if trial.decision.verdict == "abort":
            break
    assert trial.verdict[0] == "abort"
    assert trial.evidence.baseline == Tally(900, 0)


def test_without_enough_old_requests_there_is_nothing_to_compare_with_and_it_says_so() -> None:
    trial = Trial(100).feed(new=(10, 0), seconds=10)
    assert trial.decision.comparison == "none"
    assert trial.verdict == ("advance", "clear")
    assert "nothing to compare" in trial.decision.reason


def test_even_then_the_threshold_is_kept() -> None:
    trial = Trial(100).feed(new=(10, 2), seconds=60)
    assert trial.verdict == ("abort", "threshold")


def test_a_switch_is_compared_with_what_was_counted_before_the_rollout() -> None:
    rules = Rules()
    cells = [Cell(3, WHOLE, 150, {"500": 1}), Cell(2, WHOLE, 500), Cell(1, WHOLE, 9_000, {"500": 9_000})]
    evidence = begin_step(seeded(cells, rules), 100)
    assert evidence.baseline == Tally(650, 1)
    assert evidence.old == Tally()


def test_an_average_of_weeks_weighs_no_more_than_a_thousand_requests() -> None:
    evidence = seeded([Cell(3, WHOLE, 10_000_000, {"500": 50_000}, {3: 10_000_000})], Rules())
    assert begin_step(evidence, 100).baseline == Tally(1000, 5)


def test_what_the_old_version_does_during_the_gate_is_remembered_and_not_judged() -> None:
    evidence = Evidence()
    for _ in range(60):
        evidence = observe(evidence, Window(seconds=1.0, old=(Cell(1, WHOLE, 10, {"500": 1}),)), Rules())
    assert evidence.comparison.value == 1
    assert begin_step(evidence, 100).baseline == Tally(600, 60)


def test_with_a_little_old_traffic_left_a_cause_both_share_is_seen() -> None:
    trial = Trial(50).feed(new=(5, 0), old=(5, 0), seconds=100).at(95)
    trial.feed(new=(19, 4), old=(1, 1), seconds=60)
    assert trial.decision.verdict == "hold"


def test_what_the_old_versions_last_traffic_acquits_of_is_not_held_against_it_at_full_traffic() -> None:
    """Trouble both have held the 95 % step; the moment it passed, the same numbers aborted the next."""
    trial = Trial(50).feed(new=(5, 0), old=(5, 0), seconds=100).at(95)
    trial.feed(new=(19, 4), old=(1, 1), seconds=60)
    assert trial.evidence.comparison.value > 1_000
    trial.feed(new=(19, 0), old=(1, 0), seconds=300).at(100)
    trial.feed(new=(20, 0), seconds=30)
    assert trial.verdict == ("advance", "clear")


@pytest.mark.parametrize(("window_s", "chunks"), [(1.0, 31), (10.0, 31), (60.0, 6)])
def test_the_baseline_reaches_back_five_minutes_whatever_the_windows(window_s: float, chunks: int) -> None:
    evidence = Evidence()
    for second in range(0, 1_200, round(window_s)):
        errors = {"500": 10} if second < 600 else {}
        cell = Cell(1, WHOLE, round(10 * window_s), errors)
        evidence = observe(evidence, Window(seconds=window_s, old=(cell,)), Rules())
    baseline = begin_step(evidence, 100).baseline
    assert baseline is not None
    assert baseline.errors == 0
    assert 3_000 <= baseline.answers <= 3_700
    assert len(evidence.before) <= chunks


def test_a_trickle_is_remembered_for_longer_within_bounds() -> None:
    evidence = Evidence()
    for second in range(3_600):
        old = (Cell(1, WHOLE, 1),) if second % 10 == 0 else ()
        evidence = observe(evidence, Window(seconds=1.0, old=old), Rules())
        assert len(evidence.before) <= 31
    baseline = begin_step(evidence, 100).baseline
    assert baseline is not None
    assert 360 <= baseline.answers <= 400


def test_what_little_traffic_the_old_version_had_last_is_no_whole_baseline() -> None:
    """Five minutes at 5 % were 150 answers: of 5 % of errors at 100 % one rollout in five noticed nothing."""
    trial = Trial(50).feed(new=(5, 0), old=(5, 0), seconds=300)
    trial.at(95)
    for second in range(300):
        trial.feed(new=(9, 0), old=(second % 2, 0))
    trial.at(100)
    assert trial.evidence.baseline is not None
    assert 1_000 <= trial.evidence.baseline.answers <= 1_100


def test_going_on_in_spite_of_it_begins_the_statistics_anew() -> None:
    trial = Trial().feed(new=(10, 10), old=(90, 0))
    assert trial.decision.verdict == "abort"
    evidence = forgive(trial.evidence)
    assert decide(evidence, trial.rules).gate == "requests"
    assert evidence.before == trial.evidence.before


def test_a_suspicion_short_of_proof_holds() -> None:
    trial = Trial().feed(new=(1, 0), old=(9, 0), seconds=60).feed(new=(2, 2), old=(9, 0))
    assert trial.verdict == ("hold", "statistic")
    assert "Suspicious" in trial.decision.reason


# Latency


def _timed(share: int, answers: int, us: int) -> Cell:
    return Cell(1, share, answers, latency={bucket_of(us): answers})


def _run_timed(new_us: int, old_us: int, seconds: int) -> Trial:
    trial = Trial(50, max_latency_ratio=1.5)
    for _ in range(60):
        trial.see(Window(seconds=1.0, old=(_timed(5000, 5, 10_000),), new=(_timed(5000, 5, 10_000),)))
    for _ in range(seconds):
        trial.see(Window(seconds=1.0, old=(_timed(5000, 5, old_us),), new=(_timed(5000, 5, new_us),)))
        if trial.decision.verdict == "abort":
            break
    return trial


def test_a_version_that_turns_slow_aborts() -> None:
    trial = _run_timed(new_us=40_000, old_us=10_000, seconds=60)
    assert trial.verdict == ("abort", "latency")
    assert "ms" in trial.decision.reason


@pytest.mark.parametrize(("new_us", "old_us"), [(40_000, 40_000), (12_000, 10_000), (5_000, 10_000)])
def test_slowness_both_share_or_within_the_ratio_does_not(new_us: int, old_us: int) -> None:
    assert _run_timed(new_us, old_us, seconds=60).decision.verdict == "advance"


def test_latency_is_not_judged_unless_asked_for() -> None:
    trial = Trial(50)
    for _ in range(300):
        trial.see(Window(seconds=1.0, old=(_timed(5000, 5, 1_000),), new=(_timed(5000, 5, 900_000),)))
    assert trial.decision.verdict == "advance"


# Sticky users


def _met(trial: Trial, users: list[int], *, on_new: bool) -> Window:
    share = trial.percent * 100 if on_new else WHOLE - trial.percent * 100
    keys = tuple(KeyError64(trial.generation, share, user) for user in users)
    cells = (Cell(trial.generation, share, len(users) + 1, {"500": len(users)}),)
    if on_new:
        return Window(seconds=1.0, new=cells, new_keys=keys)
    return Window(seconds=1.0, old=cells, old_keys=keys)


def test_a_sticky_users_first_error_stands_for_all_of_that_users() -> None:
    trial = Trial(sticky=True)
    for _ in range(100):
        trial.see(_met(trial, [1, 2], on_new=True))
    assert trial.evidence.users.on_new == 2
    assert trial.decision.verdict == "hold"


def test_an_error_that_does_not_count_spends_no_users_first() -> None:
    trial = Trial(sticky=True)
    for user in range(20):
        met = KeyError64(trial.generation, 1000, user, "404")
        trial.see(
            Window(seconds=1.0, new=(Cell(trial.generation, 1000, 3, {"404": 3}),), new_keys=(met,) * 3)
        )
    assert trial.evidence.users.on_new == 0
    for user in range(20):
        trial.see(_met(trial, [user], on_new=True))
    assert trial.decision.verdict == "abort"


def test_many_users_failing_on_the_new_version_abort() -> None:
    trial = Trial(sticky=True)
    for user in range(0, 30, 3):
        trial.see(_met(trial, [user, user + 1, user + 2], on_new=True))
        if trial.decision.verdict == "abort":
            break
    assert trial.decision.verdict == "abort"


def test_a_user_who_tries_again_and_again_at_full_traffic_passes_for_no_rate() -> None:
    """There the rate is compared with the baseline; such a user stopped two good rollouts of three."""
    trial = Trial(sticky=True).feed(new=(1, 0), old=(9, 0), seconds=100).at(100)
    loop = Window(
        seconds=1.0,
        new=(Cell(trial.generation, WHOLE, 13, {"500": 3}),),
        new_keys=(KeyError64(trial.generation, WHOLE, 7),) * 3,
        percent=100,
    )
    for _ in range(300):
        assert trial.see(loop).decision.verdict == "hold"
    assert trial.decision.gate == "rate"


def test_many_users_failing_at_full_traffic_abort() -> None:
    trial = Trial(sticky=True).feed(new=(1, 0), old=(9, 0), seconds=100).at(100)
    for user in range(300):
        key = KeyError64(trial.generation, WHOLE, user % 100)
        trial.see(Window(seconds=1.0, new=(Cell(trial.generation, WHOLE, 10, {"500": 1}),), new_keys=(key,)))
        if trial.decision.verdict == "abort":
            break
    assert trial.decision.verdict == "abort"


def test_users_who_failed_lately_are_remembered_within_bounds() -> None:
    trial = Trial(sticky=True).feed(new=(1, 0), old=(9, 0), seconds=100).at(100)
    for second in range(59):
        keys = tuple(KeyError64(trial.generation, WHOLE, 20 * second + user) for user in range(20))
        trial.see(Window(seconds=1.0, new=(Cell(trial.generation, WHOLE, 999, {"500": 20}),), new_keys=keys))
        assert 0 < len(trial.evidence.users.lately) <= 8 * MAX_LATELY


def test_failing_users_are_remembered_within_bounds_and_sampled_fairly() -> None:
    trial = Trial(50, sticky=True)
    rng = random.Random(4)
    for _ in range(400):
        trial.see(_met(trial, [rng.getrandbits(64) for _ in range(10)], on_new=True))
        trial.see(_met(trial, [rng.getrandbits(64) for _ in range(10)], on_new=False))
        assert len(trial.evidence.users.hashes) <= 8 * MAX_USERS
    assert trial.evidence.users.mask
    assert len(msgspec.json.encode(trial.evidence)) < 20_000
    assert trial.decision.verdict != "abort"


def test_negative_and_huge_keys_are_taken_as_64_bits() -> None:
    trial = Trial(sticky=True).see(_met(trial := Trial(sticky=True), [-1, 2**64 - 1, 2**70], on_new=True))
    assert len(trial.evidence.users.hashes) == 16


# The whole


@pytest.mark.parametrize(
    ("errors", "kind", "counts"),
    [
        (("5xx",), "500", True),
        (("5xx",), "404", False),
        (("4xx",), "404", True),
        (("503",), "503", True),
        (("503",), "500", False),
        (("5xx",), "reset", False),
        (("reset",), "reset", True),
        (("reset",), "bad_response", True),
        (("connect", "timeout"), "timeout", True),
    ],
)
def test_what_counts_is_a_setting(errors: tuple[str, ...], kind: str, counts: bool) -> None:
    assert Rules(errors=errors).is_error(kind) is counts


COUNTS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (max(pair), min(pair)))


@given(st.lists(st.tuples(COUNTS, COUNTS, st.integers(0, WHOLE), st.booleans()), max_size=60))
def test_whatever_comes_the_evidence_can_be_stored_and_a_verdict_read_off_it(
    seconds: list[tuple[tuple[int, int], tuple[int, int], int, bool]],
) -> None:
    trial = Trial(max_latency_ratio=2.0)
    for new, old, share, usable in seconds:
        trial.feed(new=new, old=old, share=share, new_usable=usable)
        stored = msgspec.json.encode(trial.evidence)
        assert msgspec.json.decode(stored, type=Evidence) == trial.evidence
        assert len(stored) < 8_000
        assert trial.decision.reason.endswith(".")


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_without_an_error_nothing_aborts(seconds: list[tuple[int, int]]) -> None:
    trial = Trial()
    for new, old in seconds:
        trial.feed(new=(new, 0), old=(old, 0))
        assert trial.decision.verdict != "abort"
